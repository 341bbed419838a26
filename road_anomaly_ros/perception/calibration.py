# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What was measured for one model: its best chain, thresholds and display ranges per scorer.

A threshold may carry a promise: how rarely it lets something false through, and for which chain.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

from road_anomaly_ros.files import home, read_yaml
from road_anomaly_ros.perception import naming
from road_anomaly_ros.remarks import one_line

FILE_NAME = 'calibration.yaml'
VERSION = 1  # of the form of the file; files without one are of it
UNITS = ('frame', 'minute')
_LARGEST = 1 << 24  # bytes of a file that is looked into
_FREE = (
    'model',
    'device',
    'precision',
    'cuda_graphs',
    'calibration',
    'drawing.',
    'geometry.',
    'objects.threshold',
    'objects.low_threshold',
)


@dataclass(frozen=True)
class Promise:
    """That false obstacles stay under a rate, measured on ordinary driving for one chain.

    Per 'frame': the share of frames in which anything false is shown. Per 'minute': the blocks of
    `block_seconds` in which anything false is shown, per minute.
    """

    rate: float
    unit: str  # one of UNITS
    confidence: float  # of the whole procedure, 0..1
    method: str
    frames: int
    blocks: int  # stretches of driving taken as independent
    block_seconds: float
    measured: float  # the rate in the footage itself, in `unit`
    footage: str
    weights: str  # model_files.weights_digest of the model, '' without weights
    size: tuple[int, int]  # (H, W) of the images
    chain: Mapping[str, object] = field(default_factory=dict)  # of `chain_options`
    drift: Sequence[Sequence[float]] = ()  # drift.statistic of every block [blocks, levels]

    def __post_init__(self) -> None:
        if self.unit not in UNITS:
            raise ValueError(f'expected a promise per {" or ".join(UNITS)}, got {self.unit!r}')
        if not (0 < self.confidence < 1 and self.rate > 0):
            raise ValueError(
                'expected a promise with rate > 0 and 0 < confidence < 1, got '
                f'{self.rate} and {self.confidence}'
            )

    def __str__(self) -> str:
        return (
            f'false obstacles under {self.rate:g} per {self.unit} at '
            f'{100 * self.confidence:g} % confidence'
        )

    def broken_by(self, chain: Mapping[str, object]) -> str:
        """Return in one line which option of a chain differs from the calibrated one, or ''."""
        for name in sorted({*self.chain, *chain}):
            if self.chain.get(name) != chain.get(name):
                return (
                    f'{name} is {chain.get(name, "at its default")}, calibrated with '
                    f'{self.chain.get(name, "its default")}'
                )
        return ''


@dataclass(frozen=True)
class ScoreCalibration:
    """Where a scorer's values mean something for one model; all in the unit of the score."""

    threshold: float
    low_threshold: float
    display: tuple[float, float]
    source: str = ''
    promise: Promise | None = None

    def __post_init__(self) -> None:
        levels = (self.low_threshold, self.threshold, *self.display)
        if any(math.isnan(value) for value in levels):
            raise ValueError(f'expected numbers as thresholds and display, got {levels}')
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
        """Read a file; ValueError when it is missing or not of the documented form.

        Whatever the form does not know is refused: a file for something else would else pass for
        a calibration that says nothing.
        """
        path = home(path)
        try:
            tree = read_yaml(path)
            _expect_keys(tree, 'the file', {'scorers'}, {'version', 'default', 'promise'})
            if tree.get('version', VERSION) != VERSION:
                raise ValueError(
                    f'expected version {VERSION}, got {tree["version"]!r}; it was '
                    'made by another release'
                )
            if not isinstance(tree['scorers'], Mapping) or not tree['scorers']:
                raise ValueError('expected at least one scorer')
            scorers = {name: _score(name, entry) for name, entry in tree['scorers'].items()}
            return cls(_default(tree.get('default') or {}), scorers, path)
        except OSError as error:
            raise ValueError(f'expected a calibration file at {path}: {error.strerror}') from None
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f'{path} is no calibration ({one_line(error)}); expected scorers: '
                f'{{NAME: {{threshold, low_threshold, display: [low, high]}}}}'
            ) from None

    def doubt(self, scorer: str, weights: str, chain: Mapping[str, object]) -> str:
        """Return in one line why no promise of this file holds for a chain, '' where one does.

        '' too where the file promises nothing. ValueError where it is about other `weights`.
        """
        promised = [name for name, entry in self.scorers.items() if entry.promise is not None]
        if scorer not in promised:
            found = ', '.join(promised)
            return found and f'{self.path} holds a promise for {found}, not for {scorer}'
        promise = self.scorers[scorer].promise
        if promise is None or promise.weights == weights:
            return promise.broken_by(chain) if promise is not None else ''
        raise ValueError(
            f'{self.path}: calibrated for another model (weights '
            f'{promise.weights[:12] or "none"}, this one has {weights[:12] or "none"}); '
            "make one for this model with 'road-anomaly calibrate'"
        )

    def dump(self) -> str:
        """Return the text of the file, which `read` understands."""
        scorers = {name: _entry(levels) for name, levels in self.scorers.items()}
        return str(
            yaml.safe_dump(
                {'version': VERSION, 'default': dict(self.default), 'scorers': scorers},
                sort_keys=False,
                default_flow_style=None,
            )
        )


