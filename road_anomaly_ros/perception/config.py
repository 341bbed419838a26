# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The one tree of settings, built from YAML, a dict, `--set` or ROS parameters alike."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from road_anomaly_ros.perception import naming, parameter_file
from road_anomaly_ros.perception.drawing import DrawingOptions
from road_anomaly_ros.perception.geometry.options import GeometryOptions, of_camera
from road_anomaly_ros.perception.object_options import COMPONENTS, ObjectOptions
from road_anomaly_ros.perception.refinements import REFINEMENTS
from road_anomaly_ros.perception.registry import (
    Option,
    Registry,
    Room,
    build_options,
    option,
    options_of,
)
from road_anomaly_ros.perception.scorers import SCORERS
from road_anomaly_ros.perception.segmenters import SEGMENTERS
from road_anomaly_ros.perception.segments import SEGMENTS
from road_anomaly_ros.perception.tracking import TRACKERS

AUTO = 'auto'
GROUPS: dict[str, type] = {
    'objects': ObjectOptions,
    'geometry': GeometryOptions,
    'drawing': DrawingOptions,
}
METHODS: dict[str, Registry[Any] | Room[Any]] = {
    'segmenter': SEGMENTERS,
    'scorer': SCORERS,
    'refinement': REFINEMENTS,
    'segments': SEGMENTS,
    'tracker': TRACKERS,
}


