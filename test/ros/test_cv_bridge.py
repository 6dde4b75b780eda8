# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""cv_bridge, whichever is here: upstream's or ours."""

from __future__ import annotations

import array

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="no rclpy here: make ros, or source a ROS installation")
pytest.importorskip("cv_bridge", reason="no cv_bridge here: make ros")

from cv_bridge import CvBridge, CvBridgeError
from sensor_msgs.msg import Image

pytestmark = pytest.mark.ros

BRIDGE = CvBridge()


def message(image: np.ndarray, encoding: str) -> Image:
    height, width = image.shape[:2]
    data = array.array("B", image.tobytes())
    step = image.nbytes // height
    return Image(height=height, width=width, encoding=encoding, step=step, data=data)


RED = np.zeros((4, 6, 3), np.uint8)
RED[..., 0] = 255


@pytest.mark.parametrize(
    ("encoding", "shape", "dtype"),
    [
        ("rgb8", (5, 7, 3), np.uint8),
        ("bgr8", (5, 7, 3), np.uint8),
        ("rgba8", (5, 7, 4), np.uint8),
        ("bgra8", (5, 7, 4), np.uint8),
        ("mono8", (5, 7), np.uint8),
        ("mono16", (5, 7), np.uint16),
        ("rgb16", (5, 7, 3), np.uint16),
        ("bayer_rggb8", (6, 8), np.uint8),
        ("8UC3", (5, 7, 3), np.uint8),
        ("16UC1", (5, 7), np.uint16),
        ("32FC1", (5, 7), np.float32),
        ("32FC2", (5, 7, 2), np.float32),
        ("64FC1", (5, 7), np.float64),
    ],
)
def test_what_is_not_converted_is_the_same_image(encoding, shape, dtype):
    image = (np.random.default_rng(0).random(shape) * 250).astype(dtype)
    found = BRIDGE.imgmsg_to_cv2(message(image, encoding))
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, image)


@pytest.mark.parametrize(
    ("desired", "pixel"),
    [("rgb8", [255, 0, 0]), ("bgr8", [0, 0, 255]), ("rgba8", [255, 0, 0, 255]), ("mono8", 76)],
)
def test_colours_are_converted(desired, pixel):
    sent = message(RED, "rgb8")
    np.testing.assert_array_equal(BRIDGE.imgmsg_to_cv2(sent, desired)[2, 3], pixel)


def test_sixteen_bits_to_eight_keep_the_full_scale():
    sent = message(np.array([[0, 257, 32896, 65535]], np.uint16), "mono16")
    np.testing.assert_array_equal(BRIDGE.imgmsg_to_cv2(sent, "mono8"), [[0, 1, 128, 255]])
    sent = message(np.array([[0, 1, 255]], np.uint8), "mono8")
    np.testing.assert_array_equal(BRIDGE.imgmsg_to_cv2(sent, "mono16"), [[0, 257, 65535]])


@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
def test_a_bayer_mosaic_of_one_colour_becomes_that_colour(pattern):
    value = {"r": 200, "g": 120, "b": 40}
    cell = np.array([value[c] for c in pattern], np.uint8).reshape(2, 2)
    sent = message(np.tile(cell, (4, 4)), f"bayer_{pattern}8")
    inside = BRIDGE.imgmsg_to_cv2(sent, "rgb8")[2:-2, 2:-2]
    np.testing.assert_array_equal(inside.reshape(-1, 3), [[200, 120, 40]] * 16)


def test_yuv_is_converted():
    grey = np.zeros((2, 4, 2), np.uint8)
    grey[..., 0], grey[..., 1] = 128, 126  # u or v, then y
    sent = Image(
        height=2, width=4, encoding="yuv422", step=8, data=array.array("B", grey.tobytes())
    )
    assert np.ptp(BRIDGE.imgmsg_to_cv2(sent, "rgb8")) == 0


def test_padding_at_the_end_of_rows_and_big_endian_are_understood():
    padded = np.full((3, 16), 9, np.uint8)
    padded[:, :12] = np.arange(36).reshape(3, 12)
    sent = Image(height=3, width=4, encoding="rgb8", step=16)
    sent.data = array.array("B", padded.tobytes())
    np.testing.assert_array_equal(
        BRIDGE.imgmsg_to_cv2(sent), np.arange(36, dtype=np.uint8).reshape(3, 4, 3)
    )
    sent = Image(height=1, width=2, encoding="mono16", step=4, is_bigendian=1)
    sent.data = array.array("B", [1, 0, 0, 2])
    np.testing.assert_array_equal(BRIDGE.imgmsg_to_cv2(sent), [[256, 2]])


def test_what_cannot_be_converted_is_an_error_of_the_bridge():
    with pytest.raises(CvBridgeError):
        BRIDGE.imgmsg_to_cv2(message(RED, "rgb8"), "ultraviolet8")
    with pytest.raises(CvBridgeError):
        BRIDGE.imgmsg_to_cv2(Image(height=1, width=1, encoding="ultraviolet8"))


def test_a_raw_image_is_read_in_milliseconds():
    import time

    sent = message(np.zeros((900, 1600, 3), np.uint8), "rgb8")
    start = time.process_time()
    BRIDGE.imgmsg_to_cv2(sent)
    assert time.process_time() - start < 0.05
