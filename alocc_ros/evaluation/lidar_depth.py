# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""How far the LiDAR measured what each pixel of the network's input shows."""

from __future__ import annotations

import numpy as np

from alocc_ros.datasets.samples import Sample, lidar_points
from alocc_ros.geometry import inverse, project
from alocc_ros.stream.crop_placement import place_crop
from alocc_ros.types import CAMERAS


def lidar_depth(
    sample: Sample,
    input_size: tuple[int, int],  # height and width
    depth_range: tuple[float, float],  # m
) -> np.ndarray:  # [N, H, W] float32 m, 0: no return
    """The nearest return within the range, at each pixel (docs/network.md section T4).

    Raises:
        DataError: the LiDAR's file is not there, or cut off.
    """
    points = lidar_points(sample.lidar)[:, :3].astype(np.float64)
    images = np.zeros((len(CAMERAS), *input_size), np.float32)
    for image, name in zip(images, CAMERAS, strict=True):
        camera = sample.cameras[name]
        calibration = camera.calibration
        # Each at its own time, as on the vehicle.
        camera_T_map = inverse(camera.map_T_base @ calibration.base_T_camera)
        camera_T_lidar = camera_T_map @ sample.lidar.map_T_lidar
        pixels, depth = project(points, camera_T_lidar, calibration.intrinsics)
        near, far = depth_range
        seen = (depth >= near) & (depth < far)
        crop = place_crop(calibration, input_size)
        pixels = pixels[seen] @ crop.post_rotation()[:2, :2].T + crop.post_translation()[:2]
        column, row = np.round(pixels).astype(np.int64).T
        inside = (column >= 0) & (column < input_size[1]) & (row >= 0) & (row < input_size[0])
        depth, column, row = depth[seen][inside], column[inside], row[inside]
        order = np.argsort(-depth, kind="stable")  # the nearest is written last
        image[row[order], column[order]] = depth[order]
    return images
