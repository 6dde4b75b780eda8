# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Real networks of the family with few channels, cells and pixels: a frame takes milliseconds."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from alocc_ros.bench.scene import ExampleFrame, example_frame
from alocc_ros.grid import VoxelGrid
from alocc_ros.network.model import Alocc, Measured, Output
from alocc_ros.network.variants import VARIANTS, Variant
from alocc_ros.runtime.runner import Runner, make_runner

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
        history=min(v.history, 3),
        encoder_channels=(8, 12, 16, 20)[: len(v.encoder_channels)],
        encoder_blocks=(1,) * len(v.encoder_channels),
        neck_channels=16,
        voxel_channels=16,
        grid=GRID,
        lift_grid=None if v.lift_grid is None else GRID,
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


class Stream:
    """Frames through a network one after the other, every one a key frame unless told otherwise."""

    def __init__(
        self, network: Alocc, backend: str = "eager", runner: Runner | None = None
    ) -> None:
        self.variant = network.variant
        self.runner = make_runner(network, backend) if runner is None else runner
        self.state = self.runner.new_state()
        self.slot = None

    def reset(self) -> None:
        self.state.reset()
        self.slot = None

    def step(
        self,
        frame: ExampleFrame | None = None,
        seed: int = 0,
        keyframe: bool = True,
        measured: Measured | None = None,
        camera_mask: torch.Tensor | None = None,
    ) -> Output:
        frame = frame or example_frame(self.variant, seed=seed)
        first = self.slot is None
        slot = 0 if first else 1 - self.slot
        plan = frame.plan(None if first else self.state.ages, keyframe, slot, camera_mask)
        output = self.runner.step(frame.images, plan, self.state, measured)
        if keyframe:
            self.slot = slot
        return output


def drive(network: Alocc, frames: int, backend: str = "eager") -> list[Output]:
    """Outputs of so many frames in a row, state carried."""
    stream = Stream(network, backend)
    return [stream.step(seed=t) for t in range(frames)]
