# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""EfficientNet-Lite as it is trained here: batch norms fixed and folded, gradients by other ways.

oneDNN computes the weight gradient of a 5x5 depthwise convolution in bfloat16 by a reference loop,
and the input gradient of one with stride 2 likewise. Four 3x3 windows and a convolution of the
spread gradient give the same faster (docs/performance.md).
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_gradients = torch.ops.aten.convolution_backward
_LAST = torch.channels_last


class Depthwise(torch.autograd.Function):
    """Depthwise convolution of padded [N,C,H,W] with square kernels [C,1,k,k], k = 3 or 5."""

    @staticmethod
    def forward(ctx: Any, padded: Tensor, weight: Tensor, stride: int) -> Tensor:
        """Return [N,C,h,w] without further padding."""
        ctx.save_for_backward(padded, weight)
        ctx.stride = stride
        return F.conv2d(padded, weight, None, stride, 0, 1, len(weight))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        """Return the gradients of input and weight."""
        padded, weight = ctx.saved_tensors
        size, channels = weight.shape[-1], len(weight)
        gradient = gradients[0].contiguous(memory_format=_LAST)
        rows, columns = (side - size + 1 for side in padded.shape[2:])
        spread = gradient
        if ctx.stride > 1:
            spread = torch.empty(
                (*gradient.shape[:2], rows, columns),
                dtype=gradient.dtype,
                device=gradient.device,
                memory_format=_LAST,
            ).zero_()
            spread[:, :, :: ctx.stride, :: ctx.stride] = gradient
        own = F.conv2d(spread, weight.flip(2, 3), None, 1, size - 1, 1, channels)
        return own, _weight_gradient(gradient, padded, weight, ctx.stride), None


def _weight_gradient(gradient: Tensor, padded: Tensor, weight: Tensor, stride: int) -> Tensor:
    def window(part: Tensor, kernel: Tensor) -> Tensor:
        return _gradients(
            gradient,
            part,
            kernel,
            None,
            (stride, stride),
            (0, 0),
            (1, 1),
            False,
            (0, 0),
            len(kernel),
            (False, True, False),
        )[1]

    if weight.shape[-1] == 3:
        return window(padded, weight)
    found = torch.empty_like(weight)
    height, width = (side - 2 for side in padded.shape[2:])
    for row in (0, 2):
        for column in (0, 2):
            part = padded[:, :, row : row + height, column : column + width]
            found[:, :, row : row + 3, column : column + 3] = window(
                part.contiguous(memory_format=_LAST), weight[:, :, :3, :3]
            )
    return found


def _padding(module: nn.Conv2d, side: int) -> tuple[int, int]:
    """Return the rows before and after that the convolution pads a `side` with."""
    size, stride = module.kernel_size[0], module.stride[0]
    if type(module) is nn.Conv2d:
        return int(module.padding[0]), int(module.padding[0])
    total = max((math.ceil(side / stride) - 1) * stride + size - side, 0)  # TensorFlow's 'same'
    return total // 2, total - total // 2


def folded(module: nn.Conv2d, norm: nn.BatchNorm2d, features: Tensor) -> Tensor:
    """Return the norm of the convolution of features, with the norm's fixed running statistics."""
    gain = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    weight = module.weight * gain[:, None, None, None]
    shift = norm.bias - norm.running_mean * gain
    size = module.kernel_size[0]
    if size > 1:
        rows, columns = (_padding(module, side) for side in features.shape[2:])
        features = F.pad(features, (*columns, *rows))
    if size > 1 and module.groups == module.in_channels:
        half = torch.is_autocast_enabled(features.device.type)
        kind = torch.get_autocast_dtype(features.device.type) if half else features.dtype
        found = Depthwise.apply(features.to(kind), weight.to(kind), module.stride[0])
        return found + shift.to(kind)[:, None, None]
    return F.conv2d(features, weight, shift, module.stride, 0, 1, module.groups)


def fix_norms(backbone: nn.Module) -> None:
    """Let the blocks of timm's EfficientNet-Lite `backbone` train on fixed running statistics.

    Gains and shifts of the norms go on learning. Parameters keep their places and names.
    """
    for block in backbone.modules():
        kind = type(block).__name__
        if kind == 'InvertedResidual':
            block.forward = _Bound(_inverted, block)
        elif kind == 'DepthwiseSeparableConv':
            block.forward = _Bound(_separable, block)


class _Bound:
    """A method of a block that survives copying: copy.deepcopy copies the block with it."""

    def __init__(self, method: Any, block: nn.Module) -> None:
        self._method, self._block = method, block

    def __call__(self, features: Tensor) -> Tensor:
        return self._method(self._block, features)


def _bounded(features: Tensor) -> Tensor:
    return F.hardtanh_(features, 0.0, 6.0)


def _inverted(block: Any, features: Tensor) -> Tensor:
    found = _bounded(folded(block.conv_pw, block.bn1, features))
    found = _bounded(folded(block.conv_dw, block.bn2, found))
    found = folded(block.conv_pwl, block.bn3, found)
    return found + features if block.has_skip else found


def _separable(block: Any, features: Tensor) -> Tensor:
    found = _bounded(folded(block.conv_dw, block.bn1, features))
    found = folded(block.conv_pw, block.bn2, found)
    return found + features if block.has_skip else found
