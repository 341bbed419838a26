# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The demo with the real node: two processes, one collector, the outputs of an offline run."""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from road_anomaly_ros.ros.arguments import without_log_file
from road_anomaly_ros.ros.transport import make_room, stay_local
from road_anomaly_ros.tools import run as offline
from road_anomaly_ros.tools.drive_metres import mounting_options
from road_anomaly_ros.tools.sinks import STAGES, BagSink, Sink
from road_anomaly_ros.tools.sources import open_source
from road_anomaly_ros.tools.staging import Staging

NODE, FAKE_CAMERA, REPLAY = 'anomaly_node', 'fake_camera', 'replay'
_MODULES = {NODE: 'process', FAKE_CAMERA: 'fake_camera', REPLAY: 'replay'}
_STOP_S = 20.0
_PR_SET_PDEATHSIG = 1
_FACTS = (
    'received',
    'processed',
    'dropped',
    'failed',
    'refused',
    'latency_p50_ms',
    'latency_p99_ms',
)


class Shown(NamedTuple):
    """What the camera plays."""

    path: str
    topic: str | None = None  # of a bag that has several
    size: tuple[int, int] | None = None  # (W, H) to which pictures are resized


def run(
    shown: Shown,
    config: Any,
    out: Path,
    wanted: offline.Wanted,
    *,
    keep: bool = False,
    done: Callable[[], object] = lambda: None,
) -> int:
    """Run the demo over DDS; returns 0, or 128 + the signal that stopped it.

    `done` is called when the results are there, before node and camera go on with `keep`.
    """
    with open_source(shown.path, shown.topic) as source:
        if source.drive is not None and not config.is_set('geometry.camera_height'):
            config = config.replace(mounting_options(source.drive))
        staging = Staging(out, offline.planned(wanted))
        try:
            with _environment(keep=keep), Processes() as processes:
                processes.start_node(config)
                code = _collect(processes, source, config, staging, shown, wanted)
                if code == 0:
                    done()
                if keep and code == 0:
                    _keep(processes, source, shown)
        finally:
            staging.discard()
    return code


