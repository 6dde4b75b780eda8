# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""A plausible input to time and count with: six cameras around a car that drives a gentle curve."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from alocc_ros.network.cameras import CameraGeometry
from alocc_ros.network.plan import FramePlan, frame_plan
from alocc_ros.network.variants import Variant

# Heading (degrees, left positive), position (m), focal length (px of 1600x900); order of CAMERAS.
_RIG = (
    (55.0, (1.5, 0.5, 1.5), 1270.0),
    (0.0, (1.7, 0.0, 1.5), 1270.0),
    (-55.0, (1.5, -0.5, 1.5), 1260.0),
    (110.0, (1.0, 0.5, 1.6), 1260.0),
    (180.0, (0.0, 0.0, 1.6), 810.0),
    (-110.0, (1.0, -0.5, 1.6), 1260.0),
)
_IMAGE = (900, 1600)
_STEP, _TURN = 4.0, math.radians(2.0)  # a key frame at 8 m/s


@dataclass(frozen=True)
class ExampleFrame:
    """One frame of the drive.

    Attributes:
        variant: that it was made for.
        images: [N, 3, H, W] float32, noise.
        cameras: geometry of the N cameras.
        previous_T_current: [4, 4] float64 metres, grid frame now -> at the key frame before.
    """

    variant: Variant
    images: Tensor
    cameras: CameraGeometry
    previous_T_current: Tensor

    def plan(
        self,
        ages: Tensor | None,
        keyframe: bool = True,
        slot: int = 0,
        camera_mask: Tensor | None = None,
    ) -> FramePlan:
        """Its plan.

        Args:
            ages: [1, T] seconds at the last key frame, ``StreamState.ages``; None: the frame begins
                a sequence.
            keyframe: the history moves on.
            slot: where its features go, 0 or 1; the other is looked at.
            camera_mask: [N] bool, which cameras have an image; None: all.
        """
        first = ages is None
        plan = frame_plan(
            self.variant,
            self.cameras,
            None if first else self.previous_T_current,
            ages=ages,
            elapsed=0.0 if first else self.variant.history_interval,
            camera_mask=camera_mask,
        )
        return replace(plan, first=first, keyframe=keyframe, slot=slot, reference=1 - slot)


def example_frame(
    variant: Variant, device: str | torch.device = "cpu", seed: int = 0
) -> ExampleFrame:
    """One frame: noise for images, the geometry of a real rig in motion."""
    height, width = variant.input_size
    scale = max(width / _IMAGE[1], height / _IMAGE[0])
    crop = scale * _IMAGE[0] - height
    post_rotation = np.diag([scale, scale, 1.0])
    motion = np.eye(4)
    motion[:2, :2] = _rotation(_TURN)[:2, :2]
    motion[:2, 3] = _STEP, 0.02 * _STEP
    base_T_camera = np.stack([_mount(heading, at) for heading, at, _ in _RIG])
    count = len(_RIG)
    cameras = CameraGeometry(
        grid_T_camera=base_T_camera,
        intrinsics=np.stack([_intrinsics(focal) for _, _, focal in _RIG]),
        post_rotation=np.broadcast_to(post_rotation, (count, 3, 3)).copy(),
        post_translation=np.tile([0.0, -crop, 0.0], (count, 1)),
        previous_T_camera=np.linalg.inv(base_T_camera) @ motion @ base_T_camera,
        augmentation=np.eye(3),
    )
    images = _images((count, 3, height, width), device, seed)
    return ExampleFrame(variant, images, cameras, torch.from_numpy(motion))


def _images(shape: tuple[int, ...], device: str | torch.device, seed: int) -> Tensor:
    if str(device) == "meta":
        return torch.empty(shape, device="meta")
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(device)


def _intrinsics(focal: float) -> np.ndarray:
    height, width = _IMAGE
    return np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1.0]])


def _mount(heading: float, position: tuple[float, float, float]) -> np.ndarray:
    """base_T_camera of a level camera."""
    optical = np.array(
        [[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]]
    )  # optical axes in a forward body frame
    out = np.eye(4)
    out[:3, :3] = _rotation(math.radians(heading)) @ optical
    out[:3, 3] = position
    return out


def _rotation(angle: float) -> np.ndarray:
    c, s = math.cos(angle), math.sin(angle)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]])
