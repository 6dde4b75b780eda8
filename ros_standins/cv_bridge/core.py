# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""ROS images as OpenCV arrays, by numpy and OpenCV alone."""

from __future__ import annotations

import re

import cv2
import numpy as np
from sensor_msgs.msg import Image

_DEPTHS = {
    "8U": np.uint8,
    "8S": np.int8,
    "16U": np.uint16,
    "16S": np.int16,
    "32S": np.int32,
    "32F": np.float32,
    "64F": np.float64,
}
_COLOURS = {"mono": 1, "bgr": 3, "rgb": 3, "bgra": 4, "rgba": 4}
# OpenCV names a Bayer pattern by its second row, ROS by its first.
_BAYER = {"rggb": "BayerBG", "bggr": "BayerRG", "gbrg": "BayerGR", "grbg": "BayerGB"}
_YUV = {
    "yuv422": "YUV2{}_UYVY",
    "uyvy": "YUV2{}_UYVY",
    "yuv422_yuy2": "YUV2{}_YUY2",
    "yuyv": "YUV2{}_YUY2",
}


class CvBridgeError(TypeError):
    """An image or encoding that cannot be converted."""


class CvBridge:
    """Converts images that come in."""

    def imgmsg_to_cv2(self, img_msg: Image, desired_encoding: str = "passthrough") -> np.ndarray:
        """The image as [height, width] or [height, width, channels].

        Raises:
            CvBridgeError: the message is damaged, or there is no such conversion.
        """
        dtype, channels = _layout(img_msg.encoding)
        dtype = dtype.newbyteorder(">" if img_msg.is_bigendian else "<")
        height, width, step = img_msg.height, img_msg.width, img_msg.step
        row = width * channels * dtype.itemsize
        data = np.frombuffer(img_msg.data, np.uint8)
        if step < row or data.size < step * height:
            raise CvBridgeError(
                f"{width}x{height} {img_msg.encoding} with a step of {step} needs {row} bytes a "
                f"row and {max(step, row) * height} in all; there are {data.size}"
            )
        rows = data[: step * height].reshape(height, step)[:, :row]
        image = np.ascontiguousarray(rows).view(dtype)
        image = image.reshape((height, width) if channels == 1 else (height, width, channels))
        if not dtype.isnative:
            image = image.astype(dtype.newbyteorder("="))
        return _convert(image, img_msg.encoding, desired_encoding)


def _layout(encoding: str) -> tuple[np.dtype, int]:
    """(dtype, channels)."""
    colour = re.fullmatch(r"(mono|bgra|rgba|bgr|rgb)(8|16)", encoding)
    if colour:
        return np.dtype(f"uint{colour[2]}"), _COLOURS[colour[1]]
    plain = re.fullmatch(r"(8U|8S|16U|16S|32S|32F|64F)C?(\d*)", encoding)
    if plain:
        return np.dtype(_DEPTHS[plain[1]]), int(plain[2] or 1)
    bayer = re.fullmatch(r"bayer_(rggb|bggr|gbrg|grbg)(8|16)", encoding)
    if bayer:
        return np.dtype(f"uint{bayer[2]}"), 1
    if encoding in _YUV:
        return np.dtype(np.uint8), 2
    raise CvBridgeError(f"unknown image encoding {encoding!r}")


def _convert(image: np.ndarray, source: str, desired: str) -> np.ndarray:
    if desired in ("passthrough", source):
        return image
    dtype, channels = _layout(desired)
    if re.fullmatch(r"\d+[USF]C?\d*", desired):
        if _layout(source) != (dtype, channels):
            raise CvBridgeError(f"{source} cannot be taken for {desired}")
        return image
    target = re.fullmatch(r"(mono|bgra|rgba|bgr|rgb)(8|16)", desired)
    if target is None:
        raise CvBridgeError(f"no conversion from {source} to {desired}")
    return _depth(_colour(image, source, target[1]), dtype)


def _colour(image: np.ndarray, source: str, target: str) -> np.ndarray:
    names = {"mono": "GRAY", "bgr": "BGR", "rgb": "RGB", "bgra": "BGRA", "rgba": "RGBA"}
    colour = re.fullmatch(r"(mono|bgra|rgba|bgr|rgb)(8|16)", source)
    bayer = re.fullmatch(r"bayer_(\w{4})(8|16)", source)
    if colour:
        if colour[1] == target:
            return image
        code = f"{names[colour[1]]}2{names[target]}"
    elif bayer:
        code = f"{_BAYER[bayer[1]]}2{names[target]}"
    elif source in _YUV:
        code = _YUV[source].format(names[target])
    else:
        # 8UC1, 16UC1: nothing says what the channels are, but one is grey.
        if _layout(source)[1] != 1 or image.dtype not in (np.uint8, np.uint16):
            raise CvBridgeError(f"{source} does not say what its channels are")
        return _colour(image, f"mono{8 * image.dtype.itemsize}", target)
    number = getattr(cv2, f"COLOR_{code}", None)
    if number is None:
        raise CvBridgeError(f"no conversion from {source} to {target}")
    return cv2.cvtColor(image, number)


def _depth(image: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """8 and 16 bits: full scale stays full scale."""
    if image.dtype == dtype:
        return image
    if dtype == np.uint16:
        return image.astype(np.uint16) * np.uint16(257)
    return ((image.astype(np.uint32) + 128) // 257).astype(np.uint8)
