# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""How methods and their knobs are announced: explicit keys, options with text and range."""

from __future__ import annotations

import dataclasses
import importlib
import math
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic, TypeVar

T = TypeVar('T')

_META = 'road_anomaly_ros.option'


@dataclasses.dataclass(frozen=True)
class Option:
    """One knob: its default, text, closed range or choices, and whether it changes live."""

    name: str
    default: Any
    text: str
    low: float | None = None
    high: float | None = None
    choices: tuple[Any, ...] = ()
    unit: str = ''
    live: bool = True
    words: tuple[
        tuple[str, Any], ...
    ] = ()  # texts that stand for a value, such as 'reject' for -1

    @property
    def kind(self) -> type:
        """The Python type a value must have: bool, int, float, str or tuple."""
        return type(self.default)

    def check(self, value: object) -> Any:
        """Return `value` in the option's type; TypeError or ValueError says what was expected."""
        value = self._cast(value)
        items = value if isinstance(value, tuple) else (value,)
        for item in items:
            self._check_item(item)
        return value

    def _cast(self, value: Any) -> Any:
        kind = self.kind
        if kind is tuple:
            if value is None or isinstance(value, str):
                text = (value or '').strip().removeprefix('[').removesuffix(']')  # as in YAML
                value = [part for part in text.split(',') if part.strip()]
            return tuple(self._cast_item(item) for item in value)
        return self._convert(kind, value)

    def _cast_item(self, item: Any) -> Any:
        samples = self.default or self.choices or (() if self.low is None else (self.low,))
        if not samples:
            return item.strip() if isinstance(item, str) else item
        return self._convert(type(samples[0]), item)

    def _convert(self, kind: type, value: Any) -> Any:
        if isinstance(value, str):
            value = dict(self.words).get(value.strip(), value)
        if isinstance(value, str) and kind is not str:
            value = _from_text(kind, value.strip())
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        if kind is int and isinstance(value, float) and value.is_integer():
            return int(value)
        if kind is str and isinstance(value, str):
            return value.strip()
        if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
            raise TypeError(f'{self.name}: expected {kind.__name__}, got {value!r}')
        return value

    def _check_item(self, value: Any) -> None:
        if self.choices and value not in self.choices:
            raise ValueError(
                f'{self.name}: unknown value {value!r}; choose one of {list(self.choices)}'
            )
        if value != value and self.default != self.default:
            return  # left open, as by default
        if isinstance(value, float) and not math.isfinite(value) and value != self.default:
            raise ValueError(f'{self.name}: expected a finite number, got {value!r}')
        if self.low is None and self.high is None:
            return
        low = -math.inf if self.low is None else self.low
        high = math.inf if self.high is None else self.high
        if not low <= value <= high:
            raise ValueError(
                f'{self.name}: expected a value in [{low:g}, {high:g}], got {value!r}'
            )


def _from_text(kind: type, text: str) -> Any:
    if kind is bool:
        return {'true': True, 'yes': True, '1': True, 'false': False, 'no': False, '0': False}.get(
            text.lower(), text
        )
    try:
        return kind(text)
    except ValueError:
        return text


def option(
    default: object,
    text: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[object, ...] = (),
    unit: str = '',
    live: bool = True,
    words: Mapping[str, object] | None = None,
) -> Any:
    """Declare one knob as a dataclass field; with `live=False` a change needs a reload."""
    meta = {
        'default': default,
        'text': text,
        'low': low,
        'high': high,
        'choices': tuple(choices),
        'unit': unit,
        'live': live,
        'words': tuple((words or {}).items()),
    }
    return dataclasses.field(default=default, metadata={_META: meta})


@dataclasses.dataclass(frozen=True)
class NoOptions:
    """The options of a method that has none."""


def options_of(owner: type, prefix: str = '') -> list[Option]:
    """Return every option declared in the dataclass `owner`, its name preceded by `prefix`."""
    return [
        Option(name=prefix + field.name, **field.metadata[_META])
        for field in dataclasses.fields(owner)
        if _META in field.metadata
    ]


def build_options(owner: type[T], values: Mapping[str, object], prefix: str = '') -> T:
    """Return `owner` with checked `values`; unknown names are refused."""
    known = {item.name[len(prefix) :]: item for item in options_of(owner, prefix)}
    for name in values:
        if name not in known:
            raise ValueError(f'unknown option {prefix + name!r}; choose one of {sorted(known)}')
    return owner(**{name: known[name].check(value) for name, value in values.items()})


@dataclasses.dataclass(frozen=True)
class Entry(Generic[T]):
    """One registered method: its key, what makes it and the dataclass of its options."""

    name: str
    make: T
    options: type


class Registry(Generic[T]):
    """Methods of one kind under explicit keys; an unknown key lists the known ones."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, Entry[T]] = {}

    def register(self, name: str, options: type = NoOptions) -> Callable[[T], T]:
        """Return a decorator that announces its argument as `name` with its options dataclass."""
        if name in self._entries:
            raise ValueError(f'{self.kind} {name!r} is registered twice')

        def announce(make: T) -> T:
            self._entries[name] = Entry(name, make, options)
            return make

        return announce

    def __getitem__(self, name: str) -> Entry[T]:
        try:
            return self._entries[name]
        except KeyError:
            raise ValueError(
                f'unknown {self.kind} {name!r}; choose one of {self.names()}'
            ) from None

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[Entry[T]]:
        return iter(self._entries.values())

    def names(self) -> list[str]:
        """Return the registered keys, sorted."""
        return sorted(self._entries)


class Room(Generic[T]):
    """Methods that live one to a file of a package, found by name, imported only when chosen.

    Each file offers `Options` (a frozen dataclass of `option` fields) and `load(...)`; SOURCE says
    where the method comes from, NEEDS what it cannot do without.
    """

    def __init__(self, kind: str, package: str) -> None:
        self.kind = kind
        self._package = package

    def names(self) -> list[str]:
        """Return the keys, sorted, without importing any of the files."""
        path = importlib.import_module(self._package).__path__
        return sorted(
            info.name for info in pkgutil.iter_modules(path) if not info.name.startswith('_')
        )

    def __getitem__(self, name: str) -> Entry[Callable[..., T]]:
        if name not in self.names():
            raise ValueError(f'unknown {self.kind} {name!r}; choose one of {self.names()}')
        module = importlib.import_module(f'{self._package}.{name}')
        return Entry(name, module.load, module.Options)

    def __contains__(self, name: object) -> bool:
        return name in self.names()

    def about(self, name: str) -> tuple[str, str]:
        """Return the source of a method and what it needs; ValueError for an unknown name."""
        self[name]
        module = importlib.import_module(f'{self._package}.{name}')
        return module.SOURCE, module.NEEDS
