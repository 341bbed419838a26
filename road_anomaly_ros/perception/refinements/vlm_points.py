# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What a vision-language model finds strange, laid over any score (query-level paper, IV-F).

The model thinks beside the frames: each gets its last answer, weaker the older that is. Where it
fails or says what nobody can read, that answer stays until its time is over, and a note says so.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch

from road_anomaly_ros.perception.contract import Segments
from road_anomaly_ros.perception.model_files import model_directory
from road_anomaly_ros.perception.refinements.base import RefineContext, refinement
from road_anomaly_ros.perception.registry import option
from road_anomaly_ros.perception.resources import Resources
from road_anomaly_ros.perception.vlm.beside import Beside
from road_anomaly_ros.perception.vlm.model import Asked, ImageTextModel
from road_anomaly_ros.perception.vlm.points import NamedMask, Unreadable, find
from road_anomaly_ros.remarks import Remark

NAME = 'vlm_points'
_MOST_CAMERAS = 16
Picture = tuple[torch.Tensor, Callable[..., Segments]]


@dataclass(frozen=True)
class VlmOptions:
    """Which model is asked, how often, and how much its word counts."""

    model: str = option(
        '',
        'Directory of an image-text model that transformers knows, such as Qwen-VL or LLaVA; '
        'nothing is fetched.',
    )
    every_s: float = option(
        2.0,
        'Time between two questions, asked beside the frames; 0: every frame waits for its own.',
        low=0.0,
        high=3600.0,
        unit='s',
    )
    keep_s: float = option(
        10.0, 'Age at which an answer has lost all its weight.', low=0.1, high=3600.0, unit='s'
    )
    value: float = option(
        1.0, 'Score of what a fresh answer names; higher is stranger.', low=-1000.0, high=1000.0
    )
    tokens: int = option(256, 'Longest answer.', low=8, high=4096)


def load(options: VlmOptions, resources: Resources) -> None:
    """Load the model; PipelineError where there is none, with the remedy."""
    _model(options, resources)


def _model(options: VlmOptions, resources: Resources) -> Asked:
    if not options.model:
        raise ValueError(
            f'{NAME} asks an image-text model: fetch one, such as '
            f'Qwen/Qwen2.5-VL-3B-Instruct, and name its directory in refinement.{NAME}.model'
        )
    key = options.model, options.tokens

    def make() -> Asked:
        directory = model_directory(options.model)
        return ImageTextModel(directory, resources.device, tokens=options.tokens)

    return resources.get('vlm', key, make)


@refinement(
    NAME, VlmOptions, source='query-level uncertainty, IV-F', needs_segments=True, load=load
)
def vlm_points(score: torch.Tensor, context: RefineContext, options: VlmOptions) -> torch.Tensor:
    """Return the score, raised to `value` inside of what the model named; names go to context."""
    if context.resources is None or context.image is None or context.source is None:
        raise ValueError(f'{NAME} asks about images; it works in a pipeline only')
    found, weight, problem = _answer(
        (context.image, context.source), context.camera, options, context.resources
    )
    if problem:
        context.notes.append(f'refinement {NAME} keeps its last answer: {problem}')
    context.named.extend(found)
    floor = score.min()  # stays on the device
    for item in found:
        raised = floor + weight * (options.value - floor)
        score = torch.where(item.mask, torch.maximum(score, raised), score)
    return score


def _answer(
    asked: Picture, camera: str, options: VlmOptions, resources: Resources
) -> tuple[tuple[NamedMask, ...], float, str]:
    """Return what the model named, how much that counts by its age, 0 ... 1, and a new failure."""
    model = _model(options, resources)
    if options.every_s == 0:
        try:
            return find(asked[0], model, asked[1]), 1.0, ''
        except Unreadable as problem:  # one picture's answer must not end an evaluation
            warnings.warn(f'{NAME}: {problem}', Remark, stacklevel=2)
            return (), 0.0, ''
    # An answer about a picture of another size fits no longer.
    key = camera, options.model, options.every_s, tuple(asked[0].shape)

    def make() -> Beside[Picture, tuple[NamedMask, ...]]:
        return Beside(lambda picture: find(picture[0], model, picture[1]), options.every_s)

    beside = resources.get('vlm beside', key, make, most=_MOST_CAMERAS, close=Beside.close)
    last = beside.offer(asked)
    weight = 1.0 - beside.age(last) / options.keep_s
    return (last.found or () if weight > 0 else ()), weight, last.error
