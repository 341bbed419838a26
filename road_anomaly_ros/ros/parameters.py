# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Options of chain and node as described, bounded ROS parameters that change atomically."""

from __future__ import annotations

import contextlib
import difflib
import math
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from rcl_interfaces.msg import ParameterDescriptor, SetParametersResult
from rclpy.parameter import Parameter

from road_anomaly_ros.perception import PipelineConfig, naming, parameter_file
from road_anomaly_ros.perception.config import AUTO, METHODS, parameters
from road_anomaly_ros.perception.geometry.options import of_camera
from road_anomaly_ros.perception.parameter_file import FOREIGN
from road_anomaly_ros.perception.registry import Option, build_options, option, options_of
from road_anomaly_ros.remarks import one_line
from road_anomaly_ros.ros.descriptors import describe
from road_anomaly_ros.ros.engine import RELOAD_REMEDY
from road_anomaly_ros.ros.inputs import RELIABILITIES

(EMPTY,) = parameter_file.EMPTY  # ROS cannot pass an empty list, so it is written ['none']
_NAMES = {
    'scorer': 'scorer',
    'refinements': 'refinement',
    'segments': 'segments',
    'segmenter': 'segmenter',
    'tracker': 'tracker',
}


@dataclass(frozen=True)
class NodeOptions:
    """What concerns the node and not the chain."""

    autostart: bool = option(
        True,
        'Configure and activate at start; false leaves both to a lifecycle manager.',
        live=False,
    )
    cameras: tuple[str, ...] = option(
        (),
        "Names of the cameras, each with topics under its name; 'none' for one without.",
        live=False,
    )
    image_transport: str = option(
        'raw',
        "Kind of input: 'raw' reads image, 'compressed' image/compressed (pictures or video), "
        "'ffmpeg' image/ffmpeg, 'foxglove' image/foxglove; where their messages are installed.",
        choices=('raw', 'compressed', 'ffmpeg', 'foxglove'),
        live=False,
    )
    reliability: str = option(
        'auto',
        "How images are asked for: 'auto' is reliable where the camera offers that, which "
        'loses no large ones, else best effort.',
        choices=RELIABILITIES,
        live=False,
    )
    max_pixels: int = option(
        1 << 26,
        'Images with more pixels are refused before they are decoded.',
        low=1,
        high=1 << 30,
    )
    max_batch: int = option(
        8,
        'Most images handed to the model at once when there are several cameras.',
        low=1,
        high=64,
    )
    jpeg_quality: int = option(90, 'Quality of the pictures on .../compressed.', low=1, high=100)
    debug_topics: bool = option(
        False,
        'Offer the stages of the score as pictures on ~/debug/..., each made only while '
        'somebody listens.',
        live=False,
    )
    stale_after: float = option(
        3.0, 'Silence of a camera that is reported as a fault.', low=0.2, high=60.0, unit='s'
    )
    anomaly_tolerance: float = option(
        0.05,
        'Largest difference of the stamps of an image and its map on anomaly_in, which the '
        "segmenter 'external' needs.",
        low=0.0,
        high=10.0,
        unit='s',
        live=False,
    )
    fallback_to_cpu: bool = option(
        False, 'Go on with the CPU when the device runs out of memory, instead of stopping.'
    )


def node_parameters(segmenter: str | None = None, cameras: Iterable[str] = ()) -> list[Option]:
    """Return every option that the node declares, those of the node first."""
    mountings = [item for camera in cameras for item in of_camera(camera)]
    return options_of(NodeOptions) + parameters(segmenter) + mountings


def to_ros(value: Any) -> Any:
    """Return an option's value as ROS stores it: lists of texts, which alone may hold 'none'."""
    if isinstance(value, tuple):
        return [str(part) for part in value] or [EMPTY]
    return value


def from_ros(item: Option, value: Any) -> Any:
    """Return a parameter's value in the option's type; raises TypeError and ValueError."""
    if item.kind is tuple and not isinstance(value, str):
        value = [part for part in value or () if part not in ('', EMPTY)]
    elif item.kind is tuple and value.strip() in ('', EMPTY):
        value = ()
    return item.check(value)


def descriptor(item: Option) -> ParameterDescriptor:
    """Return the text, the range and the choices of an option as ROS shows them."""
    described = describe(item)
    described.read_only = False
    described.additional_constraints = '; '.join(_constraints(item))
    # A NaN default means 'taken from the model'; no range holds NaN, so the validator checks it.
    if item.kind is float and math.isnan(item.default):
        described.floating_point_range = []
    return described