class Processes:
    """The node and the camera, each in a process of its own, with a log; ended on exit."""

    def __init__(self) -> None:
        self._temporary = tempfile.TemporaryDirectory()
        self._folder = Path(self._temporary.name)
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *_: object) -> None:
        for name in list(self._running):
            self.end(name)
        self._temporary.cleanup()

    def start_node(self, config: Any) -> None:
        """Start the node with this configuration; its input is made reliable."""
        from road_anomaly_ros.ros.parameters import to_ros

        values = {
            name: to_ros(tuple(value) if isinstance(value, list) else value)
            for name, value in config.as_dict().items()
        }
        lossless = {'/image': {'subscription': {'reliability': 'reliable'}}}
        self._start(NODE, [], {**values, 'qos_overrides': lossless})

    def start_camera(self, source: Any, shown: Shown, *, live: bool) -> str:
        """Start the camera that plays `source`, stepped or, with `live`, at its rate for ever."""
        if source.kind == 'rendered':
            values = {
                **_drive(source, shown),
                'reliable': True,
                'truth': True,
                'drive_time': not live,
                'loop': live,
                'start_paused': not live,
            }
            self._start(FAKE_CAMERA, [], values)
            return FAKE_CAMERA
        words = [shown.path, '--reliable', *(['--loop'] if live else ['--start-paused'])]
        words += ['--decoded'] if source.kind == 'bag' else []
        words += ['--topic', shown.topic] if shown.topic else []
        if shown.size:
            words += ['--resize', '{}x{}'.format(*shown.size)]
        self._start(REPLAY, words, {})
        return REPLAY

    def _start(self, name: str, words: Sequence[str], values: Mapping[str, Any]) -> None:
        parameters = self._folder / f'{name}.yaml'
        tree = {f'/**/{name}': {'ros__parameters': dict(values)}} if values else {}
        parameters.write_text(yaml.safe_dump(tree), encoding='utf-8')
        ros = ['--ros-args', '--params-file', str(parameters)] if values else []
        # A session of its own: Ctrl-C is for us, we end the processes when all is written.
        with self._log(name).open('wb') as log:
            self._running[name] = subprocess.Popen(
                [sys.executable, '-m', f'road_anomaly_ros.ros.{_MODULES[name]}', *words, *ros],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )

    def check(self, *names: str) -> None:
        """Raise ChildProcessError, with its last words, when a process (all if none) has ended."""
        for name in names or self._running:
            if not self.alive(name):
                raise ChildProcessError(
                    f'{name} ended with code {self._running[name].returncode}: '
                    f'{self.lines(name)[-1]}'
                )

    def alive(self, name: str) -> bool:
        """Tell whether a process runs."""
        return self._running[name].poll() is None

    def is_going(self, camera: str) -> bool:
        """Tell whether the camera runs; raises ChildProcessError when the node does not."""
        self.check(NODE)
        return self.alive(camera)

    def lines(self, name: str) -> list[str]:
        """Return what a process has said, at least one line."""
        text = self._log(name).read_text(encoding='utf-8', errors='replace')
        return [line.strip() for line in text.splitlines() if line.strip()] or ['no word']

    def remarks(self, camera: str) -> list[str]:
        """Return what a camera that has ended by itself says about its input, or of its end."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._running[camera].wait(_STOP_S)
        lines = self.lines(camera)
        accounts = [line.split('; ')[1:] for line in lines if ': sent ' in line]
        return [part for parts in accounts for part in parts] if accounts else lines[-1:]

    def end(self, name: str) -> int:
        """End a process as Ctrl-C would; returns its exit code."""
        process = self._running.pop(name)
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        try:
            return process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()

    def _log(self, name: str) -> Path:
        return self._folder / f'{name}.log'


class LivePipeline:
    """What stands in for the pipeline: hands out the results that the collector has gathered."""

    def __init__(self, source: Any, config: Any, row: Any) -> None:
        import torch

        values = {pair.key: pair.value for pair in row.values} if row is not None else {}
        named = {name: values[name] for name in ('scorer', 'refinements') if name in values}
        self.chain = config.replace(named)
        self.device = torch.device(values.get('device', 'cpu'))
        self._results = source.results

    def warm_up(self, size: tuple[int, int] | None = None) -> None:
        """Do nothing: the node has done it."""

    def __call__(self, image: Any, stamp: float | None = None) -> Any:
        """Return the result of the next picture."""
        return self._results.popleft()


class LiveBag(BagSink):
    """A bag that holds what the node has published in metres, too."""

    def write(self, done: Any) -> None:
        """Append the frame's messages."""
        from rclpy.serialization import serialize_message

        super().write(done)
        for topic, message in done.result.metres.items():
            kind = f'{type(message).__module__.split(".")[0]}/msg/{type(message).__name__}'
            data = serialize_message(message)
            self.bag.write_raw(f'/{NODE}/{topic}', kind, data, done.frame.stamp_ns)


class Account(Sink):
    """What the node and the collector counted, for summary.json; writes no file."""

    def __init__(self, path: Path, source: Any, collector: Any) -> None:
        super().__init__(path)
        self._source, self._collector = source, collector
        self._done = 0

    def write(self, done: Any) -> None:
        """Count one frame."""
        self._done += 1

    def finish(self) -> None:
        """Wait for a report that knows of the last picture."""
        self._collector.wait_for_reports(2, 5.0)

    def figures(self) -> dict[str, Any]:
        """Return the account and the node's own times per stage."""
        camera, chain = (_values(self._collector.rows.get(part)) for part in ('camera', 'chain'))
        stages = {
            stage: {'p50': float(chain[f'{stage}_p50_ms']), 'p99': float(chain[f'{stage}_p99_ms'])}
            for stage in STAGES
            if f'{stage}_p50_ms' in chain
        }
        return {
            'stages_ms': stages,
            'live': {
                'published': self._source.published,
                'collected': self._done,
                'without_result': sum(self._source.refused.values()),
                'node': {name: float(camera[name]) for name in _FACTS if name in camera},
            },
        }


