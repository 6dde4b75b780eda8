# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""From the bytes of a camera message to pixels: raw encodings, JPEG and PNG."""

from __future__ import annotations

import io
import re

import numpy as np
from PIL import Image

from alocc_ros.errors import ImageError
from alocc_ros.stream.encodings import (
    CONVERSIONS,
    LAYOUTS,
    canonical,
    demosaic,
    mosaic_of,
    video_of,
)
from alocc_ros.types import CameraImage

# Larger than any camera of a vehicle, small enough not to hurt: what a few malicious bytes of
# PNG could otherwise unfold to is a matter of gigabytes.
MAX_PIXELS = 64_000_000


_START_CODES = (b"\x00\x00\x00\x01", b"\x00\x00\x01")  # of H.264 and H.265
SUPPORTED_ENCODINGS = (*LAYOUTS, "8UC3", *CONVERSIONS, "jpeg", "png", "compressed")


def is_supported(encoding: str) -> bool:
    """Whether images of this encoding are decoded here."""
    name = canonical(encoding, "bgr8")
    return name in LAYOUTS or name in CONVERSIONS or is_compressed(encoding)


def decode(image: CameraImage, assume_8uc3: str = "bgr8") -> np.ndarray:  # [h, w, 3] uint8 RGB
    """The pixels of a message, red first.

    JPEG and PNG are distinguished by their first bytes. Gray becomes three equal channels, alpha
    is dropped, CMYK and palettes are converted, a mosaic in a gray picture becomes colours if the
    message says so. An EXIF orientation is ignored: the calibration belongs to the pixels as they
    are stored. Sixteen-bit PNG images are refused: they are depth nearly always.

    Args:
        image: the message.
        assume_8uc3: what the encoding ``8UC3`` holds, ``bgr8`` or ``rgb8``.

    Raises:
        ImageError: naming the camera, what is wrong and why.
    """
    return rgb_pixels(open_image(image, assume_8uc3))


def open_image(
    image: CameraImage,
    assume_8uc3: str,
    expected: tuple[int, int] | None = None,
    draft: tuple[int, int] | None = None,
) -> Image.Image:
    """The decoded image, of mode ``L`` or ``RGB``.

    Args:
        image: the message.
        assume_8uc3: what the encoding ``8UC3`` holds, ``bgr8`` or ``rgb8``.
        expected: width and height that the image must have, or None.
        draft: a JPEG may be decoded at a fraction of its size that is no smaller than this width
            and height; None: at full size.

    Raises:
        ImageError: it cannot be decoded, or is not of the expected size.
    """
    if is_compressed(image.encoding):
        return _open_compressed(image, expected, draft)
    return _open_raw(image, assume_8uc3, expected)


def is_compressed(encoding: str) -> bool:
    """Also true for the format strings of image_transport, ``bgr8; jpeg compressed bgr8``."""
    words = re.split(r"[^a-z0-9]+", encoding.lower())
    return not {"jpeg", "jpg", "png", "compressed"}.isdisjoint(words)


def _open_compressed(
    image: CameraImage, expected: tuple[int, int] | None, draft: tuple[int, int] | None
) -> Image.Image:
    data = _bytes(image)
    try:
        opened = Image.open(io.BytesIO(data), formats=("JPEG", "PNG"))
        check_size(image, *opened.size, expected)
        mosaic = mosaic_of(image.encoding) if opened.mode == "L" else ""
        if draft is not None and not mosaic:
            opened.draft("RGB", draft)
        opened.load()
        if mosaic:
            pattern = mosaic.removeprefix("bayer_").removesuffix("8")
            return Image.fromarray(demosaic(np.asarray(opened), pattern))
        if opened.mode in ("L", "RGB"):
            return opened
        if opened.mode.startswith(("I", "F")):
            raise ImageError(
                f"{image.camera}: a {opened.format} image with more than 8 bits per pixel and "
                "channel; convert it to 8 bits before"
            )
        return opened.convert("RGB")
    except ImageError:
        raise
    # Pillow's decoders raise whatever the damage runs them into: OSError and SyntaxError, but
    # also ValueError, struct.error, zlib.error, IndexError, EOFError and bomb warnings that
    # were turned into errors. Given these bytes, each of them means that they are no image.
    except Exception as error:
        if what := _video(image.encoding, bytes(data[:4])):
            raise ImageError(f"{image.camera}: {what}") from error
        begin = bytes(data[:8]).hex(" ")
        raise ImageError(
            f"{image.camera}: {len(data)} bytes that are no JPEG or PNG image, or a damaged one "
            f"({_first_line(error)}); they begin with {begin}"
        ) from error


def _video(encoding: str, begin: bytes) -> str:
    """What to do with a video stream, or "" if it is none."""
    named = video_of(encoding)
    if not named and not begin.startswith(_START_CODES):
        return ""
    return (
        f"the message holds a part of a video stream ({named or 'H.264 or H.265'}), not a JPEG or "
        "PNG picture; pip install 'alocc_ros[video]' decodes it here; or decode it "
        "before (ffmpeg_image_transport: ros2 run image_transport republish ffmpeg raw) and give "
        "the topic that this publishes"
    )


