# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Raw encodings that are worked out here, against OpenCV, and mosaics in gray pictures."""

from __future__ import annotations

import io
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from alocc_ros.errors import ImageError
from alocc_ros.stream import conversions
from alocc_ros.stream.decoding import decode, image_size, is_supported
from alocc_ros.stream.encodings import demosaic
from alocc_ros.types import CameraImage

cv2 = pytest.importorskip("cv2", reason="compares with OpenCV")

HEIGHT, WIDTH = 36, 64
RNG = np.random.default_rng(0)
# OpenCV calls a mosaic by its second row and column.
OPENCV_BAYER = {"rggb": "BG", "bggr": "RG", "gbrg": "GR", "grbg": "GB"}


def smooth(channels: int = 3) -> np.ndarray:  # [h, w, channels] uint8
    small = RNG.integers(0, 256, (5, 8, channels), np.uint8)
    large = [Image.fromarray(small[..., c]).resize((WIDTH, HEIGHT)) for c in range(channels)]
    return np.stack([np.asarray(one) for one in large], axis=-1)


def message(encoding: str, rows: np.ndarray, *, padding: int = 0, **fields: object) -> object:
    """A sensor_msgs/Image with ``rows`` [rows, bytes] of bytes."""
    padded = np.pad(rows, ((0, 0), (0, padding)), constant_values=99)
    fields = {"is_bigendian": 0} | fields
    return SimpleNamespace(
        encoding=encoding,
        height=HEIGHT,
        width=WIDTH,
        step=padded.shape[1],
        data=np.ascontiguousarray(padded).reshape(-1),
        **fields,
    )


def decoded(message: object, assume: str = "bgr8") -> np.ndarray:
    image = conversions.camera_image(message, "cam_front", 1, assume)
    assert is_supported(image.encoding)
    assert image_size(image) == (WIDTH, HEIGHT)
    return decode(image, assume)


@pytest.mark.parametrize("padding", [0, 6])
@pytest.mark.parametrize(
    ("names", "code"),
    [
        (["yuv422", "uyvy", "UYVY"], cv2.COLOR_YUV2RGB_UYVY),
        (["yuv422_yuy2", "yuyv", "YUY2"], cv2.COLOR_YUV2RGB_YUYV),
    ],
)
def test_packed_yuv_is_as_opencv_has_it(names, code, padding):
    rows = RNG.integers(0, 256, (HEIGHT, 2 * WIDTH), np.uint8)
    expected = cv2.cvtColor(rows.reshape(HEIGHT, WIDTH, 2), code)
    for name in names:
        got = decoded(message(name, rows, padding=padding))
        np.testing.assert_array_equal(got, expected, err_msg=name)


