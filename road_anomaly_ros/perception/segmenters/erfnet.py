# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""ERFNet (Romera et al. 2018), the classic small per-pixel baseline, from its public weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from road_anomaly_ros.perception.contract import PipelineError
from road_anomaly_ros.perception.engines import ENGINE_TEXT, ENGINES, graph
from road_anomaly_ros.perception.labels import label_set, names_of
from road_anomaly_ros.perception.model_files import weights_file
from road_anomaly_ros.perception.registry import option
from road_anomaly_ros.perception.segmenters._images import Preprocessing
from road_anomaly_ros.perception.segmenters._pixels import PixelSegmenter, first_output
from road_anomaly_ros.perception.weights import load_state, read_state, rename_keys

SOURCE = 'ERFNet, Romera et al. 2018'
NEEDS = 'the public .pth of 20 classes'

SUFFIXES = ('.pth', '.pt', '.tar', '.safetensors')
_STRIDE = 8  # the network halves its maps three times, then doubles them
_EPSILON = 1e-3
_UNUSED = r'^encoder\.output_conv\.'


@dataclass(frozen=True)
class Options:
    """What a user may choose about an ERFNet."""

    engine: str = option('auto', ENGINE_TEXT, choices=ENGINES, live=False)
    height: int = option(
        512,
        'Height of the network input, rounded up to a multiple of 8.',
        low=8,
        high=4096,
        unit='px',
        live=False,
    )
    width: int = option(
        1024,
        'Width of the network input, rounded up to a multiple of 8.',
        low=8,
        high=8192,
        unit='px',
        live=False,
    )


class Downsampler(nn.Module):
    """Half the size: a strided convolution beside a maximum, [B,C,h,w] to [B,D,h/2,w/2]."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(before, after - before, 3, stride=2, padding=1)
        self.bn = nn.BatchNorm2d(after, eps=_EPSILON)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Return [B,after,h/2,w/2]."""
        return F.relu(self.bn(torch.cat([self.conv(maps), F.max_pool2d(maps, 2)], 1)))


class Factorized(nn.Module):
    """A residual block of one-dimensional convolutions, the second pair dilated."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.conv3x1_1 = nn.Conv2d(channels, channels, (3, 1), padding=(1, 0))
        self.conv1x3_1 = nn.Conv2d(channels, channels, (1, 3), padding=(0, 1))
        self.bn1 = nn.BatchNorm2d(channels, eps=_EPSILON)
        self.conv3x1_2 = nn.Conv2d(
            channels, channels, (3, 1), padding=(dilation, 0), dilation=(dilation, 1)
        )
        self.conv1x3_2 = nn.Conv2d(
            channels, channels, (1, 3), padding=(0, dilation), dilation=(1, dilation)
        )
        self.bn2 = nn.BatchNorm2d(channels, eps=_EPSILON)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Return a tensor of the shape of `maps`."""
        inner = F.relu(self.bn1(self.conv1x3_1(F.relu(self.conv3x1_1(maps)))))
        inner = self.bn2(self.conv1x3_2(F.relu(self.conv3x1_2(inner))))
        return F.relu(inner + maps)

    def fold(self) -> None:
        """Put the norms into the convolutions before them."""
        self.conv1x3_1 = fuse_conv_bn_eval(self.conv1x3_1, self.bn1)
        self.conv1x3_2 = fuse_conv_bn_eval(self.conv1x3_2, self.bn2)
        self.bn1, self.bn2 = nn.Identity(), nn.Identity()  # type: ignore[assignment]


class Upsampler(nn.Module):
    """Twice the size by a transposed convolution."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(before, after, 3, stride=2, padding=1, output_padding=1)
        self.bn = nn.BatchNorm2d(after, eps=_EPSILON)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Return [B,after,2h,2w]."""
        return F.relu(self.bn(self.conv(maps)))


class Encoder(nn.Module):
    """Image to features of an eighth of its size."""

    def __init__(self) -> None:
        super().__init__()
        self.initial_block = Downsampler(3, 16)
        dilated = [Factorized(128, dilation) for _ in range(2) for dilation in (2, 4, 8, 16)]
        self.layers = nn.ModuleList(
            [
                Downsampler(16, 64),
                *(Factorized(64, 1) for _ in range(5)),
                Downsampler(64, 128),
                *dilated,
            ]
        )


class Decoder(nn.Module):
    """Features to logits of the image's size."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            [
                Upsampler(128, 64),
                Factorized(64, 1),
                Factorized(64, 1),
                Upsampler(64, 16),
                Factorized(16, 1),
                Factorized(16, 1),
            ]
        )
        self.output_conv = nn.ConvTranspose2d(16, outputs, 2, stride=2)


class ERFNet(nn.Module):
    """Images [B,3,h,w] of 0..1, sides multiples of 8, to logits [B,outputs,h,w]."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.encoder, self.decoder = Encoder(), Decoder(outputs)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        for layer in (self.encoder.initial_block, *self.encoder.layers, *self.decoder.layers):
            maps = layer(maps)
        return self.decoder.output_conv(maps)


def load(
    model: str, *, device: torch.device, precision: torch.dtype, options: Options
) -> PixelSegmenter:
    """Load public ERFNet weights; PipelineError, one line with the remedy, where it cannot work.

    With 20 outputs the classes are those of Cityscapes and 'void', which training never used.
    """
    path = weights_file(model, SUFFIXES, 'erfnet')
    state = _state(path)
    network = graph.load(
        path, graph.Graph, engine=options.engine, device=device, precision=precision
    )
    preprocessing = Preprocessing.from_stored(
        {
            'size': {'height': options.height, 'width': options.width},
            'size_divisor': _STRIDE,
            'do_normalize': False,
        }
    )
    return PixelSegmenter(
        network or _folded(state, path),
        first_output if network else lambda net, pixels: net(pixels),
        labels=label_set(_names(_outputs(state, path))),
        model_dir=path.parent,
        weights=path,
        preprocessing=preprocessing,
        device=device,
        precision=precision,
    )


def read_model(path: Path) -> ERFNet:
    """Return the network of a file of public weights; PipelineError where it holds none."""
    return _folded(_state(path), path)


def _state(path: Path) -> dict[str, torch.Tensor]:
    return rename_keys(read_state(path), lambda key: key.removeprefix('module.'))


def _folded(state: dict[str, torch.Tensor], path: Path) -> ERFNet:
    network = load_state(ERFNet(_outputs(state, path)), state, path, ignore=_UNUSED)
    for block in network.modules():
        if isinstance(block, Factorized):
            block.fold()
    return network


def _outputs(state: dict[str, torch.Tensor], path: Path) -> int:
    weight = state.get('decoder.output_conv.weight')
    if weight is None or weight.ndim != 4:
        raise PipelineError(f'{path} holds no decoder.output_conv.weight; expected ERFNet weights')
    return int(weight.shape[1])


def _names(outputs: int) -> tuple[str, ...]:
    return (*names_of(19), 'void') if outputs == 20 else names_of(outputs)