def image_size(image: CameraImage) -> tuple[int, int]:
    """(width, height) of an image as it says itself; its pixels are not decoded.

    Raises:
        ImageError: it has none, or is of an encoding that is not decoded here.
    """
    if not is_compressed(image.encoding):
        if not is_supported(image.encoding):
            raise _unsupported(image)
        return image.width, image.height
    data = _bytes(image)
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG", "PNG")) as opened:
            return opened.size
    except Exception as error:  # see _open_compressed
        what = _video(image.encoding, bytes(data[:4])) or (
            f"{len(data)} bytes that are no JPEG or PNG image"
        )
        raise ImageError(f"{image.camera}: {what}") from error


def _unsupported(image: CameraImage) -> ImageError:
    return ImageError(
        f"{image.camera}: encoding {image.encoding!r} is not supported; supported are "
        f"{', '.join(SUPPORTED_ENCODINGS)}; convert it in the driver (the node asks cv_bridge for "
        "others, if that is installed)"
    )


def _open_raw(
    image: CameraImage, assume_8uc3: str, expected: tuple[int, int] | None
) -> Image.Image:
    encoding = canonical(image.encoding, assume_8uc3)
    layout, conversion = LAYOUTS.get(encoding), CONVERSIONS.get(encoding)
    if layout is None and conversion is None:
        raise _unsupported(image)
    pixel = layout.channels if layout is not None else conversion.row_bytes
    data, height, width, step = _rows(image, pixel)
    check_size(image, width, height, expected)
    row = width * pixel
    if step < row:
        raise ImageError(
            f"{image.camera}: rows of {step} bytes cannot hold {width} pixels of "
            f"{image.encoding}, which take {row}"
        )
    rows = height
    if conversion is not None:
        if (conversion.even and width % 2) or (conversion.even == 2 and height % 2):
            raise ImageError(
                f"{image.camera}: {width}x{height} pixels cannot be {image.encoding}, which comes "
                "in pairs"
            )
        rows = height * conversion.rows[0] // conversion.rows[1]
    if len(data) < step * (rows - 1) + row:
        raise ImageError(
            f"{image.camera}: {len(data)} bytes are too few for {width}x{height} pixels of "
            f"{image.encoding} in rows of {step} bytes"
        )
    if layout is not None:
        return Image.frombytes(layout.mode, (width, height), data, "raw", layout.raw_mode, step, 1)
    flat = np.frombuffer(data, np.uint8, count=step * (rows - 1) + row)
    lines = np.lib.stride_tricks.as_strided(flat, (rows, row), (step, 1), writeable=False)
    return Image.fromarray(conversion.to_rgb(lines, width, image.big_endian))


def _rows(image: CameraImage, channels: int) -> tuple[memoryview, int, int, int]:
    """(bytes, height, width, bytes from row to row) of a raw image.

    An array with rows and columns knows its shape itself; flat data are as the message says.
    """
    data = image.data
    if isinstance(data, np.ndarray) and data.ndim > 1:
        shape = data.shape[:2]
        said = (image.height or shape[0], image.width or shape[1])
        if data.dtype != np.uint8 or data[:1, :1].size != channels or shape != said:
            raise ImageError(
                f"{image.camera}: an array of {data.dtype} {data.shape} is no "
                f"{said[1]}x{said[0]} image of {image.encoding}"
            )
        data = np.ascontiguousarray(data)
        return memoryview(data).cast("B"), shape[0], shape[1], shape[1] * channels
    if image.height <= 0 or image.width <= 0:
        raise ImageError(
            f"{image.camera}: a raw image of {image.width}x{image.height} pixels cannot be"
        )
    return _bytes(image), image.height, image.width, image.step or image.width * channels


def _bytes(image: CameraImage) -> memoryview:
    try:
        data = memoryview(image.data).cast("B")
    except (TypeError, ValueError) as error:
        raise ImageError(f"{image.camera}: the data are no row of bytes ({error})") from error
    if not len(data):
        raise ImageError(f"{image.camera}: the message holds no bytes")
    return data


def check_size(
    image: CameraImage, width: int, height: int, expected: tuple[int, int] | None
) -> None:
    """Refuses images that are enormous or not of the expected width and height.

    Raises:
        ImageError: naming both sizes.
    """
    if width * height > MAX_PIXELS:
        raise ImageError(
            f"{image.camera}: the image claims {width}x{height} pixels, more than the "
            f"{MAX_PIXELS / 1e6:.0f} million that are accepted"
        )
    if expected is not None and (width, height) != expected:
        raise ImageError(
            f"{image.camera}: the image has {width}x{height} pixels, its calibration is for "
            f"{expected[0]}x{expected[1]}"
        )


def rgb_pixels(opened: Image.Image) -> np.ndarray:  # [h, w, 3] uint8 RGB
    """Its pixels; converting from RGB to RGB would copy the image."""
    return np.asarray(opened if opened.mode == "RGB" else opened.convert("RGB"))


def _first_line(error: Exception) -> str:
    """A Pillow message without the address of the buffer that some of them end with."""
    text = str(error).split("\n")[0].split(" <_io.")[0].strip()
    return text or type(error).__name__
