# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Temporal fusion on a CPU, a few rows at a time so that nothing leaves the cache."""

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
    fused = torch.empty(current.shape)
    current, history = current.contiguous(), history.contiguous()
    bias, motion = bias.contiguous(), motion.contiguous()
    for b in range(len(current)):
        kept = None if out is None else out[b]
        _one(current[b], history[b], bias[b], motion[b], matrix, offset, kept, fused[b])
    return fused


def _one(
    current: Tensor,
    history: Tensor,
    bias: Tensor,
    motion: Tensor,
    matrix: Tensor,
    offset: Tensor,
    kept: Tensor | None,
    fused: Tensor,
) -> None:
    y_size, x_size, z_size, channels = current.shape
    slots = history.shape[-1] // channels
    library = native.library()
    rows = max(1, _AT_ONCE // (x_size * z_size * (slots + 1) * channels))
    scratch = torch.empty(rows * x_size * z_size, (slots + 1) * channels)
    for y in range(0, y_size, rows):
        stop = min(y + rows, y_size)
        # Columns are dealt out, not rows: there are more of them.
        native.parallel(
            lambda begin, end, y=y, stop=stop: library.warp_history(
                *map(native.pointer, (history, current, motion, bias)),
                None if kept is None else native.pointer(kept),
                native.pointer(scratch),
                *map(native.i64, (y_size, x_size, z_size, slots, channels, y, stop, begin, end)),
            ),
            x_size,
        )
        block = fused[y:stop].view(-1, channels)
        torch.addmm(offset, scratch[: len(block)], matrix, out=block).relu_()
