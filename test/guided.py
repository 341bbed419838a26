# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Messages and options damaged under the guidance of coverage (atheris), as `make fuzz` has it.

An input is what a message holds, field after field; those that reach new code are kept and damaged
further. What is refused must be refused in one line; anything else ends the run with the input
that caused it, in crash-*. Without atheris (extra `fuzz`) only the seeded damage of the tests is
left, and a line says so.
"""

from __future__ import annotations

import argparse
import importlib.util
import struct
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np

HEAD = struct.Struct('<BBIIIB')  # what, which encoding or option, height, width, step, order
IMAGE, FILE, MAP, OPTION = range(4)
LIMIT = 1 << 16  # pixels; keeps what the damage claims affordable
BYTES = {'rgb8': 3, 'bgra8': 4, 'mono8': 1, 'mono16': 2, '32FC3': 12, 'bayer_rggb8': 1, 'nv12': 1}
MEASURED = {'16UC1': 2, '32FC1': 4}
ENCODINGS = (*BYTES, *MEASURED, 'yuv422', '8UC3', '16SC2', 'RGB8', '8UC', '99UC9', '', '\x00')
LAYOUTS = ('', 'jpeg', 'rgb8; png compressed', 'h264', '16UC1; compressedDepth png', '\x00')


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


class Target:
    """Takes inputs; raises for whatever is neither used nor refused in one line."""

    def __init__(self):
        from road_anomaly_ros.perception.config import PipelineConfig, parameters
        from road_anomaly_ros.tools import encodings

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
        kinds = (self._image, self._file, self._map, self._option)
        try:
            kinds[what % len(kinds)](message, which)
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


def main():
    """Run so many inputs; the process ends with 77 where one breaks the rules."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--runs', type=int, default=1_000_000)
    arguments = parser.parse_args()
    if importlib.util.find_spec('atheris') is None:
        print("not guided by coverage: atheris is missing (pip install -e '.[fuzz]')")
        return
    import atheris

    with atheris.instrument_imports(include=['road_anomaly_ros']):
        target = Target()
    with tempfile.TemporaryDirectory() as folder:
        for number, raw in enumerate(seeds()):
            Path(folder, f'{number:03d}').write_bytes(raw)
        limits = ('-timeout=1', '-max_len=4096', '-print_final_stats=1')
        atheris.Setup([sys.argv[0], folder, f'-runs={arguments.runs}', *limits], target)
        atheris.Fuzz()


if __name__ == '__main__':
    main()
