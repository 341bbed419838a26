# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The node `record`: serialised messages of chosen topics into a bag."""

from __future__ import annotations

import difflib
import fcntl
import functools
import importlib
import itertools
import os
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rosbags.typesys import get_types_from_msg

from road_anomaly_ros.remarks import one_line
from road_anomaly_ros.ros import sim_time
from road_anomaly_ros.ros.inputs import subscribe
from road_anomaly_ros.ros.topics import message_class
from road_anomaly_ros.tools.bags import BagWriter, roll_back, type_store
from road_anomaly_ros.tools.flow import WriteBehind

NAME = 'record'
_LOOK_S = 0.1  # how often the graph is searched for topics still missing
_HINT_S = 3.0  # after which a topic that nobody publishes is pointed out
_DEPTH = 100  # messages of a topic that the middleware may hold back
_PENDING = 64  # messages that may wait for the disk
_FLUSH_S = 0.5  # after which a message outlives the process


class _Entry(NamedTuple):
    topic: str
    kind: str
    latched: bool
    stamp_ns: int
    data: bytes


class Record(Node):
    """Stores `topics` in the bag `out` until it is closed, which moves the bag to its name.

    `stop` is set when a limit is reached: `duration` in seconds after the first message,
    `messages` on the first topic; or when nothing more can be stored.
    """

    def __init__(
        self,
        topics: Sequence[str],
        out: Path,
        *,
        storage: str = 'mcap',
        duration: float | None = None,
        messages: int | None = None,
        stop: threading.Event | None = None,
        **node_arguments: Any,
    ) -> None:
        super().__init__(NAME, **node_arguments)
        self._out = out
        self._partial = Partial(out)
        self._storage = storage
        self._limit_s, self._limit = duration, messages
        self._stop = stop or threading.Event()
        self._missing = list(dict.fromkeys(self.resolve_topic_name(name) for name in topics))
        self._topics = list(self._missing)
        self._first = self._topics[0]
        self._begin: float | None = None
        self._since: float | None = time.monotonic()
        self._bag: BagWriter | None = None
        self._error = ''
        self._closed = False
        self.counts: Counter[str] = Counter()
        self._lost: Counter[str] = Counter()  # on their way, as the middleware tells
        if self._partial.recovered:
            self.get_logger().warning(self._partial.recovered)
        self._writer: WriteBehind[_Entry] = WriteBehind(
            self._write, self._finish, _PENDING, flush=self._flush, flush_s=_FLUSH_S
        )
        self.create_timer(_LOOK_S, self._look, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self._look()

    @property
    def exit_code(self) -> int:
        """0, or 1 where nothing or not everything could be stored."""
        return int(bool(self._error) or not self.counts)

    def _look(self) -> None:
        """Subscribe to the topics that have appeared in the graph, once there is a time."""
        timeless = sim_time.missing(self)
        if timeless:
            self.get_logger().warning(f'stores nothing yet: {timeless}', once=True)
            return
        known = dict(self.get_topic_names_and_types())
        for topic in [name for name in self._missing if name in known]:
            publishers = self.get_publishers_info_by_topic(topic)
            if publishers:
                self._missing.remove(topic)
                self._subscribe(topic, publishers)
        if self._missing and self._since and time.monotonic() - self._since > _HINT_S:
            self._since = None
            self._point_out([name for name in known if self.count_publishers(name)])
        if self._limit_s and self._begin and time.monotonic() - self._begin > self._limit_s:
            self._stop.set()

    def _point_out(self, published: Sequence[str]) -> None:
        """Say which topics nobody publishes, and what they may have been meant to be."""
        others = sorted(set(published) - {'/rosout', '/parameter_events', *self._topics})
        for topic in self._missing:
            near = difflib.get_close_matches(topic, others, n=1)
            hint = (
                f'; did you mean {near[0]}?'
                if near
                else f'; published are {", ".join(others[:8])}'
                if others
                else '; no other topic is published either: look at ROS_DOMAIN_ID'
            )
            self.get_logger().warning(f'waits for {topic}, which nobody publishes{hint}')

    def _subscribe(self, topic: str, publishers: Sequence[Any]) -> None:
        kind = publishers[0].topic_type
        cls = message_class(kind)
        if cls is None:
            self._fail(f'{topic} cannot be stored: {kind} is not installed')
            return
        qos = matching_qos([item.qos_profile for item in publishers])
        latched = qos.durability == DurabilityPolicy.TRANSIENT_LOCAL
        receive = functools.partial(self._receive, topic, kind, latched)
        lose = functools.partial(self._lose, topic)
        subscribe(self, cls, topic, receive, qos, lost=lose, raw=True)
        self.get_logger().info(f'stores {topic} ({kind})')

    def _receive(self, topic: str, kind: str, latched: bool, data: bytes) -> None:
        if self._stop.is_set():
            return
        self._begin = self._begin or time.monotonic()
        stamp = self.get_clock().now().nanoseconds
        try:
            self._writer.put(_Entry(topic, kind, latched, stamp, data))
        except Exception as error:
            self._fail(f'cannot store more: {one_line(error)}')
            return
        self.counts[topic] += 1
        if self._limit and self.counts[self._first] >= self._limit:
            self._stop.set()

    def _lose(self, topic: str, count: int) -> None:
        if not self._lost[topic]:
            self.get_logger().warning(
                f'messages of {topic} get lost on their way: large ones need a reliable publisher '
                "or the room that 'python -m road_anomaly_ros.ros.transport' tells of"
            )
        self._lost[topic] += count

    def _fail(self, reason: str) -> None:
        self._error = self._error or reason
        self.get_logger().error(reason)
        self._stop.set()

    def _write(self, entry: _Entry) -> None:
        if self._bag is None:  # here, because SQLite is bound to the thread
            self._bag = BagWriter(self._partial.bag, self._storage)
            self._known: set[str] = set()
        if entry.topic not in self._known:
            self._bag.add_topic(
                entry.topic, entry.kind, types=types_for(entry.kind), latched=entry.latched
            )
            self._known.add(entry.topic)
        self._bag.write_raw(entry.topic, entry.kind, entry.data, entry.stamp_ns)

    def _flush(self) -> None:
        if self._bag is not None:
            self._bag.flush()

    def _finish(self) -> None:
        if self._bag is not None:
            self._bag.close()
            check_target(self._out)  # something may have come there meanwhile
            os.replace(self._partial.bag, self._out)

    def close(self) -> None:
        """Complete the bag and say what it holds and what never came; safe to repeat."""
        if self._closed:
            return
        self._closed = True
        self._stop.set()
        self._writer.stop()
        if self._writer.error is not None:
            self._error = self._error or one_line(self._writer.error)
            left = self._partial.bag if self._partial.bag.exists() else self._out
            self.get_logger().error(f'not complete, {left} holds what came before: {self._error}')
            self._partial.close()
            return
        self._partial.remove()
        silent = [topic for topic in self._topics if not self.counts[topic]]
        if silent:
            self.get_logger().warning(f'nothing came on {", ".join(silent)}')
        for topic, count in self._lost.items():
            self.get_logger().warning(f'{count} messages of {topic} were lost on their way')
        if self.counts:
            found = ', '.join(f'{count} of {topic}' for topic, count in self.counts.items())
            self.get_logger().info(f'{self._out} holds {found}')


class Partial:
    """The hidden folder beside `out` in which its bag grows; one recording at a time holds it.

    What a recording that was killed has left there is moved to a visible name, `recovered` then
    says so in one line. Raises ValueError while another recording holds the folder.
    """

    def __init__(self, out: Path) -> None:
        self.folder = out.parent / f'.{out.name}.partial'
        self.bag = self.folder / out.name
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock: int | None = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self.close()
            raise ValueError(
                f'another recording is making {out}; choose another name or wait for it'
            ) from None
        self.recovered = self._recover(out)

    def _recover(self, out: Path) -> str:
        if not any(self.folder.iterdir()):
            return ''
        left = self.bag if self.bag.is_dir() and len(list(self.folder.iterdir())) == 1 else None
        if left is not None and not any(left.iterdir()):
            left.rmdir()
            return ''
        aside = _free_name(out)
        if left is not None:
            roll_back(left)
            os.replace(left, aside)
        else:
            aside.mkdir()
            for item in list(self.folder.iterdir()):
                os.replace(item, aside / item.name)
        return (
            f'an earlier recording of {out} was cut off; what it had is kept as {aside}, '
            f"which 'road-anomaly run' and 'road-anomaly replay' read"
        )

    def remove(self) -> None:
        """Remove the folder, which is empty when the bag was moved out of it or never begun."""
        self.folder.rmdir()
        self.close()

    def close(self) -> None:
        """Let others have the folder."""
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)


