# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A Mask2Former as an ONNX graph for any size of image, with the weights as they are stored.

What depends on the size alone (where the cells of each level lie) is an input of the graph, so
that nothing in it is fixed to the size it was traced with.
"""

from __future__ import annotations

import importlib.util
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from road_anomaly_ros import files
from road_anomaly_ros.perception.contract import PipelineError, RawOutput
from road_anomaly_ros.perception.engines import GRAPH, INPUTS, METADATA, OUTPUTS
from road_anomaly_ros.perception.engines.base import Constants
from road_anomaly_ros.perception.engines.graph import GraphNetwork
from road_anomaly_ros.perception.model_files import reason, weights_digest
from road_anomaly_ros.perception.segmenters import mask2former
from road_anomaly_ros.perception.segmenters._mask2former import Network

TOLERANCE = 1e-3  # of the largest value, or of 1 where all are smaller
_TRACED = (192, 256)
_CHECKED = ((128, 160), (224, 384))
_OPSET = 17
_SMALLEST = 256  # values of a tensor that is worth storing in half precision
_LEVELS = 3


class _Graph(nn.Module):
    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(
        self,
        pixels: torch.Tensor,
        first: torch.Tensor,
        second: torch.Tensor,
        third: torch.Tensor,
        scale: torch.Tensor,
        reference: torch.Tensor,
    ) -> Any:
        raw = self.network(pixels, Constants((first, second, third), scale, reference))
        return raw.class_logits, raw.mask_logits, raw.mask_features


def export(folder: Path, out: Path) -> tuple[Path, float]:
    """Write `out`/model.onnx for the Mask2Former in `folder`; return its path and difference.

    The difference from torch is the largest of any output on two sizes of image, relative to the
    largest value where that is above 1. PipelineError, and nothing is written, where it is above
    TOLERANCE, for a model that cannot be traced, or without the packages that it takes.
    """
    missing = [name for name in ('onnx', 'onnxruntime') if importlib.util.find_spec(name) is None]
    if missing:
        raise PipelineError(
            f'export needs the package {missing[0]}; install it with pip install '
            "'road_anomaly_ros[export]'"
        )
    model = mask2former.read_model(folder)
    network = Network(model, folded=False)
    examples = [_noise(size) for size in _CHECKED]
    with torch.inference_mode():
        wanted = [network(pixels) for pixels in examples]
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, GRAPH)
        try:
            strides = tuple(model.config.feature_strides)[-_LEVELS:]
            _trace(network, path, strides, weights_digest(folder))
            graph = GraphNetwork(folder, 'onnxruntime', path)
            difference = max(map(_difference, map(graph, examples), wanted))
        except Exception as error:  # tracer, checker and runtime raise types of their own
            raise PipelineError(
                f'{folder} cannot be computed as a graph ({reason(error)}); use '
                'it with engine torch'
            ) from None
        if not difference <= TOLERANCE:
            raise PipelineError(
                f'the graph of {folder} differs from torch by {difference:.1e}, '
                f'expected at most {TOLERANCE:g}; use it with engine torch'
            )
        files.write(out / GRAPH, path.read_bytes())
    return out / GRAPH, difference


def _noise(size: tuple[int, int]) -> torch.Tensor:
    """Return normalised pixels [1,3,H,W], the same every time."""
    values = np.random.default_rng(0).normal(size=(1, 3, *size))
    return torch.from_numpy(values.astype(np.float32))


def _difference(found: RawOutput, wanted: RawOutput) -> float:
    pairs = ((getattr(found, name), getattr(wanted, name)) for name in OUTPUTS)
    return max(
        float((mine - own).abs().max() / own.abs().max().clamp_min(1)) for mine, own in pairs
    )


def _trace(network: Network, path: Path, strides: Sequence[int], digest: str) -> None:
    """Write the graph of a loaded network, which is changed to what can be traced.

    `strides` are those of the three coarsest levels, fine to coarse, `digest` that of the weights.
    Batch norms stay what they are, so that weights are those stored with the model; the runtime
    folds them when it loads the graph.
    """
    import onnx

    for name, part in list(network.named_modules()):
        if type(part).__name__ == 'Conv2dSame':
            _set(network, name, _Padded(part))
    sizes = [(-(-_TRACED[0] // stride), -(-_TRACED[1] // stride)) for stride in strides[::-1]]
    constants = Constants.of(sizes, network.channels, torch.device('cpu'))
    pixels = torch.zeros(1, 3, *_TRACED)
    example = (pixels, *constants.places, constants.scale, constants.reference)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter('ignore')
        torch.onnx.export(
            _Graph(network).eval(),
            example,
            str(path),
            opset_version=_OPSET,
            dynamo=False,
            input_names=list(INPUTS),
            output_names=list(OUTPUTS),
            dynamic_axes=_axes(),
            training=torch.onnx.TrainingMode.PRESERVE,
        )
    model = onnx.load(str(path))
    _halve(model.graph)
    listed = ','.join(map(str, strides))
    about = {'weights': digest, 'channels': network.channels, 'strides': listed}
    for key, value in about.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = f'{METADATA}{key}', str(value)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


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
            convolution.in_channels,
            convolution.out_channels,
            size,
            stride,
            groups=convolution.groups,
        )
        self.convolution.weight, self.convolution.bias = convolution.weight, convolution.bias

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.convolution(self.pad(features))
        return found


def _set(network: nn.Module, name: str, part: nn.Module) -> None:
    parent, _, last = name.rpartition('.')
    owner = network.get_submodule(parent)
    setattr(owner, last, part)


def _halve(graph: Any) -> None:
    """Store large tensors in half precision where that keeps every value.

    Each gets a cast to float32, which runtimes fold away.
    """
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for tensor in graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or np.prod(tensor.dims) < _SMALLEST:
            continue
        values, name = numpy_helper.to_array(tensor), tensor.name
        with np.errstate(over='ignore'):
            half = values.astype(np.float16)
        if not np.array_equal(half, values):
            continue
        tensor.CopyFrom(numpy_helper.from_array(half, f'{name}_half'))
        casts.append(helper.make_node('Cast', [f'{name}_half'], [name], to=TensorProto.FLOAT))
    nodes = list(graph.node)
    del graph.node[:]
    graph.node.extend([*casts, *nodes])
