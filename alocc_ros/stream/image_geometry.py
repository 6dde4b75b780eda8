# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Geometry of camera images: resizing, cropping and undistortion maps.

Resizing is Pillow's antialiased bicubic on 8-bit pixels, rounded after the horizontal and again
after the vertical pass; other libraries give other pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from alocc_ros.errors import CalibrationError, ParameterError
from alocc_ros.stream.decoding import MAX_PIXELS
from alocc_ros.stream.rig import DISTORTION_COUNTS
from alocc_ros.types import Calibration


@dataclass(frozen=True)
class Crop:
    """How a camera's image becomes the network's: scaled, then cut.

    In training the image is scaled so that it just covers the input, keeping its aspect; what is
    too high is cut from the top (there is sky), what is too wide equally from both sides. For
    nuScenes, 1600x900 to 256x704: scale 0.44, 704x396, the lower 256 rows.

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
    def fit(
        width: int,
        height: int,
        input_size: tuple[int, int] = (256, 704),
        scale: float | None = None,
    ) -> Crop:
        """The lowest rows of images of ``width`` x ``height`` pixels, as in training.

        Where a camera of another rig looks decides ``crop_placement.place_crop``. ``scale`` is
        taken instead of the smallest that covers the input, if it is larger.

        Raises:
            ParameterError: a size that is not positive, or an aspect so far from the input's
                that scaling would take an enormous image.
        """
        rows, columns = input_size
        if min(width, height, rows, columns) <= 0:
            raise ParameterError(f"crop of {width}x{height} pixels to {columns}x{rows}")
        scale = max(columns / width, rows / height, scale or 0.0)
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

    @property
    def reaches_outside(self) -> bool:
        """Whether some of the network's pixels show nothing of the image."""
        (rows, columns), (width, height) = self.input_size, self.resized
        across = self.left >= 0 and self.left + columns <= width
        return not (across and self.top >= 0 and self.top + rows <= height)

    def post_rotation(self) -> np.ndarray:  # [3, 3]
        """Camera pixels to input pixels, the linear part (of homogeneous u, v, 1 or u, v, d)."""
        return np.diag([self.resized[0] / self.width, self.resized[1] / self.height, 1.0])

    def post_translation(self) -> np.ndarray:  # [3]
        """Camera pixels to input pixels, the shift in pixels."""
        return np.array([-self.left, -self.top, 0.0])


def resize_and_crop(image: Image.Image, crop: Crop) -> Image.Image:
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
        counts = DISTORTION_COUNTS | {"fisheye": DISTORTION_COUNTS["equidistant"]}
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