@pytest.mark.parametrize("padding", [0, 6])
@pytest.mark.parametrize(
    ("name", "code"), [("nv12", cv2.COLOR_YUV2RGB_NV12), ("nv21", cv2.COLOR_YUV2RGB_NV21)]
)
def test_planar_yuv_is_as_opencv_has_it(name, code, padding):
    rows = RNG.integers(0, 256, (HEIGHT * 3 // 2, WIDTH), np.uint8)
    got = decoded(message(name, rows, padding=padding))
    np.testing.assert_array_equal(got, cv2.cvtColor(rows, code))


@pytest.mark.parametrize("pattern", OPENCV_BAYER)
def test_a_mosaic_is_made_to_colours_as_opencv_does(pattern):
    mosaic = RNG.integers(0, 256, (HEIGHT, WIDTH), np.uint8)
    expected = cv2.cvtColor(mosaic, getattr(cv2, f"COLOR_Bayer{OPENCV_BAYER[pattern]}2RGB"))
    got = decoded(message(f"bayer_{pattern}8", mosaic))
    np.testing.assert_array_equal(got[1:-1, 1:-1], expected[1:-1, 1:-1])
    wide = mosaic.astype(np.uint16) * 257
    for order in "<>":
        rows = wide.astype(f"{order}u2").view(np.uint8)
        again = decoded(message(f"bayer_{pattern}16", rows, is_bigendian=int(order == ">")))
        np.testing.assert_array_equal(again, got)


@pytest.mark.parametrize("size", [(2, 2), (36, 64)])
def test_a_mosaic_of_one_colour_is_that_colour_to_the_edge(size):
    values = {"r": 200, "g": 120, "b": 40}
    for pattern in OPENCV_BAYER:
        cell = np.array([values[c] for c in pattern], np.uint8).reshape(2, 2)
        mosaic = np.tile(cell, (size[0] // 2, size[1] // 2))
        assert (demosaic(mosaic, pattern) == [200, 120, 40]).all()


@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("name", ["rgb16", "bgr16", "rgba16", "bgra16", "mono16", "MONO16"])
def test_sixteen_bits_keep_the_full_scale(name, big_endian):
    pixels = smooth(4)
    stored = {"mono16": pixels[..., :1], "rgb16": pixels[..., :3], "rgba16": pixels}
    stored |= {"bgr16": pixels[..., 2::-1], "bgra16": pixels[..., [2, 1, 0, 3]]}
    wide = stored[name.lower()].astype(np.uint16) * 257
    rows = wide.astype(">u2" if big_endian else "<u2").reshape(HEIGHT, -1).view(np.uint8)
    got = decoded(message(name, rows, is_bigendian=int(big_endian), padding=2))
    expected = pixels[..., :1] if name.lower() == "mono16" else pixels[..., :3]
    np.testing.assert_array_equal(got, np.broadcast_to(expected, got.shape))


@pytest.mark.parametrize(
    ("name", "assume", "channels"),
    [
        ("8UC1", "bgr8", [0]),
        ("8uc3", "bgr8", [2, 1, 0]),
        ("8UC4", "bgr8", [2, 1, 0, 3]),
        ("8UC4", "rgb8", [0, 1, 2, 3]),
        ("BGR8", "rgb8", [2, 1, 0]),
        (" rgb8 ", "bgr8", [0, 1, 2]),
    ],
)
def test_other_names_of_the_same_layouts(name, assume, channels):
    pixels = smooth(4)
    rows = pixels[..., channels].reshape(HEIGHT, -1)
    got = decoded(message(name, rows), assume)
    expected = pixels[..., :3] if len(channels) > 1 else pixels[..., :1]
    np.testing.assert_array_equal(got, np.broadcast_to(expected, got.shape))


# --- CompressedImage -------------------------------------------------------------------------


def compressed(pixels: np.ndarray, form: str, kind: str = "PNG") -> object:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return SimpleNamespace(format=form, data=np.frombuffer(buffer.getvalue(), np.uint8))


@pytest.mark.parametrize(
    "form",
    [
        "bayer_rggb8; png compressed bayer_rggb8",
        "bayer_rggb8; png compressed ",
        "bayer_rggb8; jpeg compressed",
        "BAYER_RGGB8; jpeg compressed BAYER_RGGB8",
    ],
)
def test_a_mosaic_in_a_gray_picture_is_known_by_the_format(form):
    mosaic = RNG.integers(0, 256, (HEIGHT, WIDTH), np.uint8)
    got = decoded(compressed(mosaic, form))
    np.testing.assert_array_equal(got, demosaic(mosaic, "rggb"))


@pytest.mark.parametrize(
    "form", ["jpeg", "", "mono8; png compressed mono8", "bayer_rggb8; jpeg compressed mono8"]
)
def test_other_gray_pictures_stay_gray(form):
    gray = RNG.integers(0, 256, (HEIGHT, WIDTH), np.uint8)
    got = decoded(compressed(gray, form))
    np.testing.assert_array_equal(got, np.repeat(gray[..., None], 3, axis=-1))


def test_a_picture_in_colours_is_no_mosaic_whatever_the_format_says():
    pixels = smooth()
    got = decoded(compressed(pixels, "bayer_rggb8; jpeg compressed bayer_rggb8"))
    np.testing.assert_array_equal(got, pixels)


@pytest.mark.parametrize(
    ("form", "data"),
    [("h264", b"\x01\x02\x03\x04"), ("", b"\x00\x00\x00\x01\x67"), ("hevc", b"\x00\x00\x01\x40")],
)
def test_a_part_of_a_video_stream_is_named_with_what_to_do(form, data):
    image = CameraImage("cam_front", 1, data, f"compressed {form}")
    for look in (decode, image_size):
        with pytest.raises(ImageError, match=r"^cam_front: .*video stream.*republish"):
            look(image)
