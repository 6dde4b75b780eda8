# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""The images of a page, two rows of three, with the voxels drawn into them."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
from PIL import Image

from alocc_ros.errors import ImageError
from alocc_ros.geometry import inverse
from alocc_ros.stream.decoding import decode
from alocc_ros.stream.image_geometry import Undistortion
from alocc_ros.stream.overlay import camera_T_grid
from alocc_ros.types import Calibration, FrameSet, Occupancy
from alocc_ros.viewer import voxels
from alocc_ros.viewer.drawing import paste_rounded, write_caption, write_centred
from alocc_ros.viewer.frames import Layer
from alocc_ros.viewer.layout import BACKGROUND, CAMERA_LAYOUT, CONTENT_WIDTH, GAP, PANEL

_GROUND_OPACITY, _OPACITY = 0.42, 0.66  # of voxels over an image
_NOT_FITTED = "the vehicle has no such camera"
_CLEARANCE = 1.2  # m around a camera; voxels in there are left out


def camera_rows(frame: FrameSet, layer: Layer | None) -> Image.Image:
    """All images; ``layer``: the voxels to draw into them."""
    faces = None if layer is None else voxels.faces(_without_nearest(frame, layer))
    width = (CONTENT_WIDTH - 2 * GAP) // 3
    shape = next(iter(frame.calibration.values()))
    height = round(width * shape.height / shape.width)
    picture = Image.new("RGB", (CONTENT_WIDTH, 2 * height + GAP), BACKGROUND)
    for row, cameras in enumerate(CAMERA_LAYOUT):
        for column, camera in enumerate(cameras):
            tile = _tile(frame, camera, (width, height), layer, faces)
            paste_rounded(picture, tile, (column * (width + GAP), row * (height + GAP)))
    return picture


def _tile(
    frame: FrameSet,
    camera: str,
    size: tuple[int, int],  # width, height
    layer: Layer | None,
    faces: voxels.Faces | None,
) -> Image.Image:
    name = camera.removeprefix("cam_").replace("_", " ")
    if camera not in frame.images:
        tile = Image.new("RGB", size, PANEL)
        reason = frame.missing.get(camera, "no image" if camera in frame.fitted else _NOT_FITTED)
        write_centred(tile, f"{name}: {reason}")
        return tile
    calibration, image = frame.calibration[camera], frame.images[camera]
    try:
        pixels = decode(image)
    except ImageError as error:  # one damaged picture must not end a film
        tile = Image.new("RGB", size, PANEL)
        write_centred(tile, f"{name}: {str(error).removeprefix(f'{camera}: ')[:60]}")
        return tile
    if any(calibration.distortion):
        pixels = Undistortion(calibration)(pixels)
    pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    if layer is not None and faces is not None:
        pixels = _with_voxels_drawn(pixels, frame, calibration, layer, faces)
    tile = Image.fromarray(pixels)
    late = (image.stamp - frame.stamp) / 1e6
    write_caption(tile, name if abs(late) < 0.05 else f"{name}  {late:+.0f} ms")
    return tile


def _without_nearest(frame: FrameSet, layer: Layer) -> Occupancy:
    """Without the voxels around the cameras, whose inside is all that one would see."""
    occupancy = layer.occupancy
    labels = occupancy.labels.copy()
    resolution, lower = occupancy.grid.resolution, occupancy.grid.lower
    for camera in frame.images:
        eye = inverse(camera_T_grid(frame, camera, layer.base_T_grid))[:3, 3]  # m
        # First the box of cells around the sphere, then the sphere.
        first = np.floor((eye - _CLEARANCE - lower) / resolution).astype(int)
        last = np.ceil((eye + _CLEARANCE - lower) / resolution).astype(int)
        axes = [
            np.arange(max(a, 0), min(b, n))
            for a, b, n in zip(first, last, labels.shape, strict=True)
        ]
        cells = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
        near = np.linalg.norm(occupancy.grid.centres(cells) - eye, axis=1) < _CLEARANCE
        labels[tuple(cells[near].T)] = occupancy.classes.free
    return replace(occupancy, labels=labels)


def _with_voxels_drawn(
    pixels: np.ndarray,  # [h, w, 3] uint8
    frame: FrameSet,
    calibration: Calibration,
    layer: Layer,
    faces: voxels.Faces,
) -> np.ndarray:
    height, width = pixels.shape[:2]
    scale = np.diag([width / calibration.width, height / calibration.height, 1.0])
    opacity = np.where(layer.occupancy.classes.is_ground, _GROUND_OPACITY, _OPACITY)
    pose = camera_T_grid(frame, calibration.camera, layer.base_T_grid)
    drawn = voxels.draw_faces(faces, pose, scale @ calibration.intrinsics, (width, height), opacity)
    return voxels.blend(pixels, drawn)
