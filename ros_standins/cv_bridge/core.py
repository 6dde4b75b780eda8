# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""ROS images from and to OpenCV arrays, by numpy and OpenCV alone."""

from __future__ import annotations

import array
import re
import sys

import cv2
import numpy as np
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

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
    """Converts both ways."""

    def encoding_to_dtype_with_channels(self, encoding: str) -> tuple[str, int]:
        """(numpy dtype name, channels) of an encoding such as bgr8 or 32FC1."""
        dtype, channels = _layout(encoding)
        return dtype.name, channels

    def dtype_with_channels_to_cvtype2(self, dtype: np.dtype, n_channels: int) -> str:
        """Such as 8UC3."""
        for name, kind in _DEPTHS.items():
            if np.dtype(dtype) == kind:
                return f"{name}C{n_channels}"
        raise CvBridgeError(f"no ROS image holds {np.dtype(dtype).name}")

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

    def cv2_to_imgmsg(
        self, cvim: np.ndarray, encoding: str = "passthrough", header: Header | None = None
    ) -> Image:
        """The array as a message; ``encoding`` says what its channels are.

        Raises:
            CvBridgeError: the array is not of that encoding.
        """
        if not isinstance(cvim, np.ndarray):
            raise TypeError("Your input type is not a numpy array")
        channels = 1 if cvim.ndim == 2 else cvim.shape[2]
        cv_type = self.dtype_with_channels_to_cvtype2(cvim.dtype, channels)
        if encoding != "passthrough" and _layout(encoding) != (cvim.dtype, channels):
            raise CvBridgeError(f"encoding {encoding} was asked for, the image is {cv_type}")
        message = Image(header=header) if header is not None else Image()
        message.height, message.width = cvim.shape[:2]
        message.encoding = cv_type if encoding == "passthrough" else encoding
        message.is_bigendian = int(cvim.dtype.byteorder == ">" or sys.byteorder == "big")
        message.step = cvim.shape[1] * channels * cvim.dtype.itemsize
        message.data = _bytes(np.ascontiguousarray(cvim).view(np.uint8))
        return message

    def compressed_imgmsg_to_cv2(
        self, cmprs_img_msg: CompressedImage, desired_encoding: str = "passthrough"
    ) -> np.ndarray:
        """The decoded image; colours are b, g, r unless another encoding is desired."""
        image = cv2.imdecode(np.frombuffer(cmprs_img_msg.data, np.uint8), cv2.IMREAD_UNCHANGED)
        if image is None:
            raise CvBridgeError(f"no image in a message of format {cmprs_img_msg.format!r}")
        if desired_encoding == "passthrough":
            return image
        bits = 8 * image.dtype.itemsize
        names = {2: "mono", 3: "bgr", 4: "bgra"}
        encoding = f"{names[image.ndim if image.ndim == 2 else image.shape[2]]}{bits}"
        return _convert(image, encoding, desired_encoding)

    def cv2_to_compressed_imgmsg(
        self, cvim: np.ndarray, dst_format: str = "jpg", header: Header | None = None
    ) -> CompressedImage:
        """The array (b, g, r or grey) encoded as jpg, png, ..."""
        if not isinstance(cvim, np.ndarray):
            raise TypeError("Your input type is not a numpy array")
        try:
            ok, data = cv2.imencode(f".{dst_format}", cvim)
        except cv2.error as error:
            raise CvBridgeError(f"{dst_format}: {error}") from error
        if not ok:
            raise CvBridgeError(f"OpenCV cannot write {dst_format}")
        message = CompressedImage(header=header) if header is not None else CompressedImage()
        message.format = dst_format
        message.data = _bytes(data)
        return message


def _bytes(data: np.ndarray) -> array.array:
    # The one type that message fields take without looking at every byte.
    out = array.array("B")
    out.frombytes(data.data if data.size else b"")
    return out


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
