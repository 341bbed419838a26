# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Pictures of the frames that a method did best and worst on, scored again with its chain."""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from road_anomaly_ros.evaluation.datasets import DataSet, open_dataset
from road_anomaly_ros.evaluation.material import Group, Row
from road_anomaly_ros.evaluation.store import file_hashes
from road_anomaly_ros.perception import drawing
from road_anomaly_ros.perception.config import PipelineConfig
from road_anomaly_ros.perception.contract import PipelineError
from road_anomaly_ros.perception.pipeline import Pipeline
from road_anomaly_ros.remarks import one_line

_TRUTH, _EDGE = (70, 235, 255), (8, 12, 20)
_WIDEST = 1600  # of the pair of pictures
_QUALITY = 84


@dataclasses.dataclass(frozen=True)
class Shown:
    """One frame: why it is shown, its figures, and the pictures side by side as JPEG in base64."""

    kind: str  # 'best', 'worst' or 'false'
    figures: Mapping[str, Any]  # of details
    jpeg: str


def choose(
    figures: Sequence[Mapping[str, Any]], count: int
) -> list[tuple[str, Mapping[str, Any]]]:
    """Return up to `count` frames of each kind, none twice: worst AP, most false pixels, best."""
    rated = sorted(
        (frame for frame in figures if frame['ap'] is not None), key=lambda frame: frame['ap']
    )
    noisy = sorted((frame for frame in figures if frame['false']), key=lambda item: -item['false'])
    chosen: dict[int, tuple[str, Mapping[str, Any]]] = {}
    for kind, ordered in (('worst', rated), ('best', rated[::-1]), ('false', noisy)):
        new = [frame for frame in ordered if frame['index'] not in chosen][:count]
        chosen.update({frame['index']: (kind, frame) for frame in new})
    return list(chosen.values())


def pictures(
    group: Group, row: Row, count: int, folder: Path | None = None
) -> tuple[list[Shown], str]:
    """Return the frames of a method, and in one line why there are none ('' where there are).

    `folder` is the data set's, by default where it was when it was measured.
    """
    wanted = choose(row.found.get('frames', ()), count)
    if not wanted:
        return [], 'There are no details of single frames in the results.'
    try:
        data = open_dataset(
            folder or Path(str(group.run.get('folder', ''))),
            str(group.run.get('layout', 'folder')),
        )
        return _draw(data, row, wanted), ''
    except (ValueError, OSError) as error:
        return [], f'No pictures: {one_line(error)}'


def _draw(data: DataSet, row: Row, wanted: Sequence[tuple[str, Mapping[str, Any]]]) -> list[Shown]:
    try:
        pipeline = Pipeline(PipelineConfig.from_any(row.record['options']))
    except PipelineError as error:
        raise ValueError(str(error)) from None
    _refuse_other_weights(file_hashes(pipeline.segmenter.model_dir), row)
    places = {sample.name: index for index, sample in enumerate(data.samples)}
    found = []
    for kind, figures in wanted:
        if figures['name'] not in places:
            raise ValueError(f'{data.root} has no image {figures["name"]!r} any more')
        index = places[figures['name']]
        picture = side_by_side(
            pipeline(data.samples[index].read_image()),
            data.anomaly(index),
            float(row.record['threshold']),
        )
        found.append(Shown(kind, figures, _jpeg(picture)))
    return found


def _refuse_other_weights(hashes: Mapping[str, str], row: Row) -> None:
    known = row.record.get('checkpoints', {})
    if any(known.get(name) != value for name, value in hashes.items()):
        raise ValueError(
            f'the model {row.record["options"].get("model")!r} has other weights '
            'than those that were measured'
        )


def side_by_side(result: Any, truth: np.ndarray | None, threshold: float) -> np.ndarray:
    """Return the camera image beside its heat with contours of the truth, uint8 RGB [H,2W,3].

    Heat appears from half way to `threshold`; white is the contour of what lies above it.
    """
    plain = np.ascontiguousarray(result.array('image').transpose(1, 2, 0))
    score = result.array('score')
    low = float(min(np.median(score), result.display_range[0]))
    high = max(result.display_range[1], threshold, low + 1e-6)
    options = drawing.DrawingOptions(
        class_opacity=0.0, heat_opacity=0.75, contours=False, boxes=False, legend=False
    )
    heat = drawing.overlay(
        dataclasses.replace(result, threshold=threshold, display_range=(low, high)), options
    )
    heat = np.ascontiguousarray(heat)
    width = max(1, round(min(heat.shape[:2]) / 240))
    _contour(heat, score > threshold, (255, 255, 255), width)
    if truth is not None:
        _contour(heat, truth == 1, _TRUTH, width)
    return np.hstack([plain, heat])


def _contour(
    canvas: np.ndarray, mask: np.ndarray, color: tuple[int, int, int], width: int
) -> None:
    lines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(canvas, lines, -1, _EDGE, width + 1, cv2.LINE_AA)
    cv2.drawContours(canvas, lines, -1, color, width, cv2.LINE_AA)


def _jpeg(picture: np.ndarray) -> str:
    height, width = picture.shape[:2]
    if width > _WIDEST:
        size = _WIDEST, max(1, round(height * _WIDEST / width))
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode(
        '.jpg', cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY]
    )
    return base64.b64encode(data.tobytes()).decode('ascii')