def defaults_set(config: Any) -> dict[str, Any]:
    """Return the options that were set to their default, as ROS stores them.

    Given at its start the node would leave them to the calibration.
    """
    from road_anomaly_ros.perception.config import parameter
    from road_anomaly_ros.ros.parameters import to_ros

    return {
        name: to_ros(value) for name, value in config.values if value == parameter(name).default
    }


def _collect(
    processes: Processes,
    source: Any,
    config: Any,
    staging: Staging,
    shown: Shown,
    wanted: offline.Wanted,
) -> int:
    from road_anomaly_ros.ros import collector as gathering

    topics = gathering.NEEDED + ((gathering.LABELS,) if wanted.bag else ())
    camera = processes.start_camera(source, shown, live=False)
    placed = wanted.bag and config.is_set('geometry.camera_height')
    metres = gathering.METRES if placed else ()
    truth = source.kind == 'rendered'
    with _spinning(topics, camera, truth=truth, metres=metres) as collector:
        print('starting the node', file=sys.stderr)
        collector.wait_until_ready(processes.check)
        wishes = defaults_set(config)
        if wishes:
            collector.set_parameters_of_node(wishes)
        live = gathering.LiveSource(
            collector,
            source,
            lambda: processes.is_going(camera),
            lambda: processes.remarks(camera),
        )
        pipeline: Any = LivePipeline(live, config, collector.rows.get('chain'))
        code = offline.execute(
            live,
            pipeline,
            staging,
            wanted,
            draw=lambda result: result.overlay,
            bag=LiveBag,
            more=[
                *offline.track_sinks(config, staging),
                Account(staging.path('account'), live, collector),
            ],
        )
    processes.end(camera)
    return code


@contextlib.contextmanager
def _spinning(wanted: tuple[str, ...], camera: str, **more: Any) -> Iterator[Any]:
    """Yield a collector that is served in the background."""
    import rclpy
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.signals import SignalHandlerOptions

    from road_anomaly_ros.ros.collector import Collector

    context = rclpy.Context()
    rclpy.init(
        args=without_log_file(), context=context, signal_handler_options=SignalHandlerOptions.NO
    )
    collector = Collector(wanted, camera=camera, context=context, **more)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(collector)
    ending = threading.Event()

    def spin() -> None:
        while not ending.is_set():
            executor.spin_once(timeout_sec=0.1)

    thread = threading.Thread(target=spin, name='collector', daemon=True)
    thread.start()
    try:
        yield collector
    finally:
        ending.set()
        thread.join()
        executor.shutdown()
        collector.destroy_node()
        rclpy.try_shutdown(context=context)


def _keep(processes: Processes, source: Any, shown: Shown) -> None:
    """Go on at the camera's own rate until Ctrl-C."""
    processes.start_camera(source, shown, live=True)
    print(
        'node and camera go on: look at /anomaly_node/overlay and /image in RViz or Foxglove; '
        'Ctrl-C ends them'
    )
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            processes.check()
            threading.Event().wait(0.5)


def _die_with_parent() -> None:
    """Ask Linux for SIGTERM when the demo is killed, which no handler of ours would see."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))


def _drive(source: Any, shown: Shown) -> dict[str, Any]:
    from dataclasses import asdict

    values = asdict(source.options)
    if shown.size:
        values['width'], values['height'] = shown.size
    return values


def _values(row: Any) -> dict[str, str]:
    return {pair.key: pair.value for pair in row.values} if row is not None else {}


@contextlib.contextmanager
def _environment(*, keep: bool) -> Iterator[None]:
    """Keep the demo to this machine and, unless it stays for others to look at, to itself."""
    before = dict(os.environ)
    make_room()
    stay_local()
    if not keep:
        os.environ.setdefault('ROS_DOMAIN_ID', str(random.SystemRandom().randint(1, 101)))
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
