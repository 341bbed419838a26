# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What an archive will take, from the beginnings of some of its files."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import NamedTuple

from road_anomaly_ros.fleet.driving import Answer
from road_anomaly_ros.fleet.listing import Item

# An event's row and the zip around its thumbnail, measured on an index of 1000 events.
_ROW_BYTES = 250


class Sample(NamedTuple):
    """The beginning of one item, mined."""

    item: Item
    answer: Answer


def estimate(items: Sequence[Item], samples: Sequence[Sample], jobs: int) -> str:
    """Return in words what mining all items takes with so many workers like this one.

    Frames that nobody announces are taken from bytes by those of the samples that tell both.
    Raises ValueError where no sample could be mined.
    """
    good = [
        (sample.item, sample.answer.mined, sample.answer.mined.part)
        for sample in samples
        if sample.answer.mined is not None and sample.answer.mined.part is not None
    ]
    if not good:
        raise ValueError(
            f'none of {len(samples)} sampled files can be mined: {samples[0].answer.error}'
        )
    frames = sum(part.frames for _, _, part in good)
    seconds = sum(part.seconds for _, _, part in good)
    pictures = [data for _, mined, _ in good for data in mined.pictures.values()]
    stored = sum(len(data) + _ROW_BYTES for data in pictures)
    told = [(mined.count, item.size) for item, mined, _ in good if mined.count and item.size]
    size = sum(item.size for item in items)
    if told:
        total = size * sum(count for count, _ in told) / sum(size for _, size in told)
    else:
        total = len(items) * statistics.fmean(
            mined.count or part.frames for _, mined, part in good
        )
    rate = frames / seconds if seconds else float('inf')
    hours = total / rate / jobs / 3600
    return (
        f'{len(items)} files, {size / 1e9:.1f} GB, about {total:.0f} frames\n'
        f'{rate:.1f} frames/s of one worker, measured on {frames:.0f} frames of '
        f'{len(good)} files\n'
        f'about {hours:.2f} h with {jobs} workers, {stored / max(1, frames) * total / 1e6:.1f} MB '
        f'of index\n{len(samples) - len(good)} of {len(samples)} sampled files cannot be mined'
    )
