# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A Mask2Former as an ONNX graph for any size of image, with weights in half precision.

What depends on the size alone (where the cells of each level lie) is an input of the graph, so
that nothing in it is fixed to the size it was traced with.
"""

from __future__ import annotations

import os
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from road_anomaly_ros.perception import heads
from road_anomaly_ros.perception.engines import GRAPH, INPUTS, METADATA, OUTPUTS
from road_anomaly_ros.perception.segmenters._mask2former import Constants, Network

_TRACED = (192, 256)
_OPSET = 17
_SMALLEST = 256                     # values of a tensor that is worth storing in half precision


class _Graph(nn.Module):
    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: torch.Tensor, first: torch.Tensor, second: torch.Tensor,
                third: torch.Tensor, scale: torch.Tensor, reference: torch.Tensor) -> Any:
        raw = self.network(pixels, Constants((first, second, third), scale, reference))
        return raw.class_logits, raw.mask_logits, raw.mask_features


def export(network: Network, folder: Path, *, strides: tuple[int, ...]) -> Path:
    """Write `folder`/model.onnx for a loaded network and return its path.

    `strides` are those of the three coarsest levels, fine to coarse. The file names the weights it
    was made of by their digest. Needs the package onnx (extra 'export').
    """
    import onnx
    for name, part in network.named_modules():
        if type(part).__name__ == 'Conv2dSame':
            _set(network, name, _Padded(part))
    sizes = [tuple(-(-side // stride) for side in _TRACED) for stride in strides[::-1]]
    constants = Constants.of(sizes, network.channels, torch.device('cpu'))
    example = (torch.zeros(1, 3, *_TRACED), *constants.places, constants.scale,
               constants.reference)
    path = folder / GRAPH
    with tempfile.TemporaryDirectory() as traced, warnings.catch_warnings():
        warnings.simplefilter('ignore')
        raw = Path(traced, 'raw.onnx')
        with torch.no_grad():
            torch.onnx.export(_Graph(network).eval(), example, str(raw), opset_version=_OPSET,
                              dynamo=False, input_names=list(INPUTS), output_names=list(OUTPUTS),
                              dynamic_axes=_axes())
        model = onnx.load(str(raw))
    _halve(model.graph)
    for key, value in {'weights': heads.weights_digest(folder), 'channels': network.channels,
                       'strides': ','.join(map(str, strides))}.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = f'{METADATA}{key}', str(value)
    onnx.checker.check_model(model)
    partial = path.with_name(f'.{GRAPH}.partial')
    onnx.save(model, str(partial))
    os.replace(partial, path)
    return path


def _axes() -> dict[str, dict[int, str]]:
    axes = {'pixels': {2: 'height', 3: 'width'}, 'reference': {3: 'tokens'}}
    axes.update({f'places{level}': {1: f'cells{level}'} for level in range(3)})
    axes.update({name: {2: 'rows', 3: 'columns'} for name in ('mask_logits', 'mask_features')})
    return axes


class _Padded(nn.Module):
    """TensorFlow's 'same' convolution at even sizes, where its padding is the same for all."""

    def __init__(self, convolution: Any) -> None:
        super().__init__()
        size, stride = convolution.kernel_size[0], convolution.stride[0]
        before = (size - stride) // 2
        self.pad = nn.ZeroPad2d((before, size - stride - before) * 2)
        self.convolution = nn.Conv2d(
            convolution.in_channels, convolution.out_channels, size, stride,
            groups=convolution.groups)
        self.convolution.weight, self.convolution.bias = convolution.weight, convolution.bias

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.convolution(self.pad(features))
        return found


def _set(network: nn.Module, name: str, part: nn.Module) -> None:
    parent, _, last = name.rpartition('.')
    owner = network.get_submodule(parent)
    setattr(owner, last, part)


def _halve(graph: Any) -> None:
    """Store large float32 tensors in half precision, each with a cast that runtimes fold away."""
    from onnx import TensorProto, helper, numpy_helper
    casts = []
    for tensor in graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or np.prod(tensor.dims) < _SMALLEST:
            continue
        half = numpy_helper.to_array(tensor).astype(np.float16)
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(half, f'{name}_half'))
        casts.append(helper.make_node('Cast', [f'{name}_half'], [name], to=TensorProto.FLOAT))
    nodes = list(graph.node)
    del graph.node[:]
    graph.node.extend([*casts, *nodes])
