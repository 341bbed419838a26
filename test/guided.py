# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Messages and options damaged under the guidance of coverage (atheris), as `make fuzz` has it.

An input is what a message holds, field after field; those that reach new code are kept and damaged
further. What is refused must be refused in one line; anything else ends the run with the input
that caused it, in crash-*. Without atheris (extra `fuzz`) only the seeded damage of the tests is
left, and a line says so. Parameters of a node are slow and damaged only by themselves
(--only parameter).
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import struct
import sys
import tempfile
from array import array
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np

HEAD = struct.Struct('<BBIIIB')  # what, which encoding or option, height, width, step, order
KINDS = ('image', 'file', 'map', 'option', 'camera_info', 'parameter')
IMAGE, FILE, MAP, OPTION, INFO, PARAMETER = range(len(KINDS))
LIMIT = 1 << 16  # pixels; keeps what the damage claims affordable
BYTES = {'rgb8': 3, 'bgra8': 4, 'mono8': 1, 'mono16': 2, '32FC3': 12, 'bayer_rggb8': 1, 'nv12': 1}
MEASURED = {'16UC1': 2, '32FC1': 4}
ENCODINGS = (*BYTES, *MEASURED, 'yuv422', '8UC3', '16SC2', 'RGB8', '8UC', '99UC9', '', '\x00')
LENSES = ('plumb_bob', 'equidistant', 'rational_polynomial', 'thin_prism', '')
VALUES = (  # of a parameter of every type, out of bytes
    lambda raw: raw[:1] > b'0',
    lambda raw: int.from_bytes(raw[:8], 'little', signed=True),
    lambda raw: struct.unpack('<d', raw[:8].ljust(8, b'\0'))[0],
    lambda raw: raw.decode('utf-8', 'replace'),
    lambda raw: raw.decode('utf-8', 'replace').split(','),
    lambda raw: array('q', whole(raw)).tolist(),
    lambda raw: array('d', whole(raw)).tolist(),
    lambda raw: [bool(value) for value in raw],
    lambda raw: [bytes([value]) for value in raw],
    lambda raw: None,
)
LAYOUTS = ('', 'jpeg', 'rgb8; png compressed', 'h264', '16UC1; compressedDepth png', '\x00')


