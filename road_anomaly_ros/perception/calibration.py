# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What was measured for one model: its best chain, thresholds and display ranges per scorer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

FILE_NAME = 'calibration.yaml'


@dataclass(frozen=True)
class ScoreCalibration:
    """Where a scorer's values mean something for one model; all in the unit of the score."""

    threshold: float
    low_threshold: float
    display: tuple[float, float]
    source: str = ''

    def __post_init__(self) -> None:
        if not self.low_threshold <= self.threshold:
            raise ValueError(
                f'expected low_threshold <= threshold, got {self.low_threshold} > {self.threshold}'
            )
        if not self.display[0] < self.display[1]:
            raise ValueError(
                f'expected display [low, high] with low < high, got {list(self.display)}'
            )


@dataclass(frozen=True)
class Calibration:
    """The measured defaults of a model; empty where nothing was measured."""

    default: Mapping[str, Any] = field(default_factory=dict)  # flat PipelineConfig names
    scorers: Mapping[str, ScoreCalibration] = field(default_factory=dict)
    path: Path | None = None

    @classmethod
    def of_model(cls, directory: Path | None) -> Calibration:
        """Read `calibration.yaml` of a model directory; empty where the model has none."""
        if directory is None or not (directory / FILE_NAME).is_file():
            return cls()
        return cls.read(directory / FILE_NAME)

    @classmethod
    def read(cls, path: str | Path) -> Calibration:
        """Read a file; ValueError when it is missing or not of the documented form."""
        path = Path(path)
        try:
            tree = yaml.safe_load(path.read_text(encoding='utf-8')) or {}
            scorers = {name: _score(entry) for name, entry in (tree.get('scorers') or {}).items()}
            return cls(dict(tree.get('default') or {}), scorers, path)
        except OSError as error:
            raise ValueError(f'expected a calibration file at {path}: {error.strerror}') from None
        except (yaml.YAMLError, AttributeError, KeyError, TypeError, ValueError) as error:
            reason = ' '.join(str(error).split())
            raise ValueError(
                f'{path} is no calibration ({reason}); expected scorers: '
                f'{{NAME: {{threshold, low_threshold, display: [low, high]}}}}'
            ) from None


def _score(entry: Mapping[str, Any]) -> ScoreCalibration:
    low, high = entry['display']
    threshold = float(entry['threshold'])
    return ScoreCalibration(
        threshold,
        float(entry.get('low_threshold', threshold)),
        (float(low), float(high)),
        str(entry.get('source', '')),
    )
