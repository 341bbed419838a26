# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Where to compute, and in which arithmetic."""

from __future__ import annotations

import re

import torch
from torch import nn

from road_anomaly_ros.perception.contract import PipelineError

_PRODUCTS = (nn.Linear, nn.modules.conv._ConvNd, nn.MultiheadAttention)
_PRECISIONS = {'float32': torch.float32, 'float16': torch.float16, 'bfloat16': torch.bfloat16}


def select_device(name: str) -> torch.device:
    """Return the device 'auto', 'cpu', 'cuda' or 'cuda:N'; PipelineError where there is none."""
    if name == 'auto':
        name = 'cuda' if torch.cuda.is_available() else 'cpu'
    wanted = re.fullmatch(r'cpu|cuda(:\d+)?', name)
    if not wanted:
        raise PipelineError(f"expected device 'auto', 'cpu', 'cuda' or 'cuda:N', got {name!r}")
    device = torch.device(name)
    if device.type == 'cuda':
        _check_cuda(device)
    return device


def _check_cuda(device: torch.device) -> None:
    if not torch.cuda.is_available():
        raise PipelineError(
            f"device '{device}' was asked for, but torch finds no CUDA here; "
            "choose device 'cpu' or 'auto'"
        )
    count = torch.cuda.device_count()
    if device.index is not None and device.index >= count:
        raise PipelineError(f"expected 'cuda:0' .. 'cuda:{count - 1}', got device '{device}'")


def select_precision(name: str, device: torch.device) -> torch.dtype:
    """Return the arithmetic called `name`; 'auto' is float16 on CUDA, float32 on the CPU."""
    if name == 'auto':
        return torch.float16 if device.type == 'cuda' else torch.float32
    if name not in _PRECISIONS:
        raise PipelineError(f'expected precision one of {["auto", *_PRECISIONS]}, got {name!r}')
    if name == 'float16' and device.type != 'cuda':
        raise PipelineError(
            "precision 'float16' needs a CUDA device; choose 'float32' or 'bfloat16' on the CPU"
        )
    return _PRECISIONS[name]


def layout(device: torch.device, precision: torch.dtype) -> torch.memory_format:
    """Return how convolutions want their channels there: last on tensor cores, else first."""
    tensor_cores = device.type == 'cuda' and precision != torch.float32
    return torch.channels_last if tensor_cores else torch.contiguous_format


def placed(
    network: nn.Module, device: torch.device, precision: torch.dtype, form: torch.memory_format
) -> nn.Module:
    """Return a network for inference there, with the weights of products in that arithmetic.

    Autocast would turn them into it for every image, at equal results.
    """
    network = network.requires_grad_(False).to(memory_format=form)  # type: ignore[call-overload]
    for part in network.modules():
        if isinstance(part, _PRODUCTS):
            for weight in part.parameters(recurse=False):
                weight.data = weight.data.to(precision)
    return network.to(device)
