# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Anomaly scores as epilogues of the dense pass, chosen by name; higher is stranger."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from road_anomaly_ros.perception import dense, naming
from road_anomaly_ros.perception.arrays import as_tensor
from road_anomaly_ros.perception.contract import (
    UNLABELLED,
    ForeignMaps,
    LabelSet,
    MapOutput,
    MaskOutput,
    Output,
    PixelOutput,
    Segmenter,
    WindowedOutput,
)
from road_anomaly_ros.perception.registry import build_options
from road_anomaly_ros.perception.resources import Resources
from road_anomaly_ros.perception.scorers import (
    external,
    learned,
    mask2anomaly,
    maskomaly,
    queries,
    s2,
    semantic,
    vlm_points,
    windowed,
)
from road_anomaly_ros.perception.scorers.base import SCORERS, Scorer

__all__ = [
    'SCORERS',
    'DenseResult',
    'Scorer',
    'bind',
    'check',
    'evaluate',
    'external',
    'learned',
    'load',
    'mask2anomaly',
    'maskomaly',
    'queries',
    's2',
    'score_map',
    'semantic',
    'vlm_points',
]

Array = Tensor | np.ndarray


@dataclass(frozen=True)
class DenseResult:
    """Labels, score and the extra maps that were asked for; `sanitized` counts repaired inputs."""

    labels: Tensor  # [H, W] argmax_k S_k, uint8; int32 of more than 255 classes
    score: Tensor  # [H, W] float32, higher is stranger
    sanitized: Tensor  # 0-d int64, on the device
    extras: Mapping[str, Tensor] = field(default_factory=dict)


def evaluate(
    output: Output,
    scorer: str,
    options: object = None,
    *,
    size: tuple[int, int] | None = None,
    upsample: str = 'logits',
    sanitize: bool = True,
    extras: Sequence[str] = (),
    resources: Resources | None = None,
) -> DenseResult:
    """Score one segmenter output at `size` (H, W), by default that of the camera image.

    `options` is the scorer's options dataclass or a mapping of option names; None means the
    defaults. `extras` names intermediate maps to be kept: `max_s` or one of those that the scorer
    computes. A mirrored image is scored like any other; the caller mirrors the score back.
    `resources` keep what this call loads. ValueError for unknown names and what does not fit.
    """
    entry = SCORERS[scorer]
    if options is None or isinstance(options, Mapping):
        options = build_options(entry.options, options or {}, naming.prefix('scorer', scorer))
    method = entry.make
    _refuse_kind(scorer, method, output.kind)
    _refuse_extras(scorer, method, extras)
    resources = resources or Resources(output.device)
    options = method.load(options, resources)
    source, vectors = _prepare(
        output, method, options, size or output.image_size, upsample, sanitize, resources
    )

    def epilogue(block: dense.Block) -> Mapping[str, Tensor]:
        found = method.epilogue(block, options)
        maps = found if isinstance(found, Mapping) else {'score': found}
        return {**maps, 'max_s': block.max_s} if 'max_s' in extras else maps

    labels, maps = dense.run(source, vectors, epilogue, ('score', *extras))
    if output.kind == 'map':
        labels.fill_(UNLABELLED)
    return DenseResult(labels, maps.pop('score'), source.sanitized, maps)


def _prepare(
    output: Output,
    method: Scorer,
    options: Any,
    size: tuple[int, int],
    upsample: str,
    sanitize: bool,
    resources: Resources,
) -> tuple[Any, dense.QueryVectors | None]:
    if upsample not in dense.UPSAMPLE:
        raise ValueError(f'upsample: expected one of {list(dense.UPSAMPLE)}, got {upsample!r}')
    match output:
        case MapOutput():
            return external.map_source(output, size, sanitized=sanitize), None
        case PixelOutput():
            return dense.PlaneSource.of(
                output, size, sanitized=sanitize, resources=resources
            ), None
        case WindowedOutput():
            return windowed.merged_source(
                output, method, options, size, sanitized=sanitize, resources=resources
            )
    source = dense.MaskSource(output, size, sanitized=sanitize, resources=resources)
    vectors = method.prepare(source, options)
    return (source if upsample == 'logits' else source.low_resolution(vectors)), vectors


def check(scorer: str, options: object, *, kind: str, labels: LabelSet) -> None:
    """Refuse at configure time what cannot work: ValueError that names the remedy.

    `kind` is the segmenter's ('mask' or 'pixel'), `labels` its known classes.
    """
    method = SCORERS[scorer].make
    _refuse_kind(scorer, method, kind)
    try:
        method.check(options, kind, labels)
    except ValueError as error:
        raise ValueError(f'{naming.prefix("scorer", scorer)}{error}') from None


def bind(scorer: str, options: object, segmenter: Segmenter | ForeignMaps) -> tuple[object, str]:
    """Return the options completed for a segmenter, and the feature map to ask it for ('': none).

    Raises ValueError, with the remedy, for what does not belong to this segmenter.
    """
    try:
        return SCORERS[scorer].make.bind(options, segmenter)
    except ValueError as error:
        raise ValueError(f'{naming.prefix("scorer", scorer)}{error}') from None


def load(scorer: str, options: object, resources: Resources) -> object:
    """Return the options with what they name loaded onto the device, kept by `resources`."""
    return SCORERS[scorer].make.load(options, resources)


def _refuse_kind(name: str, method: Scorer, kind: str) -> None:
    if kind not in method.kinds:
        able = [entry.name for entry in SCORERS if kind in entry.make.kinds]
        raise ValueError(
            f'scorer {name!r} needs {" or ".join(method.kinds)} outputs, but this segmenter gives '
            f'{kind} outputs; choose one of {sorted(able)}'
        )


def _refuse_extras(name: str, method: Scorer, extras: Sequence[str]) -> None:
    known = ('max_s', *method.extras)
    for extra in extras:
        if extra not in known:
            raise ValueError(f'scorer {name!r} has no map {extra!r}; choose one of {list(known)}')


@torch.no_grad()
def score_map(
    name: str,
    class_logits: Array | None,
    mask_logits: Array,
    size: tuple[int, int] | None = None,
    *,
    upsample: str = 'logits',
    sanitize_inputs: bool = True,
    **options: object,
) -> Array:
    """Return the anomaly score float32 [H,W] of one image, higher is stranger.

    `class_logits` [Q,K+1] (last column: no object) and `mask_logits` [Q,h,w] are float tensors or
    arrays; for a pixel model pass None and its logits [C,h,w]. `size` is (H, W), by default that
    of the masks. `options` are the scorer's, by name. Arrays in give an array, tensors a tensor
    on their device. Raises ValueError for unknown names, values and shapes.
    """
    from_arrays = not isinstance(mask_logits, Tensor)
    masks = as_tensor(mask_logits)
    height_width = tuple(int(length) for length in (masks.shape[-2:] if size is None else size))
    output: MaskOutput | PixelOutput
    if class_logits is None:
        output = PixelOutput(masks, height_width)  # type: ignore[arg-type]
    else:
        classes = as_tensor(class_logits).to(masks.device)
        output = MaskOutput(classes, masks, height_width)  # type: ignore[arg-type]
    score = evaluate(output, name, options, upsample=upsample, sanitize=sanitize_inputs).score
    return score.numpy() if from_arrays else score
