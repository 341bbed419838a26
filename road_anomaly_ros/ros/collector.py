# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What a node publishes, gathered picture by picture, as a source of frames with their results."""

from __future__ import annotations

import dataclasses
import json
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.srv import SetParametersAtomically
from rclpy.node import Node
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image
from std_msgs.msg import String
from std_srvs.srv import Trigger

from road_anomaly_ros.perception import AnomalyObject, FrameResult, LabelSet
from road_anomaly_ros.perception.contract import UNLABELLED
from road_anomaly_ros.perception.geometry import Survey
from road_anomaly_ros.perception.parameter_file import NODE
from road_anomaly_ros.ros import images
from road_anomaly_ros.ros.controls import ENDED, STEP_S, camera_qos
from road_anomaly_ros.ros.health import TOPIC as DIAGNOSTICS
from road_anomaly_ros.ros.outputs import message_type, offered
from road_anomaly_ros.tools.results import (
    INSTANCES,
    LABELS,
    MASK,
    OUTPUTS,
    OVERLAY,
    RUN_LENGTHS,
    SCORE,
)
from road_anomaly_ros.tools.sources import Frame, Source

RESULT_S = 30.0  # longest wait for the results of one picture
READY_S = 300.0  # for a model that loads on a busy machine
NO_RESULT = 'no result'
NEEDED = (OVERLAY, SCORE, MASK, INSTANCES, RUN_LENGTHS)
# What the text of the obstacles tells and no map does.
_TOLD: dict[str, Any] = {
    'track_id': int,
    'confirmed': bool,
    'age_s': float,
    'velocity': tuple,
    'distance': float,
}
# As a bag holds them.
METRES = tuple(row.topic for row in OUTPUTS if row.recorded and row.source is Survey)
TRUTH, DEPTH = _TRUTHS = ('instances', 'depth')  # below the camera's ~/truth
_PROBE = 'probe'
_PROBE_S = 0.5
_REPORT_S = 5.0  # reports of /diagnostics come every second
_DEPTH = 8


@dataclass(frozen=True)
class LiveResult(FrameResult):
    """A result as it was published, with the overlay that the node drew."""

    overlay: Any = None  # uint8 RGB [H, W, 3]
    metres: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # messages by topic
    sanitized: Any = None  # no topic tells of which frame


