# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Temporal fusion on a CPU, a few rows at a time so that nothing leaves the cache but the sum over
the remembered slots, which is a sixteenth of these.
"""

from __future__ import annotations

import torch
from torch import Tensor

from alocc_ros.ops import native

# Activations at a time: warped and rectified by our threads, multiplied by torch's while in cache.
_AT_ONCE = 3_000_000


def fuse_history(
    current: Tensor,
    history: Tensor,
    bias: Tensor,
    motion: Tensor,
    matrix: Tensor,
    offset: Tensor,
    out: Tensor | None,
) -> Tensor:
    """See ``fuse_history_reference``."""
    remembered = remembered_sum(history, bias, motion, matrix, out)
    return add_present(current, remembered, bias, matrix, offset, out)


def remembered_sum(
    history: Tensor,  # [B, Y, X, Z, T * C]
    bias: Tensor,  # [B, (T + 1) * C]
    motion: Tensor,  # [B, 3, 4] float64
    matrix: Tensor,  # [(T + 1) * C, C]
    out: Tensor | None,  # as history, never the history itself; gets all slots but the first
) -> Tensor:  # [B, Y, X, Z, C]
    """The share of the remembered slots in the product, before offset and ReLU."""
    channels = matrix.shape[1]
    total = torch.empty(*history.shape[:4], channels)
    history, motion, bias = history.contiguous(), motion.contiguous(), bias.contiguous()
    for b in range(len(history)):
        kept = None if out is None else out[b]
        shift, weights = bias[b, channels:], matrix[channels:]
        _sum_of_one(history[b], shift, motion[b], weights, kept, total[b])
    return total


def _sum_of_one(
    history: Tensor,
    bias: Tensor,
    motion: Tensor,
    matrix: Tensor,
    kept: Tensor | None,
    total: Tensor,
) -> None:
    y_size, x_size, z_size, width = history.shape
    channels, library = matrix.shape[1], native.library()
    rows = max(1, _AT_ONCE // (x_size * z_size * width))
    scratch = torch.empty(rows * x_size * z_size, width)
    for y in range(0, y_size, rows):
        stop = min(y + rows, y_size)
        # Columns are dealt out, not rows: there are more of them.
        native.parallel(
            lambda begin, end, y=y, stop=stop: library.warp_history(
                *map(native.pointer, (history, motion, bias)),
                None if kept is None else native.pointer(kept),
                native.pointer(scratch),
                *map(
                    native.i64,
                    (y_size, x_size, z_size, width // channels, channels, y, stop, begin, end),
                ),
            ),
            x_size,
        )
        block = total[y:stop].view(-1, channels)
        torch.mm(scratch[: len(block)], matrix, out=block)


def add_present(
    current: Tensor,  # [B, Y, X, Z, C]
    remembered: Tensor,  # [B, Y, X, Z, C] of ``remembered_sum``
    bias: Tensor,  # [B, (T + 1) * C]
    matrix: Tensor,  # [(T + 1) * C, C]
    offset: Tensor,  # [C]
    out: Tensor | None,  # [B, Y, X, Z, T * C], gets the first slot
) -> Tensor:  # [B, Y, X, Z, C]
    """What ``fuse_history_reference`` returns."""
    channels = current.shape[-1]
    if out is not None:
        out[..., :channels].copy_(current)
    fused = torch.empty(current.shape)
    for b in range(len(current)):
        cells = (x[b].reshape(-1, channels) for x in (current, remembered, fused))
        blocks = (x.split(_AT_ONCE // channels) for x in cells)
        for now, then, to in zip(*blocks, strict=True):
            rectified = torch.add(now, bias[b, :channels]).relu_()
            torch.addmm(then, rectified, matrix[:channels], out=to).add_(offset).relu_()
    return fused
