# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Real networks of the family with few channels, cells and pixels: a frame takes milliseconds."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from alocc_ros.bench.scene import example_frame
from alocc_ros.engine import running
from alocc_ros.grid import VoxelGrid
from alocc_ros.network.alocc import Alocc, NetworkOutput
from alocc_ros.network.variants import VARIANTS, Variant

GRID = VoxelGrid(lower=(-16.0, -16.0, -1.0), shape=(40, 40, 16), resolution=0.8)

# Round-off of two orders of summation through 60 layers, relative to the largest logit.
NETWORK_TOLERANCE = 2e-4


def small(name: str) -> Variant:
    """The published network with a fraction of its channels, cells and pixels."""
    v = VARIANTS[name]
    return replace(
        v,
        input_size=(64, 160),
        depth_step=2.0 * v.depth_step,
        context_channels=8,
        history=3 if v.history else 0,
        encoder_channels=(8, 12, 16, 20)[: len(v.encoder_channels)],
        encoder_blocks=(1,) * len(v.encoder_channels),
        neck_channels=16,
        voxel_channels=16,
        grid=GRID,
        backbone_width=8,
        backbone_blocks=(1, 1, 1, 1),
        image_channels=32,
    )


def network_of(variant: Variant, seed: int = 0, **options) -> Alocc:
    """Random weights with BatchNorm statistics that matter."""
    torch.manual_seed(seed)
    network = Alocc(variant, **options).eval()
    for module in network.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)):
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    # Raw focal lengths go into this one: its statistics carry their scale.
    network.depth_net.bn.running_mean.zero_()
    network.depth_net.bn.running_var.fill_(1e5)
    return network


def drive(
    network: Alocc, frames: int, backend: str = "eager", recycle: bool = True
) -> list[NetworkOutput]:
    """Outputs of so many frames in a row, memory carried. With ``recycle`` the memories of all but
    the last two are overwritten."""
    memory = spare = None
    outputs = []
    with running(backend):
        for t in range(frames):
            frame = example_frame(network.variant, seed=t)
            outputs.append(network(frame, memory, recycle=spare if recycle else None))
            spare, memory = memory, outputs[-1].memory
    return outputs