def _constraints(item: Option) -> list[str]:
    found = []
    choices = list(item.choices)
    if not choices and item.name in _NAMES:
        extra = [AUTO] if AUTO in (item.default if item.kind is tuple else (item.default,)) else []
        choices = extra + METHODS[_NAMES[item.name]].names()
    if choices:
        several = item.kind is tuple
        found.append(f"any of {choices} or ['{EMPTY}']" if several else f'one of {choices}')
    if item.kind is tuple and item.low is not None:
        found.append(f"numbers from {item.low:g} to {item.high:g}, or ['{EMPTY}']")
    if not item.live:
        found.append('accepted only while unconfigured')
    return found


class Parameters:
    """Declares the options on a node and turns every accepted change into new frozen settings.

    Declared are those of the node, of what is chosen, and what was given or asked for by its name;
    the value of another one, given at start, is in force once its method is chosen.
    `check(config)` may raise ValueError or PipelineError to refuse a configuration;
    `apply(config, options)` takes over what was accepted; `locked()` tells whether a model is
    loaded, which shuts what is not live.
    """

    def __init__(
        self,
        node: Any,
        *,
        check: Callable[[PipelineConfig], None],
        apply: Callable[[PipelineConfig, NodeOptions], None],
        locked: Callable[[], bool],
    ) -> None:
        self._node = node
        self._check = check
        self._apply = apply
        self._locked = locked
        self._options: dict[str, Option] = {}
        self._values: dict[str, Any] = {}
        # Set at run time: wins over the calibration even where it is the default.
        self._touched: set[str] = set()
        self._declared: set[str] = set()
        self._declaring = threading.RLock()  # a model that was loaded shows its chain meanwhile
        self.config = PipelineConfig()
        self.options = NodeOptions()
        self._install()

    def _install(self) -> None:
        given = getattr(self._node, '_parameter_overrides', {})
        self._tell_former(given)
        self._overrides = naming.renamed(given)
        self._node.add_on_set_parameters_callback(self._validate)
        # Humble has no callbacks before and after a change: there all is declared at once, and
        # the last on-set callback takes the place of the post-set one.
        has_pre_set = hasattr(self._node, 'add_pre_set_parameters_callback')
        self._has_post_set = hasattr(self._node, 'add_post_set_parameters_callback')
        self._learn(node_parameters())
        self._learn(node_parameters(self._values['segmenter'], self._values['cameras']))
        self.config, self.options = self._build(self._values)
        if has_pre_set:
            self._node.add_pre_set_parameters_callback(self._normalize)
        else:
            self.declare(self._options)
        self.show(self.config)
        if self._has_post_set:
            self._node.add_post_set_parameters_callback(self._take_over)
        self._warn_unknown(self._overrides)

    def _learn(self, items: Iterable[Option]) -> None:
        """Take options with the values given at start, cast: rclpy refuses 1 for a double."""
        for item in items:
            if item.name not in self._options:
                given = self._overrides.get(item.name)
                value = item.default if given is None else from_ros(item, given.value)
                self._options[item.name], self._values[item.name] = item, value

    def show(self, chain: PipelineConfig, *groups: str) -> None:
        """Declare what concerns a chain or these groups, and what is not at its default."""
        shown = {*_groups(chain), *groups}
        for name, item in list(self._options.items()):
            group = name.rpartition('.')[0]
            if group.startswith('geometry.'):  # of one camera
                group = 'geometry'
            if group in shown or not _same(self._values[name], item.default):
                self.declare([name])

    def declare(self, names: Iterable[str]) -> None:
        """Declare the options of these names; other names and declared ones are passed over."""
        with self._declaring:
            for name in names:
                item = self._known(name)
                if item is None or name in self._declared:
                    continue
                value = to_ros(self._values[name])
                self._node.declare_parameter(name, value, descriptor(item), ignore_override=True)
                self._declared.add(name)

    def _known(self, name: str) -> Option | None:
        """Return an option by name, also one of a segmenter that is not chosen."""
        if name not in self._options and self._is_of_other_segmenter(name):
            self._learn(node_parameters(name.split('.')[1]))
        return self._options.get(name)

    def _warn_unknown(self, names: Iterable[str]) -> None:
        for name in sorted(names):
            known = name in self._options or name.startswith(FOREIGN)
            if known or self._is_of_other_segmenter(name):
                continue
            near = difflib.get_close_matches(name, self._options, n=1)
            hint = f'; did you mean {near[0]}?' if near else ''
            self._node.get_logger().warning(f'parameter {name} is unknown and has no effect{hint}')

    def _is_of_other_segmenter(self, name: str) -> bool:
        parts = name.split('.')
        own = parts[0] == naming.FOLDERS['segmenter']
        return len(parts) == 3 and own and parts[1] in METHODS['segmenter']

    def _tell_former(self, names: Iterable[str]) -> None:
        told = naming.remark(names)
        if told:
            self._node.get_logger().warning(told)

    def _normalize(self, given: Sequence[Parameter]) -> list[Parameter]:
        """Bring values into the declared type where safe: 1 for a double, 'a,b' for a list."""
        found = []
        self._tell_former(parameter.name for parameter in given)
        for parameter in given:
            name = naming.current(parameter.name)
            if name != parameter.name:
                parameter = Parameter(name, parameter.type_, parameter.value)
            self.declare([name])
            if not self._node.has_parameter(name):  # rclpy refuses it without its name
                self._warn_unknown([name])
            item = self._options.get(name)
            if item is not None:
                # What cannot be brought there is left for the validator, which says why.
                with contextlib.suppress(TypeError, ValueError):
                    value = to_ros(from_ros(item, parameter.value))
                    parameter = Parameter(name, value=value)
            found.append(parameter)
        return found

    def _validate(self, given: Sequence[Parameter]) -> SetParametersResult:
        try:
            changes = self._changes(given)
            if changes:
                self._accept(changes)
        except Exception as error:  # the reason of a refusal, never the end of the node
            return SetParametersResult(successful=False, reason=one_line(error))
        if not self._has_post_set:
            self._take_over(given)
        return SetParametersResult(successful=True)

    def _changes(self, given: Sequence[Parameter]) -> dict[str, Any]:
        """Return the changed options; what is about to be declared is no change."""
        return {
            parameter.name: from_ros(self._options[parameter.name], parameter.value)
            for parameter in given
            if parameter.name in self._declared
        }

    def _accept(self, changes: Mapping[str, Any]) -> None:
        for name, value in changes.items():
            changed = not _same(value, self._values[name])
            if changed and self._locked() and not self._options[name].live:
                raise ValueError(f'{name} takes effect when the model is loaded: {RELOAD_REMEDY}')
        config, _ = self._build({**self._values, **changes}, set(changes))
        self._check(config)

    def _take_over(self, given: Sequence[Parameter]) -> None:
        changes = self._changes(given)
        if not changes:
            return
        self._values.update(changes)
        self._touched |= set(changes)
        self._learn(node_parameters(self._values['segmenter'], self._values['cameras']))
        self.config, self.options = self._build(self._values)
        self.show(self.config)
        self._apply(self.config, self.options)

    def _build(
        self, values: Mapping[str, Any], touched: Iterable[str] = ()
    ) -> tuple[PipelineConfig, NodeOptions]:
        """Return frozen settings; what is left at its default stays open for the calibration."""
        own = {field.name for field in fields(NodeOptions)}
        touched = self._touched | set(touched)
        chain = {
            name: value
            for name, value in values.items()
            if name not in own
            and (
                '.' not in name or name in touched or not _same(value, self._options[name].default)
            )
        }
        return (
            PipelineConfig.from_any(chain),
            build_options(NodeOptions, {name: values[name] for name in own if name in values}),
        )


def _groups(chain: PipelineConfig) -> set[str]:
    """Return the groups and methods that a chain is made of; 'auto' is no method."""
    listed = chain.needs_segments or chain.segments != PipelineConfig.segments
    named = {
        'segmenter': (chain.segmenter,),
        'scorer': (chain.scorer,),
        'refinement': chain.refinements,
        'tracker': (chain.tracker,),
        'segments': (chain.segments,) if listed else (),
    }
    methods = {
        naming.prefix(kind, name).rstrip('.') for kind, names in named.items() for name in names
    }
    places = {'geometry'} if any(name.startswith('geometry.') for name, _ in chain.values) else ()
    return {'', 'objects', 'drawing', *places, *methods}


def _same(left: Any, right: Any) -> bool:
    both_float = isinstance(left, float) and isinstance(right, float)
    return left == right or (both_float and math.isnan(left) and math.isnan(right))
