# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Stereo matching cost between the current and the previous key frame (spec section 4)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from alocc_ros.ops import native
from alocc_ros.ops.mode import fast

# Cost added where the warped sample counts as invalid.
INVALID_PENALTY = 5.0
# Numbers that are warped at once: a CPU wants them in its cache, a GPU has memory (512 MB).
_CPU_AT_ONCE, _AT_ONCE = 1 << 22, 1 << 27
# Nearer than this, a point lies behind the previous camera.
BEHIND = 1e-3


def validity_channel(channels: int) -> int:
    """BUG-COMPAT: the reference sums the cost in groups of four channels and its loop variable
    survives the loop, so a sample is "invalid" where the first channel of the LAST group is zero
    (252 of 256), which a ReLU feature often is inside the image too. Released weights need it.
    """
    return (channels - 1) // 4 * 4


def cost_volume_twin(
    current: Tensor,  # [N, C, h, w] feature of the current images
    previous: Tensor,  # [N, C, h, w] of the previous key frame's
    homography: Tensor,  # [N, 3, 3] float64, (x, y, 1) of the current feature map ->
    offset: Tensor,  # [N, 3] float64, previous feature map (homogeneous): depth * H p + offset
    depths: Tensor,  # [D] metres
) -> Tensor:  # [N, D, h, w]
    """Softmax over depth of minus the L1 distance to the warped previous feature."""
    n, channels, h, w = current.shape
    ys, xs = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    pixels = torch.stack([xs, ys, torch.ones_like(xs)], -1).to(homography)  # [h, w, 3]
    rays = torch.einsum("nij,hwj->nhwi", homography, pixels)
    size = torch.tensor([max(w - 1, 1), max(h - 1, 1)]).to(homography)
    costs = []
    for depth in depths.to(homography):
        q = depth * rays + offset[:, None, None]
        grid = q[..., :2] / q[..., 2:] / size * 2 - 1
        grid = torch.where(q[..., 2:] < BEHIND, torch.full_like(grid, -2.0), grid)
        warped = F.grid_sample(previous, grid.to(previous), align_corners=True)
        cost = (current - warped).abs().sum(1)
        invalid = warped[:, validity_channel(channels)] == 0
        costs.append(cost + INVALID_PENALTY * invalid)
    return torch.softmax(-torch.stack(costs, 1), dim=1)


def cost_volume(
    current: Tensor,  # [N, C, h, w]
    previous: Tensor,  # [N, C, h, w]
    homography: Tensor,  # [N, 3, 3] float64, on the CPU
    offset: Tensor,  # [N, 3] float64, on the CPU
    depths: Tensor,  # [D] metres, evenly spaced
) -> Tensor:  # [N, D, h, w]
    """The same in one pass over pixels: taps, differences, penalty and softmax stay in cache.

    Elsewhere than in the C kernel many depths are warped at once: one at a time, a GPU only waits
    for the next of a thousand small operations.
    """
    if not fast():
        return cost_volume_twin(
            current, previous, homography.to(current.device), offset.to(current.device), depths
        )
    if not native.available(current, previous):
        return _cost_volume_torch(current, previous, homography, offset, depths)
    n, channels, h, w = current.shape
    bins = len(depths)
    here = current.permute(0, 2, 3, 1).contiguous()
    there = previous.permute(0, 2, 3, 1).contiguous()
    homography, offset = homography.contiguous(), offset.contiguous()
    out = torch.empty(n, h, w, bins)
    step = float(depths[1] - depths[0]) if bins > 1 else 0.0
    lib = native.library()
    native.parallel(
        lambda begin, end: lib.cost_volume(
            native.pointer(here),
            native.pointer(there),
            native.pointer(homography),
            native.pointer(offset),
            native.pointer(out),
            *map(native.i64, (h, w, channels, bins)),
            native.f64(float(depths[0])),
            native.f64(step),
            native.i64(validity_channel(channels)),
            native.f32(INVALID_PENALTY),
            native.i64(begin),
            native.i64(end),
        ),
        n * h,
    )
    return out.permute(0, 3, 1, 2)


def _cost_volume_torch(
    current: Tensor,  # [N, C, h, w]
    previous: Tensor,  # [N, C, h, w]
    homography: Tensor,  # [N, 3, 3] float64
    offset: Tensor,  # [N, 3] float64
    depths: Tensor,  # [D] metres
) -> Tensor:  # [N, D, h, w]
    n, channels, h, w = current.shape
    device, exact = current.device, {"dtype": torch.float64, "device": current.device}
    ys, xs = torch.meshgrid(torch.arange(h, **exact), torch.arange(w, **exact), indexing="ij")
    pixels = torch.stack([xs, ys, torch.ones_like(xs)], -1)  # [h, w, 3]
    rays = torch.einsum("nij,hwj->nhwi", homography.to(device), pixels)[:, None]
    offset = offset.to(device)[:, None, None, None]
    size = torch.tensor([max(w - 1, 1), max(h - 1, 1)], **exact)
    costs = []
    limit = _CPU_AT_ONCE if device.type == "cpu" else _AT_ONCE
    at_once = max(1, limit // current.numel())
    for some in depths.to(**exact).split(at_once):
        q = some[:, None, None, None] * rays + offset  # [N, d, h, w, 3]
        grid = q[..., :2] / q[..., 2:] / size * 2 - 1
        grid = torch.where(q[..., 2:] < BEHIND, -2.0, grid).to(previous).flatten(1, 2)
        warped = F.grid_sample(previous, grid, align_corners=True)
        warped = warped.view(n, channels, len(some), h, w)
        cost = (current[:, :, None] - warped).abs().sum(1)
        costs.append(cost + INVALID_PENALTY * (warped[:, validity_channel(channels)] == 0))
    return torch.softmax(-torch.cat(costs, 1), dim=1)
