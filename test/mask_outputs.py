# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Hand-made queries and masks for tests of scores."""

from __future__ import annotations

import torch

BOTH_KINDS = ('plain', 'msp', 'max_logit', 'max_entropy', 'rba', 'rba_s1', 'nls', 'energy')
MASKS_ONLY = ('s2_reject', 's2', 'eam', 'maskomaly', 'mask2anomaly')
FAR = 60.0  # a logit whose sigmoid is 0 or 1 in float32


def one_hot_logits(*classes, columns=4):
    """Class rows that are certain of one column each; column `columns - 1` is no object."""
    return (
        torch.stack([FAR * torch.eye(columns)[c] for c in classes])
        if classes
        else torch.empty(0, columns)
    )


def options_for(name, classes):
    """Options under which the scorer accepts a model of `classes` classes."""
    if name == 'mask2anomaly' and classes != 19:
        return {'refine_class_ids': (0,), 'paper_class_ids': (0,)}
    return {}


def two_queries():
    """Four pixels: query 0 is sure of class 0 on the left half, query 1 of class 2 on pixel 2."""
    masks = torch.tensor([[[FAR, FAR, -FAR, -FAR]], [[-FAR, -FAR, FAR, -FAR]]])
    return one_hot_logits(0, 2), masks
