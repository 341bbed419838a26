# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Measure the node as a robot sees it: a camera at a fixed rate, a process, results over DDS.

For each size a camera in this process sends rendered frames to a node in a process of its own and
receives its obstacle masks: rate, age of the results (from the stamp of the image to the moment
its mask arrives), whether the age grows, processor time and memory of the node. Then, in this
process, what one full-HD message costs each way and what an output costs that nobody listens to.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from road_anomaly_ros.files import write_json
from road_anomaly_ros.tools.chain import add_chain_arguments, chain_config, positive, size

if TYPE_CHECKING:
    import numpy as np

    from road_anomaly_ros.perception.config import PipelineConfig

EXAMPLES = """
examples:
  road-anomaly bench --node
  road-anomaly bench --node --seconds 600 --size 960x540 -o node.json
"""
SIZES = ((480, 360), (960, 540))
FULL_HD = (1920, 1080)
START_S = 120.0  # a model may have to be loaded and compiled
SETTLE_S = 3.0  # results of the first seconds are not counted
RUNS = 40
_DISTINCT = 12


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument('-o', '--out', metavar='JSON', type=Path, help='also write the figures')
    parser.add_argument(
        '--seconds', type=positive, default=120, help='time per size (default: %(default)s)'
    )
    parser.add_argument(
        '--rate',
        metavar='HZ',
        type=positive,
        default=30,
        help='images per second (default: %(default)s)',
    )
    parser.add_argument(
        '--size',
        metavar='WxH',
        type=size,
        nargs='+',
        default=SIZES,
        help='sizes of the images (default: 480x360 960x540)',
    )
    add_chain_arguments(parser)


def main(arguments: argparse.Namespace) -> int:
    """Run the command; prints tables, writes JSON if asked to, returns 0."""
    from road_anomaly_ros.ros.transport import make_room, stay_local

    stay_local()
    os.environ['ROS_DOMAIN_ID'] = str(random.SystemRandom().randint(1, 101))
    from road_anomaly_ros.tools import environment

    make_room()  # the camera is ours: without, most larger images are lost
    config = chain_config(arguments)
    document: dict[str, Any] = {'environment': environment.record(), 'node': []}
    print(environment.heading(document['environment']))
    print(
        f'\n{arguments.rate} images per second, {arguments.seconds} s per size, '
        f'age from the stamp of an image to its mask\n\n{NODE_HEAD}'
    )
    for width, height in arguments.size:
        row = node_row(config, width, height, arguments.rate, arguments.seconds)
        document['node'].append(row)
        print(node_line(row), flush=True)
    document['transport'] = transport_rows()
    print(f'\n{TRANSPORT_HEAD}', *map(transport_line, document['transport']), sep='\n')
    if arguments.out is not None:
        write_json(arguments.out, document)
    return 0


def node_row(
    config: PipelineConfig, width: int, height: int, rate: int, seconds: float
) -> dict[str, Any]:
    """Return the figures of one size; RuntimeError when the node sends no result in time."""
    from road_anomaly_ros.tools.timing import rendered

    pictures = rendered(width, height, _DISTINCT)
    with node_process(config) as process, Camera(pictures, rate) as camera:
        camera.wait_for_results(process)
        time.sleep(SETTLE_S)
        before = usage(process.pid)
        camera.reset()
        time.sleep(seconds)
        ages, sent = camera.reset()
        after = usage(process.pid)
    return {
        'size': [width, height],
        'sent': sent,
        **age_figures(ages, seconds),
        'cpu_percent': round(100 * (after['cpu_s'] - before['cpu_s']) / seconds, 1),
        'resident_mib': [round(before['resident_mib'], 1), round(after['resident_mib'], 1)],
    }


