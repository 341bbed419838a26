# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Room for camera pictures in Fast DDS, the default middleware of ROS 2.

As it comes, its shared memory holds half a megabyte; larger pictures go through UDP sockets of
about 200 kB, and with best effort most of them are lost on the way (measured: 8 of 60 at 960x540).
For programs that are not ours, such as a camera driver, print the file and export it:

export FASTDDS_DEFAULT_PROFILES_FILE=$(python -m road_anomaly_ros.ros.transport)
"""

from __future__ import annotations

import os
from pathlib import Path

PROFILE = Path(__file__).with_name('fastdds.xml')
SHARED_MEMORY = '/dev/shm'
_SEGMENT = 32 << 20                     # as in the profile
_PROCESSES = 8                          # that should find room
_CHOICES = ('FASTDDS_DEFAULT_PROFILES_FILE', 'FASTRTPS_DEFAULT_PROFILES_FILE',
            'FASTDDS_BUILTIN_TRANSPORTS')


def make_room() -> None:
    """Let Fast DDS use the profile, before the first node; the user's own choice wins.

    Does nothing where shared memory is scarce, as in containers with 64 MB of it.
    """
    chosen = any(os.environ.get(name) for name in _CHOICES)
    if chosen or Path('DEFAULT_FASTDDS_PROFILES.xml').exists():
        return
    try:
        space = os.statvfs(SHARED_MEMORY)
    except OSError:
        return
    if space.f_bavail * space.f_frsize >= _SEGMENT * _PROCESSES:
        os.environ[_CHOICES[0]] = str(PROFILE)
        if os.environ.get('ROS_DISTRO') == 'humble':        # it knows the old name only
            os.environ[_CHOICES[1]] = str(PROFILE)


if __name__ == '__main__':
    print(PROFILE)
