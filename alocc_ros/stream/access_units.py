# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""What a packet of H.264 or H.265 says about itself, before it is decoded.

FFmpeg goes on after a packet of H.264 that was lost, with pictures that are a little wrong until
the next key frame, and says so nowhere: so the count of frames in the slice headers is read here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_START = re.compile(b"\x00\x00\x01")
_HEAD = 256  # bytes of a unit that are looked into; parameter sets and slice headers are shorter
_SETS = {"h264": (7, 8), "hevc": (32, 33, 34)}  # units with parameters
# Profiles whose parameter sets tell of chroma and scaling lists (ITU-T H.264, 7.3.2.1.1).
_HIGH = frozenset({100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135})


class _Bits:
    """Fixed and Exp-Golomb numbers, without the bytes that keep start codes out."""

    def __init__(self, data: bytes) -> None:
        data = data[:_HEAD].replace(b"\x00\x00\x03", b"\x00\x00")
        self._bits = int.from_bytes(data, "big")
        self._left = 8 * len(data)

    def take(self, count: int) -> int:
        """Raises ValueError where the data end."""
        self._left -= count
        if self._left < 0:
            raise ValueError("the header is cut off")
        return self._bits >> self._left & ((1 << count) - 1)

    def unsigned(self) -> int:
        zeros = 0
        while not self.take(1):
            zeros += 1
            if zeros > 32:
                raise ValueError("a number of more than 32 bits")
        return (1 << zeros) - 1 + self.take(zeros)

    def signed(self) -> int:
        value = self.unsigned()
        return (value + 1) // 2 if value & 1 else -(value // 2)


@dataclass
class _FrameCount:
    """How a sequence of H.264 counts its frames.

    Attributes:
        bits: of the number.
        has_gaps: numbers may be left out on purpose.
        has_planes: slices of three colour planes, each by itself.
    """

    bits: int
    has_gaps: bool
    has_planes: bool


@dataclass
class Unit:
    """A packet.

    Attributes:
        has_sets: it holds a sequence's parameters.
        sets: the units with parameters, with their start codes.
        has_picture: it holds (a part of) a picture.
        is_key: decoding can begin here, with parameters that came before or in it.
        is_after_gap: a picture that this one may refer to did not arrive.
    """

    has_sets: bool = False
    sets: bytes = b""
    has_picture: bool = False
    is_key: bool = False
    is_after_gap: bool = False


@dataclass
class AccessUnits:
    """Looks at the packets of one stream, in order of decoding.

    Attributes:
        codec: ``h264`` or ``hevc``.
    """

    codec: str
    _count: _FrameCount | None = None
    _last: int | None = None  # frame number of the last picture to refer to

    def look(self, data: bytes) -> Unit:
        """Raises ValueError: there are no start codes, or a header is damaged."""
        starts = [found.end() for found in _START.finditer(data)]
        starts = [at for at in starts if at < len(data)]
        if not starts:
            raise ValueError("no start codes: only streams in the form of Annex B are decoded")
        unit = Unit()
        for at, end in zip(starts, [*(after - 3 for after in starts[1:]), len(data)], strict=True):
            if self.codec == "hevc":
                kind = data[at] >> 1 & 0x3F
                self._look_h265(unit, kind)
            else:
                kind = data[at] & 31
                self._look_h264(unit, data[at : at + _HEAD])
            if kind in _SETS[self.codec]:
                unit.sets += b"\0\0\0\1" + data[at:end]
        return unit

    @staticmethod
    def _look_h265(unit: Unit, kind: int) -> None:
        unit.has_sets |= kind == 33
        unit.has_picture |= kind < 32
        unit.is_key |= 16 <= kind <= 23

    def _look_h264(self, unit: Unit, head: bytes) -> None:
        kind, importance = head[0] & 31, head[0] >> 5 & 3
        if kind == 7:
            unit.has_sets = True
            self._count = _frame_count(_Bits(head[1:]))
        elif kind in (1, 2, 5):
            first = not unit.has_picture
            unit.has_picture = True
            unit.is_key |= kind == 5
            if first and self._count is not None:
                self._check_number(unit, _Bits(head[1:]), importance > 0)

    def _check_number(self, unit: Unit, bits: _Bits, is_reference: bool) -> None:
        count = self._count
        bits.unsigned()  # first macroblock
        is_intra = bits.unsigned() % 5 == 2
        bits.unsigned()  # picture parameters
        if count.has_planes:
            bits.take(2)
        number = bits.take(count.bits)
        if self._last is not None and not unit.is_key and not count.has_gaps:
            steps = (number - self._last) % (1 << count.bits)
            unit.is_after_gap = steps > 1
        # Some encoders begin a group with a picture that is no IDR.
        unit.is_key |= is_intra and unit.has_sets
        if is_reference:
            self._last = number


def _frame_count(bits: _Bits) -> _FrameCount:
    """Out of a sequence parameter set (ITU-T H.264, 7.3.2.1.1)."""
    profile = bits.take(8)
    bits.take(16)
    bits.unsigned()
    has_planes = False
    if profile in _HIGH:
        chroma = bits.unsigned()
        has_planes = chroma == 3 and bool(bits.take(1))
        bits.unsigned(), bits.unsigned(), bits.take(1)
        if bits.take(1):
            for number in range(12 if chroma == 3 else 8):
                if bits.take(1):
                    _pass_scaling_list(bits, 16 if number < 6 else 64)
    length = bits.unsigned() + 4
    order = bits.unsigned()
    if order == 0:
        bits.unsigned()
    elif order == 1:
        bits.take(1), bits.signed(), bits.signed()
        for _ in range(min(bits.unsigned(), 255)):
            bits.signed()
    bits.unsigned()
    return _FrameCount(length, bool(bits.take(1)), has_planes)


def _pass_scaling_list(bits: _Bits, size: int) -> None:
    last = following = 8
    for _ in range(size):
        if following:
            following = (last + bits.signed()) % 256
        last = following or last


def sniffed(begin: bytes) -> str:
    """``h264`` or ``hevc``, by the first unit of a stream whose codec nobody names; else ""."""
    found = _START.search(begin[:8])
    if found is None or found.start() > 1 or len(begin) < found.end() + 2:
        return ""
    first, second = begin[found.end()], begin[found.end() + 1]
    # Two bytes of header with one layer in H.265; 6 is supplemental information in H.264.
    return "hevc" if second == 1 and first % 2 == 0 and first != 6 else "h264"