def age_figures(ages: Sequence[float], seconds: float) -> dict[str, Any]:
    """Return rate and age in ms of results, and the median age of the first and the last third."""
    import numpy as np

    if not len(ages):
        raise RuntimeError('expected results of the node, none came')
    p50, p99, top = np.percentile(ages, (50, 99, 100)) * 1e3
    third = max(1, len(ages) // 3)
    first, last = (float(np.median(part)) * 1e3 for part in (ages[:third], ages[-third:]))
    return {
        'rate_hz': round(len(ages) / seconds, 2),
        'age_p50_ms': round(float(p50), 1),
        'age_p99_ms': round(float(p99), 1),
        'age_max_ms': round(float(top), 1),
        'age_first_third_ms': round(first, 1),
        'age_last_third_ms': round(last, 1),
    }


def namespace() -> str:
    """Return a namespace that no other measurement on this machine uses."""
    return f'/bench_{os.getpid()}'


@contextlib.contextmanager
def node_process(config: PipelineConfig) -> Iterator[subprocess.Popen[bytes]]:
    """Run `anomaly_node` with the settings of `config`; it is ended cleanly afterwards."""
    words = [
        sys.executable,
        '-m',
        'road_anomaly_ros.ros.process',
        '--ros-args',
        '--log-level',
        'warn',
        '-r',
        f'__ns:={namespace()}',
    ]
    for name, value in config.as_dict().items():
        words += ['-p', f'{name}:={json.dumps(value or ["none"] if value == [] else value)}']
    process = subprocess.Popen(words)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(30.0)
        except subprocess.TimeoutExpired:
            process.kill()


class Camera:
    """Sends pictures at a fixed rate and notes how old each mask is that comes back."""

    def __init__(self, pictures: Sequence[np.ndarray], rate: int) -> None:
        import rclpy
        from sensor_msgs.msg import Image
        from std_msgs.msg import Header

        from road_anomaly_ros.perception.parameter_file import NODE
        from road_anomaly_ros.ros import images
        from road_anomaly_ros.ros.inputs import input_qos
        from road_anomaly_ros.ros.outputs import qos
        from road_anomaly_ros.tools import results

        self._context = rclpy.Context()
        rclpy.init(context=self._context)
        self._node = rclpy.create_node(
            'bench_camera', namespace=namespace(), context=self._context
        )
        self._messages = [images.to_message(picture, 'rgb8', Header()) for picture in pictures]
        self._publisher = self._node.create_publisher(Image, 'image', input_qos())
        self._node.create_subscription(Image, f'{NODE}/{results.MASK}', self._on_mask, qos())
        self._period = 1.0 / rate
        self._ages: list[float] = []
        self._sent = 0
        self._ending = threading.Event()
        self._threads = [
            threading.Thread(target=work, daemon=True) for work in (self._send, self._listen)
        ]

    def __enter__(self) -> Camera:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *failure: object) -> None:
        import rclpy

        self._ending.set()
        for thread in self._threads:
            thread.join()
        self._node.destroy_node()
        rclpy.try_shutdown(context=self._context)

    def reset(self) -> tuple[list[float], int]:
        """Return the ages in seconds and the number of images sent since the last call."""
        (ages, self._ages), (sent, self._sent) = (self._ages, []), (self._sent, 0)
        return ages, sent

    def wait_for_results(self, process: subprocess.Popen[bytes]) -> None:
        """Wait until the node sends results; RuntimeError when it ends or takes too long."""
        end = time.monotonic() + START_S
        while not self._ages:
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError('expected results of the node, none came; its log says why')
            time.sleep(0.05)

    def _now(self) -> float:
        return self._node.get_clock().now().nanoseconds * 1e-9

    def _send(self) -> None:
        due = time.monotonic()
        while not self._ending.is_set():
            message = self._messages[self._sent % len(self._messages)]
            message.header.stamp = self._node.get_clock().now().to_msg()
            self._publisher.publish(message)
            self._sent += 1
            due += self._period
            self._ending.wait(max(0.0, due - time.monotonic()))

    def _listen(self) -> None:
        from rclpy.executors import SingleThreadedExecutor

        executor = SingleThreadedExecutor(context=self._context)
        executor.add_node(self._node)
        while not self._ending.is_set():
            executor.spin_once(timeout_sec=0.1)
        executor.shutdown()

    def _on_mask(self, message: Any) -> None:
        from road_anomaly_ros.ros.images import seconds

        self._ages.append(self._now() - seconds(message.header.stamp))


def usage(pid: int) -> dict[str, float]:
    """Return processor seconds and resident MiB of a process, as Linux tells them."""
    fields = Path(f'/proc/{pid}/stat').read_text(encoding='ascii').rpartition(') ')[2].split()
    ticks = int(fields[11]) + int(fields[12])
    return {
        'cpu_s': ticks / os.sysconf('SC_CLK_TCK'),
        'resident_mib': int(fields[21]) * os.sysconf('SC_PAGE_SIZE') / 2**20,
    }


