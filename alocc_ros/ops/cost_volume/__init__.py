# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Stereo matching cost between the current and the reference frame (docs/network.md section 4)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from alocc_ros.ops.cost_volume import cpu
from alocc_ros.ops.cost_volume.reference import (
    BEHIND,
    INVALID_PENALTY,
    CostVolumeArguments,
    cost_volume_reference,
    validity_channel,
)
from alocc_ros.ops.library import fused, operator

__all__ = ["cost_volume", "cost_volume_reference", "validity_channel"]

# Numbers that are warped at once: a CPU wants them in its cache, a GPU has memory (512 MB).
_CPU_AT_ONCE, _AT_ONCE = 1 << 22, 1 << 27


def _general(*arguments: Any) -> Tensor:
    """Many depths at once: one at a time, a GPU only waits for the next small operation."""
    current, previous, homography, offset, first, step, bins = CostVolumeArguments(*arguments)
    n, channels, h, w = current.shape
    exact = {"dtype": torch.float64, "device": current.device}
    ys, xs = torch.meshgrid(torch.arange(h, **exact), torch.arange(w, **exact), indexing="ij")
    pixels = torch.stack([xs, ys, torch.ones_like(xs)], -1).flatten(0, 1)  # [h * w, 3]
    rays = (pixels @ homography.transpose(1, 2)).view(n, 1, h, w, 3)
    origin = offset[:, None, None, None]
    depths = first + step * torch.arange(bins, **exact)
    at_once = (_CPU_AT_ONCE if current.device.type == "cpu" else _AT_ONCE) // current.numel()
    costs = []
    for some in depths.split(max(1, at_once)):
        q = some[:, None, None, None] * rays + origin  # [N, d, h, w, 3]
        x, y, z = q.unbind(-1)
        grid = torch.stack([x / z * (2 / max(w - 1, 1)), y / z * (2 / max(h - 1, 1))], -1) - 1
        grid = grid.masked_fill((z < BEHIND)[..., None], -2.0).to(previous.dtype).flatten(1, 2)
        warped = F.grid_sample(previous, grid, align_corners=True)
        warped = warped.view(n, channels, len(some), h, w)
        cost = (current[:, :, None] - warped).abs().sum(1)
        invalid = warped[:, validity_channel(channels)] == 0
        costs.append(torch.add(cost, invalid, alpha=INVALID_PENALTY))
    cost = torch.softmax(-torch.cat(costs, 1), dim=1)
    # In memory as the kernel's result, and as the convolution behind wants it.
    return cost.contiguous(memory_format=torch.channels_last)


# current [N, C, h, w], previous [N, C, h, w], homography [N, 3, 3] float64, offset [N, 3] float64,
# depths first_depth + k * depth_step (metres) -> [N, bins, h, w]; see cost_volume_reference.
cost_volume = operator(
    "cost_volume(Tensor current, Tensor previous, Tensor homography, Tensor offset, "
    "float first_depth, float depth_step, int bins) -> Tensor",
    _general,
    cpu.cost_volume,
)


def _launches(current: Tensor, previous: Tensor, *_: Any) -> int:
    """One, and a copy of each feature that has its channels not innermost."""
    order = torch.channels_last
    return 1 + sum(not f.is_contiguous(memory_format=order) for f in (current, previous))


fused(cost_volume, "alocc_ros.ops.cost_volume.triton:cost_volume", _launches)
