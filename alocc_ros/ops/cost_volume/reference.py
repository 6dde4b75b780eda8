# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Stereo matching cost by its definition: one depth after the other."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

# Cost added where the warped sample counts as invalid.
INVALID_PENALTY = 5.0
# Nearer than this (metres), a point lies behind the previous camera.
BEHIND = 1e-3


def validity_channel(channels: int) -> int:
    """BUG-COMPAT: the reference sums the cost in groups of four channels and its loop variable
    survives the loop, so a sample is "invalid" where the first channel of the LAST group is zero
    (252 of 256), which a ReLU feature often is inside the image too. Released weights need it.
    """
    return (channels - 1) // 4 * 4


class CostVolumeArguments(NamedTuple):
    """What every form of the operator takes."""

    current: Tensor  # [N, C, h, w] feature of the current images
    previous: Tensor  # [N, C, h, w] of the reference frame's images
    homography: Tensor  # [N, 3, 3] float64, (x, y, 1) of the current feature map ->
    offset: Tensor  # [N, 3] float64, reference feature map (homogeneous): depth * H p + offset
    first_depth: float  # metres
    depth_step: float  # metres
    bins: int


def cost_volume_reference(*arguments: Any) -> Tensor:  # CostVolumeArguments -> [N, bins, h, w]
    """Softmax over depth of minus the L1 distance to the warped reference feature."""
    current, previous, homography, offset, first, step, bins = CostVolumeArguments(*arguments)
    n, channels, h, w = current.shape
    ys, xs = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    pixels = torch.stack([xs, ys, torch.ones_like(xs)], -1).to(homography)  # [h, w, 3]
    rays = torch.einsum("nij,hwj->nhwi", homography, pixels)
    size = torch.tensor([max(w - 1, 1), max(h - 1, 1)]).to(homography)
    costs = []
    for k in range(bins):
        q = (first + step * k) * rays + offset[:, None, None]
        grid = q[..., :2] / q[..., 2:] / size * 2 - 1
        grid = torch.where(q[..., 2:] < BEHIND, torch.full_like(grid, -2.0), grid)
        warped = F.grid_sample(previous, grid.to(previous), align_corners=True)
        cost = (current - warped).abs().sum(1)
        invalid = warped[:, validity_channel(channels)] == 0
        costs.append(cost + INVALID_PENALTY * invalid)
    return torch.softmax(-torch.stack(costs, 1), dim=1)
