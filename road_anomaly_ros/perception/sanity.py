# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Whether a frame says anything: single bad values are repaired, a whole map of them is not.

Repaired towards 'strange', a network that has overflowed would see one obstacle everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch

from road_anomaly_ros.perception.contract import Output, PipelineError, WindowedOutput, scales

_STRIDE = 16  # pixels between samples of the score


def refuse_meaningless(outputs: Sequence[Output], score: torch.Tensor, repaired: int) -> None:
    """Raise PipelineError where a part of a network's output, or the score [H,W], is never finite.

    Costs next to nothing while `repaired`, the number of values that were not finite, is 0.
    """
    if not repaired and score[::_STRIDE, ::_STRIDE].isfinite().any():
        return
    foreign = any(output.kind == 'map' for output in outputs)
    remedy = (
        'look at what made the anomaly map'
        if foreign
        else "set precision to 'float32', or choose other weights"
    )
    parts = [part for output in outputs for part in _parts(output)]
    for name, values in (*parts, ('score', score)):
        if values.numel() and not values.isfinite().any():
            raise PipelineError(
                f'expected finite numbers in the {name}, got none, so the frame means nothing: '
                f'{remedy}'
            )


def refuse_unreachable(threshold: float, top: float, scorer: str) -> None:
    """Raise ValueError where no score of `scorer`, at most `top`, can lie above `threshold`."""
    if math.isfinite(top) and threshold >= top:
        raise ValueError(
            f'objects.threshold: expected less than {top:g}, which no score of {scorer!r} '
            f'exceeds, got {threshold:g}: nothing could be an obstacle'
        )


def _parts(output: Output) -> Iterator[tuple[str, torch.Tensor]]:
    for window in output.windows if isinstance(output, WindowedOutput) else (output,):
        for name, values in vars(window).items():
            if name != 'image_size' and values is not None:
                yield from ((name, level) for level in scales(values))
