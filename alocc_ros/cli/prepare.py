# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""``alocc prepare``: info files and LiDAR classes of a nuScenes folder, made once."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from alocc_ros.cli._progress import bars
from alocc_ros.words import counted

if TYPE_CHECKING:
    from alocc_ros.datasets.samples import Dataset, Scene


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``alocc prepare``."""
    parser.add_argument("format", choices=["nuscenes"], help="how the data set is laid out")
    parser.add_argument("root", type=Path, help="folder that holds v1.0-..., samples, sweeps")
    parser.add_argument("--version", help="tables to read, e.g. v1.0-mini (default: v1.0-trainval)")
    parser.add_argument("--out", type=Path, help="folder to write to (default: the data set's)")
    parser.add_argument(
        "--split", action="append", metavar="NAME", help="only this one; may be repeated"
    )
    parser.add_argument(
        "--prefix",
        default="./data/nuscenes",
        help="what paths in the info files begin with (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> int:
    """Runs the command."""
    from alocc_ros.datasets.nuscenes import NuScenes
    from alocc_ros.datasets.prepare import (
        has_lidarseg,
        prepare_infos,
        prepare_lidar_labels,
        splits_to_prepare,
    )

    out = args.out or args.root
    with bars() as on_progress:
        dataset = NuScenes(args.root, args.version, on_progress=on_progress)
        splits = splits_to_prepare(dataset, args.split)
        paths = prepare_infos(dataset, splits, out, args.prefix, on_progress)
        scenes = [scene for inside in splits.values() for scene in inside]
        labelled = None
        if has_lidarseg(dataset):
            labelled = prepare_lidar_labels(dataset, scenes, out, on_progress)
    for path, inside in zip(paths, splits.values(), strict=True):
        frames = sum(len(scene.samples) for scene in inside)
        print(f"{path}: {counted(len(inside), 'scene')}, {counted(frames, 'key frame')}")
    if labelled is None:
        print("no LiDAR classes: nuScenes-lidarseg is not there (training needs it)")
    else:
        print(f"{out / 'lidar_seg'}: {counted(labelled, 'sweep')}")
    for line in _truth_lines(dataset, scenes):
        print(line)
    return 0


def _truth_lines(dataset: Dataset, scenes: list[Scene]) -> list[str]:
    """How much there is of each benchmark's labels."""
    from alocc_ros.datasets.formats import FORMATS
    from alocc_ros.datasets.truth import missing_files

    samples = [sample for scene in scenes for sample in scene.samples]
    lines = []
    for name, labels in FORMATS.items():
        here = len(samples) - len(missing_files(dataset.root, samples, labels))
        if here:
            lines.append(f"labels of {name}: {here} of {counted(len(samples), 'key frame')}")
    return lines or ["no labels of any benchmark are there"]
