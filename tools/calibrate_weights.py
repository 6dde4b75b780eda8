# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Balance the classes of trained weights, and calibrate their confidence.

    python tools/calibrate_weights.py --model alocc_tiny --weights runs/tiny/weights.safetensors \
        --data lessons --volumes runs/volumes -o calibrated.safetensors

Fits a scale of the logits for a sigmoid that is the share of voxels that are right
(alocc_ros/training/calibration.py), on the scenes that are given, and folds it into the weights.
With --balance also a shift, and an offset of each class for the best mIoU; those move the voxel
features, which the match of the flow head does not survive unharmed (docs/benchmarks/tiny.md).
What it is worth is told of the second half of the scenes with numbers of the first half. Without -o
only mIoU and calibration error of what is there are told. Scenes go through the network in order,
with its memory; lifted volumes that are missing are made.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from alocc_ros import records
from alocc_ros.distributed import SINGLE_PROCESS
from alocc_ros.errors import AloccError
from alocc_ros.metrics.sums import text_table
from alocc_ros.network.checkpoint import read_weights, save_safetensors
from alocc_ros.network.model import Alocc
from alocc_ros.network.variants import find_variant
from alocc_ros.training.calibration import (
    Calibration,
    best_scale,
    calibration_error,
    calibration_of,
    drawn_voxels,
    fold,
    mean_iou,
)
from alocc_ros.training.config import TrainingConfig
from alocc_ros.training.losses import IGNORED
from alocc_ros.training.samples import Preparation
from alocc_ros.training.schedule import Phase
from alocc_ros.training.source import NuScenesSource
from alocc_ros.training.streams import Visit
from alocc_ros.training.stripes import StripeForward
from alocc_ros.training.trainer import inter_index_max
from alocc_ros.training.volumes import VolumeStore, fill

_AS_OUTSIDE = Phase(depth_truth=0.0, flow_truth=0.0, temporal=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Fit, tell, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--model", required=True, help="model record")
    parser.add_argument("--weights", required=True, type=Path, help="file")
    parser.add_argument("--data", required=True, type=Path, metavar="ROOT", help="data set")
    parser.add_argument("--split", default="train", help="default train")
    parser.add_argument("--volumes", required=True, type=Path, help="folder of lifted volumes")
    parser.add_argument("--scenes", type=int, default=0, help="first scenes only; 0: all")
    parser.add_argument("--points", type=int, default=20_000, help="voxels of a frame")
    parser.add_argument(
        "--balance", action="store_true", help="also offsets of classes, and a shift"
    )
    parser.add_argument("-o", "--output", type=Path, help="weights with what was fitted")
    args = parser.parse_args(arguments)
    try:
        _calibrate(args)
    except AloccError as error:
        print(f"calibrate_weights: error: {error}", file=sys.stderr)
        return 2
    return 0


def _calibrate(args: argparse.Namespace) -> None:
    record = records.find(args.model)
    variant = find_variant(record.variant)
    network = Alocc(variant, inter_index_max(variant, TrainingConfig(args.model)))
    network.load_state_dict(read_weights(args.weights).tensors)
    network.eval()
    source = NuScenesSource(args.data, args.split, record)
    if args.scenes:
        source.scenes = source.scenes[: args.scenes]
    store = VolumeStore(args.volumes, network)
    whole = Preparation(source, variant, record.classes, 0, images=None, flip=0.0)
    forward = StripeForward(network, record.mean, record.std, record.channel_order)
    fill(store, whole, forward, torch.device("cpu"), SINGLE_PROCESS)
    lifted = Preparation(
        source, variant, record.classes, 0, images=None, flip=0.0, volumes=store.read
    )
    random = np.random.default_rng(0)
    halves = source.scenes[: len(source.scenes) // 2], source.scenes[len(source.scenes) // 2 :]
    first, second = (
        drawn_voxels(_said(forward, lifted, scenes), args.points, IGNORED, random)
        for scenes in halves
    )
    count = len(record.classes.names)
    rows = [("as they are", *_scores(*second, count))]
    if args.output is not None:
        tried = _fitted(first, args.balance)
        if args.balance:
            balanced = Calibration(tried.offset)
            rows.append(("balanced", *_scores(balanced(second[0]), second[1], count)))
        rows.append(("calibrated", *_scores(tried(second[0]), second[1], count)))
    print(text_table((f"{len(halves[1])} scenes", "mIoU %", "ECE %"), rows))
    if args.output is None:
        return
    logits, labels = (torch.cat(pair) for pair in zip(first, second, strict=True))
    found = _fitted((logits, labels), args.balance)
    error = fold(network, found)
    names = zip(record.classes.names, found.offset.tolist(), strict=True)
    print("offsets: " + ", ".join(f"{name} {value:+.1f}" for name, value in names))
    print(f"scale {found.scale:.3f}, shift {found.shift:+.3f}; folded to within {error:.2g}")
    words = {"model": args.model, "calibrated": "tools/calibrate_weights.py"}
    save_safetensors(args.output, network.state_dict(), words)


def _fitted(voxels: tuple[Tensor, Tensor], balance: bool) -> Calibration:
    if balance:
        return calibration_of(*voxels)
    return Calibration(torch.zeros(voxels[0].shape[1]), best_scale(*voxels))


def _scores(logits: Tensor, labels: Tensor, classes: int) -> tuple[float, float]:
    predicted = logits.argmax(1)
    return 100 * mean_iou(predicted, labels, classes), 100 * calibration_error(logits, labels)


@torch.no_grad()
def _said(
    forward: StripeForward, preparation: Preparation, scenes: Sequence[Sequence[int]]
) -> Iterator[tuple[Tensor, Tensor]]:  # [C, V], [V]
    """Logits and labels of whole scenes, frame by frame."""
    for scene in scenes:
        memory = None
        for step, index in enumerate(scene):
            frame = preparation[Visit(step, 0, index, step == 0)]
            with torch.autocast("cpu", torch.bfloat16):  # a third of the time; as trained
                prediction, (memory,) = forward([frame], [memory], _AS_OUTSIDE)
            yield prediction.logits[0].float().flatten(1), frame.labels.permute(2, 0, 1).flatten()


if __name__ == "__main__":
    sys.exit(main())
