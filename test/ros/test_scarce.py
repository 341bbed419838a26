# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""On a machine whose shared memory is full, pictures still arrive."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

pytest.importorskip('rclpy', reason='no rclpy installed')

from conftest import ROOT

# 64 KiB hold not even the half megabyte that Fast DDS asks for as it comes.
FULL = 'mount -t tmpfs -o size=64k tmpfs /dev/shm && exec "$@"'
PRIVATE = ('unshare', '--map-root-user', '--mount', 'sh', '-c')
EXCHANGE = """
import sys
from road_anomaly_ros.ros import transport
transport.make_room()
import rclpy
from ros_graph import Graph, image_message, send_until
from sensor_msgs.msg import Image
with Graph() as graph:
    found = graph.collect(Image, 'image')
    send_until(graph.publisher(Image, 'image'), image_message, lambda: found, 'a picture')
print('arrived', found[0].width)
"""


def private(*words):
    return subprocess.run(
        [*PRIVATE, FULL, 'sh', *words],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=ROOT,
        env={**os.environ, 'PYTHONPATH': f'{ROOT}:{ROOT / "test"}'},
    )


@pytest.mark.skipif(
    shutil.which('unshare') is None or private('true').returncode != 0,
    reason='nobody may mount a small /dev/shm here',
)
def test_pictures_arrive_where_shared_memory_is_full():
    done = private(sys.executable, '-c', EXCHANGE)
    # The Fast DDS of Jazzy says on stdout what it does without.
    assert done.stdout.endswith('arrived 64\n'), done.stderr
