# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Encoder necks by their definition: upsample every level to full size, concatenate, convolve."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def concatenate_levels(
    levels: Sequence[Tensor],  # fine to coarse, [B, C_l, Y_l, X_l(, Z_l)]
) -> Tensor:  # [B, sum C_l, Y, X(, Z)]
    """All levels at the size of the finest, corners aligned."""
    size = levels[0].shape[2:]
    mode = "bilinear" if len(size) == 2 else "trilinear"
    full = [F.interpolate(x, size, mode=mode, align_corners=True) for x in levels[1:]]
    return torch.cat([levels[0], *full], 1)


def upsample_add_reference(
    total: Tensor,  # [B, Y, X, Z, C]
    levels: Sequence[Tensor],  # each [B, Y_l, X_l, Z_l, C]
) -> Tensor:  # [B, Y, X, Z, C]
    """relu(total + sum of trilinear(level)), corners aligned."""
    for level in levels:
        up = F.interpolate(
            level.permute(0, 4, 1, 2, 3), total.shape[1:4], mode="trilinear", align_corners=True
        )
        total = total + up.permute(0, 2, 3, 4, 1)
    return torch.relu(total)


def upsample_taps_reference(
    total: Tensor,  # [B, Y, X, C]
    levels: Sequence[Tensor],  # each [B, Y_l, X_l, 9 * C], tap k = 3 ky + kx in its channels
) -> Tensor:  # [B, Y, X, C]
    """relu(total + sum over levels and taps k of bilinear(level's tap k) at p + k, zero outside).

    conv3x3(up(x)) at p = sum over taps k of up(W_k x) at p + k: nine small products.
    """
    y_size, x_size, channels = total.shape[1:]
    for level in levels:
        up = F.interpolate(
            level.permute(0, 3, 1, 2), (y_size, x_size), mode="bilinear", align_corners=True
        )
        taps = F.pad(up, (1, 1, 1, 1)).unflatten(1, (9, channels))
        for k in range(9):
            ky, kx = divmod(k, 3)
            total = total + taps[:, k, :, ky : ky + y_size, kx : kx + x_size].permute(0, 2, 3, 1)
    return torch.relu(total)
