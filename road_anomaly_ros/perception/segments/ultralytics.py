# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""FastSAM and MobileSAM through the package `ultralytics`, an optional extra with its own licence.

That package is under AGPL-3.0 and reads its weights as pickles that may run code: give it only
files whose origin you trust.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as vision

from road_anomaly_ros.perception.contract import PipelineError, Prompts, Segments
from road_anomaly_ros.perception.model_files import reason, weights_file
from road_anomaly_ros.perception.registry import option
from road_anomaly_ros.perception.resources import Resources
from road_anomaly_ros.perception.segments._promptable import (
    PromptOptions,
    limited,
    needs_weights,
    points_for,
    shared_network,
    size_of,
)

SOURCE = 'FastSAM, MobileSAM; ultralytics (AGPL-3.0, optional extra)'
NEEDS = 'its .pt'

_NETWORK_SIDE = 1024


@dataclass(frozen=True)
class Options(PromptOptions):
    """What a user may choose about a model of ultralytics."""

    model: str = option('', 'File of weights, such as FastSAM-s.pt or mobile_sam.pt.')


class UltralyticsSegments:
    """Masks of an image by a model of the package; everything at once, or at points."""

    of_image_only = False

    def __init__(
        self, network: Callable[..., Any], options: Options, device: torch.device
    ) -> None:
        self._network, self._options, self._device = network, options, device

    @torch.inference_mode()
    def __call__(
        self, image: torch.Tensor, prompts: Prompts | torch.Tensor | None = None
    ) -> Segments:
        """Return masks [N,h,w] of a uint8 image [3,H,W] with their qualities."""
        size = size_of(image)
        target = limited(size, self._options.mask_side)
        points = points_for(prompts, size, self._options, self._device)
        empty = Segments(
            masks=torch.zeros(0, *target, dtype=torch.bool, device=image.device),
            scores=torch.zeros(0, device=image.device),
        )
        if len(points) == 0:
            return empty
        reduced = limited(size, _NETWORK_SIDE)
        small = vision.resize(image[None], list(reduced), antialias=True)[0]
        asked = {}
        if self._options.mode == 'guided':
            scale = points.new_tensor([reduced[1] / size[1], reduced[0] / size[0]])
            asked = {'points': (points * scale).tolist(), 'labels': [1] * len(points)}
        pixels = small.flip(0).permute(1, 2, 0).contiguous().cpu().numpy()  # BGR, as cv2 reads
        found = self._network(
            pixels,
            device=str(self._device),
            retina_masks=True,
            verbose=False,
            imgsz=_NETWORK_SIDE,
            iou=self._options.max_overlap,
            **asked,
        )[0]
        if found.masks is None or len(found.masks.data) == 0:
            return empty
        planes = F.interpolate(found.masks.data[None].float(), target, mode='bilinear')[0]
        scores = torch.ones(len(planes)) if found.boxes is None else found.boxes.conf
        return Segments(masks=(planes > 0.5).to(image.device), scores=scores.to(image.device))


def load(
    *, device: torch.device, options: Options, resources: Resources | None = None
) -> UltralyticsSegments:
    """Load the model; PipelineError, in one line with the remedy, where that cannot work."""
    needs_weights('ultralytics', options.model, 'a file such as FastSAM-s.pt')
    path = weights_file(options.model, ('.pt',), 'segment source ultralytics')
    network = shared_network(resources, 'ultralytics', path, lambda: _network(path))
    return UltralyticsSegments(network, options, device)


def _network(path: Path) -> Any:
    try:
        package = importlib.import_module('ultralytics')
    except ImportError:
        raise PipelineError(
            'segment source ultralytics needs the package of that name; '
            "pip install 'road_anomaly_ros[ultralytics]'"
        ) from None
    kind = package.FastSAM if 'fastsam' in path.name.lower() else package.SAM
    try:
        return kind(str(path))
    except Exception as error:  # the package raises whatever its readers raise
        raise PipelineError(f'{path} could not be read by ultralytics: {reason(error)}') from None
