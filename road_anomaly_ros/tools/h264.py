# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""What the packets of an H.264 or H.265 stream tell before they are decoded (ITU-T H.264, H.265).

A decoder conceals H.264 pictures that never came by repeating others, and says nothing of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_START = re.compile(rb'\x00\x00\x01')
_HEAD = 256  # bytes of a unit in which all that is read here must lie
# Profiles whose parameters begin with the colour format (7.3.2.1.1).
_HIGH = frozenset((44, 83, 86, 100, 110, 118, 122, 128, 134, 135, 138, 139, 244))
_SLICE, _IDR, _PARAMETERS = 1, 5, 7  # kinds of H.264 units
_IRAP = range(16, 24)  # kinds of H.265 units from which decoding can begin


class Continuity:
    """Tells of each H.264 packet whether the pictures it builds on were there."""

    def __init__(self) -> None:
        self._bits = 0  # of a frame number; 0 before the first parameters, or where gaps are fine
        self._planes = False
        self._last = 0  # frame number of the last reference picture

    def follows(self, data: bytes) -> bool:
        """Take in the next packet, Annex B; returns False where reference pictures lack."""
        whole = True
        for unit in _units(data):
            kind, reference = unit[0] & 31, unit[0] >> 5 & 3
            if kind == _PARAMETERS:
                self._read_parameters(_Bits(unit[1:]))
            elif kind in (_SLICE, _IDR) and self._bits:
                number = self._frame_number(_Bits(unit[1:]))
                expected = (self._last, (self._last + 1) % (1 << self._bits))
                whole &= kind == _IDR or number is None or number in expected
                if reference and number is not None:
                    self._last = number
        return whole

    def _frame_number(self, bits: _Bits) -> int | None:
        """Return the number of a slice's picture, None where it does not begin one."""
        if bits.unsigned():
            return None
        bits.unsigned(), bits.unsigned()
        if self._planes:
            bits.take(2)
        return bits.take(self._bits)

    def _read_parameters(self, bits: _Bits) -> None:
        profile = bits.take(24) >> 16
        bits.unsigned()
        self._planes = False
        if profile in _HIGH:
            self._skip_colours(bits)
        width = bits.unsigned() + 4
        order = bits.unsigned()
        if order == 0:
            bits.unsigned()
        elif order == 1:
            bits.take(1)
            bits.skip_numbers(2)
            bits.skip_numbers(bits.unsigned())
        bits.unsigned()
        self._bits = 0 if bits.take(1) else width

    def _skip_colours(self, bits: _Bits) -> None:
        colours = bits.unsigned()
        self._planes = colours == 3 and bool(bits.take(1))
        bits.skip_numbers(2)
        bits.take(1)
        if bits.take(1):
            for table in range(12 if colours == 3 else 8):
                if bits.take(1):
                    bits.skip_scaling(16 if table < 6 else 64)


class _Bits:
    """Reads numbers bit by bit; beyond the end there are only ones."""

    def __init__(self, raw: bytes) -> None:
        head = raw[:_HEAD].replace(b'\0\0\3', b'\0\0')  # what keeps start codes out of the data
        self._value, self._rest = int.from_bytes(head, 'big'), len(head) * 8

    def take(self, count: int) -> int:
        """Return the next `count` bits."""
        self._rest -= count
        if self._rest < 0:
            return (1 << count) - 1
        return self._value >> self._rest & (1 << count) - 1

    def unsigned(self) -> int:
        """Return the next number in Exp-Golomb code."""
        zeros = 0
        while not self.take(1):
            zeros += 1
        return (1 << zeros) - 1 + self.take(zeros)

    def signed(self) -> int:
        """Return the next signed number in Exp-Golomb code."""
        code = self.unsigned()
        return (code + 1) // 2 if code % 2 else -(code // 2)

    def skip_numbers(self, count: int) -> None:
        """Pass over numbers in Exp-Golomb code."""
        for _ in range(min(count, _HEAD)):
            self.unsigned()

    def skip_scaling(self, size: int) -> None:
        """Pass over a table of scaling factors (7.3.2.1.1.1)."""
        last = following = 8
        for _ in range(size):
            if following:
                following = (last + self.signed()) % 256
            last = following or last


def _units(data: bytes) -> Iterator[bytes]:
    """Yield the beginnings of the units of a packet in Annex B."""
    for found in _START.finditer(data):
        unit = data[found.end() : found.end() + _HEAD]
        if unit:
            yield unit


def begins(codec: str, data: bytes) -> bool:
    """Tell whether decoding can begin with a packet of 'h264' or 'hevc'; other codecs decide."""
    if codec == 'h264':
        return any(unit[0] & 31 in (_IDR, _PARAMETERS) for unit in _units(data))
    if codec == 'hevc':
        return any(unit[0] >> 1 & 63 in _IRAP for unit in _units(data))
    return True
