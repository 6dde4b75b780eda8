# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Flow correlation on a CPU, without unfolding 121 copies."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from alocc_ros.ops import native
from alocc_ros.ops.correlation.reference import DILATION, EMPTY_PENALTY, TAPS, TEMPERATURE


def correlation(current: Tensor, previous: Tensor) -> Tensor:
    """See ``correlation_reference``."""
    return torch.stack([_one(c, p) for c, p in zip(current, previous, strict=True)])


def _one(current: Tensor, previous: Tensor) -> Tensor:  # [C, Y, X] x 2 -> [TAPS * TAPS, Y, X]
    channels, y_size, x_size = current.shape
    here = F.normalize(current, dim=0).permute(1, 2, 0).contiguous()
    there = F.normalize(previous, dim=0).permute(1, 2, 0).contiguous()
    empty = (previous.sum(0) == 0).to(torch.uint8).contiguous()
    out = torch.empty(y_size, x_size, TAPS * TAPS)
    library = native.library()
    native.parallel(
        lambda begin, end: library.correlation(
            *map(native.pointer, (here, there, empty, out)),
            *map(native.i64, (y_size, x_size, channels, TAPS, DILATION)),
            native.f32(TEMPERATURE),
            native.f32(EMPTY_PENALTY),
            native.i64(begin),
            native.i64(end),
        ),
        y_size,
    )
    return out.permute(2, 0, 1)
