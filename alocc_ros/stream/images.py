# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""From the bytes of a camera message to the network's input, as the networks were trained.

decode → (undistort) → resize → crop → normalise. Resizing is Pillow's antialiased bicubic on
8-bit pixels, rounded after the horizontal and again after the vertical pass; other libraries
give other pixels. Everything up to the normalised floats is equal bit for bit to decoding,
resizing and cropping the whole image with Pillow 10.
"""

from __future__ import annotations

import io
import math
import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image

from alocc_ros.errors import CalibrationError, ImageError, ParameterError
from alocc_ros.types import CAMERAS, Calibration, CameraImage, FrameSet

# ImageNet statistics in the order red, green, blue; see _normalise for how they are applied.
MEAN = (123.675, 116.28, 103.53)
STD = (58.395, 57.12, 57.375)

# Larger than any camera of a vehicle, small enough not to hurt: what a few malicious bytes of
# PNG could otherwise unfold to is a matter of gigabytes.
MAX_PIXELS = 64_000_000


class _RawLayout(NamedTuple):
    mode: str  # of the Pillow image
    raw_mode: str  # Pillow's name of the bytes' layout
    channels: int


_RAW_LAYOUTS = {
    "rgb8": _RawLayout("RGB", "RGB", 3),
    "bgr8": _RawLayout("RGB", "BGR", 3),
    "rgba8": _RawLayout("RGB", "RGBX", 4),
    "bgra8": _RawLayout("RGB", "BGRX", 4),
    "mono8": _RawLayout("L", "L", 1),
}
SUPPORTED_ENCODINGS = (*_RAW_LAYOUTS, "8UC3", "jpeg", "png", "compressed")


# Decoding -------------------------------------------------------------------------------------


def decode(image: CameraImage, assume_8uc3: str = "bgr8") -> np.ndarray:  # [h, w, 3] uint8 RGB
    """The pixels of a message, red first.

    JPEG and PNG are told apart by their first bytes. Gray becomes three equal channels, alpha
    is dropped, CMYK and palettes are converted. An EXIF orientation is ignored: the calibration
    belongs to the pixels as they are stored. Sixteen-bit gray images are refused, as nothing
    says which of their bits matter.

    Args:
        image: the message.
        assume_8uc3: what the encoding ``8UC3`` holds, ``bgr8`` or ``rgb8``.

    Raises:
        ImageError: naming the camera, what is wrong and why.
    """
    return _pixels(_open(image, assume_8uc3))


def _open(
    image: CameraImage, assume_8uc3: str, expected: Crop | None = None, draft: bool = False
) -> Image.Image:
    """The decoded image, ``L`` or ``RGB``; with ``draft`` a JPEG may come out smaller.

    Raises:
        ImageError: it cannot be decoded, or is not of the size that ``expected`` is made for.
    """
    if _is_compressed(image.encoding):
        return _open_compressed(image, expected, draft)
    return _open_raw(image, assume_8uc3, expected)


def _is_compressed(encoding: str) -> bool:
    """Also true for the format strings of image_transport, ``bgr8; jpeg compressed bgr8``."""
    words = re.split(r"[^a-z0-9]+", encoding.lower())
    return not {"jpeg", "jpg", "png", "compressed"}.isdisjoint(words)


def _open_compressed(image: CameraImage, expected: Crop | None, draft: bool) -> Image.Image:
    data = _bytes(image)
    try:
        opened = Image.open(io.BytesIO(data), formats=("JPEG", "PNG"))
        _check_size(image, *opened.size, expected)
        if draft and expected is not None:
            opened.draft("RGB", expected.resized)
        opened.load()
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
        begin = bytes(data[:8]).hex(" ")
        raise ImageError(
            f"{image.camera}: {len(data)} bytes that are no JPEG or PNG image, or a damaged one "
            f"({_first_line(error)}); they begin with {begin}"
        ) from error


def _open_raw(image: CameraImage, assume_8uc3: str, expected: Crop | None) -> Image.Image:
    encoding = assume_8uc3 if image.encoding == "8UC3" else image.encoding
    layout = _RAW_LAYOUTS.get(encoding)
    if layout is None:
        raise ImageError(
            f"{image.camera}: encoding {image.encoding!r} is not supported; supported are "
            f"{', '.join(SUPPORTED_ENCODINGS)}"
        )
    data, height, width, step = _rows(image, layout.channels)
    _check_size(image, width, height, expected)
    row = width * layout.channels
    if step < row:
        raise ImageError(
            f"{image.camera}: rows of {step} bytes cannot hold {width} pixels of "
            f"{image.encoding}, which take {row}"
        )
    if len(data) < step * (height - 1) + row:
        raise ImageError(
            f"{image.camera}: {len(data)} bytes are too few for {width}x{height} pixels of "
            f"{image.encoding} in rows of {step} bytes"
        )
    return Image.frombytes(layout.mode, (width, height), data, "raw", layout.raw_mode, step, 1)


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


def _check_size(image: CameraImage, width: int, height: int, expected: Crop | None) -> None:
    if width * height > MAX_PIXELS:
        raise ImageError(
            f"{image.camera}: the image claims {width}x{height} pixels, more than the "
            f"{MAX_PIXELS / 1e6:.0f} million that are accepted"
        )
    if expected is not None and (width, height) != (expected.width, expected.height):
        raise ImageError(
            f"{image.camera}: the image has {width}x{height} pixels, its calibration is for "
            f"{expected.width}x{expected.height}"
        )


def _pixels(opened: Image.Image) -> np.ndarray:  # [h, w, 3] uint8 RGB
    """Converting from RGB to RGB would copy the image."""
    return np.asarray(opened if opened.mode == "RGB" else opened.convert("RGB"))


def _first_line(error: Exception) -> str:
    """A Pillow message without the address of the buffer that some of them end with."""
    text = str(error).split("\n")[0].split(" <_io.")[0].strip()
    return text or type(error).__name__


# Geometry -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Crop:
    """How a camera's image becomes the network's: scaled, then cut.

    The image is scaled so that it just covers the input, keeping its aspect; what is too high
    is cut from the top (there is sky), what is too wide equally from both sides. For nuScenes,
    1600x900 to 256x704: scale 0.44, 704x396, the lower 256 rows.

    Attributes:
        width, height: pixels of the camera's image.
        scale: the nominal one; whole pixels make the true one a little smaller.
        resized: width and height after scaling.
        left, top: pixels of the scaled image that are cut.
        input_size: height and width of the network's input.
    """

    width: int
    height: int
    scale: float
    resized: tuple[int, int]
    left: int
    top: int
    input_size: tuple[int, int]

    @staticmethod
    def fit(width: int, height: int, input_size: tuple[int, int] = (256, 704)) -> Crop:
        """The crop for images of ``width`` x ``height`` pixels.

        Raises:
            ParameterError: a size that is not positive, or an aspect so far from the input's
                that scaling would take an enormous image.
        """
        rows, columns = input_size
        if min(width, height, rows, columns) <= 0:
            raise ParameterError(f"crop of {width}x{height} pixels to {columns}x{rows}")
        scale = max(columns / width, rows / height)
        # Truncated as in training; the small number keeps 703.9999... from becoming 703.
        resized = (
            max(columns, int(width * scale + 1e-6)),
            max(rows, int(height * scale + 1e-6)),
        )
        if resized[0] * resized[1] > MAX_PIXELS:
            raise ParameterError(
                f"an image of {width}x{height} pixels cannot be cut to {columns}x{rows}"
            )
        left = (resized[0] - columns) // 2
        return Crop(width, height, scale, resized, left, resized[1] - rows, input_size)

    def post_rotation(self) -> np.ndarray:  # [3, 3]
        """Camera pixels to input pixels, the linear part (of homogeneous u, v, 1 or u, v, d)."""
        return np.diag([self.resized[0] / self.width, self.resized[1] / self.height, 1.0])

    def post_translation(self) -> np.ndarray:  # [3]
        """Camera pixels to input pixels, the shift in pixels."""
        return np.array([-self.left, -self.top, 0.0])


def _resize_and_cut(image: Image.Image, crop: Crop) -> Image.Image:
    """Exactly the crop of Pillow's bicubic resize of the whole image, at two thirds of its cost.

    Two single passes, because newer versions of Pillow choose the order of the two by the
    sizes, and the order decides the rounding in between; the networks saw horizontal first.

    Rows that no kept pixel depends on are left out. That is only exact if the rest has the same
    ratio of sizes, hence the same filter positions, as the whole: so it begins at a row that is
    a whole row of the result as well (nuScenes: row 300, row 132 of 396). A box with fractions
    would not do; Pillow keeps it in single precision.
    """
    width, height = image.size
    columns, rows = crop.resized
    common = math.gcd(height, rows)
    scale = height / rows
    needed = (crop.top + 0.5) * scale - 2.0 * max(scale, 1.0) - 1.0
    blocks = max(0, int(needed) // (height // common))
    begin, begin_out = blocks * (height // common), blocks * (rows // common)
    bicubic = Image.Resampling.BICUBIC
    kept = image.crop((0, begin, width, height)) if begin else image
    narrow = kept.resize((columns, height - begin), bicubic)
    small = narrow.resize((columns, rows - begin_out), bicubic)
    top = crop.top - begin_out
    kept_rows, kept_columns = crop.input_size
    return small.crop((crop.left, top, crop.left + kept_columns, top + kept_rows))


class Undistortion:
    """Takes the lens distortion out of the images of one camera, keeping its intrinsics.

    The map of pixels is computed once. Needs OpenCV.
    """

    def __init__(self, calibration: Calibration) -> None:
        """Computes the map.

        Raises:
            CalibrationError: a distortion model that is unknown or has the wrong number of
                coefficients.
            ParameterError: OpenCV is not installed.
        """
        try:
            import cv2
        except ImportError as error:
            raise ParameterError(
                f"{calibration.camera}: taking out lens distortion needs OpenCV; install "
                "opencv-python-headless (pip) or python3-opencv (apt), or send rectified images"
            ) from error
        model, coefficients = calibration.distortion_model, np.array(calibration.distortion)
        counts = {
            "plumb_bob": (4, 5),
            "rational_polynomial": (8, 12, 14),
            "equidistant": (4,),
            "fisheye": (4,),
        }
        if len(coefficients) not in counts.get(model, ()):
            raise CalibrationError(
                f"{calibration.camera}: distortion model {model!r} with {len(coefficients)} "
                f"coefficients; known: {', '.join(f'{m} {c}' for m, c in counts.items())}"
            )
        fisheye = model in ("equidistant", "fisheye")
        make_maps = cv2.fisheye.initUndistortRectifyMap if fisheye else cv2.initUndistortRectifyMap
        matrix = np.asarray(calibration.intrinsics, dtype=np.float64)
        size = (calibration.width, calibration.height)
        self._maps = make_maps(matrix, coefficients, np.eye(3), matrix, size, cv2.CV_16SC2)
        self._remap = cv2.remap
        self._linear = cv2.INTER_LINEAR

    def __call__(self, pixels: np.ndarray) -> np.ndarray:  # [h, w, 3] uint8 -> same
        """The rectified image; pixels from outside the camera's image are black."""
        return self._remap(pixels, *self._maps, self._linear)


