# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Frame sets out of arrays, for simulators and programs that have no messages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from alocc_ros.errors import CalibrationError, ImageError
from alocc_ros.schema import unknown_name
from alocc_ros.stream.rig import make_intrinsics
from alocc_ros.types import CAMERAS, CameraImage, FrameSet


def frame_of_arrays(
    stamp: int,
    images: Mapping[str, np.ndarray],  # [h, w, 3] uint8 RGB
    K: Mapping[str, np.ndarray],  # [3, 3] px
    base_T_camera: Mapping[str, np.ndarray],  # [4, 4]
    map_T_base: np.ndarray,  # [4, 4]
    *,
    stamps: Mapping[str, int] | None = None,
    map_T_base_at: Mapping[str, np.ndarray] | None = None,
    distortion: Mapping[str, tuple[float, ...]] | None = None,
    distortion_model: str = "",
    fitted: tuple[str, ...] | None = None,
) -> FrameSet:
    """What ``Pipeline.step`` takes.

    Args:
        stamp: ns, of the set; above 0.
        images: by name of the camera, of ``types.CAMERAS``; those that the vehicle has not, or
            that sent nothing, are left out.
        K: camera matrices, of all cameras that the vehicle has.
        base_T_camera: where they are mounted: optical frame (x right, y down, z ahead) in the
            vehicle's (x ahead, y left, z up, z = 0 on the ground), metres.
        map_T_base: the vehicle in a world that stands still, at ``stamp``.
        stamps: ns of each image; None: all are of ``stamp``.
        map_T_base_at: the vehicle at the time of each image; None: ``map_T_base``.
        distortion: coefficients as of OpenCV, of cameras whose images are not rectified.
        distortion_model: ``plumb_bob``, ``rational_polynomial`` or ``equidistant``.
        fitted: the cameras that the vehicle has; None: those in ``K``.

    Raises:
        CalibrationError, ImageError: naming the camera and what is wrong with it.
    """
    rig = {}
    for name, matrix in K.items():
        if name not in CAMERAS:
            raise CalibrationError(f"K: {unknown_name('camera', name, CAMERAS)}")
        if name not in base_T_camera:
            raise CalibrationError(f"base_T_camera lacks {name}")
        shape = np.shape(images[name])[:2] if name in images else None
        height, width = shape or _likely_size(matrix)
        d = (distortion or {}).get(name, ())
        known = make_intrinsics(width, height, matrix, d, distortion_model, where=name)
        rig[name] = known.mounted(name, np.asarray(base_T_camera[name], dtype=np.float64))
    taken = {name: _image(name, pixels, (stamps or {}).get(name, stamp), rig)
             for name, pixels in images.items()}  # fmt: skip
    if not taken:
        raise ImageError("there is no image")
    place = rig[next(iter(taken))]
    pose = np.asarray(map_T_base, dtype=np.float64)
    return FrameSet(
        stamp=stamp,
        images=taken,
        # The network has six places; of a camera that is not there, nothing is used.
        calibration={c: rig.get(c) or replace(place, camera=c) for c in CAMERAS},
        map_T_base=pose,
        map_T_base_at={c: np.asarray((map_T_base_at or {}).get(c, pose)) for c in taken},
        missing={c: "no image" for c in CAMERAS if c not in taken},
        fitted=tuple(c for c in CAMERAS if c in (fitted or K)),
    )


def _image(name: str, pixels: np.ndarray, stamp: int, rig: Mapping[str, object]) -> CameraImage:
    if name not in rig:
        raise CalibrationError(f"there is an image of {name}, but no K")
    pixels = np.asarray(pixels)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise ImageError(
            f"{name}: an array of {pixels.dtype} {list(pixels.shape)} is no image; expected uint8 "
            "[height, width, 3], red first"
        )
    height, width = pixels.shape[:2]
    return CameraImage(name, stamp, pixels, "rgb8", height, width, 3 * width)


def _likely_size(matrix: np.ndarray) -> tuple[int, int]:
    """Height and width of an image that is not there: nothing of it is used."""
    k = np.asarray(matrix, dtype=np.float64).reshape(3, 3)
    return max(round(2 * k[1, 2]), 1), max(round(2 * k[0, 2]), 1)
