# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""The exponential moving average of the network: what is evaluated and published."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


def decay_at(step: int, limit: float, warmup: float, offset: int) -> float:
    """What the average keeps of itself at a step, the first of which is 1."""
    return limit * (1 - math.exp(-(offset + step) / warmup))


def kept_at_end(steps: int, limit: float, warmup: float, offset: int) -> tuple[float, float]:
    """The share of the first weights in the average after a run, and how many steps it reaches."""
    logs = (math.log(max(decay_at(n, limit, warmup, offset), 1e-300)) for n in range(1, steps + 1))
    return math.exp(sum(logs)), 1 / (1 - decay_at(steps, limit, warmup, offset))


def average_in_words(steps: int, limit: float, warmup: float, offset: int) -> str:
    """What the average is made of after a run, for people."""
    first, reach = kept_at_end(steps, limit, warmup, offset)
    last = "step" if round(reach) == 1 else f"{reach:.0f} steps"
    words = f"evaluated and published: the average (EMA) of about the last {last}"
    if first < 0.005:
        return words
    return (
        f"{words}, of which {100 * first:.0f} % still are the weights that the run began with; "
        "--set ema_offset=0 lets it follow from the first step on"
    )


def moving_average(
    network: nn.Module, limit: float = 0.999, warmup: float = 2000.0, offset: int = 0
) -> AveragedModel:
    """An average that equals the network so far, in evaluation mode and without gradients.

    Its ``update_parameters``, called after each step, moves weights and BatchNorm statistics
    towards the network and copies counters. ``n_averaged`` is the number of the next step, from 1.

    Args:
        network: that is averaged; its copy is the average's ``module``.
        limit: of the decay, which is ``limit * (1 - exp(-(offset + n) / warmup))`` at step n.
        warmup: steps after which the decay has come to 63 % of its limit.
        offset: steps that the warm-up is ahead. The reference's 10560 begin with a decay of 0.994,
            so after 100 steps more than half of the average still are the first weights.
    """

    def update(
        average: list[Tensor],  # of one device and dtype
        current: list[Tensor],
        n_averaged: Tensor,  # scalar
    ) -> None:
        if not average[0].is_floating_point():
            torch._foreach_copy_(average, current)
            return
        decay = decay_at(int(n_averaged), limit, warmup, offset)
        torch._foreach_lerp_(average, current, 1 - decay)

    average = AveragedModel(network, multi_avg_fn=torch.no_grad()(update), use_buffers=True)
    average.eval().requires_grad_(False)
    average.update_parameters(network)  # torch's first update copies
    return average
