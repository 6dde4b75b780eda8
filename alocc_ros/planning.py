# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""From a frame set and the key-frame decision to the plan of the frame."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from alocc_ros.geometry import inverse
from alocc_ros.network.cameras import CameraGeometry, KeyCameras, out_of_sight
from alocc_ros.network.plan import FramePlan, frame_plan
from alocc_ros.network.variants import Variant
from alocc_ros.stream.crop_placement import as_in_training, place_crop
from alocc_ros.stream.image_geometry import Crop
from alocc_ros.stream.keyframes import FrameDecision, map_T_camera
from alocc_ros.types import CAMERAS, Calibration, FrameSet


def plan_frame(
    frame: FrameSet,
    decision: FrameDecision,
    variant: Variant,
    ages: torch.Tensor,  # [1, T] seconds, of the remembered slots at the last key frame
) -> FramePlan:
    """Geometry of the cameras, motion since the key frame and the reference frame, ages.

    Raises:
        CalibrationError: a camera of the rig has no calibration.
    """
    key, reference = decision.keyframe, decision.reference
    first = key is None or not key.ran
    base_T_grid = np.eye(4) if frame.base_T_grid is None else frame.base_T_grid
    map_T_cameras = map_T_camera(frame, CAMERAS)
    map_T_grid = frame.map_T_base @ base_T_grid
    moved = reference_T_current = None
    previous_T_camera = key_T_camera = np.tile(np.eye(4), (len(CAMERAS), 1, 1))
    elapsed, unseen = 0.0, torch.zeros(len(CAMERAS), dtype=torch.bool)
    blind = torch.zeros(len(CAMERAS), dtype=torch.bool)
    if not first:
        # BUG-COMPAT: of some networks the volume moves as the base does, whatever its own frame.
        grid = np.eye(4) if variant.base_motion else base_T_grid
        moved = _from(inverse(key.map_T_base @ grid) @ frame.map_T_base @ grid)
        reference_T_current = _from(inverse(reference.map_T_base @ base_T_grid) @ map_T_grid)
        previous_T_camera = inverse(reference.map_T_camera) @ map_T_cameras
        # A camera that had no image then has nothing to match against.
        blind = torch.tensor([c in reference.missing for c in CAMERAS])
        key_T_camera = inverse(key.map_T_camera) @ map_T_cameras
        unseen = torch.tensor([c in key.missing for c in CAMERAS])
        elapsed = _nominal_age(decision, variant.history_interval)
    calibrations = [frame.calibration[c] for c in CAMERAS]
    crops = [place_crop(c, variant.input_size) for c in calibrations]
    intrinsics, rotations, shifts = zip(
        *(_image(c, crop, variant) for c, crop in zip(calibrations, crops, strict=True)),
        strict=True,
    )
    cameras = CameraGeometry(
        grid_T_camera=inverse(map_T_grid) @ map_T_cameras,
        intrinsics=np.stack(intrinsics),
        post_rotation=np.stack(rotations),
        post_translation=np.stack(shifts),
        previous_T_camera=previous_T_camera,
        augmentation=np.eye(3),
    ).without_reference(blind)
    plan = frame_plan(
        variant,
        cameras,
        moved,
        reference_T_current,
        torch.zeros_like(ages) if first else ages,
        elapsed,
        camera_mask=torch.tensor([c in frame.images for c in CAMERAS]),
        key=KeyCameras(out_of_sight(_from(key_T_camera), unseen)),
    )
    return replace(
        plan,
        first=first,
        keyframe=decision.is_keyframe,
        reference=0 if first else reference.slot,
        slot=decision.slot,
    )


def _image(
    calibration: Calibration, crop: Crop, variant: Variant
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # [3, 3], [3, 3], [3]
    """Camera matrix, and how the image was cut (see ``CameraGeometry``), as the network is told."""
    virtual = as_in_training(crop, variant.image_size)
    if virtual is None:
        return calibration.intrinsics, crop.post_rotation(), crop.post_translation()
    height, width = variant.image_size
    trained = Crop.fit(width, height, variant.input_size)
    matrix = virtual @ calibration.intrinsics
    return matrix, trained.post_rotation(), trained.post_translation()


def _nominal_age(decision: FrameDecision, interval: float) -> float:
    """Seconds since the key frame as the weights know them.

    Key frames were always told to be whole intervals apart, whatever the clock said; only
    a frame between two of them is told its true age.
    """
    seconds = decision.elapsed_ns * 1e-9
    return max(1, round(seconds / interval)) * interval if decision.is_keyframe else seconds


def _from(matrix: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(matrix)