@dataclasses.dataclass(frozen=True)
class PipelineConfig:
    """One frozen choice of chain and options; every value has been checked.

    Options of methods and groups are held in `values` under their full names, such as
    `scorers.s2.tau` or `objects.min_area`; a name that is absent has its declared default.
    Raises ValueError for unknown names and values out of range, TypeError for wrong kinds.
    """

    segmenter: str = option('mask2former', 'Kind of network that segments the image.', live=False)
    model: str = option(
        'builtin', "Model to load: 'builtin', a local directory, or a hub name.", live=False
    )
    device: str = option(
        AUTO,
        "Where to compute: 'auto' (CUDA where there is one), 'cpu', 'cuda' or 'cuda:N'.",
        live=False,
    )
    precision: str = option(
        AUTO,
        "Arithmetic of the network: 'auto' is float16 on CUDA and float32 on the CPU.",
        choices=(AUTO, 'float32', 'float16', 'bfloat16'),
        live=False,
    )
    cuda_graphs: str = option(
        AUTO,
        "Whether torch replays the network as a CUDA graph: 'auto' on CUDA, for each size of "
        "image whose graph says what the network says; 'off' never.",
        choices=(AUTO, 'off'),
    )
    scorer: str = option(
        AUTO, "Anomaly score; 'auto' is the one measured best for the model, else 'plain'."
    )
    refinements: tuple[str, ...] = option(
        (AUTO,),
        "Refinements of the score, in order; 'auto' as measured for the model, 'none' for none.",
    )
    segments: str = option(
        'watershed', 'Source of class-agnostic segments for the refinements that need them.'
    )
    upsample: str = option(
        'logits',
        "What is resized to the image: mask 'logits' (exact) or the 'semantic' map (cheap).",
        choices=('logits', 'semantic'),
    )
    sanitize_inputs: bool = option(
        True, 'Repair non-finite network outputs conservatively instead of passing them on.'
    )
    tta_hflip: bool = option(
        False, 'Average the score with that of the mirrored image; doubles the cost.'
    )
    calibration: str = option(
        '', "Calibration file to use instead of the model's own; empty for the model's own."
    )
    tracker: str = option(
        'none',
        "What follows obstacles over time, by the stamps of the images; 'none' for nothing.",
    )
    values: tuple[tuple[str, object], ...] = ()

    def __post_init__(self) -> None:
        for item in options_of(PipelineConfig):
            object.__setattr__(self, item.name, item.check(getattr(self, item.name)))
        if self.refinements == ('none',):
            object.__setattr__(self, 'refinements', ())
        self._check_names()
        object.__setattr__(
            self, 'values', tuple(sorted(_checked_values(naming.told(dict(self.values))).items()))
        )
        for group in GROUPS:
            self.options(group)  # checks what no option can tell by itself

    @property
    def needs_segments(self) -> bool:
        """Whether anything asks for segments, as far as it is chosen: 'auto' asks for nothing."""
        asking = (REFINEMENTS[name].make for name in self.refinements if name != AUTO)
        found_in_them = self.options('objects').mode != COMPONENTS
        return found_in_them or any(one.needs_segments for one in asking)

    def _check_names(self) -> None:
        for kind in ('segmenter', 'segments', 'tracker'):
            _known(METHODS[kind], kind, getattr(self, kind))
        for kind, names in (('scorer', (self.scorer,)), ('refinement', self.refinements)):
            for name in names:
                if name != AUTO:
                    _known(METHODS[kind], kind, name)
        if AUTO in self.refinements and self.refinements != (AUTO,):
            raise ValueError(f"refinements: 'auto' stands alone, got {list(self.refinements)}")

    @classmethod
    def from_any(
        cls,
        source: str | Path | Mapping[str, object] | PipelineConfig | None = None,
        **overrides: object,
    ) -> PipelineConfig:
        """Build from a YAML file, a mapping, a config or nothing; `overrides` win.

        The file is plain or one of ROS parameters, as in config/.
        """
        if isinstance(source, PipelineConfig):
            return source.replace(overrides)
        if isinstance(source, (str, Path)):
            source = _settings_of(Path(source))
        given, wins = (naming.told(flatten(tree)) for tree in (source or {}, overrides))
        return cls().replace({**given, **wins})

    def replace(self, changes: Mapping[str, object]) -> PipelineConfig:
        """Return a copy with full names such as `scorer` or `scorers.s2.tau` set anew."""
        fields = {item.name for item in options_of(PipelineConfig)}
        top: dict[str, Any] = {name: changes[name] for name in changes if name in fields}
        rest = {name: value for name, value in changes.items() if name not in fields}
        values = {**dict(self.values), **naming.told(rest)}
        return dataclasses.replace(self, **top, values=tuple(values.items()))

    def options(self, kind: str, name: str | None = None) -> Any:
        """Return the options of a method (`'scorer', 's2'`) or of a group (`'objects'`).

        Those of a group for one camera (`'geometry', 'front'`) are what is set for it alone, and
        for the rest what is set for all; '' is the only camera.
        """
        if kind in METHODS and name is not None:
            prefix = naming.prefix(kind, name)
            return build_options(METHODS[kind][name].options, self._below(prefix), prefix)
        own = self._below(f'{kind}.{name}.') if name else {}
        alone = {key: value for key, value in own.items() if value == value}
        return build_options(GROUPS[kind], {**self._below(f'{kind}.'), **alone}, f'{kind}.')

    def _below(self, prefix: str) -> dict[str, object]:
        """Return what is set right below a prefix of full names."""
        found = (
            (key.removeprefix(prefix), value)
            for key, value in self.values
            if key.startswith(prefix)
        )
        return {key: value for key, value in found if '.' not in key}

    def get(self, name: str) -> object:
        """Return the value of one full name, its default where it was not set."""
        if name in {item.name for item in options_of(PipelineConfig)}:
            return getattr(self, name)
        name, stored = naming.current(name), dict(self.values)
        return stored[name] if name in stored else parameter(name).default

    @property
    def cameras(self) -> set[str]:
        """Names of the cameras for which something is set alone."""
        parts = (name.split('.') for name, _ in self.values if name.startswith('geometry.'))
        return {part[1] for part in parts if len(part) == 3}

    def is_set(self, name: str) -> bool:
        """Tell whether an option of a method or group was set explicitly."""
        return naming.current(name) in dict(self.values)

    def as_dict(self) -> dict[str, object]:
        """Return the chosen names and all options that were set, flat, as plain YAML values."""
        top = {item.name: getattr(self, item.name) for item in options_of(PipelineConfig)}
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in {**top, **dict(self.values)}.items()
        }


