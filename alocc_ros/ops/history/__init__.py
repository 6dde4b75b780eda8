# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Temporal fusion: warp the remembered volumes to the present and merge them (docs/network.md
section 8).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from alocc_ros.ops.history import cpu
from alocc_ros.ops.history.reference import fuse_history_reference, sampling_grid, warp
from alocc_ros.ops.library import fused, operator

__all__ = [
    "add_present",
    "fuse_history",
    "fuse_history_reference",
    "index_motion",
    "remembered_sum",
    "warp",
]

# Numbers that are warped at once (512 MB in float32).
_AT_ONCE = 1 << 27


def index_motion(
    previous_T_current: Tensor,  # [B, 4, 4] float64 metres
    lower: tuple[float, float, float],  # metres
    step: tuple[float, float, float],  # metres
    planar: bool,
) -> Tensor:  # [B, 3, 4] float64
    """Lattice index (x, y, z, 1) now -> lattice index in the previous volume."""
    to_metres = torch.eye(4, dtype=torch.float64)
    for axis in range(2 if planar else 3):
        to_metres[axis, axis] = step[axis]
        to_metres[axis, 3] = lower[axis]
    to_index = torch.linalg.inv(to_metres)
    moved = [to_index @ p @ to_metres for p in previous_T_current.double().cpu()]
    return torch.stack(moved)[:, :3].contiguous()


def _general(
    current: Tensor,
    history: Tensor,
    bias: Tensor,
    motion: Tensor,
    matrix: Tensor,
    offset: Tensor,
    out: Tensor | None,
) -> Tensor:
    """Some slots at a time, all with one grid: no concatenation of a volume with sixteen others."""
    batch, y_size, x_size, z_size, channels = current.shape
    planar, slots = z_size == 1, history.shape[-1] // channels
    grid = sampling_grid(motion, y_size, x_size, z_size).to(history.dtype)
    bias = bias[:, None, None, None]
    if out is not None:
        out[..., :channels].copy_(current)
    total = torch.relu(current + bias[..., :channels]) @ matrix[:channels] + offset
    at_once = max(1, _AT_ONCE // current.numel()) * channels
    for begin in range(0, slots * channels, at_once):
        stop = min(begin + at_once, slots * channels)
        part = history[..., begin:stop]
        if planar:
            moved = F.grid_sample(part[..., 0, :].permute(0, 3, 1, 2), grid, align_corners=True)
            warped = moved.permute(0, 2, 3, 1)[..., None, :]
        else:
            moved = F.grid_sample(part.permute(0, 4, 3, 1, 2), grid, align_corners=True)
            warped = moved.permute(0, 3, 4, 2, 1)
        if out is not None:
            kept = min(stop + channels, slots * channels)
            out[..., begin + channels : kept].copy_(warped[..., : kept - begin - channels])
        rectified = torch.relu(warped + bias[..., begin + channels : stop + channels])
        total = total + rectified @ matrix[begin + channels : stop + channels]
    return torch.relu(total)


# Arguments and result: see fuse_history_reference.
fuse_history = operator(
    "fuse_history(Tensor current, Tensor history, Tensor bias, Tensor motion, Tensor matrix, "
    "Tensor offset, Tensor(a!)? out) -> Tensor",
    _general,
    cpu.fuse_history,
)


def _remembered(
    history: Tensor, bias: Tensor, motion: Tensor, matrix: Tensor, out: Tensor | None
) -> Tensor:
    batch, y_size, x_size, z_size, width = history.shape
    channels = matrix.shape[1]
    warped = warp(history.permute(0, 4, 1, 2, 3), motion).permute(0, 2, 3, 4, 1)
    if out is not None:
        out[..., channels:].copy_(warped[..., : width - channels])
    rectified = torch.relu(warped + bias[:, None, None, None, channels:])
    return rectified @ matrix[channels:]


def _present(
    current: Tensor,
    remembered: Tensor,
    bias: Tensor,
    matrix: Tensor,
    offset: Tensor,
    out: Tensor | None,
) -> Tensor:
    channels = current.shape[-1]
    if out is not None:
        out[..., :channels].copy_(current)
    rectified = torch.relu(current + bias[:, None, None, None, :channels])
    return torch.relu(remembered + rectified @ matrix[:channels] + offset)


# ``fuse_history`` in two, so that the greater part need not wait for the images: the sum over the
# remembered slots, float32 whatever the data are, and what the present adds to it.
remembered_sum = operator(
    "remembered_sum(Tensor history, Tensor bias, Tensor motion, Tensor matrix, Tensor(a!)? out) "
    "-> Tensor",
    _remembered,
    cpu.remembered_sum,
    wide=(0,),
)
add_present = operator(
    "add_present(Tensor current, Tensor remembered, Tensor bias, Tensor matrix, Tensor offset, "
    "Tensor(a!)? out) -> Tensor",
    _present,
    cpu.add_present,
    compiled=False,
)
fused(remembered_sum, "alocc_ros.ops.history.triton:remembered_sum")
fused(add_present, "alocc_ros.ops.history.triton:add_present")
