# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Flow cost volume: the present bird's-eye feature against shifted past ones (spec section 11)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from alocc_ros.ops import native
from alocc_ros.ops.mode import fast

TAPS = 11  # displacements along each axis
DILATION = 2  # cells between them
TEMPERATURE = 0.1
EMPTY_PENALTY = 5.0


def correlation_twin(
    current: Tensor,  # [C, Y, X]
    previous: Tensor,  # [C, Y, X], already warped to the present
) -> Tensor:  # [TAPS * TAPS, Y, X]
    """Softmax over displacements of the cosine similarity over a temperature.

    Tap k = ky * TAPS + kx reads the past at (y + (ky - 5) * 2, x + (kx - 5) * 2). Where the past
    feature sums to exactly zero (nothing there, or outside) the score is lowered.
    """
    channels, y_size, x_size = current.shape
    reach = TAPS // 2 * DILATION
    shifted = F.unfold(previous[None], TAPS, dilation=DILATION, padding=reach)
    shifted = shifted.view(channels, TAPS * TAPS, y_size, x_size)
    cosine = (F.normalize(current, dim=0)[:, None] * F.normalize(shifted, dim=0)).sum(0)
    empty = shifted.sum(0) == 0
    return torch.softmax(cosine / TEMPERATURE - EMPTY_PENALTY * empty, dim=0)


def correlation(current: Tensor, previous: Tensor) -> Tensor:  # [C, Y, X] x 2 -> [T * T, Y, X]
    """The same without unfolding 121 copies."""
    if not (fast() and native.available(current, previous)):
        return correlation_twin(current, previous)
    channels, y_size, x_size = current.shape
    here = F.normalize(current, dim=0).permute(1, 2, 0).contiguous()
    there = F.normalize(previous, dim=0).permute(1, 2, 0).contiguous()
    empty = (previous.sum(0) == 0).to(torch.uint8).contiguous()
    out = torch.empty(y_size, x_size, TAPS * TAPS)
    lib = native.library()
    native.parallel(
        lambda begin, end: lib.correlation(
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
