# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Draw the pictures of these pages with the built-in model, by `road-anomaly explain`.

python docs/pictures.py [FOLDER]

FOLDER holds highway_960x540_25fps.mp4 and road_1280x720_{test1,straight_lines1}.jpg, from
Udacity's lane-lines projects (MIT); without it the three pictures of real roads stay.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
import space

from road_anomaly_ros import cli

DOCS = Path(__file__).parent
STREET = ('rendered:36?frames=99&width=960&height=540', '--frame', '98')
BRIGHT = ('--set', 'drawing.legend=false', '--set', 'drawing.dim=0')
CLASSES = (*BRIGHT, '--set', 'drawing.class_opacity=0.5')


def row(name: str, stages: str, words: tuple[str, ...], width: int = 800) -> None:
    """Write the stages of one explanation side by side, each `width` pixels wide."""
    with tempfile.TemporaryDirectory() as folder:
        if cli.main(['explain', *words, '-o', folder]):
            sys.exit(f'{name}: no explanation of {words[0]}')
        shown = [cv2.imread(str(Path(folder, f'{stage}.png'))) for stage in stages.split()]
    save(name, shown, width)


def save(name: str, shown: list[np.ndarray], width: int) -> None:
    """Write BGR pictures side by side, each `width` pixels wide."""
    size = (width, width * shown[0].shape[0] // shown[0].shape[1])
    line = np.hstack([cv2.resize(part, size, interpolation=cv2.INTER_AREA) for part in shown])
    cv2.imwrite(str(DOCS / name), line, [cv2.IMWRITE_JPEG_QUALITY, 88])


def main() -> None:
    """Draw those of the rendered street, and of real roads where they are at hand."""
    row('demo.jpg', 'image overlay', (*STREET, *BRIGHT))
    row('topics.jpg', 'image classes score overlay', (*STREET, *BRIGHT), 400)
    chain = ('--scorer', 'rba', '--set', 'refinements=[variance_aware,road_prior]')
    save('space.jpg', [part[..., ::-1] for part in space.draw(STREET[0])], 800)
    row('explain.jpg', 'image score segments refined', (*STREET, *chain), 400)
    if len(sys.argv) > 1:
        roads = Path(sys.argv[1])
        clip = str(roads / 'highway_960x540_25fps.mp4')
        row('real_debris.jpg', 'overlay', (clip, '--frame', '196', *BRIGHT), 960)
        for name, still in (('real_classes', 'test1'), ('real_mistakes', 'straight_lines1')):
            words = (str(roads / f'road_1280x720_{still}.jpg'), *CLASSES)
            row(f'{name}.jpg', 'overlay', words, 960)


if __name__ == '__main__':
    main()
