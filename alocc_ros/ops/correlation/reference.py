# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Flow correlation by its definition: 121 shifted copies."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from alocc_ros.ops.history import warp

TAPS = 11  # displacements along each axis
DILATION = 2  # cells between them
TEMPERATURE = 0.1
EMPTY_PENALTY = 5.0


def correlation_reference(
    current: Tensor,  # [B, C, Y, X]
    previous: Tensor,  # [B, C, Y, X], already warped to the present
) -> Tensor:  # [B, TAPS * TAPS, Y, X]
    """Softmax over displacements of the cosine similarity over a temperature.

    Tap k = ky * TAPS + kx reads the past at (y + (ky - 5) * 2, x + (kx - 5) * 2). Where the past
    feature sums to exactly zero (nothing there, or outside) the score is lowered.
    """
    reach = TAPS // 2 * DILATION
    shifted = F.unfold(previous, TAPS, dilation=DILATION, padding=reach)
    shifted = shifted.unflatten(1, (-1, TAPS * TAPS)).unflatten(3, current.shape[2:])
    cosine = (F.normalize(current, dim=1)[:, :, None] * F.normalize(shifted, dim=1)).sum(1)
    empty = shifted.sum(1) == 0
    return torch.softmax(torch.add(cosine / TEMPERATURE, empty, alpha=-EMPTY_PENALTY), dim=1)


def matching_maps_reference(
    now: Tensor,  # [B, C, Y, X]
    before: Tensor,  # [B, C, Y, X], of the reference frame
    motion: Tensor,  # [B, 3, 4] float64, cell (x, y, 1, 1) now -> in the reference frame's map
) -> Tensor:  # [2 * B, C, Y/2, X/2], channels last
    """The maps to match: those of now and the past ones moved to the present, at half the size."""
    maps = torch.cat([now, warp(before[..., None], motion)[..., 0]])
    half = [s // 2 for s in now.shape[2:]]
    maps = F.interpolate(maps, size=half, mode="bilinear", align_corners=True)
    return maps.contiguous(memory_format=torch.channels_last)
