# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What a sweep varies: axes of settings around one base, named presets, and their figures."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from road_anomaly_ros.perception.config import PipelineConfig, parameter
from road_anomaly_ros.perception.registry import options_of

FIGURES = ('AP', 'AUROC', 'FPR95', 'sIoU', 'PPV', 'F1')
Changes = Mapping[str, Any]


@dataclass(frozen=True)
class Axis:
    """One row of variants: a label with the settings that differ from the base."""

    name: str  # an option's full name, or what the stages are called
    text: str
    variants: tuple[tuple[str, Changes], ...]


@dataclass(frozen=True)
class Preset:
    """The ablation of one publication: the method it starts from and what it varies."""

    method: str
    text: str
    axes: tuple[Axis, ...]


def _axis(name: str, text: str, values: Sequence[Any]) -> Axis:
    return Axis(
        name,
        text,
        tuple(
            (f'{value:g}' if isinstance(value, float) else str(value), {name: value})
            for value in values
        ),
    )


def _chains(name: str, text: str, scorer: str, **chains: tuple[str, ...]) -> Axis:
    """Return an axis of refinements of one score."""
    return Axis(
        name,
        text,
        tuple(
            (label.replace('_', ' '), {'scorer': scorer, 'refinements': chain})
            for label, chain in chains.items()
        ),
    )


PRESETS: Mapping[str, Preset] = {
    's2': Preset(
        's2+variance_aware',
        'zero-shot score from query-level uncertainty',
        (
            _axis(
                'scorers.s2.lam',
                'λ, weight of rejection in the fusion (eq. 10)',
                (0.0, 0.2, 0.4, 0.6, 0.8, 1.0),
            ),
            _axis(
                'scorers.s2.tau',
                'τ, entropy below which a query is confident (eq. 5)',
                (0.0, 0.01, 0.02, 0.05),
            ),
            _axis(
                'scorers.s2.temperature',
                'T, softmax over the queries of a pixel (eq. 8)',
                (0.01, 0.1, 0.5, 1.0, 2.0, 10.0),
            ),
            _axis(
                'refinement.variance_aware.beta',
                'β, fading of the segment mean (eq. 12)',
                (0.0, 5.0, 50.0, 500.0),
            ),
            Axis(
                'stages',
                'stages of the method (table 4)',
                (
                    ('rejection', {'scorers.s2.stage': 'reject', 'refinements': ()}),
                    ('selection', {'scorers.s2.stage': 'accept', 'refinements': ()}),
                    ('fusion', {'refinements': ()}),
                    ('fusion, segments', {}),
                ),
            ),
        ),
    ),
    'temperature': Preset(
        'msp',
        'temperature of MSP in the study of anomaly heads',
        (
            _axis(
                'scorers.msp.temperature',
                'T, temperature of the softmax (table 3)',
                (0.5, 0.75, 1.0, 1.1, 2.0, 4.0, 8.0),
            ),
        ),
    ),
    'objectomaly': Preset(
        'mask2anomaly+oasc+mbp',
        'ablation of OASC and MBP',
        (
            _chains(
                'refinements',
                'refinements of the score (table 3)',
                'mask2anomaly',
                neither=('none',),
                OASC=('oasc',),
                MBP=('mbp',),
                OASC_and_MBP=('oasc', 'mbp'),
            ),
        ),
    ),
}


def parse_axis(text: str) -> Axis:
    """Read 'scorers.s2.tau=0.005,0.01' as an axis; '+' joins what is a list, as in refinements.

    ValueError or TypeError, one line, for unknown options and values out of range.
    """
    name, sign, rest = (part.strip() for part in text.partition('='))
    labels = [part.strip() for part in rest.split(',') if part.strip()]
    if not sign or len(labels) < 2:
        raise ValueError(
            f'--vary: expected NAME=VALUE,VALUE,.. with at least two values, '
            f'got {text!r}; for example scorers.s2.tau=0.01,0.02'
        )
    option = _option(name)
    values = [
        option.check(label.split('+') if option.kind is tuple else label) for label in labels
    ]
    return Axis(
        name,
        option.text,
        tuple((label, {name: value}) for label, value in zip(labels, values, strict=True)),
    )


def _option(name: str) -> Any:
    top = {item.name: item for item in options_of(PipelineConfig)}
    return top[name] if name in top else parameter(name)


def variant_configs(
    base_name: str, base: PipelineConfig, axes: Sequence[Axis]
) -> tuple[dict[str, PipelineConfig], list[list[str]]]:
    """Return every different chain by its name, base first, and per axis the names in order.

    A variant that is the base under another name is measured once.
    """
    configs = {base_name: base}
    names: list[list[str]] = []
    for axis in axes:
        names.append([])
        for _, changes in axis.variants:
            config = base.replace(changes)
            differing = {
                name: config.get(name) for name in changes if config.get(name) != base.get(name)
            }
            name = ' '.join(
                [base_name, *(f'{key}={_text(value)}' for key, value in differing.items())]
            )
            configs.setdefault(name, config if differing else base)
            names[-1].append(name)
    return configs, names


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return '+'.join(map(str, value)) or 'none'
    return f'{value:g}' if isinstance(value, float) else str(value)


def points(
    axis: Axis, names: Sequence[str], base_name: str, rows: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Return an axis with the figures of its variants, plain values, from the rows by method."""
    found = []
    for (label, changes), name in zip(axis.variants, names, strict=True):
        row = rows[name]
        found.append(
            {
                'label': label,
                'value': _number(axis, changes),
                'method': name,
                'base': name == base_name,
                **{figure: row.get(figure) for figure in FIGURES},
            }
        )
    return {'name': axis.name, 'text': axis.text, 'points': found}


def _number(axis: Axis, changes: Changes) -> float | None:
    value = changes.get(axis.name)
    return float(value) if type(value) in (int, float) else None


def file_name(name: str) -> str:
    """Return an axis' name as part of a file's name."""
    return re.sub(r'[^\w.-]', '_', name)
