# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""The gate between what is remembered and what is now, and what time adds, by definition."""

from __future__ import annotations

import torch
from torch import Tensor


def gated_mix_reference(
    remembered: Tensor,  # [N, D, h, w] logits
    now: Tensor,  # [N, D, h, w]
    mixed: Tensor | None,  # [N, D, h, w] what stands for ``now`` behind the gate; None: itself
    matrix1: Tensor,  # [2 * D, D], of both
    offset1: Tensor,  # [D]
    matrix2: Tensor,  # [D]
    offset2: Tensor,  # [1]
    shares: bool,
) -> Tensor:  # [N, D, h, w], channels last
    """Both by a gate that a small network makes of both, pixel by pixel.

    With ``shares`` what is mixed are probabilities: those of the remembered logits. Without, an
    exact 0 says that nothing was remembered of a bin.
    """
    if shares:
        remembered = torch.softmax(remembered, 1)
    both = torch.cat([remembered, now], 1).movedim(1, -1)
    hidden = torch.relu(both @ matrix1 + offset1)
    gate = torch.sigmoid(hidden @ matrix2 + offset2)[:, None]  # [N, 1, h, w]
    mixed = now if mixed is None else mixed
    result = gate * remembered + (1 - gate) * mixed
    if not shares:
        result = torch.where(remembered != 0, result, mixed)
    return result.contiguous(memory_format=torch.channels_last)


def time_bias_reference(
    times: Tensor,  # [B, T] seconds
    rates: Tensor,  # [C] rad/s
    phases: Tensor,  # [C] rad
    matrix1: Tensor,  # [C, H]
    bias1: Tensor,  # [H]
    matrix2: Tensor,  # [H, C']
    bias2: Tensor,  # [C']
) -> Tensor:  # [B, T, C']
    """Times as waves, and two layers behind them."""
    waves = torch.sin(torch.addcmul(phases, times[..., None], rates)).flatten(0, 1)
    hidden = torch.relu(torch.addmm(bias1, waves, matrix1))
    return torch.addmm(bias2, hidden, matrix2).view(*times.shape, -1)