def transport_rows() -> list[dict[str, Any]]:
    """Return the cost in ms of one full-HD message each way and of outputs without listeners."""
    import numpy as np
    import rclpy
    from sensor_msgs.msg import Image
    from std_msgs.msg import Header

    from road_anomaly_ros.ros import images
    from road_anomaly_ros.ros.outputs import qos

    width, height = FULL_HD
    picture = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    context = rclpy.Context()
    rclpy.init(context=context)
    node = rclpy.create_node('bench_transport', context=context)
    publisher = node.create_publisher(Image, 'unheard', qos())
    rows = []
    for encoding in ('rgb8', 'bgr8', 'mono8'):
        shown = picture[..., 0].copy() if encoding == 'mono8' else picture
        message = images.to_message(shown, 'mono8' if encoding == 'mono8' else 'rgb8', Header())
        message.encoding = encoding
        rows.append(cost(f'{encoding} message to RGB array', lambda m=message: images.to_array(m)))
    for encoding, shown in (
        ('rgb8', picture),
        ('mono8', picture[..., 0].copy()),
        ('32FC1', picture[..., 0].astype(np.float32)),
    ):
        rows.append(
            cost(
                f'{encoding} array to message',
                lambda s=shown, e=encoding: images.to_message(s, e, Header()),
            )
        )
    full = images.to_message(picture, 'rgb8', Header())
    rows.append(cost('publish rgb8', lambda: publisher.publish(full)))
    rows.append(cost('all outputs, nobody listens', unheard(context, picture)))
    node.destroy_node()
    rclpy.try_shutdown(context=context)
    return rows


def unheard(context: Any, picture: np.ndarray) -> Any:
    """Return a function that offers one result to all outputs of a camera that nobody hears."""
    from rclpy.lifecycle import LifecycleNode
    from std_msgs.msg import Header

    from road_anomaly_ros.perception import Pipeline
    from road_anomaly_ros.perception.drawing import overlay
    from road_anomaly_ros.ros.outputs import Publishers
    from road_anomaly_ros.ros.parameters import NodeOptions
    from road_anomaly_ros.tools.results import Shown

    node = LifecycleNode('bench_outputs', context=context)
    pipeline = Pipeline.from_config(segmenter='synthetic', device='cpu')
    shown = Shown(pipeline(picture), overlay)
    publishers = Publishers(node, '', lambda topic: None)
    quality = NodeOptions().jpeg_quality
    return lambda: publishers.publish(shown, Header(), quality)


def cost(name: str, work: Any) -> dict[str, Any]:
    """Return p50 and p99 of the milliseconds that `work` takes."""
    from road_anomaly_ros.tools.environment import percentiles

    times = []
    for _ in range(RUNS):
        begin = time.perf_counter()
        work()
        times.append((time.perf_counter() - begin) * 1e3)
    return {'what': name, **percentiles(times)}


NODE_HEAD = (
    '| size | results/s | age p50 ms | p99 ms | max ms | first third ms | last third ms '
    '| CPU % | MiB at start | at end |\n| --- ' + '| ---: ' * 9 + '|'
)
TRANSPORT_HEAD = '| one full-HD message | p50 ms | p99 ms |\n| --- | ---: | ---: |'


def node_line(row: dict[str, Any]) -> str:
    """Return the figures of one size as a line of a Markdown table."""
    start, end = row['resident_mib']
    return (
        f'| {row["size"][0]}x{row["size"][1]} | {row["rate_hz"]:g} | {row["age_p50_ms"]:g} '
        f'| {row["age_p99_ms"]:g} | {row["age_max_ms"]:g} | {row["age_first_third_ms"]:g} '
        f'| {row["age_last_third_ms"]:g} | {row["cpu_percent"]:g} | {start:g} | {end:g} |'
    )


def transport_line(row: dict[str, Any]) -> str:
    """Return one cost as a line of a Markdown table."""
    return f'| {row["what"]} | {row["p50"]:.3f} | {row["p99"]:.3f} |'
