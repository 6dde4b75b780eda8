# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Camera geometry as the network wants it: small float64 matrices, made on the host.

Everything derives from ``CameraGeometry``; nothing here touches an image.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import torch
from torch import Tensor

from alocc_ros.network.variants import Variant

_OUT_OF_SIGHT = 1e6  # metres


class KeyCameras(NamedTuple):
    """Where the cameras were at the last key frame, and how its images were cut.

    Attributes:
        T_camera: [N, 4, 4] camera now -> the same camera at the key frame.
        post_rotation, post_translation: of its images; None: as of those now.
    """

    T_camera: Tensor
    post_rotation: Tensor | None = None
    post_translation: Tensor | None = None


@dataclass(frozen=True)
class CameraGeometry:
    """One set of N cameras, float64 on the CPU.

    Attributes:
        grid_T_camera: [N, 4, 4] camera at its own stamp -> grid frame at the set's stamp.
        intrinsics: [N, 3, 3] of the full image.
        post_rotation, post_translation: [N, 3, 3], [N, 3]; full-image pixel p ->
            network-input pixel: R p + t (resize and crop).
        previous_T_camera: [N, 4, 4] camera now -> the same camera at the previous key frame.
        augmentation: [3, 3] rotation/flip/scale of the grid in training, or [N, 3, 3] where the
            cameras are of several samples; identity otherwise.
    """

    grid_T_camera: Tensor
    intrinsics: Tensor
    post_rotation: Tensor
    post_translation: Tensor
    previous_T_camera: Tensor
    augmentation: Tensor

    def __post_init__(self) -> None:
        for field in fields(self):
            value = torch.as_tensor(getattr(self, field.name), dtype=torch.float64, device="cpu")
            object.__setattr__(self, field.name, value)

    def at_rest(self) -> CameraGeometry:
        """The same cameras as their own predecessors (first frame of a sequence)."""
        return replace(self, previous_T_camera=torch.eye(4).expand(len(self.intrinsics), 4, 4))

    def camera_vector(self) -> Tensor:  # [N, 27] float32
        """What the depth network is told of each camera (docs/network.md section 5, item 1)."""
        k, r, t = self.intrinsics, self.post_rotation, self.post_translation
        a = self.augmentation.expand(len(k), 3, 3)
        columns = [k[:, 0, 0], k[:, 1, 1], k[:, 0, 2], k[:, 1, 2]]
        columns += [r[:, 0, 0], r[:, 0, 1], t[:, 0], r[:, 1, 0], r[:, 1, 1], t[:, 1]]
        columns += [a[:, 0, 0], a[:, 0, 1], a[:, 1, 0], a[:, 1, 1], a[:, 2, 2]]
        pose = self.grid_T_camera[:, :3].flatten(1)
        return torch.cat([torch.stack(columns, 1), pose], 1).float()

    def _ray(self) -> Tensor:  # [N, 3, 3]
        """Network-input pixel (u, v, 1) -> direction in the camera, z = 1."""
        undo = torch.linalg.inv(self.post_rotation)
        # (u, v, d) loses its crop and resize before it is multiplied by d: an affine map of (u, v).
        affine = undo.clone()
        affine[:, :, 2] = -(undo @ self.post_translation[..., None])[..., 0]
        affine[:, 2] = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
        return torch.linalg.inv(self.intrinsics) @ affine

    def rays(self) -> tuple[Tensor, Tensor]:  # [N, 3, 3], [N, 3]
        """Where pixels lie: input-image pixel (u, v) at depth d is at d * M (u, v, 1) + origin in
        the grid's frame, metres (docs/network.md section 6.3).
        """
        rays = self.augmentation @ self.grid_T_camera[:, :3, :3] @ self._ray()
        return rays, (self.augmentation @ self.grid_T_camera[:, :3, 3:])[..., 0]

    def without_reference(self, cameras: Tensor) -> CameraGeometry:
        """The same where some cameras [N] bool have nothing to match against.

        So far behind the previous camera no depth is visible, all depths cost the same, and the
        stereo cue is neutral.
        """
        return replace(self, previous_T_camera=out_of_sight(self.previous_T_camera, cameras))

    def key_homography(
        self, variant: Variant, key: KeyCameras
    ) -> tuple[Tensor, Tensor]:  # [N, 3, 3], [N, 3]
        """As ``stereo_homography``, of the stride-16 feature and towards the last key frame
        (docs/network.md section 8b).
        """
        rows, columns = variant.feature_size
        return self._homography(variant, rows, columns, key)

    def stereo_homography(self, variant: Variant) -> tuple[Tensor, Tensor]:
        """H [N, 3, 3], offset [N, 3]: pixel (x, y) of the quarter-size feature at depth d lies
        at d * H (x, y, 1) + offset (homogeneous) in the previous one (docs/network.md section 4).
        """
        height, width = variant.input_size
        previous = KeyCameras(self.previous_T_camera)
        return self._homography(variant, height // 4, width // 4, previous)

    def _homography(
        self, variant: Variant, rows: int, columns: int, then: KeyCameras
    ) -> tuple[Tensor, Tensor]:
        height, width = variant.input_size
        to_image = torch.diag(
            torch.tensor([(width - 1) / (columns - 1), (height - 1) / (rows - 1), 1.0])
        ).double()
        moved = then.T_camera.to(torch.float64)
        rotation, translation = moved[:, :3, :3], moved[:, :3, 3]
        cut, shift = then.post_rotation, then.post_translation
        cut = self.post_rotation if cut is None else cut.to(torch.float64)
        shift = self.post_translation if shift is None else shift.to(torch.float64)
        # Full-image pixel -> network-input pixel, for homogeneous (x, y, 1).
        post = torch.eye(3, dtype=torch.float64).repeat(len(self.intrinsics), 1, 1)
        post[:, :2, :2], post[:, :2, 2] = cut[:, :2, :2], shift[:, :2]
        back = torch.linalg.inv(to_image) @ post @ self.intrinsics
        return back @ rotation @ self._ray() @ to_image, (back @ translation[..., None])[..., 0]


def out_of_sight(
    previous_T_camera: Tensor,  # [N, 4, 4] float64
    cameras: Tensor,  # [N] bool
) -> Tensor:  # [N, 4, 4]
    """The same, with some cameras so far behind the previous one that nothing of it is visible."""
    away = torch.eye(4, dtype=torch.float64)
    away[2, 3] = -_OUT_OF_SIGHT
    return torch.where(cameras[:, None, None], away, previous_T_camera)


def feature_pixels(variant: Variant) -> tuple[Tensor, Tensor]:  # [w], [h] float64
    """Input-image pixel of each column and row of the stride-16 feature.

    Columns map to evenly spread input pixels, first to first and last to last, not to the centres
    of 16-pixel blocks (docs/network.md section 6.3).
    """
    (height, width), (rows, columns) = variant.input_size, variant.feature_size
    us = torch.linspace(0, width - 1, columns, dtype=torch.float64)
    return us, torch.linspace(0, height - 1, rows, dtype=torch.float64)


def depth_bins(variant: Variant) -> Tensor:  # [D] float64 metres
    """Lower edges of the depth bins."""
    start, step = variant.depth_range[0], variant.depth_step
    return start + step * torch.arange(variant.depth_bins, dtype=torch.float64)