class Collector(Node):
    """Subscribes to a camera, the outputs named in `wanted` and, with `truth`, a ground truth.

    Messages are gathered by their headers; everything is asked for reliably. Nothing waits for
    the outputs in `metres`: what has come by then is taken.
    """

    def __init__(
        self,
        wanted: tuple[str, ...],
        *,
        camera: str,
        truth: bool = False,
        metres: Iterable[str] = (),
        **node_arguments: Any,
    ) -> None:
        super().__init__('demo', **node_arguments)
        self._changed = threading.Condition()
        self._wanted = {*wanted, *_TRUTHS} if truth else {*wanted}
        self._found: dict[Any, dict[str, Any]] = {}
        self._pictures: deque[tuple[float, Any]] = deque()
        self.rows: dict[str, Any] = {}  # newest row of /diagnostics by its last word
        self.reports = 0
        qos = camera_qos(reliable=True, depth=_DEPTH)
        self.create_subscription(Image, 'image', self._on_picture, qos)
        for name in _TRUTHS if truth else ():
            self._hear(Image, f'{camera}/truth/{name}', name, qos)
        for output in offered(debug=False):
            kind = message_type(output) if output.topic in (*wanted, *metres) else None
            if kind is not None:
                self._hear(kind, f'{NODE}/{output.topic}', output.topic, qos)
        self.create_subscription(DiagnosticArray, DIAGNOSTICS, self._on_report, 10)
        self._probes = self.create_publisher(Image, 'image', qos)
        self._step = self.create_client(Trigger, f'{camera}/play_next')

    def _hear(self, kind: type, topic: str, name: str, qos: Any) -> None:
        self.create_subscription(kind, topic, lambda message: self._add(name, message), qos)

    def _on_picture(self, message: Any) -> None:
        if message.header.frame_id != _PROBE:
            with self._changed:
                self._pictures.append((time.monotonic(), message))
                self._changed.notify_all()

    def _add(self, name: str, message: Any) -> None:
        with self._changed:
            self._found.setdefault(_key(message), {})[name] = message
            self._changed.notify_all()

    def _on_report(self, message: Any) -> None:
        with self._changed:
            for row in message.status:
                path, _, part = row.name.rpartition(': ')
                if path == self.resolve_topic_name(NODE):
                    self.rows[part] = row
            self.reports += 1
            self._changed.notify_all()

    def wait_until_ready(self, alive: Callable[[], None]) -> None:
        """Send small pictures until one has come back on every topic.

        Only this proves that both sides know of each other. `alive` raises when a process is gone.
        Raises TimeoutError, and ValueError with the reason when the node cannot be configured.
        """
        ready, end = self._wanted - {*_TRUTHS}, time.monotonic() + READY_S
        message = images.to_message(np.zeros((48, 64, 3), np.uint8), 'rgb8', Image().header)
        message.header.frame_id = _PROBE
        while time.monotonic() < end:
            alive()
            self._refuse_fault()
            self._probes.publish(message)
            with self._changed:
                if self._changed.wait_for(
                    lambda: ready <= self._found.get(_key(message), {}).keys(), _PROBE_S
                ):
                    self._found.clear()
                    self.destroy_publisher(self._probes)
                    self._changed.wait_for(self._knows_chain, _REPORT_S)
                    return
        raise TimeoutError(f'the node gave no result within {READY_S:.0f} s')

    def set_parameters_of_node(self, values: Mapping[str, Any]) -> None:
        """Set parameters of the node while it runs.

        Raises TimeoutError, and ValueError with the reason where the node refuses.
        """
        client = self.create_client(SetParametersAtomically, f'{NODE}/set_parameters_atomically')
        given = [Parameter(name, value=value).to_parameter_msg() for name, value in values.items()]
        answered = threading.Event()
        if client.wait_for_service(READY_S):
            future = client.call_async(SetParametersAtomically.Request(parameters=given))
            future.add_done_callback(lambda _: answered.set())
            answered.wait(RESULT_S)
        if not answered.is_set():
            raise TimeoutError('the node does not answer to parameters')
        if not future.result().result.successful:
            raise ValueError(future.result().result.reason)

    def _knows_chain(self) -> bool:
        row = self.rows.get('chain')
        return row is not None and any(pair.key == 'scorer' for pair in row.values)

    def _refuse_fault(self) -> None:
        row = self.rows.get('chain')
        if row is not None and row.level == row.ERROR:
            raise ValueError(row.message)

    def next_picture(self, going: Callable[[], bool]) -> tuple[float, Any] | None:
        """Ask the camera for a picture; returns moment and message, None at its end.

        `going` tells whether the camera runs, and raises when the node does not. Raises
        TimeoutError where the camera runs but gives no picture: that is not its end.
        """
        # What is asked before the camera is known is lost, and a busy machine finds it late.
        if not self._wait(self._step.service_is_ready, going, READY_S, 'cannot be reached'):
            return None
        future = self._step.call_async(Trigger.Request())
        asked = self._wait(
            lambda: future.done() or self._pictures, going, 2 * STEP_S, 'does not answer'
        )
        if not asked:
            return None
        if future.done() and not future.result().success:
            if future.result().message == ENDED:
                return None
            raise TimeoutError(f'the camera gives no picture: {future.result().message}')
        with self._changed:
            if not self._changed.wait_for(lambda: self._pictures, STEP_S):
                raise TimeoutError(f'the picture of the camera did not come within {STEP_S:.0f} s')
            return self._pictures.popleft()

    def _wait(
        self, ready: Callable[[], Any], going: Callable[[], bool], seconds: float, fault: str
    ) -> bool:
        """Wait until `ready`; False where a camera whose input ended has left before."""
        end = time.monotonic() + seconds
        while not ready():
            if not going():
                return False
            if time.monotonic() > end:
                raise TimeoutError(f'the camera {fault}, waited {seconds:.0f} s')
            with self._changed:
                self._changed.wait(0.05)
        return True

    def results(self, picture: Any) -> dict[str, Any] | None:
        """Wait for what belongs to a picture; None when it does not come."""
        key = _key(picture)
        with self._changed:
            self._changed.wait_for(
                lambda: self._wanted <= self._found.get(key, {}).keys(), RESULT_S
            )
            found = self._found.pop(key, {})
            self._found.clear()  # nothing else can still be of use
            return found if self._wanted <= found.keys() else None

    def wait_for_reports(self, count: int, seconds: float) -> None:
        """Wait until `count` more reports of /diagnostics have come."""
        with self._changed:
            wanted = self.reports + count
            self._changed.wait_for(lambda: self.reports >= wanted, seconds)