def parameters(segmenter: str | None = None) -> list[Option]:
    """Return every option under its full name; those of a segmenter only where one is named.

    A file of a room is imported only as far as its options are asked for.
    """
    found = options_of(PipelineConfig)
    for kind in ('scorer', 'refinement'):
        for name in METHODS[kind].names():
            found += options_of(METHODS[kind][name].options, naming.prefix(kind, name))
    for kind in ('segments', 'tracker'):
        for name in METHODS[kind].names():
            found += options_of(METHODS[kind][name].options, naming.prefix(kind, name))
    if segmenter is not None:
        found += options_of(SEGMENTERS[segmenter].options, naming.prefix('segmenter', segmenter))
    for group, owner in GROUPS.items():
        found += options_of(owner, f'{group}.')
    return found


def parameter(name: str) -> Option:
    """Return the option with this full name, or raise ValueError naming where the path breaks."""
    name = naming.current(name)
    parts = name.split('.')
    kinds = {folder: kind for kind, folder in naming.FOLDERS.items()}
    if len(parts) == 2 and parts[0] in GROUPS:
        found = options_of(GROUPS[parts[0]], f'{parts[0]}.')
    elif len(parts) == 3 and parts[0] == 'geometry':
        found = of_camera(parts[1])
    elif len(parts) == 3 and parts[0] in kinds:
        owner = METHODS[kinds[parts[0]]][parts[1]].options
        found = options_of(owner, f'{parts[0]}.{parts[1]}.')
    else:
        known = [item.name for item in options_of(PipelineConfig)]
        raise ValueError(
            f'unknown option {name!r}; expected one of {known}, a group such as '
            f'objects.min_area or a method such as scorers.s2.tau'
        )
    for item in found:
        if item.name == name:
            return item
    raise ValueError(f'unknown option {name!r}; choose one of {[item.name for item in found]}')


def reload_names(before: PipelineConfig, after: PipelineConfig) -> list[str]:
    """Return the full names of settings that differ and need the model to be loaded anew."""
    names = [item.name for item in options_of(PipelineConfig) if not item.live]
    names += sorted(
        {
            name
            for config in (before, after)
            for name, _ in config.values
            if name.startswith('segmenters.')
        }
    )
    return [name for name in names if before.get(name) != after.get(name)]


def flatten(tree: Mapping[str, object], prefix: str = '') -> dict[str, object]:
    """Return nested settings under full names; in a method's tree `name` is the choice itself."""
    flat: dict[str, object] = {}
    for key, value in tree.items():
        full = f'{prefix}{key}'
        if isinstance(value, Mapping):
            inner = dict(value)
            if not prefix and 'name' in inner:
                flat[full] = inner.pop('name')
            flat.update(flatten(inner, f'{full}.'))
        else:
            flat[full] = value
    return flat


def parse_assignments(items: Iterable[str]) -> dict[str, object]:
    """Return `['scorers.s2.tau=0.02', ...]` as a mapping; values get their option's type later."""
    found: dict[str, object] = {}
    for item in items:
        name, sign, value = item.partition('=')
        if not sign or not name.strip():
            raise ValueError(f'expected NAME=VALUE, got {item!r}; for example scorers.s2.tau=0.02')
        found[name.strip()] = value.strip()
    return found


def _known(room: Registry[Any] | Room[Any], kind: str, name: str) -> None:
    if name not in room:
        raise ValueError(f'unknown {kind} {name!r}; choose one of {room.names()}')


def _checked_values(values: Mapping[str, object]) -> dict[str, object]:
    return {name: parameter(name).check(value) for name, value in values.items()}


def _settings_of(path: Path) -> Mapping[str, object]:
    """Return the settings of a file; in one of ROS parameters a default is left open, not set."""
    tree = parameter_file.read(path)
    if not tree:
        raise ValueError(f'{path}: expected names with values, the file is empty')
    if not parameter_file.sections(tree):
        return tree
    values = parameter_file.chain_values(tree, path)
    return {name: value for name, value in values.items() if not _is_default(name, value)}


def _is_default(name: str, value: object) -> bool:
    top = {item.name: item for item in options_of(PipelineConfig)}
    item = top[name] if name in top else parameter(name)
    value = item.check(value)
    return value == item.default or (value != value and item.default != item.default)
