# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Sums of upsampled levels on a CPU, in one pass over the full-size volume."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from alocc_ros.ops import native


def upsample_add_(total: Tensor, levels: Sequence[Tensor]) -> None:
    """See ``upsample_add_reference``; ``total`` becomes the result."""
    levels = [level.contiguous() for level in levels]
    sizes = torch.tensor([level.shape[1:4] for level in levels], dtype=torch.int64)
    library = native.library()
    for b, volume in enumerate(total):
        addresses = (ctypes.c_void_p * len(levels))(*(level[b].data_ptr() for level in levels))
        native.parallel(
            lambda begin, end, volume=volume, addresses=addresses: library.upsample_add(
                native.pointer(volume),
                addresses,
                native.pointer(sizes),
                *map(native.i64, (len(levels), *volume.shape)),
                1,
                native.i64(begin),
                native.i64(end),
            ),
            volume.shape[0],
        )


def upsample_taps_(total: Tensor, levels: Sequence[Tensor]) -> None:
    """See ``upsample_taps_reference``; ``total`` becomes the result."""
    library = native.library()
    for i, level in enumerate(levels):
        level = level.contiguous()
        h, w = level.shape[1:3]
        last = i == len(levels) - 1
        for volume, low in zip(total, level, strict=True):
            native.parallel(
                lambda begin, end, volume=volume, low=low, h=h, w=w, last=last: (
                    library.upsample_taps(
                        native.pointer(volume),
                        native.pointer(low),
                        *map(native.i64, (h, w, *volume.shape)),
                        native.i32(last),
                        native.i64(begin),
                        native.i64(end),
                    )
                ),
                volume.shape[0],
            )
    if not levels:
        torch.relu_(total)