# Normalising ----------------------------------------------------------------------------------


def _normalise(
    pixels: np.ndarray,  # [H, W, 3] uint8 RGB
    mean: Sequence[float],
    std: Sequence[float],
    channel_order: str,
    out: np.ndarray,  # [3, H, W] float32
) -> None:
    """Writes ``(pixels - mean) / std`` to ``out``, channels first.

    BUG-COMPAT: the networks take blue first, but the mean and deviation that come with them
    are those of red, green, blue, applied to the channels as stored: blue is normalised with
    red's numbers and red with blue's. Training did so (its normaliser swapped channels of an
    image that was RGB already), so the released weights need it.
    """
    for channel in range(3):
        source = pixels[..., 2 - channel if channel_order == "bgr" else channel]
        np.subtract(source, np.float32(mean[channel]), out=out[channel], dtype=np.float32)
        np.multiply(out[channel], np.float32(1.0 / std[channel]), out=out[channel])


def preprocess(
    image: CameraImage,
    crop: Crop,
    mean: Sequence[float] = MEAN,
    std: Sequence[float] = STD,
    undistort: Callable[[np.ndarray], np.ndarray] | None = None,
    *,
    channel_order: str = "bgr",
    assume_8uc3: str = "bgr8",
    decode: str = "exact",
    out: np.ndarray | None = None,  # [3, H, W] float32
) -> np.ndarray:  # [3, H, W] float32
    """One image as the network wants it.

    Args:
        image: the message.
        crop: made for the size of this camera's images.
        mean: of values 0 to 255, in the order of the network's channels.
        std: likewise.
        undistort: takes the lens distortion out of [h, w, 3] uint8 pixels, or None.
        channel_order: of the network's input, ``bgr`` or ``rgb``.
        assume_8uc3: see ``decode``.
        decode: ``exact``, or ``fast`` as described at ``Preprocessor``.
        out: where to write; else a new array.

    Raises:
        ImageError: naming the camera, what is wrong and why.
    """
    fast = decode == "fast" and undistort is None
    opened = _open(image, assume_8uc3, crop, fast)
    if undistort is not None:
        opened = Image.fromarray(undistort(_pixels(opened)))
    pixels = _pixels(_resize_and_cut(opened, crop))
    if out is None:
        out = np.empty((3, *crop.input_size), dtype=np.float32)
    _normalise(pixels, mean, std, channel_order, out)
    return out


