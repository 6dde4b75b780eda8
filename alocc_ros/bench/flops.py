# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Operations of a network by part: convolutions and matrix products, one multiply-add = 2.

Interpolation, scatter and softmax are not counted, as in the paper's figures.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from alocc_ros.bench.scene import example_frame
from alocc_ros.engine import running
from alocc_ros.network.alocc import Alocc, NetworkInput
from alocc_ros.network.memory import Memory
from alocc_ros.network.observe import Lazy, observing
from alocc_ros.network.variants import Variant
from alocc_ros.ops.winograd import direct


def count_twin(variant: Variant) -> dict[str, float]:
    """Operations by part of the network as it is written in the paper, nothing computed."""
    with torch.device("meta"):
        network = Alocc(variant).eval()
    frame = example_frame(variant, device="meta")
    memory = example_memory(variant, len(frame.images))
    return count(network, frame, memory, backend="twin")


def count(
    network: nn.Module, frame: NetworkInput, memory: Memory | None, backend: str
) -> dict[str, float]:
    """Operations by part that one step executes with this backend on this input."""
    parts: dict[str, float] = {}
    counter = FlopCounterMode(display=False, custom_mapping=_fused_convolutions())
    done = 0.0

    def look(stage: str, _: Lazy) -> None:
        nonlocal done
        total = counter.get_total_flops()
        part = stage.partition("/")[0]
        parts[part] = parts.get(part, 0.0) + total - done
        done = total

    # Winograd does fewer; what is counted is the convolution that it stands for.
    with running(backend), direct(), counter, observing(look):
        network(frame, memory)
    return {part: flops for part, flops in parts.items() if flops}


def example_memory(variant: Variant, cameras: int) -> Memory:
    """A memory of the right shapes without numbers, in the twin's form."""
    x_size, y_size, z_size = variant.lift_cells
    height, width = variant.input_size
    meta: dict[str, Any] = {"device": "meta"}
    history = stereo = bev = None
    if variant.history:
        slots = variant.history * variant.context_channels
        history = torch.empty(y_size, x_size, z_size, slots, **meta)
    if variant.stereo:
        channels = 4 * variant.backbone_width
        stereo = torch.empty(cameras, channels, height // 4, width // 4, **meta)
    if variant.flow:
        bev = torch.empty(1, variant.voxel_channels, y_size, x_size, **meta)
    return Memory(history, torch.zeros(variant.history), stereo, bev, embedded=False)


def _fused_convolutions() -> dict[Any, Callable[..., float]]:
    """torch counts its own convolutions, but not oneDNN's fused ones."""

    def fused(x: Any, second: Any, third: Any, *_: Any, out_shape: Any = None, **__: Any) -> float:
        # (x, weight [C', C, kernel...], bias, ...) or (x, residual, weight, bias, ...).
        weight = second if third is None or len(third) == 1 else third
        return 2.0 * prod(weight[1:]) * prod(out_shape)

    mkldnn = torch.ops.mkldnn
    if not hasattr(mkldnn, "_convolution_pointwise"):
        return {}
    return {mkldnn._convolution_pointwise: fused}


def parameters(variant: Variant) -> int:
    """Trainable numbers, each counted once."""
    with torch.device("meta"):
        return sum(p.numel() for p in Alocc(variant).parameters())
