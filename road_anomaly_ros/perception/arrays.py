# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Arrays of callers as tensors: whatever their strides and byte order, and never shared."""

from __future__ import annotations

import sys

import numpy as np
import torch
from numpy.typing import ArrayLike

_FOREIGN = '>' if sys.byteorder == 'little' else '<'


def as_tensor(values: torch.Tensor | ArrayLike) -> torch.Tensor:
    """Return a tensor of values, sharing their memory only where torch can do so safely.

    Arrays that are read-only, run backwards or are in the other byte order are copied.
    """
    if isinstance(values, torch.Tensor):
        return values.detach()
    array = np.asarray(values)
    if array.dtype.byteorder == _FOREIGN:
        array = array.astype(array.dtype.newbyteorder('='))
    if not array.flags.writeable or min(array.strides, default=0) < 0:
        array = array.copy()
    return torch.from_numpy(array)


def upload(image: np.ndarray | torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return an RGB image, array [H,W,3] or tensor [3,H,W] of uint8, as a tensor [3,H,W] there.

    A copy even on the CPU: a camera writes its next picture where this one was. ValueError for
    anything else.
    """
    given = image if isinstance(image, torch.Tensor) else np.asarray(image)
    axis, form = (0, '[3,H,W]') if isinstance(given, torch.Tensor) else (2, '[H,W,3]')
    kind = torch.uint8 if axis == 0 else np.uint8
    if given.dtype != kind or given.ndim != 3 or given.shape[axis] != 3 or min(given.shape) < 1:
        raise ValueError(
            f'expected an RGB image uint8 {form}, got {given.dtype} {list(given.shape)}'
        )
    if isinstance(given, np.ndarray):
        given = np.array(given, order='C') if device.type == 'cpu' else given
        return moved(as_tensor(given), device).permute(2, 0, 1)
    there = moved(given.detach(), device)
    return there.clone() if there.device == given.device else there


def moved(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return a tensor on a device; from the host to a GPU without waiting for what that does.

    The values lie in pinned memory of our own meanwhile, so that theirs may be written to at once.
    """
    if values.device.type != 'cpu' or device.type != 'cuda':
        return values.to(device)
    pinned = torch.empty(values.shape, dtype=values.dtype, pin_memory=True).copy_(values)
    return pinned.to(device, non_blocking=True)
