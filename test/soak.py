# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""The node under load for as long as one likes: two cameras, changing settings and listeners.

`make soak` runs it for an hour and prints a line for docs/reliability.md.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import itertools
import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image

SIZE = (120, 160)
OUTPUTS = ('anomaly/score', 'obstacle/mask', 'overlay', 'semantic/labels')
CHANGES = (
    {'scorer': 'rba'},
    {'objects.min_area': 50},
    {'refinements': ['gaussian']},
    {'scorer': 'plain'},
    {'jpeg_quality': 60},
    {'refinements': ['none']},
    {'objects.min_area': 500},
)
CHANGE_S, LISTEN_S, DEADLINE_S = 0.5, 1.0, 60.0


@dataclass
class Figures:
    """What was seen at one moment after the other."""

    moments: list[float] = field(default_factory=list)
    resident: list[float] = field(default_factory=list)  # MiB
    p99: list[float] = field(default_factory=list)  # ms from arrival to published
    threads: list[int] = field(default_factory=list)
    files: list[int] = field(default_factory=list)

    def note(self, cameras, begin):
        """Take the figures of this process now."""
        from road_anomaly_ros.ros.health import resident_bytes

        self.moments.append(time.monotonic() - begin)
        self.resident.append(resident_bytes() / 2**20)
        self.p99.append(max(camera.stats.latency.percentiles()[1] for camera in cameras))
        self.threads.append(len(os.listdir('/proc/self/task')))
        self.files.append(len(os.listdir('/proc/self/fd')))

    def line(self):
        """Return slope and drift as a row of a Markdown table."""
        hours = np.asarray(self.moments) / 3600
        slope, error = slope_of(hours, np.asarray(self.resident))
        third = max(1, len(self.p99) // 3)
        first, last = (float(np.nanmedian(part)) for part in (self.p99[:third], self.p99[-third:]))
        return (
            f'| {self.moments[-1]:.0f} s | {slope:+.1f} ± {2 * error:.1f} MiB/h '
            f'| {first:.1f} → {last:.1f} ms ({100 * (last / first - 1):+.1f} %) '
            f'| {self.threads[-1] - self.threads[0]:+d} '
            f'| {self.files[-1] - self.files[0]:+d} |'
        )


def slope_of(x, y):
    """Return the slope of a straight line through points, and its standard error."""
    if len(x) < 3:
        return float('nan'), float('nan')
    (slope, _), covariance = np.polyfit(x, y, 1, cov='unscaled')
    rest = np.asarray(y) - np.polyval(np.polyfit(x, y, 1), x)
    covariance = covariance * (rest @ rest) / (len(x) - 2)
    return float(slope), float(np.sqrt(covariance[0, 0]))


def set_parameters(node, changes):
    """Set parameters as a service would; each must be accepted."""
    answers = node.set_parameters(
        [Parameter(name, value=value) for name, value in changes.items()]
    )
    assert all(answer.successful for answer in answers), answers


def listen(namespace, cameras):
    """Hear one output of one camera after the other until standard input ends; print the count."""
    rclpy.init()
    node, heard = rclpy.create_node('listener', namespace=namespace), []
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    subscription, until = None, 0.0
    print('listening', flush=True)
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    topics = [f'anomaly_node/{camera}/{output}' for output in OUTPUTS for camera in cameras]
    for topic in itertools.cycle(topics):
        if ended.is_set():
            break
        if subscription is not None:
            node.destroy_subscription(subscription)
        subscription = node.create_subscription(Image, topic, lambda _: heard.append(1), 1)
        until = time.monotonic() + LISTEN_S
        while time.monotonic() < until and not ended.is_set():
            executor.spin_once(timeout_sec=0.05)
    print(len(heard), flush=True)
    executor.shutdown()
    node.destroy_node()
    rclpy.try_shutdown()


@contextlib.contextmanager
def listener(graph, cameras):
    """Run `listen` in a process of its own; yields a list that holds the count afterwards.

    Fast DDS keeps 240 bytes of every subscription that a process ever made (a megabyte an hour
    here), which is none of the node's memory.
    """
    process = subprocess.Popen(
        [sys.executable, __file__, '--listen', graph.namespace, *cameras],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    heard = []
    try:
        assert process.stdout.readline().strip() == 'listening'
        yield heard
        heard.append(int(process.communicate('', DEADLINE_S)[0]))
    finally:
        process.kill()
        process.wait()


def start_threads(executor, threads=4):
    """Let every thread of an executor begin, which it would do when it is needed first."""
    together = threading.Barrier(threads + 1)
    for _ in range(threads):
        executor.create_task(together.wait)
    together.wait(DEADLINE_S)


def soak(graph, seconds, *, rate=30.0, settle=1.0, samples=60):
    """Return the figures, the node and the messages heard after two cameras at `rate` Hz."""
    from ros_graph import image_message

    start_threads(graph.executor)
    node = graph.anomaly_node(cameras=['left', 'right'])
    publishers = [graph.publisher(Image, f'{name}/image') for name in node.cameras]
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (*SIZE, 3), np.uint8) for _ in range(8)]
    figures, changes, stop = Figures(), itertools.cycle(CHANGES), threading.Event()
    with listener(graph, node.cameras) as heard:
        begin = time.monotonic()
        due = {'frame': begin, 'change': begin, 'sample': begin + settle}
        for number in itertools.count():
            now = time.monotonic()
            if now - begin > seconds + settle:
                break
            if now >= due['change']:
                due['change'] = now + CHANGE_S
                set_parameters(node, next(changes))
            if now >= due['sample']:
                due['sample'] = now + seconds / samples
                figures.note(node.cameras.values(), begin)
            for publisher in publishers:
                publisher.publish(image_message(pictures[number % 8], seconds=now - begin))
            due['frame'] += 1 / rate
            stop.wait(max(0.0, due['frame'] - time.monotonic()))
        figures.note(node.cameras.values(), begin)
    return figures, node, sum(heard)


def main():
    """Soak as long as the command line says; returns 1 where something was gained or lost."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--seconds', type=float, default=3600.0)
    parser.add_argument('--json', type=Path, help='file for the samples')
    parser.add_argument('--rate', type=float, default=30.0, help='images per second and camera')
    parser.add_argument('--listen', nargs='+', help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.listen:
        namespace, *cameras = arguments.listen
        listen(namespace, cameras)
        return 0
    os.environ.setdefault('ROS_DOMAIN_ID', str(np.random.default_rng().integers(1, 102)))
    os.environ.setdefault('ROS_LOCALHOST_ONLY', '1')
    from ros_graph import Graph

    with Graph() as graph:
        figures, node, heard = soak(
            graph, arguments.seconds, rate=arguments.rate, settle=min(30.0, arguments.seconds / 4)
        )
        print('| time | memory | p99 of the first and last third | threads | files |')
        print('| --- | ---: | ---: | ---: | ---: |')
        print(figures.line())
        if arguments.json:
            arguments.json.write_text(json.dumps(dataclasses.asdict(figures)))
        for name, camera in node.cameras.items():
            stats = camera.stats
            print(
                f'{name}: received {stats.received}, processed {stats.processed}, dropped '
                f'{stats.dropped}, failed {stats.failed}; heard {heard}'
            )
        gained = figures.threads[-1] > figures.threads[0] or figures.files[-1] > figures.files[0]
        return int(gained or any(camera.stats.failed for camera in node.cameras.values()))


if __name__ == '__main__':
    rclpy.logging.set_logger_level('rcl', rclpy.logging.LoggingSeverity.WARN)
    sys.exit(main())
