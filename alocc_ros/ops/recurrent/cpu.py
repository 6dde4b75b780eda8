# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Recurrent fusion on a CPU, a few rows at a time so that nothing leaves the cache."""

from __future__ import annotations

import torch
from torch import Tensor

from alocc_ros.ops import native
from alocc_ros.ops.recurrent.reference import (
    MOTION_LIMIT,
    NORM_EPSILON,
    SceneWeights,
    scene_step_reference,
)

# Activations at a time: moved by our threads, multiplied by torch's while in cache.
_AT_ONCE = 1_000_000
# Channels that the scene layer's kernel has room for.
_MOST_CHANNELS = 128


def fuse_recurrent(
    current: Tensor,
    history: Tensor,
    previous: Tensor | None,
    motion: Tensor,
    offset_matrix: Tensor,
    offset_bias: Tensor,
    time_matrix: Tensor,
    time_bias: Tensor,
    cat_matrix: Tensor,
    cat_bias: Tensor,
    fused: Tensor,
    offsets: Tensor,
) -> None:
    """See ``fuse_recurrent_reference``."""
    current, history, motion = current.contiguous(), history.contiguous(), motion.contiguous()
    previous = None if previous is None else previous.contiguous()
    batch, y_size, x_size, z_size, channels = current.shape
    library, room = native.library(), offsets
    if not offsets.is_contiguous() or not fused.is_contiguous():
        raise ValueError("fuse_recurrent writes into contiguous tensors")
    columns = x_size * z_size
    rows = max(1, _AT_ONCE // (columns * 2 * channels))
    scratch = torch.empty(rows * columns, channels)
    groups = torch.empty(rows * columns, 2 * channels)
    for b in range(batch):
        for y in range(0, y_size, rows):
            stop = min(y + rows, y_size)
            now, count = current[b, y:stop].view(-1, channels), (stop - y) * columns
            moved = room[b, y:stop].view(-1, 3)
            torch.addmm(offset_bias, now, offset_matrix, out=moved)
            moved.clamp_(-MOTION_LIMIT, MOTION_LIMIT)
            native.parallel(
                lambda begin, end, b=b, y=y, stop=stop: library.fetch_history(
                    native.pointer(history[b]),
                    None if previous is None else native.pointer(previous[b]),
                    *map(native.pointer, (motion[b], room[b], scratch)),
                    *map(native.i64, (y_size, x_size, z_size, channels, y, stop, begin, end)),
                ),
                x_size,
            )
            block = groups[:count]
            block[:, :channels] = torch.addmm(time_bias[b, 0], now, time_matrix)
            block[:, channels:] = torch.addmm(time_bias[b, 1], scratch[:count], time_matrix)
            torch.addmm(
                cat_bias, block.relu_(), cat_matrix, out=fused[b, y:stop].view(-1, channels)
            ).relu_()


def scene_step(
    rows: Tensor, sums: Tensor, keep: Tensor, layer: list[Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """See ``scene_step_reference``. Products of constants are made first: the first pass needs two
    products a voxel and one sum of products, the second one two.
    """
    query, key, value, weight, bias, scale, shift = layer
    rows, channels = rows.contiguous(), rows.shape[-1]
    if channels > _MOST_CHANNELS:
        return tuple(scene_step_reference(rows, sums, keep, SceneWeights(*layer)))
    count = rows[0].numel()
    sums = sums * keep[:, None, None]
    out, norms = torch.empty_like(rows), []
    new = torch.empty_like(sums)
    library, y_size = native.library(), rows.shape[1]
    wanted = (value - key).T.contiguous()
    asked = query.T.contiguous()
    epsilon = native.f32(NORM_EPSILON)
    width = rows[0, 0].numel() // channels
    for b in range(len(rows)):
        now, offset = weight - sums[b, :, :channels], (bias - sums[b, :, channels]).contiguous()
        # One partial sum a row of the lattice: neither threads nor ranges change a bit of it.
        parts = torch.empty(y_size, channels, channels + 3)
        first = (now @ key).T.contiguous()
        constants = (first, offset, wanted, scale.contiguous(), shift.contiguous())
        native.parallel(
            lambda begin, end, b=b, constants=constants, parts=parts: library.scene_gradient(
                *map(native.pointer, (rows[b], *constants, parts)),
                epsilon,
                *map(native.i64, (width, channels, begin, end)),
            ),
            y_size,
        )
        total = parts.double().sum(0) / count  # [C, C + 3]
        new[b, :, :channels] = sums[b, :, :channels] + (total[:, :channels] @ key.T.double())
        new[b, :, channels] = sums[b, :, channels] + total[:, channels]
        norm = total[:, channels + 1 :].T.to(rows.dtype)
        norms.append(norm)
        now, offset = weight - new[b, :, :channels], (bias - new[b, :, channels]).contiguous()
        constants = ((now @ query).T.contiguous(), offset, asked)
        constants += ((scale - norm[0]).contiguous(), (shift - norm[1]).contiguous())
        native.parallel(
            lambda begin, end, b=b, constants=constants: library.scene_answer(
                *map(native.pointer, (rows[b], *constants, out[b])),
                epsilon,
                *map(native.i64, (width, channels, begin, end)),
            ),
            y_size,
        )
    return out, new, torch.stack(norms)
