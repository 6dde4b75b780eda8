# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""The encodings of sensor_msgs/Image that are decoded here, for ``alocc run`` and the node alike.

What Pillow unpacks by itself is a name here and no more; the rest (YUV, Bayer mosaics, sixteen
bits) is worked out with the integers of OpenCV, which cv_bridge would use.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class RawLayout(NamedTuple):
    """An encoding that Pillow unpacks: mode of the picture, Pillow's name of the bytes' layout."""

    mode: str
    raw_mode: str
    channels: int


class Conversion(NamedTuple):
    """An encoding that is worked out here.

    Attributes:
        row_bytes: of a pixel in a row (of a planar encoding: of the first plane).
        rows: rows of bytes for each row of pixels, as a fraction.
        even: whether width (1) or width and height (2) must be even, 0: neither.
        to_rgb: [rows, bytes] uint8, width, big endian -> [h, w, 3] uint8.
    """

    row_bytes: int
    rows: tuple[int, int]
    even: int
    to_rgb: Callable[[np.ndarray, int, bool], np.ndarray]


LAYOUTS = {
    "rgb8": RawLayout("RGB", "RGB", 3),
    "bgr8": RawLayout("RGB", "BGR", 3),
    "rgba8": RawLayout("RGB", "RGBX", 4),
    "bgra8": RawLayout("RGB", "BGRX", 4),
    "mono8": RawLayout("L", "L", 1),
}
# The formats of a CompressedImage that hold a part of a video stream, not a picture.
_VIDEO = ("h264", "h265", "hevc", "av1", "vp8", "vp9", "ffmpeg")
# Names that mean one of the others.
_ALIASES = {
    "8uc1": "mono8",
    "yuv422": "uyvy",
    "yuv422_yuy2": "yuyv",
    "yuy2": "yuyv",
}


def canonical(encoding: str, assume_8uc3: str) -> str:
    """The encoding under its one name; unknown ones as they are.

    Args:
        encoding: as a message names it, in any case.
        assume_8uc3: what ``8UC3`` holds, ``bgr8`` or ``rgb8``; ``8UC4`` has alpha on top.
    """
    name = encoding.strip().lower()
    if name == "8uc3":
        return assume_8uc3
    if name == "8uc4":
        return assume_8uc3.replace("8", "a8")
    name = _ALIASES.get(name, name)
    return name if name in LAYOUTS or name in CONVERSIONS else encoding


def mosaic_of(compressed_format: str) -> str:
    """The Bayer encoding that a CompressedImage of this ``format`` holds in gray, or "".

    image_transport writes ``ENCODING; jpeg compressed WHAT WAS COMPRESSED``; a mosaic that was
    made to colours before has colours behind "compressed".
    """
    text = compressed_format.lower().removeprefix("compressed ")
    before, separator, after = text.partition("compressed")
    found = re.search(r"bayer_[rgb]{4}8", after if separator and after.strip() else before)
    return found[0] if found and found[0] in CONVERSIONS else ""


def video_of(compressed_format: str) -> str:
    """The video codec that a ``format`` names, or ""."""
    text = compressed_format.lower().replace("x26", "h26")  # x264 is what writes H.264
    return next((name for name in _VIDEO if name in text), "")


def demosaic(mosaic: np.ndarray, pattern: str) -> np.ndarray:  # [h, w] uint8 -> [h, w, 3] uint8
    """Bilinear; ``pattern`` names the first two pixels of the first two rows, ``rggb``."""
    whole = np.pad(mosaic, 1, mode="reflect").astype(np.uint16)
    centre = whole[1:-1, 1:-1]
    left_right = whole[1:-1, :-2] + whole[1:-1, 2:]
    up_down = whole[:-2, 1:-1] + whole[2:, 1:-1]
    horizontal, vertical = (left_right + 1) >> 1, (up_down + 1) >> 1
    cross = (left_right + up_down + 2) >> 2
    corners = whole[:-2, :-2] + whole[:-2, 2:] + whole[2:, :-2] + whole[2:, 2:]
    diagonal = (corners + 2) >> 2
    out = np.empty((*mosaic.shape, 3), np.uint8)
    for place, colour in enumerate(pattern):
        row, column = divmod(place, 2)
        here = (slice(row, None, 2), slice(column, None, 2))
        if colour == "g":
            # Red lies in the same row, or in the same column.
            in_row = pattern[place ^ 1]
            out[here][..., "rgb".index(in_row)] = horizontal[here]
            out[here][..., "bgr".index(in_row)] = vertical[here]
            out[here][..., 1] = centre[here]
        else:
            out[here][..., "rgb".index(colour)] = centre[here]
            out[here][..., 1] = cross[here]
            out[here][..., "bgr".index(colour)] = diagonal[here]
    return out


