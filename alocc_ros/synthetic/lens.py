# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Where the pixels of a lens with distortion look."""

from __future__ import annotations

import numpy as np

from alocc_ros.types import Calibration


def pixel_rays(
    calibration: Calibration,
    columns: np.ndarray,  # [n] px
    rows: np.ndarray,  # [n] px
) -> np.ndarray:  # [n, 3] of depth 1, camera
    """The direction behind each pixel; less than 90 degrees off the axis."""
    pixels = np.stack([columns, rows], axis=-1).astype(np.float64)
    k = np.asarray(calibration.intrinsics, dtype=np.float64)
    if not any(calibration.distortion):
        flat = (pixels - k[:2, 2]) / (k[0, 0], k[1, 1])
    else:
        import cv2

        fisheye = calibration.distortion_model == "equidistant"
        undistort = cv2.fisheye.undistortPoints if fisheye else cv2.undistortPoints
        flat = undistort(pixels[None], k, np.array(calibration.distortion)).reshape(-1, 2)
    return np.concatenate([flat, np.ones_like(flat[:, :1])], axis=1)
