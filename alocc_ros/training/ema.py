# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""A slowly following copy of the network: what is evaluated and published (training.md 1)."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class EmaRate:
    """How slowly the copy follows: ``limit * (1 - exp(-t / warmup))`` of it stays.

    Attributes:
        limit: of the share that stays.
        warmup: steps after which 63 % of the limit is reached.
        offset: t at the first step; the reference's starts at 10560, at a rate of 0.994 already.
    """

    limit: float = 0.999
    warmup: float = 2000.0
    offset: int = 10560

    def at(self, step: int) -> float:
        """The share of the copy that stays in that step (from 0)."""
        return self.limit * (1 - math.exp(-(self.offset + step + 1) / self.warmup))


def average_of(network: nn.Module) -> nn.Module:
    """The copy at the start: equal weights, in evaluation mode, without gradients."""
    return copy.deepcopy(network).eval().requires_grad_(False)


@torch.no_grad()
def follow(average: nn.Module, network: nn.Module, stays: float) -> None:
    """Move the copy towards the network: weights and BatchNorm statistics; counters are copied."""
    pairs = list(zip(_tensors(average), _tensors(network), strict=True))
    moving = [(mine, theirs) for mine, theirs in pairs if mine.is_floating_point()]
    torch._foreach_lerp_(*map(list, zip(*moving, strict=True)), 1 - stays)
    for mine, theirs in pairs:
        if not mine.is_floating_point():
            mine.copy_(theirs)


def _tensors(network: nn.Module) -> Iterator[Tensor]:
    yield from network.parameters()
    yield from network.buffers()
