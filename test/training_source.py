# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""A tiny data set in memory and runs on it; also the processes of the tests that need several.

``python training_source.py run OUT STEPS [NAME=VALUE ...]`` trains; under torchrun's
environment variables it is one process of several.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from small_networks import GRID
from torch import nn

import alocc_ros.records
from alocc_ros.distributed import process_group
from alocc_ros.network.model import Alocc
from alocc_ros.network.variants import VARIANTS
from alocc_ros.records import ModelRecord
from alocc_ros.synthetic import rig
from alocc_ros.training.config import TrainingConfig
from alocc_ros.training.samples import KeyFrameSample
from alocc_ros.training.start import initialise
from alocc_ros.training.trainer import Trainer
from alocc_ros.types import CAMERAS, CameraImage, FrameSet

SIZE = (90, 160)  # of the cameras' images
VARIANT = replace(
    VARIANTS["alocc_flow_2d"],
    input_size=(64, 96),
    depth_step=4.0,
    intra_length=4,
    context_channels=4,
    history=2,
    encoder_channels=(8, 12),
    encoder_blocks=(1, 1),
    neck_channels=8,
    voxel_channels=8,
    grid=GRID,
    backbone_width=4,
    backbone_blocks=(1, 1, 1, 1),
    image_channels=16,
)
RECORD: ModelRecord = replace(
    alocc_ros.records.find("alocc_flow_2d"), input_size=VARIANT.input_size, grid=GRID, scores=()
)
QUICK = {
    "steps": 6, "batch": 1, "workers": 0, "learning_rate": 2e-3, "warmup_steps": 2,
    "epoch_steps": 2, "temporal_start": 1.0, "depth_denoising": 2.0, "flow_denoising": (1.0, 2.0),
    "voxel_points": 600, "image_points": 20, "save_every": 3, "log_every": 1, "ema_offset": 0,
}  # fmt: skip


class DrawnSource:
    """Scenes of boxes on a road that stand still in the world; images are coloured noise."""

    def __init__(self, scenes: int = 3, frames: int = 4) -> None:
        indices = iter(range(scenes * frames))
        self.scenes = [tuple(next(indices) for _ in range(frames)) for _ in range(scenes)]
        self._frames = frames

    def read(self, index: int) -> KeyFrameSample:
        scene, t = divmod(index, self._frames)
        random = np.random.default_rng((scene, t))
        labels = np.full(GRID.shape, 16, dtype=np.uint8)
        labels[:, :, :2] = 10
        labels[10:14, 20:23, 2:5] = 0
        labels[random.integers(0, 40, 30), random.integers(0, 40, 30), 3] = 14
        flow = np.zeros((*GRID.shape, 2), dtype=np.float32)
        flow[labels == 0] = 2.0, -1.0
        frame = self._frame(scene, t)
        return KeyFrameSample(
            name=f"scene {scene}, frame {t}",
            frame=frame,
            previous=self._frame(scene, t - 1) if t else None,
            labels=labels,
            supervised=random.random(GRID.shape) < 0.8,
            flow=flow,
            points=random.uniform(-15, 15, (3000, 3)) * (1, 1, 0.1),
            map_T_points=frame.map_T_base,
            point_labels=random.integers(0, 17, 3000).astype(np.uint8),
        )

    def key(self, index: int) -> str:
        return f"drawn/{index}"

    def _frame(self, scene: int, t: int) -> FrameSet:
        random = np.random.default_rng((7, scene, t))
        map_T_base = np.eye(4)
        map_T_base[0, 3] = 2.0 * t
        stamp = (scene * 1000 + t) * 500_000_000
        images = {}
        for camera in CAMERAS:
            pixels = random.integers(0, 256, (*SIZE, 3), dtype=np.uint8)
            images[camera] = CameraImage(camera, stamp, pixels, "rgb8", *SIZE)
        poses = dict.fromkeys(CAMERAS, map_T_base)
        return FrameSet(stamp, images, rig.cameras(*SIZE), map_T_base, poses)


def trainer(output: Path, world=None, source=None, evaluate=None, weights=0, **settings) -> Trainer:
    config = TrainingConfig("alocc_flow_2d").with_values({**QUICK, **settings})
    torch.manual_seed(weights)
    network = Alocc(VARIANT)
    initialise(network)
    output.mkdir(parents=True, exist_ok=True)
    options = {"evaluate": evaluate} if world is None else {"evaluate": evaluate, "world": world}
    return Trainer(
        network, RECORD, source or DrawnSource(), config, output, torch.device("cpu"), **options
    )


def _main() -> None:
    output, settings = Path(sys.argv[2]), dict(s.split("=") for s in sys.argv[3:])
    with process_group("cpu") as world:
        torch.set_num_threads(1)
        run = trainer(output, world, **{n: json.loads(v) for n, v in settings.items()})
        for module in run.network.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0  # every process drops something else
        run.run()
        if world.rank == 0:
            gradients = {n: p.grad for n, p in run.network.named_parameters()}
            torch.save(
                {"gradients": gradients, "network": run.network.state_dict()}, output / "end.pt"
            )


if __name__ == "__main__":
    _main()
