# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Room for camera pictures in Fast DDS, the default middleware of ROS 2.

As it comes, its shared memory holds half a megabyte; larger pictures go through UDP sockets of
about 200 kB, and with best effort most of them are lost on the way.
For programs that are not ours, such as a camera driver, print the file and export it under both
names: the Fast DDS of Humble and Jazzy knows the first one only, that of Kilted warns of it.

export FASTRTPS_DEFAULT_PROFILES_FILE=$(python -m road_anomaly_ros.ros.transport)
export FASTDDS_DEFAULT_PROFILES_FILE=$FASTRTPS_DEFAULT_PROFILES_FILE
"""

from __future__ import annotations

import contextlib
import os
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PROFILE = Path(__file__).with_name('fastdds.xml')
SHARED_MEMORY = '/dev/shm'
_SEGMENT = 32 << 20  # as in the profile
_PROCESSES = 8  # that should find room
VARIABLES = ('FASTDDS_DEFAULT_PROFILES_FILE', 'FASTRTPS_DEFAULT_PROFILES_FILE')
_CHOICES = (*VARIABLES, 'FASTDDS_BUILTIN_TRANSPORTS')
_NEW_NAME_SINCE = (9,)  # rclpy of Kilted, the first with Fast DDS 3
_REACH = ('ROS_LOCALHOST_ONLY', 'ROS_AUTOMATIC_DISCOVERY_RANGE')
_RANGE_SINCE = (4,)  # rclpy of Iron, which warns of the older variable


def make_room() -> None:
    """Let Fast DDS use the profile, before the first node; the user's own choice wins.

    Does nothing where shared memory is scarce, as in containers with 64 MB of it.
    """
    named = next((os.environ[name] for name in VARIABLES if os.environ.get(name)), '')
    if named:  # under the name that this Fast DDS knows as well
        os.environ.update({name: named for name in _known() if not os.environ.get(name)})
    chosen = any(os.environ.get(name) for name in _CHOICES)
    if chosen or Path('DEFAULT_FASTDDS_PROFILES.xml').exists():
        return
    try:
        space = os.statvfs(SHARED_MEMORY)
    except OSError:
        return
    if space.f_bavail * space.f_frsize >= _SEGMENT * _PROCESSES:
        os.environ.update(dict.fromkeys(_known(), str(PROFILE)))


def stay_local() -> None:
    """Keep the graph to this machine, before the first node; the user's own choice wins."""
    if not any(os.environ.get(name) for name in _REACH):
        installed = release()
        old = installed is not None and installed < _RANGE_SINCE
        os.environ.update({_REACH[0]: '1'} if old else {_REACH[1]: 'LOCALHOST'})


def remove_segments() -> None:
    """Remove the shared memory that Fast DDS made for this process; of peers it removes none.

    For a process that ends without taking itself apart: nobody else would ever remove it.
    """
    for descriptor in Path('/proc/self/fd').glob('*'):
        with contextlib.suppress(OSError):  # of a file that was closed meanwhile
            # Fast DDS keeps the lock of what it owns open, that of a peer's it does not.
            owned = re.fullmatch(r'(.*/)(fast(?:dds|rtps)_\w+)_el', os.readlink(descriptor))
            if owned is not None:
                folder, name = owned.groups()
                for file in (name, f'{name}_el', f'sem.{name}_mutex'):
                    Path(folder, file).unlink(missing_ok=True)


def _known() -> tuple[str, ...]:
    """Return the variables that the installed Fast DDS knows and does not warn of."""
    installed = release()
    if installed is None:
        return VARIABLES
    return VARIABLES[:1] if installed >= _NEW_NAME_SINCE else VARIABLES[1:]


def release() -> tuple[int, ...] | None:
    """Return the version of rclpy, which tells distributions apart; None where it is unknown."""
    try:
        return tuple(int(part) for part in re.findall(r'\d+', version('rclpy'))) or None
    except PackageNotFoundError:
        return None


if __name__ == '__main__':
    print(PROFILE)