class LiveSource(Source):
    """Pictures of a camera that is stepped, each once the node's results for it are there.

    `results` holds the result of each picture that was handed out and not yet asked for. Pictures
    without a result are counted in `refused`; `remarks` returns what the camera says of its input.
    """

    def __init__(
        self,
        collector: Collector,
        like: Source,
        going: Callable[[], bool],
        remarks: Callable[[], list[str]] = list,
    ) -> None:
        super().__init__(
            name=like.name,
            kind=like.kind,
            fps=like.fps,
            count=like.count,
            topic=like.topic,
            drive=like.drive,
        )
        self._collector, self._going, self._remarks = collector, going, remarks
        self.results: deque[LiveResult] = deque()
        self.published = 0

    def __iter__(self) -> Iterator[Frame]:
        while (found := self._collector.next_picture(self._going)) is not None:
            moment, message = found
            self.published += 1
            maps = self._collector.results(message)
            if maps is None:
                self.leave_out(NO_RESULT, str(self.published - 1))
                continue
            age = (time.monotonic() - moment) * 1e3
            picture = images.to_array(message)
            self.results.append(to_result(picture, maps, age))
            stamp = message.header.stamp
            yield Frame(
                picture,
                stamp.sec * 10**9 + stamp.nanosec,
                str(self.published - 1),
                message.header.frame_id,
                truth=images.to_map(maps[TRUTH]) if TRUTH in maps else None,
                depth=images.to_map(maps[DEPTH]) if DEPTH in maps else None,
            )
        self.problem = '; '.join(self._remarks()) or None


def to_result(picture: np.ndarray, maps: dict[str, Any], age: float) -> LiveResult:
    """Return published maps as a result; `age` is its time from picture to result in ms."""
    named = (SCORE, INSTANCES, MASK)
    score, instances, mask = (images.to_map(maps[name]) for name in named)
    unknown = np.full(score.shape, UNLABELLED, np.uint8)
    labels = images.to_map(maps[LABELS]) if LABELS in maps else unknown
    objects, around = told(describe(instances, score), maps[RUN_LENGTHS].data)
    return LiveResult(
        image=torch.from_numpy(picture).permute(2, 0, 1),
        labels=torch.from_numpy(labels),
        score=torch.from_numpy(score),
        mask=torch.from_numpy(mask > 0),
        instances=torch.from_numpy(instances.astype(np.int32)),
        objects=objects,
        label_set=around,
        scorer='',
        threshold=0.0,
        threshold_source='default',
        display_range=(0.0, 1.0),
        timings={'total': age},
        overlay=images.to_array(maps[OVERLAY]),
        metres={name: maps[name] for name in METRES if name in maps},
    )


def describe(instances: np.ndarray, score: np.ndarray) -> tuple[AnomalyObject, ...]:
    """Return the obstacles of a map of ids [H, W], 0 none, with their scores float32 [H, W]."""
    found = []
    for number in np.unique(instances[instances > 0]).tolist():
        rows, columns = np.nonzero(instances == number)
        scores = score[rows, columns]
        known = scores[~np.isnan(scores)]
        mean, top, high = (
            (known.mean(), known.max(), np.quantile(known, 0.95)) if len(known) else (np.nan,) * 3
        )
        x, y = int(columns.min()), int(rows.min())
        found.append(
            AnomalyObject(
                id=int(number),
                box=(x, y, int(columns.max()) - x + 1, int(rows.max()) - y + 1),
                centroid=(float(columns.mean()), float(rows.mean())),
                area=len(rows),
                score=float(mean),
                score_max=float(top),
                score_p95=float(high),
                label=UNLABELLED,
            )
        )
    return tuple(found)


def told(
    objects: tuple[AnomalyObject, ...], text: str
) -> tuple[tuple[AnomalyObject, ...], LabelSet]:
    """Return obstacles with what the node's JSON says of them, and the classes around them."""
    rows = {row['id']: row for row in json.loads(text)['objects']}
    names = sorted({row['around'] for row in rows.values()} - {None})
    known = {
        number: {
            'label': names.index(row['around']) if row['around'] in names else UNLABELLED,
            **{name: kind(row[name]) for name, kind in _TOLD.items() if row.get(name) is not None},
        }
        for number, row in rows.items()
    }
    found = tuple(dataclasses.replace(item, **known.get(item.id, {})) for item in objects)
    return found, LabelSet(tuple(names), ((0, 0, 0),) * len(names))


def _key(message: Any) -> tuple[int, int]:
    """Return the moment of a message; pictures and metres have different coordinate frames."""
    if isinstance(message, String):
        seconds, _, nanoseconds = json.loads(message.data)['stamp'].partition('.')
        return int(seconds), int(nanoseconds)
    stamp = (message if hasattr(message, 'header') else message.markers[0]).header.stamp
    return stamp.sec, stamp.nanosec
