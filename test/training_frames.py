# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Hand-made training frames for the small networks: a car that drives a gentle curve."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from alocc_ros.bench.scene import ExampleFrame, example_frame
from alocc_ros.network.variants import Variant
from alocc_ros.training.samples import TrainingFrame
from alocc_ros.training.schedule import Phase
from alocc_ros.training.streams import Visit

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
PLAIN = Phase(depth_truth=0.0, flow_truth=0.0, temporal=True)


def pixels(variant: Variant, t: int, stream: int = 0) -> Tensor:  # [N, H, W, 3] uint8
    random = torch.Generator().manual_seed(1000 * stream + t)
    return torch.randint(0, 256, (6, *variant.input_size, 3), generator=random, dtype=torch.uint8)


def normalised(images: Tensor) -> Tensor:  # -> [N, 3, H, W], blue first
    return ((images.flip(-1).float() - torch.tensor(MEAN)) / torch.tensor(STD)).permute(0, 3, 1, 2)


def training_frame(
    variant: Variant, t: int, stream: int = 0, start: bool | None = None, flip: bool = False
) -> TrainingFrame:
    scene = example_frame(variant)
    random = np.random.default_rng(1000 * stream + t)
    labels = random.integers(0, variant.queries - 1, variant.grid.shape, dtype=np.uint8)
    labels[random.random(labels.shape) < 0.3] = 255
    labels = torch.from_numpy(labels.transpose(1, 0, 2).copy())
    flow = torch.from_numpy(random.normal(0, 3, (*labels.shape, 2)).astype(np.float32))
    flow[~torch.isin(labels, torch.tensor(variant.classes.flow, dtype=torch.uint8))] = torch.nan
    cameras = scene.cameras if t else scene.cameras.at_rest()
    if flip:
        mirror = torch.diag(torch.tensor([-1.0, 1.0, 1.0], dtype=torch.float64))
        object.__setattr__(cameras, "augmentation", mirror)
    shape = (6, *variant.feature_size)
    return TrainingFrame(
        name=f"stream {stream}, frame {t}",
        visit=Visit(t, stream, t, t == 0 if start is None else start),
        images=pixels(variant, t, stream),
        previous_images=pixels(variant, max(t - 1, 0), stream) if variant.stereo else None,
        has_previous=t > 0,
        cameras=cameras,
        map_T_grid=torch.linalg.matrix_power(scene.previous_T_current, t),
        labels=labels,
        flow=flow if variant.flow else None,
        depth_bins=torch.from_numpy(random.integers(-1, variant.depth_bins, shape)),
        image_labels=torch.from_numpy(random.integers(0, variant.queries - 1, shape, np.uint8)),
    )


def network_input(frame: TrainingFrame, variant: Variant, before: TrainingFrame | None):
    moved = torch.eye(4, dtype=torch.float64)
    if before is not None:
        moved = torch.linalg.inv(before.map_T_grid) @ frame.map_T_grid
    return ExampleFrame(variant, normalised(frame.images), frame.cameras, moved)
