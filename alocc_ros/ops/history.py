# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Temporal fusion: warp the remembered volumes to the present and merge them (spec section 8).

Two forms of the memory: *raw* (the lifted features themselves, as in the paper and in training)
and *embedded* (already multiplied by the time convolution's weights). Bilinear warping
with zero padding is linear, so ``W warp(x) = warp(W x)``: the embedded form multiplies each feature
once in its life instead of once a frame, and the time of each slot is only a bias.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alocc_ros.ops import native
from alocc_ros.ops.conv import conv_bn_twin, folded


def index_motion(
    previous_T_current: Tensor,  # [4, 4] metres
    lower: tuple[float, float, float],
    step: tuple[float, float, float],
    planar: bool,
) -> Tensor:  # [3, 4] float64
    """Lattice index (x, y, z, 1) now -> lattice index in the previous volume.

    Planar volumes take their one slab as the plane z = 1 m (spec section 8, item 3), so pitch
    and roll act as if everything lay there.
    """
    to_metres = torch.eye(4, dtype=torch.float64)
    for axis in range(2 if planar else 3):
        to_metres[axis, axis] = step[axis]
        to_metres[axis, 3] = lower[axis]
    moved = torch.linalg.inv(to_metres) @ previous_T_current.double().cpu() @ to_metres
    return moved[:3].contiguous()


def warp_twin(
    volume: Tensor,  # [C, Y, X, Z]
    motion: Tensor,  # [3, 4] of index_motion
) -> Tensor:  # [C, Y, X, Z]
    """Resample at the moved indices, (tri)linear, zero outside."""
    channels, y_size, x_size, z_size = volume.shape
    motion = motion.to(volume.device)
    axes = [
        torch.arange(s, dtype=torch.float64, device=volume.device) for s in (y_size, x_size, z_size)
    ]
    y, x, z = torch.meshgrid(*axes, indexing="ij")
    planar = z_size == 1
    index = torch.stack([x, y, torch.ones_like(z) if planar else z, torch.ones_like(z)], -1)
    source = index @ motion.T  # [Y, X, Z, 3] as x, y, z
    sizes = torch.tensor([x_size, y_size, z_size], dtype=torch.float64, device=volume.device)
    grid = source / (sizes - 1).clamp(min=1) * 2 - 1
    if planar:
        flat = F.grid_sample(
            volume[None, ..., 0], grid[None, :, :, 0, :2].to(volume), align_corners=True
        )
        return flat[0, ..., None]
    # grid_sample wants (z, y, x) axes and (x, y, z) coordinates.
    block = F.grid_sample(
        volume.permute(0, 3, 1, 2)[None],
        grid.permute(2, 0, 1, 3)[None].to(volume),
        align_corners=True,
    )
    return block[0].permute(0, 2, 3, 1)


def fuse_twin(
    current: Tensor,  # [C, Y, X, Z]
    history: Tensor,  # [T, C, Y, X, Z] raw, newest first
    ages: Tensor,  # [T] seconds, of the history
    motion: Tensor,  # [3, 4]
    time_conv: nn.Sequential,  # 1x1 C + 1 -> C, BatchNorm
    cat_conv: nn.Sequential,  # 1x1 (T + 1) C -> C, BatchNorm
) -> tuple[Tensor, Tensor, Tensor]:
    """As the paper says it: warp all slots, append the time, convolve, concatenate, convolve.

    Returns:
        fused [C, Y, X, Z], warped history [T, C, Y, X, Z], time features [T + 1, C, Y, X, Z].
    """
    slots, channels = history.shape[:2]
    warped = warp_twin(history.flatten(0, 1), motion).view_as(history)
    groups = torch.cat([current[None], warped])
    times = torch.cat([ages.new_zeros(1), ages]).to(groups)
    stamp = times.view(-1, 1, 1, 1, 1).expand(-1, 1, *groups.shape[2:])
    flat = time_conv[0].weight.dim() == 4  # the planar variants have 2-D convolutions
    x = torch.cat([groups, stamp], 1)
    embedded = conv_bn_twin(x[..., 0] if flat else x, *time_conv[:2], relu=True)
    fused = conv_bn_twin(embedded.flatten(0, 1)[None], *cat_conv[:2], relu=True)[0]
    if flat:
        fused, embedded = fused[..., None], embedded[..., None]
    return fused, warped, embedded


def embed(current: Tensor, time_conv: nn.Sequential) -> Tensor:  # [C, Y, X, Z] -> [Y, X, Z, C]
    """The linear part of the time convolution; bias and time come later (``time_bias``)."""
    weight, _ = folded(*time_conv[:2])
    channels = weight.shape[0]
    matrix = weight.reshape(channels, -1)[:, :channels]
    return current.permute(1, 2, 3, 0) @ matrix.T


def time_bias(ages: Tensor, time_conv: nn.Sequential) -> Tensor:  # [S] s -> [S, C]
    """What the time convolution adds to a slot of that age."""
    weight, bias = folded(*time_conv[:2])
    channels = weight.shape[0]
    per_second = weight.reshape(channels, -1)[:, channels]
    return bias + ages.to(weight)[:, None] * per_second


def fuse(
    current: Tensor,  # [Y, X, Z, C] embedded
    history: Tensor,  # [Y, X, Z, T * C] embedded, newest first
    ages: Tensor,  # [T] seconds
    motion: Tensor,  # [3, 4]
    time_conv: nn.Sequential,
    cat_conv: nn.Sequential,
    keep: bool = True,
    out: Tensor | None = None,  # [Y, X, Z, T * C], overwritten with the new history
) -> tuple[Tensor, Tensor | None]:
    """The same on the embedded form, a few rows at a time so that nothing leaves the cache.

    Returns:
        fused [C, Y, X, Z] (channels last), and the new history [Y, X, Z, T * C] if ``keep``.
    """
    y_size, x_size, z_size, channels = current.shape
    slots = history.shape[-1] // channels
    bias = time_bias(torch.cat([ages.new_zeros(1), ages]), time_conv).flatten().contiguous()
    weight, offset = folded(*cat_conv[:2])
    matrix = weight.reshape(channels, -1).T.contiguous()  # [(T + 1) C, C]
    kept = _buffer(history.shape, history, out) if keep else None
    fused = current.new_empty(y_size, x_size, z_size, channels)
    current, history = current.contiguous(), history.contiguous()
    if not native.available(current, history):
        _fuse_torch(current, history, bias, motion, matrix, offset, fused, kept)
        return fused.permute(3, 0, 1, 2), kept
    lib, motion = native.library(), motion.contiguous()
    # A few MB of activations at a time: warped and rectified by our threads, multiplied by
    # torch's while still in cache.
    rows = max(1, 3_000_000 // (x_size * z_size * (slots + 1) * channels))
    scratch = torch.empty(rows * x_size * z_size, (slots + 1) * channels)
    for y in range(0, y_size, rows):
        stop = min(y + rows, y_size)
        # Columns are dealt out, not rows: there are more of them.
        native.parallel(
            lambda begin, end, y=y, stop=stop: lib.warp_history(
                *map(native.pointer, (history, current, motion, bias)),
                None if kept is None else native.pointer(kept),
                native.pointer(scratch),
                *map(native.i64, (y_size, x_size, z_size, slots, channels, y, stop, begin, end)),
            ),
            x_size,
        )
        out = fused[y:stop].view(-1, channels)
        torch.addmm(offset, scratch[: len(out)], matrix, out=out).relu_()
    return fused.permute(3, 0, 1, 2), kept


def fuse_first(
    current: Tensor,  # [Y, X, Z, C] embedded
    slots: int,
    time_conv: nn.Sequential,
    cat_conv: nn.Sequential,
    keep: bool = True,
    out: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """``fuse`` for an empty memory: all slots are copies of the present, of age zero.

    Equal groups times different matrices is one group times the sum of the matrices.
    """
    channels = current.shape[-1]
    weight, offset = folded(*cat_conv[:2])
    matrix = weight.reshape(channels, slots + 1, channels).sum(1).T
    active = torch.relu(current + time_bias(torch.zeros(1), time_conv)[0])
    fused = torch.relu(active @ matrix + offset)
    history = None
    if keep:
        history = _buffer((*current.shape[:3], slots * channels), current, out)
        history.unflatten(3, (slots, channels)).copy_(current[..., None, :])
    return fused.permute(3, 0, 1, 2), history


def _buffer(shape: Sequence[int], like: Tensor, out: Tensor | None) -> Tensor:
    """``out`` if it can hold the new history, else a new buffer."""
    fits = out is not None and out.shape == torch.Size(shape) and out.dtype == like.dtype
    fits = fits and out.device == like.device and out.data_ptr() != like.data_ptr()
    return out if fits else like.new_empty(shape)


def _fuse_torch(
    current: Tensor,
    history: Tensor,
    bias: Tensor,
    motion: Tensor,
    matrix: Tensor,
    offset: Tensor,
    fused: Tensor,
    kept: Tensor | None,
) -> None:
    """Slot by slot: no concatenation of all of them."""
    channels = current.shape[-1]
    slots = history.shape[-1] // channels
    bias = bias.view(slots + 1, channels)
    matrix = matrix.view(slots + 1, channels, channels)
    total = offset + torch.relu(current + bias[0]) @ matrix[0]
    if kept is not None:
        kept[..., :channels] = current
    for slot in range(slots):
        part = history[..., slot * channels : (slot + 1) * channels].permute(3, 0, 1, 2)
        warped = warp_twin(part, motion).permute(1, 2, 3, 0)
        total += torch.relu(warped + bias[slot + 1]) @ matrix[slot + 1]
        if kept is not None and slot + 1 < slots:
            kept[..., (slot + 1) * channels : (slot + 2) * channels] = warped
    fused.copy_(total.relu_())