def _eight_bits(rows: np.ndarray, big_endian: bool) -> np.ndarray:  # [h, bytes] -> [h, bytes / 2]
    """Sixteen bits to eight, keeping the full scale."""
    values = np.ascontiguousarray(rows).view(">u2" if big_endian else "<u2")
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _bayer(pattern: str, sixteen: bool = False) -> Conversion:
    def to_rgb(rows: np.ndarray, width: int, big_endian: bool) -> np.ndarray:
        return demosaic(_eight_bits(rows, big_endian) if sixteen else rows, pattern)

    return Conversion(2 if sixteen else 1, (1, 1), 2, to_rgb)


def _sixteen(order: str, channels: int) -> Conversion:
    def to_rgb(rows: np.ndarray, width: int, big_endian: bool) -> np.ndarray:
        pixels = _eight_bits(rows, big_endian).reshape(len(rows), width, channels)
        return np.ascontiguousarray(pixels[..., [order.index(colour) for colour in "rgb"]])

    return Conversion(2 * channels, (1, 1), 0, to_rgb)


def _gray16(rows: np.ndarray, width: int, big_endian: bool) -> np.ndarray:
    return np.repeat(_eight_bits(rows, big_endian)[..., None], 3, axis=-1)


def _yuv422(y: int, u: int, v: int) -> Conversion:
    """Two pixels in four bytes; where the first luma and the chroma are among them."""

    def to_rgb(rows: np.ndarray, width: int, big_endian: bool) -> np.ndarray:
        pairs = rows.reshape(len(rows), width // 2, 4)
        luma = pairs[..., [y, y + 2]].reshape(len(rows), width)
        return _rgb(luma, *(np.repeat(pairs[..., c], 2, axis=1) for c in (u, v)))

    return Conversion(2, (1, 1), 1, to_rgb)


def _semiplanar(u: int, v: int) -> Conversion:
    """A plane of luma, then one of chroma in pairs, with half as many of them each way."""

    def to_rgb(rows: np.ndarray, width: int, big_endian: bool) -> np.ndarray:
        height = len(rows) * 2 // 3
        pairs = rows[height:].reshape(height // 2, width // 2, 2)
        pairs = pairs.repeat(2, axis=0).repeat(2, axis=1)
        return _rgb(rows[:height], pairs[..., u], pairs[..., v])

    return Conversion(1, (3, 2), 2, to_rgb)


def _rgb(y: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:  # [h, w] uint8 each
    """BT.601 of video range, with OpenCV's integers."""
    luma = np.maximum(y.astype(np.int32) - 16, 0) * 1220542
    u, v = u.astype(np.int32) - 128, v.astype(np.int32) - 128
    half = 1 << 19
    out = np.empty((*y.shape, 3), np.uint8)
    for channel, chroma in enumerate((1673527 * v, -852492 * v - 409993 * u, 2116026 * u)):
        out[..., channel] = np.clip((luma + chroma + half) >> 20, 0, 255)
    return out


CONVERSIONS = {
    "uyvy": _yuv422(1, 0, 2),
    "yuyv": _yuv422(0, 1, 3),
    "nv12": _semiplanar(0, 1),
    "nv21": _semiplanar(1, 0),
    "mono16": Conversion(2, (1, 1), 0, _gray16),
    "rgb16": _sixteen("rgb", 3),
    "bgr16": _sixteen("bgr", 3),
    "rgba16": _sixteen("rgba", 4),
    "bgra16": _sixteen("bgra", 4),
    **{f"bayer_{p}8": _bayer(p) for p in ("rggb", "bggr", "gbrg", "grbg")},
    **{f"bayer_{p}16": _bayer(p, sixteen=True) for p in ("rggb", "bggr", "gbrg", "grbg")},
}