def is_calibration(path: Path) -> bool:
    """Tell whether `Calibration.read` takes a file."""
    try:
        return path.stat().st_size <= _LARGEST and bool(Calibration.read(path).scorers)
    except (OSError, ValueError):
        return False


def chain_options(options: Mapping[str, object]) -> dict[str, object]:
    """Return those of a chain's flat options on which scores and obstacles depend.

    Whatever only moves the threshold, places or shows the result is left out; thresholds are the
    calibration's own.
    """
    return {
        name: value
        for name, value in options.items()
        if not name.startswith(_FREE) and (name, value) != ('tracker', 'none')
    }


def _entry(levels: ScoreCalibration) -> dict[str, Any]:
    entry = {**asdict(levels), 'display': list(levels.display)}
    promise = entry.pop('promise')
    if promise is not None:
        entry['promise'] = {
            **promise,
            'size': list(promise['size']),
            'chain': dict(promise['chain']),
            'drift': [list(row) for row in promise['drift']],
        }
    return entry


def _promise(entry: Mapping[str, Any]) -> Promise:
    height, width = entry['size']
    drift = [[float(value) for value in row] for row in entry.get('drift') or ()]
    if not all(math.isfinite(value) for row in drift for value in row):
        raise ValueError('expected finite numbers in drift')
    return Promise(
        **{
            **entry,
            'rate': float(entry['rate']),
            'confidence': float(entry['confidence']),
            'size': (int(height), int(width)),
            'drift': drift,
            'chain': naming.renamed(entry.get('chain') or {}),
        }
    )


def _expect_keys(tree: Any, name: str, required: set[str], optional: set[str]) -> None:
    """Raise ValueError when a mapping lacks a key or has one that nobody would read."""
    if not isinstance(tree, Mapping):
        raise ValueError(
            f'expected names with values in {name}, got '
            f'{"nothing" if tree is None else type(tree).__name__}'
        )
    missing = sorted(required - tree.keys())
    unknown = sorted(map(str, tree.keys() - required - optional))
    if missing or unknown:
        found = [f'{name} lacks {", ".join(missing)}'] if missing else []
        found += [f'{name} has the unknown {", ".join(unknown)}'] if unknown else []
        raise ValueError(' and '.join(found))


def _default(tree: Any) -> dict[str, Any]:
    options = {name for name in tree if isinstance(name, str) and '.' in name}
    _expect_keys(tree, 'default', set(), {'scorer', 'refinements', *options})
    return naming.renamed(tree)


def _score(name: str, entry: Any) -> ScoreCalibration:
    _expect_keys(entry, name, {'threshold', 'display'}, {'low_threshold', 'source', 'promise'})
    low, high = entry['display']
    threshold = float(entry['threshold'])
    promise = entry.get('promise')
    return ScoreCalibration(
        threshold,
        float(entry.get('low_threshold', threshold)),
        (float(low), float(high)),
        str(entry.get('source', '')),
        None if promise is None else _promise(promise),
    )
