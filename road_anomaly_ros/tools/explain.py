# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""One explained image as pictures and a page in a folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from road_anomaly_ros import files
from road_anomaly_ros.perception.config import PipelineConfig
from road_anomaly_ros.perception.pipeline import Pipeline
from road_anomaly_ros.tools.explain_page import page
from road_anomaly_ros.tools.explanation import SHOWN, Explanation, explain
from road_anomaly_ros.tools.sources import open_source
from road_anomaly_ros.tools.staging import Staging

PAGE = 'index.html'
_STAGE_NAMES = (
    'image',
    'overlay',
    'classes',
    'rejection',
    'selection',
    'fused',
    'score',
    'refined',
    'segments',
)


def publish(
    image: np.ndarray, config: PipelineConfig, out: Path, source: Mapping[str, object]
) -> tuple[list[str], Sequence[str]]:
    """Explain an image uint8 RGB [H, W, 3] in a folder, all or nothing.

    `source` says whence the image comes, its `input` by name. Returns the names of the files,
    the page first, and what is to be told.
    """
    ends = [f'query_{kind}_{place}' for kind in ('most', 'least') for place in range(1, SHOWN + 1)]
    staging = Staging(out, [PAGE, *(f'{name}.png' for name in (*_STAGE_NAMES, *ends))])
    try:
        pipeline = Pipeline.from_config(config)
        explanation = explain(pipeline, image)
        chain = pipeline.chain.as_dict()
        names = write(explanation, staging.folder, str(source['input']), chain)
        summary = {
            **source,
            'options': chain,
            'obstacles': explanation.obstacles,
            'rejected': explanation.rejected,
            'notes': explanation.notes,
        }
        staging.publish(names, summary)
    finally:
        staging.discard()
    return names, explanation.notes


def frame(path: str, number: int, topic: str | None = None) -> np.ndarray:
    """Return one frame of a source, uint8 RGB [H, W, 3]; ValueError where there is none."""
    with open_source(path, topic) as source:
        found = 0
        for item in source:
            if found == number:
                return item.image
            found += 1
        left = ', '.join(source.omissions())
        raise ValueError(
            f'expected at least {number + 1} frames that can be read in {source.name}, got '
            f'{found}{f" ({left} left out)" if left else ""}; choose a smaller '
            '--frame, they are counted from 0'
        )


def write(
    explanation: Explanation, folder: Path, title: str, chain: dict[str, object]
) -> list[str]:
    """Write the pictures and the page into a folder; returns their names, the page first."""
    names = [PAGE]
    for picture in (*explanation.stages, *explanation.queries):
        names.append(f'{picture.name}.png')
        done, data = cv2.imencode('.png', cv2.cvtColor(picture.pixels, cv2.COLOR_RGB2BGR))
        if not done:
            raise ValueError(f'{picture.name}: a picture of {picture.pixels.shape} is no PNG')
        (folder / names[-1]).write_bytes(data.tobytes())
    files.write(folder / PAGE, page(explanation, title, chain))
    return names
