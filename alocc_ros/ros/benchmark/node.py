# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""``python -m alocc_ros.ros.benchmark.node``: ``alocc_node`` with a network of a few channels.

Everything else is as in the real node, the input size too: six images are decoded and scaled to
704x256. The network takes some 30 ms of one core, so that what the node itself costs shows.
"""

from __future__ import annotations

import sys
from dataclasses import replace

from alocc_ros.grid import VoxelGrid
from alocc_ros.ros.model import Model
from alocc_ros.ros.parameters import NodeParameters

_GRID = VoxelGrid(lower=(-20.0, -20.0, -1.0), shape=(50, 50, 8), resolution=0.8)


def load(parameters: NodeParameters) -> Model:
    """The benchmark's model; ``parameters.model`` is ignored."""
    import torch

    from alocc_ros.network.model import Alocc
    from alocc_ros.network.variants import ALOCC_2D_MINI
    from alocc_ros.records import find
    from alocc_ros.runtime.device import keep_freed_memory, resolve_device

    variant = replace(
        ALOCC_2D_MINI,
        name="benchmark",
        depth_step=4.0,
        context_channels=8,
        history=3,
        encoder_channels=(8, 16),
        encoder_blocks=(1, 1),
        neck_channels=16,
        voxel_channels=8,
        grid=_GRID,
        backbone_width=8,
        backbone_blocks=(1, 1, 1, 1),
        image_channels=16,
    )
    record = replace(find("alocc_2d_mini"), name=variant.name, grid=_GRID, history=variant.history)
    keep_freed_memory()
    # So small a network gains nothing from a second thread, and with one it never waits for
    # another that the kernel has put aside.
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = Alocc(variant).eval()
    return Model(record, "", resolve_device(parameters.device), network, parameters)


def main() -> int:
    """The program."""
    from alocc_ros.ros import main as program
    from alocc_ros.ros.node import AloccNode

    AloccNode.load_model = staticmethod(load)
    return program.main()


if __name__ == "__main__":
    sys.exit(main())
