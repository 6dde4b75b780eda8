# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Recurrent fusion by definition (arXiv 2504.12959; docs/network.md section 8b). Each of its parts
is one step of gradient descent on what is remembered.

Volumes are rows of channels, [B, Y, X, Z, C]; positions and offsets are lattice indices (x, y, z).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

# Predicted offsets and their gradient are limited to so many voxels.
MOTION_LIMIT = 20.0
# Step size of the offsets; that of the scene layer is 1.
MOTION_STEP = 0.1
# Of the scene layer's norm; not 1e-5 as elsewhere.
NORM_EPSILON = 1e-6
# Nearer than this to the previous camera's plane, or behind it, nothing is visible, metres.
NEAREST = 1e-3


class MotionStep(NamedTuple):
    """Offsets after their step.

    Attributes:
        offset: [B, Y, X, Z, 3] voxels.
        previous: the remembered offsets, where the predicted ones lead to.
        gradient: of their disagreement, not yet limited.
    """

    offset: Tensor
    previous: Tensor
    gradient: Tensor


class SceneStep(NamedTuple):
    """What the scene layer says, and what it has learned.

    Attributes:
        rows: [B, Y, X, Z, C].
        sums: [B, C, C + 1] gradients of weight and bias (the last column) since the start.
        norm: [B, 2, C] gradients of the norm's weight and bias, of this frame.
    """

    rows: Tensor
    sums: Tensor
    norm: Tensor


