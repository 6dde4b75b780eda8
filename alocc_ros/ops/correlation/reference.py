# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Flow correlation by its definition: 121 shifted copies."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

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