def _free_name(out: Path) -> Path:
    numbers = itertools.count(2)
    aside = out.with_name(f'{out.name}_recovered')
    while os.path.lexists(aside):
        aside = out.with_name(f'{out.name}_recovered_{next(numbers)}')
    return aside


def check_target(out: Path) -> None:
    """Raise ValueError when there is something at the place of the bag already."""
    if os.path.lexists(out):
        raise ValueError(f'{out} exists already; choose another name or move it away')


def matching_qos(offered: Sequence[QoSProfile]) -> QoSProfile:
    """Return what a subscription can ask for and still hear all publishers."""
    reliable = all(qos.reliability == ReliabilityPolicy.RELIABLE for qos in offered)
    latched = all(qos.durability == DurabilityPolicy.TRANSIENT_LOCAL for qos in offered)
    return QoSProfile(
        depth=_DEPTH,
        history=HistoryPolicy.KEEP_LAST,
        reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
    )


def types_for(kind: str) -> Any:
    """Return a type store that knows `kind`; the installed definitions fill what it lacks.

    Raises ValueError when no definition is found.
    """
    store = type_store()
    wanted = [kind]
    while wanted:
        name = wanted.pop()
        if name in store.fielddefs:
            continue
        package, _, last = name.partition('/msg/')
        path = share_of(package) / 'msg' / f'{last}.msg'
        if not path.is_file():
            raise ValueError(f'the definition of {name} is not installed, looked for {path}')
        found = get_types_from_msg(path.read_text(encoding='utf-8'), name)
        store.register(found)
        wanted += [part for part in _parts(found[name]) if part not in store.fielddefs]
    return store


def _parts(definition: Any) -> list[str]:
    """Return the names of the message types among the fields of a definition of rosbags."""
    names, waiting = [], [definition]
    while waiting:
        item = waiting.pop()
        if isinstance(item, (list, tuple)):
            waiting += item
        elif isinstance(item, str) and '/msg/' in item:
            names.append(item)
    return names


def share_of(package: str) -> Path:
    """Return the folder of a package's definitions, in a ROS distribution or beside pip wheels."""
    try:
        from ament_index_python.packages import get_package_share_directory

        return Path(get_package_share_directory(package))
    except (ImportError, LookupError, OSError):
        folder = Path(importlib.import_module(package).__file__).parent
        return folder.parents[3] / 'share' / package