class Preprocessor:
    """Makes the network's input of a frame set; the images are worked on in parallel.

    ``decode="fast"`` lets the JPEG decoder itself halve (or quarter) the image as long as it
    stays larger than what is wanted. It skips most of the inverse transforms and leaves a
    quarter of the pixels to resize, but is another low-pass filter than the exact one: on six
    real nuScenes images pixels differ by 0.55 of 255 on average, 99 % of them by less than 3,
    the worst by 15. Raw and undistorted images are always resized exactly.

    Six 1600x900 images to 256x704 (AMD EPYC, Pillow 13, numpy 2.4), in milliseconds::

        threads   exact JPEG   fast JPEG   raw rgb8
        1             99          50          76
        2             58          28          40
    """

    def __init__(
        self,
        input_size: tuple[int, int] = (256, 704),
        mean: Sequence[float] = MEAN,
        std: Sequence[float] = STD,
        *,
        cameras: tuple[str, ...] = CAMERAS,
        channel_order: str = "bgr",
        undistort: bool = False,
        assume_8uc3: str = "bgr8",
        decode: str = "exact",
        threads: int | None = None,
    ) -> None:
        """Settings for all cameras.

        Args:
            input_size: height and width of the network's input.
            mean: of values 0 to 255, in the order of the network's channels.
            std: likewise.
            cameras: the order of the images in the input.
            channel_order: of the network's input, ``bgr`` or ``rgb``.
            undistort: take the lens distortion out where a calibration has one; else images
                are taken as rectified.
            assume_8uc3: what the encoding ``8UC3`` holds, ``bgr8`` or ``rgb8``.
            decode: ``exact`` or ``fast``.
            threads: None takes one per camera, but not more than the machine has cores.

        Raises:
            ParameterError: a setting that is not one of the above.
        """
        for name, value, known in (
            ("channel_order", channel_order, ("bgr", "rgb")),
            ("assume_8uc3", assume_8uc3, ("bgr8", "rgb8")),
            ("decode", decode, ("exact", "fast")),
        ):
            if value not in known:
                raise ParameterError(f"images: {name} is {value!r}, must be one of {known}")
        if threads is not None and threads < 1:
            raise ParameterError(f"images: threads must be at least 1, is {threads}")
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise ParameterError(f"images: mean {mean} and std {std} must be 3 and 3 positive")
        self.input_size = input_size
        self.cameras = cameras
        self._mean, self._std = tuple(mean), tuple(std)
        self._options = {
            "channel_order": channel_order,
            "assume_8uc3": assume_8uc3,
            "decode": decode,
        }
        self._undistort = undistort
        self._undistortions: dict[str, tuple[Calibration, Undistortion | None]] = {}
        threads = threads or min(len(cameras), os.cpu_count() or 1)
        self._pool = (
            ThreadPoolExecutor(threads, thread_name_prefix="images") if threads > 1 else None
        )

    def __call__(self, frame: FrameSet) -> np.ndarray:  # [N, 3, H, W] float32
        """The network's input; a missing camera is black before it is normalised.

        Raises:
            ImageError: naming the first camera whose image cannot be used, what and why.
            CalibrationError: an image of a camera that has no calibration.
        """
        out = np.empty((len(self.cameras), 3, *self.input_size), dtype=np.float32)
        jobs = [(frame, camera, out[i]) for i, camera in enumerate(self.cameras)]
        if self._pool is None:
            for job in jobs:
                self._fill(*job)
        else:
            for done in [self._pool.submit(self._fill, *job) for job in jobs]:
                done.result()
        return out

    def crop(self, calibration: Calibration) -> Crop:
        """What is done to the geometry of this camera's images."""
        return Crop.fit(calibration.width, calibration.height, self.input_size)

    def close(self) -> None:
        """Ends the threads."""
        if self._pool is not None:
            self._pool.shutdown()

    def __enter__(self) -> Preprocessor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _fill(self, frame: FrameSet, camera: str, out: np.ndarray) -> None:  # out [3, H, W]
        image = frame.images.get(camera)
        if image is None:
            black = np.zeros((1, 1, 3), dtype=np.uint8)
            pixel = np.empty((3, 1, 1), dtype=np.float32)
            _normalise(black, self._mean, self._std, self._options["channel_order"], pixel)
            out[:] = pixel
            return
        calibration = frame.calibration.get(camera)
        if calibration is None:
            raise CalibrationError(f"{camera}: there is an image but no calibration")
        preprocess(
            image,
            self.crop(calibration),
            self._mean,
            self._std,
            self._undistortion(calibration),
            out=out,
            **self._options,
        )

    def _undistortion(self, calibration: Calibration) -> Undistortion | None:
        """Kept per camera until its calibration is another object."""
        if not self._undistort or not any(calibration.distortion):
            return None
        known = self._undistortions.get(calibration.camera)
        if known is None or known[0] is not calibration:
            known = (calibration, Undistortion(calibration))
            self._undistortions[calibration.camera] = known
        return known[1]
