# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Warping of remembered volumes, and their fusion on the raw form, by definition."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def warp(
    volume: Tensor,  # [B, C, Y, X, Z]
    motion: Tensor,  # [B, 3, 4] float64, lattice index (x, y, z, 1) now -> in ``volume``
) -> Tensor:  # [B, C, Y, X, Z]
    """Resample at the moved indices, (tri)linear, zero outside.

    Planar volumes (Z = 1) take their one slab as the plane z = 1 m (docs/network.md section 8), so
    pitch and roll act as if everything lay there.
    """
    grid = sampling_grid(motion, *volume.shape[2:]).to(volume.dtype)
    if volume.shape[4] == 1:
        return F.grid_sample(volume[..., 0], grid, align_corners=True)[..., None]
    # grid_sample wants (z, y, x) axes and (x, y, z) coordinates.
    moved = F.grid_sample(volume.permute(0, 1, 4, 2, 3), grid, align_corners=True)
    return moved.permute(0, 1, 3, 4, 2)


def sampling_grid(
    motion: Tensor,  # [B, 3, 4] float64
    y_size: int,
    x_size: int,
    z_size: int,
) -> Tensor:  # [B, Y, X, 2] of a planar volume, [B, Z, Y, X, 3] of another; float64 in [-1, 1]
    """Where ``grid_sample`` is to look."""
    planar = z_size == 1
    x, y, z = (
        torch.arange(s, dtype=motion.dtype, device=motion.device) for s in (x_size, y_size, z_size)
    )
    # By parts of the product: no [Y, X, Z, 4] array of indices.
    m = motion[:, :, :, None, None, None]  # [B, 3, 4, 1, 1, 1]
    height = 1.0 if planar else z[:, None, None]
    source = m[:, :, 0] * x + m[:, :, 1] * y[:, None] + m[:, :, 2] * height + m[:, :, 3]
    sizes = [max(s - 1, 1) for s in (x_size, y_size, z_size)]
    axes = source.unbind(1)[: 2 if planar else 3]  # each [B, Z, Y, X]
    grid = torch.stack([a * (2 / s) for a, s in zip(axes, sizes, strict=False)], -1) - 1
    return grid[:, 0] if planar else grid


def fuse_history_reference(
    current: Tensor,  # [B, Y, X, Z, C] projected
    history: Tensor,  # [B, Y, X, Z, T * C] projected, newest first
    bias: Tensor,  # [B, (T + 1) * C], what the time convolution adds to a slot of its age
    motion: Tensor,  # [B, 3, 4] float64
    matrix: Tensor,  # [(T + 1) * C, C]
    offset: Tensor,  # [C]
    out: Tensor | None,  # [B, Y, X, Z, T * C], overwritten with the new history; None: only read
) -> Tensor:  # [B, Y, X, Z, C]
    """Warp all slots, rectify, multiply: the linear part of the time convolution is behind us.

    Bilinear warping with zero padding is linear, so ``W warp(x) = warp(W x)``: the projected form
    multiplies each feature once in its life instead of once a frame.
    """
    warped = warp(history.permute(0, 4, 1, 2, 3), motion).permute(0, 2, 3, 4, 1)
    slots = torch.cat([current, warped], -1)
    if out is not None:
        out.copy_(slots[..., : out.shape[-1]])
    rectified = torch.relu(slots + bias[:, None, None, None])
    return torch.relu(rectified @ matrix + offset)
