# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Refinements: a score and what is known of its image in, a better score out; chained by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from road_anomaly_ros.perception.registry import Registry

Refinement = Callable[[torch.Tensor, Any, Any], torch.Tensor]
REFINEMENTS: Registry[Refinement] = Registry('refinement')
