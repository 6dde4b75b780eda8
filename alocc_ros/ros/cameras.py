# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""What the live messages of the cameras say about them, and whether their images can be used."""

from __future__ import annotations

import array
import dataclasses
from collections.abc import Callable, Mapping
from time import monotonic, sleep

import numpy as np
from sensor_msgs.msg import Image

from alocc_ros.errors import CalibrationError, ImageError
from alocc_ros.ros.inputs import Camera
from alocc_ros.stream.assembler import FrameAssembler
from alocc_ros.stream.decoding import check_size, image_size, is_supported
from alocc_ros.stream.rig import Intrinsics
from alocc_ros.types import Calibration, CameraImage

_POLL = 0.005  # s


class LiveCameras:
    """A ``CameraSource`` over the subscriptions of the node; not for the executor's thread."""

    def __init__(self, cameras: Mapping[str, Camera]) -> None:
        self._cameras = cameras

    def intrinsics(self, camera: str, stamp: int, deadline: float) -> Intrinsics:
        """The newest, waiting until ``deadline`` (``time.monotonic``) for the first.

        Raises:
            CalibrationError: there are none, with the reason.
        """
        one = self._cameras[camera]
        while (intrinsics := one.intrinsics) is None:
            if one.info is None:
                raise CalibrationError(
                    "no intrinsics: the preset names no camera_info topic and there is no "
                    "calibration_file"
                )
            if monotonic() >= deadline:
                raise CalibrationError(
                    one.info_rejection
                    or one.info.problem
                    or f"no CameraInfo on {one.info.resolved}"
                )
            sleep(_POLL)
        return intrinsics

    def frame(self, camera: str) -> str:
        """TF name of the optical frame; "" until a message tells."""
        return self._cameras[camera].frame


def needs_conversion(image: CameraImage) -> bool:
    """Whether ``check_image`` makes another image of it."""
    return bool(image.height) and not is_supported(image.encoding)


def check_image(image: CameraImage, calibration: Calibration) -> CameraImage:
    """The image, in an encoding that the core knows.

    Raises:
        ImageError: it is not of the calibration's size, or of an encoding that nobody knows.
    """
    if needs_conversion(image):
        image = _converted(image)
    check_size(image, *image_size(image), (calibration.width, calibration.height))
    return image


def ahead(assembler: FrameAssembler) -> Callable[[CameraImage], Calibration]:
    """Calibrations of images that have no set yet; an ImageError for one that has to be
    converted, which its set does.
    """

    def calibrate(image: CameraImage) -> Calibration:
        if needs_conversion(image):
            raise ImageError(f"encoding {image.encoding!r} has to be converted")
        return assembler.calibration_ahead(image)

    return calibrate


def _converted(image: CameraImage) -> CameraImage:
    """By cv_bridge, which is only needed for uncommon encodings and may be absent or broken."""
    message = Image(
        height=image.height,
        width=image.width,
        encoding=image.encoding,
        step=image.step,
        is_bigendian=int(image.big_endian),
    )
    message.data = array.array("B")
    message.data.frombytes(image.data)
    try:
        from cv_bridge import CvBridge

        pixels = CvBridge().imgmsg_to_cv2(message, "rgb8")
    except Exception as error:  # its import fails in several ways, and its errors have no root
        raise ImageError(f"encoding {image.encoding!r} is not supported ({error})") from error
    pixels = np.ascontiguousarray(pixels)
    height, width = pixels.shape[:2]
    return dataclasses.replace(
        image, data=pixels, encoding="rgb8", height=height, width=width, step=3 * width
    )
