# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Found obstacles against ground truth: what was seen, what was missed, what was not there."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

MIN_AREA = 600  # pixels; smaller obstacles are not asked for
FOUND_SHARE = 0.25  # of an obstacle's pixels that the obstacle mask must cover
TRUE_SHARE = 0.25  # of a detection's pixels that must lie on true obstacles


@dataclass(frozen=True)
class FrameTruth:
    """How one frame compares with its ground truth."""

    covered: dict[int, float]  # share in the mask, by id of obstacles large enough
    false_alarms: int  # detections that lie on no true obstacle of any size


def compare(
    mask: np.ndarray, instances: np.ndarray, truth: np.ndarray, *, min_area: int = MIN_AREA
) -> FrameTruth:
    """Compare a mask bool [H, W] and its instances int [H, W] with true instances int [H, W].

    True obstacles of more than `min_area` visible pixels are asked for; a detection is a false
    alarm when less than TRUE_SHARE of it lies on true obstacles of any size. In both instance
    maps 0 means none. Raises ValueError when the shapes differ.
    """
    if not mask.shape == instances.shape == truth.shape:
        raise ValueError(
            f'expected three maps of one size, got {mask.shape}, {instances.shape} '
            f'and {truth.shape}'
        )
    areas = np.bincount(truth.reshape(-1).astype(np.int64))
    covered = np.bincount(truth[mask].astype(np.int64), minlength=len(areas))
    due = {
        int(obstacle): float(covered[obstacle] / areas[obstacle])
        for obstacle in np.flatnonzero(areas > min_area)
        if obstacle
    }
    sizes = np.bincount(instances.reshape(-1).astype(np.int64))
    true = np.bincount(instances[truth > 0].astype(np.int64), minlength=len(sizes))
    wrong = (sizes > 0) & (true < TRUE_SHARE * sizes)
    return FrameTruth(due, int(wrong[1:].sum()))


@dataclass
class Tally:
    """Comparisons of many frames, summed up."""

    frames: int = 0
    covered: list[float] = field(default_factory=list)  # of every obstacle due in every frame
    false_alarms: int = 0
    ids: set[int] = field(default_factory=set)
    ids_found: set[int] = field(default_factory=set)

    def add(self, frame: FrameTruth) -> None:
        """Count one frame."""
        self.frames += 1
        self.covered += frame.covered.values()
        self.false_alarms += frame.false_alarms
        self.ids.update(frame.covered)
        self.ids_found.update(
            name for name, share in frame.covered.items() if share >= FOUND_SHARE
        )

    def recall(self, share: float = FOUND_SHARE) -> float:
        """Share of appearances (obstacle times frame) covered by at least `share`; NaN if none."""
        return float(np.mean(np.array(self.covered) >= share)) if self.covered else float('nan')

    @property
    def false_alarms_per_frame(self) -> float:
        """Detections on no true obstacle per frame; NaN without frames."""
        return self.false_alarms / self.frames if self.frames else float('nan')

    def figures(self) -> dict[str, Any]:
        """Return the figures as they stand in summary.json."""
        return {
            'recall': round(self.recall(), 4),
            'recall_half': round(self.recall(0.5), 4),
            'appearances': len(self.covered),
            'obstacles': len(self.ids),
            'obstacles_found': len(self.ids_found),
            'false_alarms': self.false_alarms,
            'false_alarms_per_frame': round(self.false_alarms_per_frame, 4),
            'rule': f'obstacles above {MIN_AREA} px count as found when {FOUND_SHARE:.0%} of '
            f'their pixels are in the mask (recall_half: 50%); detections with less '
            f'than {TRUE_SHARE:.0%} of their pixels on an obstacle are false alarms',
        }