class SceneWeights(NamedTuple):
    """The scene layer as it was trained.

    Attributes:
        query, key, value: [C, C].
        weight, bias: [C, C], [C], from which the sums of gradients are subtracted.
        scale, shift: [C], of the norm.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    weight: Tensor
    bias: Tensor
    scale: Tensor
    shift: Tensor


def moved_indices(
    motion: Tensor,  # [B, 3, 4] float64, lattice index (x, y, z, 1) now -> in the remembered volume
    y_size: int,
    x_size: int,
    z_size: int,
) -> Tensor:  # [B, Y, X, Z, 3] float64
    """Where each voxel was, if nothing moved but the vehicle. A bird's-eye slab (``z_size`` 1) lies
    in the plane z = 1 and has no other place along z, as in ``ops/history``.
    """
    x, y, z = (
        torch.arange(s, dtype=motion.dtype, device=motion.device) for s in (x_size, y_size, z_size)
    )
    if z_size == 1:
        z = torch.ones_like(z)
    m = motion[:, :, :, None, None, None]  # [B, 3, 4, 1, 1, 1]
    source = m[:, :, 0] * x[:, None] + m[:, :, 1] * y[:, None, None] + m[:, :, 2] * z + m[:, :, 3]
    if z_size == 1:
        source = torch.cat([source[:, :2], torch.zeros_like(source[:, 2:])], 1)
    return source.movedim(1, -1)


def unit_grid(positions: Tensor) -> Tensor:  # [B, Y, X, Z, 3] -> likewise
    """Lattice indices (x, y, z) as ``grid_sample`` counts them: -1 first, 1 last node."""
    y_size, x_size, z_size = positions.shape[1:4]
    axes = zip(positions.unbind(-1), (x_size, y_size, z_size), strict=True)
    return torch.stack([p * (2 / max(s - 1, 1)) - 1 for p, s in axes], -1)


def sample_rows(
    rows: Tensor,  # [B, Y, X, Z, C]
    positions: Tensor,  # [B, Y, X, Z, 3]
) -> Tensor:  # [B, Y, X, Z, C]
    """Trilinear, zero outside."""
    x, y, z = unit_grid(positions).to(rows.dtype).unbind(-1)
    grid = torch.stack([z, x, y], -1)  # the last axis of the volume comes first
    return F.grid_sample(rows.movedim(-1, 1), grid, align_corners=True).movedim(1, -1)


def correct_motion_reference(
    predicted: Tensor,  # [B, Y, X, Z, 3] voxels
    previous: Tensor,  # [B, Y, X, Z, 3], remembered
    motion: Tensor,  # [B, 3, 4] float64
) -> MotionStep:
    """One step that makes predicted offsets agree with the remembered ones.

    The disagreement at a voxel is the mean square of (remembered at the place where the prediction
    leads) - (prediction). Its gradient is that of the interpolant, so it jumps where a place
    crosses a node. Places outside the lattice leave the prediction as it is. The step is a constant
    to training: the gradient of the result is that of the prediction.
    """
    base = moved_indices(motion, *predicted.shape[1:4])
    place = base + predicted.detach().to(base.dtype)
    sampled, slopes = _sample_with_slopes(previous, place)
    error = sampled - predicted.detach()  # [B, Y, X, Z, 3]
    along = (slopes * error[..., None, :]).sum(-1)  # by axis
    gradient = (along - error) * (2 / error.shape[-1])
    y_size, x_size, z_size = predicted.shape[1:4]
    axes = zip(place.unbind(-1), (x_size, y_size, z_size), strict=True)
    outside = torch.stack([(p < 0) | (p > s - 1) for p, s in axes], -1).any(-1, keepdim=True)
    step = MOTION_STEP * gradient.clamp(-MOTION_LIMIT, MOTION_LIMIT)
    return MotionStep(predicted - step.masked_fill(outside, 0.0), sampled, gradient)


def _sample_with_slopes(rows: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
    """Trilinear with the border repeated: values [..., C], slopes [..., 3 axes, C].

    On a node the cell above counts; beyond the border the slope along that axis is zero.
    """
    batch, y_size, x_size, z_size, channels = rows.shape
    flat, lower = rows.flatten(1, 3), places.floor()
    weight = (places - lower).to(rows.dtype)  # [B, Y, X, Z, 3]
    corner = lower.long()
    near, far = [], []  # by axis x, y, z
    for axis, size in enumerate((x_size, y_size, z_size)):
        near.append(corner[..., axis].clamp(0, size - 1))
        far.append((corner[..., axis] + 1).clamp(0, size - 1))
    value = rows.new_zeros(batch, y_size * x_size * z_size, channels)
    slopes = [value.clone() for _ in range(3)]
    for number in range(8):
        bits = [number & 1, number >> 1 & 1, number >> 2]
        x, y, z = (far[a] if bits[a] else near[a] for a in range(3))
        index = ((y * x_size + x) * z_size + z).flatten(1)[..., None].expand(-1, -1, channels)
        tap = torch.gather(flat, 1, index)
        share = [weight[..., a] if bits[a] else 1 - weight[..., a] for a in range(3)]
        share = [s.flatten(1)[..., None] for s in share]
        value = value + share[0] * share[1] * share[2] * tap
        for a in range(3):
            others = share[(a + 1) % 3] * share[(a + 2) % 3]
            slopes[a] = slopes[a] + (others if bits[a] else -others) * tap
    size = (batch, y_size, x_size, z_size, channels)
    return value.view(size), torch.stack([s.view(size) for s in slopes], -2)


def fuse_recurrent_reference(
    current: Tensor,  # [B, Y, X, Z, C]
    history: Tensor,  # [B, Y, X, Z, C]
    previous: Tensor | None,  # [B, Y, X, Z, 3] remembered offsets; None: a first frame
    motion: Tensor,  # [B, 3, 4] float64
    offset_matrix: Tensor,  # [C, 3]
    offset_bias: Tensor,  # [3]
    time_matrix: Tensor,  # [C, C]
    time_bias: Tensor,  # [B, 2, C], of present and history
    cat_matrix: Tensor,  # [2 * C, C]
    cat_bias: Tensor,  # [C]
    fused: Tensor,  # [B, Y, X, Z, C], overwritten with the result
    offsets: Tensor,  # [B, Y, X, Z, 3], overwritten with the new offsets
) -> None:
    """Predict where each voxel was, correct that, fetch what was there, merge it with the present.

    ``fused`` and ``offsets`` are neither ``history`` nor ``previous``.
    """
    predicted = (current @ offset_matrix + offset_bias).clamp(-MOTION_LIMIT, MOTION_LIMIT)
    moved = predicted
    if previous is not None:
        moved = correct_motion_reference(predicted, previous, motion).offset
    base = moved_indices(motion, *current.shape[1:4])
    warped = sample_rows(history, base + moved.to(base.dtype))
    bias = time_bias[:, :, None, None, None]
    groups = [torch.relu(g @ time_matrix + bias[:, i]) for i, g in enumerate((current, warped))]
    offsets.copy_(moved)
    fused.copy_(torch.relu(torch.cat(groups, -1) @ cat_matrix + cat_bias))


def scene_step_reference(
    rows: Tensor,  # [B, Y, X, Z, C]
    sums: Tensor,  # [B, C, C + 1], zero at the start
    keep: Tensor,  # [B] share of the old sums that stays
    layer: SceneWeights,
) -> SceneStep:
    """One step of the scene layer on this very frame, and its answer after the step.

    The layer is LayerNorm(W k + b) with k = ``key`` x; it learns to say ``value`` x - ``key`` x, by
    the mean square over all voxels and channels. Its answer is then asked of ``query`` x, to which
    it is added. Only weight and bias remember their steps (BUG-COMPAT: those of the norm are made
    anew every frame).
    """
    channels = rows.shape[-1]
    x = rows.flatten(2, 3)  # [B, Y, X * Z, C]
    count = x.shape[1] * x.shape[2] * channels
    sums = sums * keep[:, None, None]
    weight, bias = layer.weight - sums[..., :channels], layer.bias - sums[..., channels]
    y = x @ layer.key.T
    unit, deviation = _standardised(y @ weight[:, None].mT + bias[:, None, None])
    error = layer.scale * unit + layer.shift - (x @ layer.value.T - y)
    pull = layer.scale * error
    pull = pull - pull.mean(-1, keepdim=True) - unit * (pull * unit).mean(-1, keepdim=True)
    pull = 2 * pull / deviation
    # First over each row of the lattice, then over the rows: the order of summation is fixed.
    learned = torch.cat([(pull.mT @ y).sum(1), pull.sum((1, 2))[..., None]], -1) / count
    norm = torch.stack([(2 * error * unit).sum((1, 2)), (2 * error).sum((1, 2))], 1) / count
    sums = sums + learned
    weight, bias = layer.weight - sums[..., :channels], layer.bias - sums[..., channels]
    asked = x @ layer.query.T
    unit, _ = _standardised(asked @ weight[:, None].mT + bias[:, None, None])
    scale, shift = (n[:, None, None] for n in (layer.scale - norm[:, 0], layer.shift - norm[:, 1]))
    return SceneStep((scale * unit + shift + asked).view(rows.shape), sums, norm)


def _standardised(z: Tensor) -> tuple[Tensor, Tensor]:
    """Mean 0 and variance 1 over the channels; and the deviation it had."""
    centred = z - z.mean(-1, keepdim=True)
    deviation = torch.sqrt(centred.square().mean(-1, keepdim=True) + NORM_EPSILON)
    return centred / deviation, deviation


def frustum_grid(
    homography: Tensor,  # [N, 3, 3] float64, pixel (x, y, 1) of the feature now, a metre away ->
    offset: Tensor,  # [N, 3] float64, -> pixel of the feature then, homogeneous: d * H p + offset
    bins: int,
    height: int,
    width: int,
    first: float,  # metres, depth of bin 0
    step: float,  # metres
) -> Tensor:  # [N, D, h, w, 3] float64 in [-1, 1], (x, y, depth); -2: behind the camera
    """Where the place of each pixel and depth bin was in the same camera's frustum."""
    like = {"dtype": homography.dtype, "device": homography.device}
    x, y = torch.arange(width, **like), torch.arange(height, **like)
    depth = (first + step * torch.arange(bins, **like))[:, None, None]
    h = homography[:, :, :, None, None]  # [N, 3, 3, 1, 1]
    ray = h[:, :, 0] * x + h[:, :, 1] * y[:, None] + h[:, :, 2]  # [N, 3, h, w]
    place = depth * ray[:, :, None] + offset[:, :, None, None, None]  # [N, 3, D, h, w]
    z = place[:, 2]
    behind = z < NEAREST
    safe = z.masked_fill(behind, 1.0)
    parts = (place[:, 0] / safe, place[:, 1] / safe, (z - first) / step)
    sizes = (width, height, bins)
    grid = [p * (2 / max(s - 1, 1)) - 1 for p, s in zip(parts, sizes, strict=True)]
    return torch.stack(grid, -1).masked_fill(behind[..., None], -2.0)


def warp_frustum_reference(
    values: Tensor,  # [N, D, h, w]
    homography: Tensor,  # [N, 3, 3] float64
    offset: Tensor,  # [N, 3] float64
    first: float,
    step: float,
) -> Tensor:  # [N, D, h, w]
    """Resample what was remembered of each pixel and depth, trilinear, zero outside."""
    grid = frustum_grid(homography, offset, *values.shape[1:], first, step).to(values.dtype)
    return F.grid_sample(values[:, None], grid, align_corners=True)[:, 0]
