# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""What a 3x3x3 convolution looks at, for some voxels only."""

from __future__ import annotations

import torch
from torch import Tensor


def gather_neighbourhoods(
    cost: Tensor,  # [W, Y, X], the same at every height
    voxels: Tensor,  # [V, Z, Y, X], in any order in memory
    index: Tensor,  # [M] int64, (z * Y + y) * X + x
) -> Tensor:  # [M, (W + V) * 27]
    """Features around each voxel in the order of the weights of a convolution over (Y, X, Z); zero
    outside. The gradient does not depend on the threads' order.
    """
    z_size, y_size, x_size = voxels.shape[1:]
    taps = torch.arange(27, device=index.device)
    ys = (index // x_size % y_size)[:, None] + taps // 9 - 1  # [M, 27]
    xs = (index % x_size)[:, None] + taps // 3 % 3 - 1
    zs = (index // (x_size * y_size))[:, None] + taps % 3 - 1
    inside = (ys >= 0) & (ys < y_size) & (xs >= 0) & (xs < x_size) & (zs >= 0) & (zs < z_size)
    ys, xs, zs = ys.clamp(0, y_size - 1), xs.clamp(0, x_size - 1), zs.clamp(0, z_size - 1)
    around = torch.cat([_columns(cost, (ys, xs)), _columns(voxels, (zs, ys, xs))])
    return (around * inside).permute(1, 0, 2).flatten(1)  # [W + V, M, 27] -> [M, (W + V) * 27]


def _columns(values: Tensor, index: tuple[Tensor, ...]) -> Tensor:  # [V, *sizes] -> [V, M, 27]
    """``values[:, *index]``; with a gradient that is a gather's, whose sums have one order (those
    of an index add up as threads please).
    """
    if not (torch.is_grad_enabled() and values.requires_grad):
        return values[(slice(None), *index)]
    place = torch.zeros_like(index[0])
    for size, i in zip(values.shape[1:], index, strict=True):
        place = place * size + i
    rows = values.flatten(1).gather(1, place.flatten().expand(len(values), -1))
    return rows.unflatten(1, place.shape)
