# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""A segmenter's network as an ONNX graph, with the weights as they are stored.

What depends on the size of the image alone (where the cells of each level of a Mask2Former lie) is
an input of the graph, so that one graph serves all sizes where the network allows it.
"""

from __future__ import annotations

import importlib.util
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from road_anomaly_ros import files
from road_anomaly_ros.perception.contract import PipelineError
from road_anomaly_ros.perception.engines import GRAPH, INPUTS, METADATA, OUTPUTS
from road_anomaly_ros.perception.engines.base import Constants, Size
from road_anomaly_ros.perception.engines.graph import Graph, GraphNetwork
from road_anomaly_ros.perception.model_files import reason, weights_digest
from road_anomaly_ros.perception.segmenters import eomt, erfnet, mask2former, segformer
from road_anomaly_ros.perception.segmenters._mask2former import Network

TOLERANCE = 1e-3  # of the largest value, or of 1 where all are smaller
_TRACED = (192, 256)
_CHECKED = ((128, 160), (224, 384))
_OPSET = 17
_SMALLEST = 256  # values of a tensor that is worth storing in half precision
_LEVELS = 3


@dataclass
class _Subject:
    """A network to be traced: `module` takes pixels and the constants of its size."""

    module: nn.Module  # -> its outputs, in order
    weights: Path  # the folder or file that the graph belongs to
    outputs: Mapping[str, Mapping[int, str]]  # names, and the axes that follow the size
    size: Size | None = None  # (H, W), the only one; None for any
    network: type[Graph] = Graph
    strides: tuple[int, ...] = ()  # of the levels whose constants it takes, fine to coarse
    channels: int = 0
    facts: Mapping[str, object] = field(default_factory=dict)

    def constants(self, size: Size) -> list[torch.Tensor]:
        """Return what depends on the size of its input alone."""
        if not self.strides:
            return []
        levels = [tuple(-(-side // stride) for side in size) for stride in self.strides[::-1]]
        found = Constants.of(levels, self.channels, torch.device('cpu'))  # type: ignore[arg-type]
        return [*found.places, found.scale, found.reference]

    def __call__(self, pixels: torch.Tensor) -> list[torch.Tensor]:
        """Return the outputs as torch computes them."""
        size = (pixels.shape[-2], pixels.shape[-1])
        with torch.inference_mode():
            return list(self.module(pixels, *self.constants(size)))


class _Mask2Former(nn.Module):
    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: torch.Tensor, *constants: torch.Tensor) -> Any:
        raw = self.network(pixels, Constants(constants[:_LEVELS], *constants[_LEVELS:]))
        return raw.class_logits, raw.mask_logits, raw.mask_features


class _Named(nn.Module):
    """A model of transformers with chosen fields of its output."""

    def __init__(self, model: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, pixels: torch.Tensor) -> Any:
        found = self.model(pixel_values=pixels)
        return tuple(getattr(found, name) for name in self.names)


class _Single(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: torch.Tensor) -> Any:
        return (self.network(pixels),)


_MAP = {2: 'rows', 3: 'columns'}


def _mask2former(folder: Path, size: Size | None) -> _Subject:
    model = mask2former.read_model(folder)
    network = Network(model, folded=False)
    maps = dict.fromkeys(OUTPUTS[1:], _MAP)
    strides = tuple(model.config.feature_strides)[-_LEVELS:]
    outputs = {OUTPUTS[0]: {}, **maps}
    return _Subject(
        _Mask2Former(network), folder, outputs, size, GraphNetwork, strides, network.channels
    )


def _segformer(folder: Path, size: Size | None) -> _Subject:
    model = _Named(segformer.read_model(folder), ('logits',))
    return _Subject(model, folder, {'logits': _MAP}, size)


def _eomt(folder: Path, size: Size | None) -> _Subject:
    model = eomt.read_model(folder)
    names = ('class_queries_logits', 'masks_queries_logits', 'last_hidden_state')
    side = model.config.image_size
    if size not in (None, (side, side)):
        raise ValueError(f'{folder} takes {side}x{side} alone; leave --size out')
    facts = {'grid': 'x'.join(map(str, model.grid_size))}
    outputs: dict[str, dict[int, str]] = {name: {} for name in names}
    return _Subject(
        _Named(model, names), folder, outputs, (side, side), eomt.GraphModel, facts=facts
    )


def _erfnet(path: Path, size: Size | None) -> _Subject:
    return _Subject(_Single(erfnet.read_model(path)), path, {'logits': _MAP}, size)


FAMILIES: Mapping[str, Callable[[Path, Size | None], _Subject]] = {
    'mask2former': _mask2former,
    'segformer': _segformer,
    'eomt': _eomt,
    'eomt_dinov3': _eomt,
    'erfnet': _erfnet,
}


def export(
    kind: str, weights: Path, out: Path, *, size: Size | None = None, half: bool = False
) -> tuple[Path, float]:
    """Write `out`/model.onnx for a model of a kind of FAMILIES; return its path and difference.

    `weights` is its folder or file, `size` the only (H, W) of its input, `half` rounds weights to
    float16. The difference from torch is the largest of any output, on two sizes where any will
    do, relative to the largest value where that is above 1. PipelineError, and nothing is written,
    where it is above TOLERANCE, for a model that cannot be traced, or without the packages that
    it takes.
    """
    missing = [name for name in ('onnx', 'onnxruntime') if importlib.util.find_spec(name) is None]
    if missing:
        raise PipelineError(
            f'export needs the package {missing[0]}; install it with pip install '
            "'road_anomaly_ros[export]'"
        )
    if kind not in FAMILIES:
        raise PipelineError(f'{weights} is of the kind {kind!r}, expected one of {[*FAMILIES]}')
    subject = FAMILIES[kind](weights, size)
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, GRAPH)
        try:
            difference = _traced_and_compared(subject, path, half=half)
        except Exception as error:  # tracer, checker and runtime raise types of their own
            hint = '' if subject.size else 'for one size alone with --size WxH, or '
            raise PipelineError(
                f'{weights} cannot be computed as a graph ({reason(error)}); export it {hint}'
                'use it with engine torch'
            ) from None
        if not difference <= TOLERANCE:
            hint = '' if subject.size else 'export it for one size alone with --size WxH, or '
            raise PipelineError(
                f'the graph of {weights} differs from torch by {difference:.1e}, '
                f'expected at most {TOLERANCE:g}; {hint}use it with engine torch'
            )
        files.write(out / GRAPH, path.read_bytes())
    return out / GRAPH, difference


def _traced_and_compared(subject: _Subject, path: Path, *, half: bool) -> float:
    examples = [_noise(size) for size in ([subject.size] if subject.size else _CHECKED)]
    wanted = [subject(pixels) for pixels in examples]
    _trace(subject, path, half=half)
    graph = Graph(subject.weights, 'onnxruntime', path)
    return max(
        _difference(graph(pixels), raw) for pixels, raw in zip(examples, wanted, strict=True)
    )


def _noise(size: Size) -> torch.Tensor:
    """Return normalised pixels [1,3,H,W], the same every time."""
    values = np.random.default_rng(0).normal(size=(1, 3, *size))
    return torch.from_numpy(values.astype(np.float32))


def _difference(found: Sequence[torch.Tensor], wanted: Sequence[torch.Tensor]) -> float:
    return max(
        float((mine - own).abs().max() / own.abs().max().clamp_min(1))
        for mine, own in zip(found, wanted, strict=True)
    )


def _trace(subject: _Subject, path: Path, *, half: bool) -> None:
    """Write the graph of a network, which is changed to what can be traced.

    Batch norms stay what they are, so that weights are those stored with the model; the runtime
    folds them when it loads the graph.
    """
    import onnx

    for name, part in list(subject.module.named_modules()):
        if type(part).__name__ == 'Conv2dSame':
            _set(subject.module, name, _Padded(part))
    size = subject.size or _TRACED
    constants = subject.constants(size)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter('ignore')
        torch.onnx.export(
            subject.module.eval(),
            (torch.zeros(1, 3, *size), *constants),
            str(path),
            opset_version=_OPSET,
            dynamo=False,
            input_names=list(INPUTS)[: 1 + len(constants)],
            output_names=list(subject.outputs),
            dynamic_axes=None if subject.size else _axes(subject),
            training=torch.onnx.TrainingMode.PRESERVE,
        )
    model = onnx.load(str(path))
    _halve(model.graph, rounded=half)
    _note(model, subject)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def _note(model: Any, subject: _Subject) -> None:
    facts = {'weights': weights_digest(subject.weights), **subject.facts}
    if subject.size:
        facts['size'] = f'{subject.size[1]}x{subject.size[0]}'
    if subject.strides:
        facts.update(channels=subject.channels, strides=','.join(map(str, subject.strides)))
    for key, value in facts.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = f'{METADATA}{key}', str(value)


def _axes(subject: _Subject) -> dict[str, dict[int, str]]:
    axes: dict[str, dict[int, str]] = {'pixels': {2: 'height', 3: 'width'}}
    if subject.strides:
        axes['reference'] = {3: 'tokens'}
        axes.update({f'places{level}': {1: f'cells{level}'} for level in range(_LEVELS)})
    return {**axes, **{name: dict(moving) for name, moving in subject.outputs.items() if moving}}


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


def _halve(graph: Any, *, rounded: bool) -> None:
    """Store large tensors in half precision where that keeps every value, or all, `rounded`.

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
        if not (rounded or np.array_equal(half, values)):
            continue
        tensor.CopyFrom(numpy_helper.from_array(half, f'{name}_half'))
        casts.append(helper.make_node('Cast', [f'{name}_half'], [name], to=TensorProto.FLOAT))
    nodes = list(graph.node)
    del graph.node[:]
    graph.node.extend([*casts, *nodes])
