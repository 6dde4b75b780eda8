# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Operations of a network by part: convolutions and matrix products, one multiply-add = 2.

Interpolation, scatter and softmax are not counted, as in the paper's figures.
"""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode

from alocc_ros.bench.stages import timing_parts
from alocc_ros.network.model import Alocc
from alocc_ros.network.plan import empty_plan
from alocc_ros.network.variants import Variant
from alocc_ros.runtime.prepare import on_meta, prepare


def count_as_written(variant: Variant) -> dict[str, float]:
    """Operations by part of the network as it is written in the paper, nothing computed."""
    with torch.device("meta"):
        network = Alocc(variant).eval()
    return _count(network)


def count_prepared(network: Alocc) -> dict[str, float]:
    """Operations by part of a network that is ready for inference. Winograd's algorithm does fewer;
    what is counted is the convolution that it stands for.
    """
    return _count(prepare(on_meta(network)))


@torch.no_grad()
def _count(network: Alocc, cameras: int = 6) -> dict[str, float]:
    """One step with a state, on the meta device."""
    parts: dict[str, float] = {}
    counter, done = FlopCounterMode(display=False), 0.0

    def ran(part: str) -> None:
        nonlocal done
        total = counter.get_total_flops()
        parts[part] = parts.get(part, 0.0) + total - done
        done = total

    v = network.variant
    images = torch.empty(cameras, 3, *v.input_size, device="meta")
    plan = empty_plan(cameras, 1, v.history, "meta")
    state = network.empty_state(cameras=cameras)
    with counter, timing_parts(network, ran):
        network(images, plan, state)
    return {part: flops for part, flops in parts.items() if flops}


def parameters(variant: Variant) -> int:
    """Trainable numbers, each counted once."""
    with torch.device("meta"):
        return sum(p.numel() for p in Alocc(variant).parameters())