def whole(raw):
    """Return bytes without what makes no 8 of them."""
    return raw[: len(raw) // 8 * 8]


def seeds():
    """Return one whole input of every kind, to begin with."""
    height, width = 4, 6
    for number, (encoding, size) in enumerate({**BYTES, **MEASURED}.items()):
        what = MAP if encoding in MEASURED else IMAGE
        rows = height * 3 // 2 if encoding == 'nv12' else height
        head = HEAD.pack(what, number, height, width, width * size, 0)
        yield head + bytes(range(rows * width * size % 256)).ljust(rows * width * size, b'\x7f')
    picture = np.arange(3 * height * width, dtype=np.uint8).reshape(height, width, 3)
    for kind in ('.jpg', '.png', '.bmp', '.webp', '.tiff'):
        yield HEAD.pack(FILE, 1, 0, 0, 0, 0) + cv2.imencode(kind, picture)[1].tobytes()
    for number, text in enumerate((b'0.5', b'nan', b'[a, b]', b'true', b'1e999')):
        yield HEAD.pack(OPTION, number, 0, 0, 0, 0) + text
    for number in range(8 * len(VALUES)):
        value = struct.pack('<d', 0.5) if number % 2 else b'rba'
        yield HEAD.pack(PARAMETER, number, 0, 0, number, 0) + value
    lens = (500, 0, 320, 0, 500, 240, 0, 0, 1, 500, 0, 320, 0, 0, 500, 240, 0, 0, 0, 1, 0)
    for number, count in enumerate((5, 4, 8, 0)):
        values = np.array([*lens, *np.linspace(0.1, -0.1, count)])
        yield HEAD.pack(INFO, number, 480, 640, 0, 0) + values.tobytes()


class Target:
    """Takes inputs; raises for whatever is neither used nor refused in one line."""

    def __init__(self, only=None):
        from road_anomaly_ros.perception.config import PipelineConfig, parameters
        from road_anomaly_ros.tools import camera_info, encodings

        self._only = only  # of KINDS; None takes all but the slow last one
        self._node = Node() if only == PARAMETER else None
        self._infos = camera_info
        self._encodings, self._config = encodings, PipelineConfig()
        self._names = sorted(item.name for item in parameters('mask2former'))

    def __call__(self, raw):
        """Take one input; too short a one is of no kind."""
        if len(raw) < HEAD.size:
            return
        what, which, height, width, step, order = HEAD.unpack_from(raw)
        message = SimpleNamespace(
            encoding=ENCODINGS[which % len(ENCODINGS)],
            height=height,
            width=width,
            step=step,
            is_bigendian=order & 1,
            data=raw[HEAD.size :],
        )
        kinds = (self._image, self._file, self._map, self._option, self._info, self._parameter)
        try:
            kinds[what % PARAMETER if self._only is None else self._only](message, which)
        except (ValueError, TypeError) as refusal:
            text = str(refusal)
            assert '\n' not in text and len(text.split()) > 2, f'refused with {text!r}'
            assert not isinstance(refusal, UnicodeError), text

    def _image(self, message, which):
        found = self._encodings.decode_image(message, LIMIT)
        assert found.dtype == np.uint8 and found.shape == (message.height, message.width, 3)

    def _file(self, message, which):
        layout = LAYOUTS[which % len(LAYOUTS)]
        found = self._encodings.decode_compressed(message.data, layout, LIMIT)
        assert found.dtype == np.uint8 and found.ndim == 3

    def _map(self, message, which):
        found = self._encodings.decode_map(message, LIMIT)
        assert found.shape == (message.height, message.width)

    def _option(self, message, which):
        name = self._names[(which + 256 * message.height) % len(self._names)]
        text = message.data.decode('utf-8', 'replace')
        assert self._config.replace({name: text}).get(name) is not None

    def _info(self, message, which):
        values = np.frombuffer(whole(message.data), np.float64)
        lens = np.zeros(21)
        lens[: len(values)] = values[:21]
        step, part = message.step, message.step >> 16
        info = SimpleNamespace(
            height=message.height,
            width=message.width,
            k=lens[:9],
            p=lens[9:],
            d=values[21:],
            distortion_model=LENSES[which % len(LENSES)],
            binning_x=step & 3,
            binning_y=step >> 2 & 3,
            roi=SimpleNamespace(x_offset=part, y_offset=part, height=part & 255, width=part & 127),
        )
        model = self._infos.to_model(info, rectified=bool(message.is_bigendian))
        height, width = model.size
        corners = np.array([[0.0, 0.0], [width - 1.0, height - 1.0], [width / 2, height / 2]])
        with np.errstate(over='raise', divide='raise', invalid='raise'):
            rays = model.rays(corners)
            assert rays.shape == (3, 3) and model.pixels(rays).shape == (3, 2)

    def _parameter(self, message, which):
        value = VALUES[message.step % len(VALUES)](message.data)
        self._node.change(which + 256 * message.height, value, bool(message.is_bigendian))


class Node:
    """The parameters of the node on one of rclpy, without a chain to build."""

    def __init__(self):
        import rclpy
        from rclpy.parameter import Parameter

        from road_anomaly_ros.ros import parameters

        self._ours, self._parameter, self._locked = parameters, Parameter, False
        self._context = rclpy.Context()
        rclpy.init(context=self._context, domain_id=int(os.environ.get('ROS_DOMAIN_ID', '0')))
        self._node = rclpy.create_node('guided', context=self._context)
        self._node.get_logger().set_level(50)
        parameters.Parameters(
            self._node,
            check=lambda config: None,
            apply=lambda config, options: None,
            locked=lambda: self._locked,
        )
        self._items = sorted(parameters.node_parameters('mask2former'), key=lambda one: one.name)

    def change(self, which, value, locked):
        """Set a parameter: it is in force after that, or refused in one line and as it was."""
        item = self._items[which % len(self._items)]
        self._locked = locked
        before, wanted = self._value(item.name), 'refused'
        with contextlib.suppress(TypeError, ValueError):
            wanted = self._ours.to_ros(self._ours.from_ros(item, value))
        (answer,) = self._node.set_parameters([self._parameter(item.name, value=value)])
        if answer.successful:
            assert repr(self._value(item.name)) == repr(wanted), (item.name, value)
            return
        assert before is None or repr(self._value(item.name)) == repr(before), item.name
        raise ValueError(answer.reason)

    def _value(self, name):
        return self._node.get_parameter(name).value if self._node.has_parameter(name) else None


def main():
    """Run so many inputs; the process ends with 77 where one breaks the rules."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--runs', type=int, default=1_000_000)
    parser.add_argument('--only', choices=KINDS, help='damage of one kind')
    arguments = parser.parse_args()
    only = KINDS.index(arguments.only) if arguments.only else None
    if importlib.util.find_spec('atheris') is None:
        print("not guided by coverage: atheris is missing (pip install -e '.[fuzz]')")
        return
    import atheris

    with atheris.instrument_imports(include=['road_anomaly_ros']):
        target = Target(only)
    with tempfile.TemporaryDirectory() as folder:
        for number, raw in enumerate(seeds()):
            if raw[0] == only or (only is None and raw[0] != PARAMETER):
                Path(folder, f'{number:03d}').write_bytes(raw)
        limits = ('-timeout=1', '-max_len=4096', '-print_final_stats=1')
        atheris.Setup([sys.argv[0], folder, f'-runs={arguments.runs}', *limits], target)
        atheris.Fuzz()


if __name__ == '__main__':
    main()
