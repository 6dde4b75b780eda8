# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""``alocc score``: recorded results against the LiDAR of the drive, where nobody made labels."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from alocc_ros.cli._values import number_within
from alocc_ros.words import counted


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument(
        "results", type=Path, metavar="RESULTS", help="what `alocc run` or the node recorded"
    )
    parser.add_argument(
        "--bag",
        type=Path,
        help="the drive, with the LiDAR's point clouds and /tf (default: RESULTS itself)",
    )
    parser.add_argument(
        "--lidar", metavar="TOPIC", default="", help="point clouds (default: the only ones)"
    )
    parser.add_argument(
        "--origin",
        type=number_within(-100.0, 100.0),
        nargs=3,
        default=(0.0, 0.0, 0.0),
        metavar=("X", "Y", "Z"),
        help="where rays start, m in the frame of the point clouds (default 0 0 0); give the place "
        "of a LiDAR where several make one cloud in the vehicle's frame",
    )
    parser.add_argument(
        "--base-frame",
        default="base_link",
        metavar="NAME",
        help="vehicle (default base_link)",
    )
    parser.add_argument(
        "--apart",
        type=number_within(0.0, 10.0),
        default=0.1,
        metavar="S",
        help="most seconds between a grid and the sweep that it is compared with (default 0.1)",
    )
    parser.add_argument("--json", action="store_true", help="machine-readable result")


def run(args: argparse.Namespace) -> int:
    """Compare, tell."""
    from alocc_ros.bags.clouds import lidar_topic
    from alocc_ros.bags.reader import Bag
    from alocc_ros.bags.results import recorded_grids
    from alocc_ros.errors import BagError
    from alocc_ros.evaluation.lidar_score import LidarDrive, score_grids
    from alocc_ros.stream.skips import Skips

    skips = Skips(lambda text: print(f"alocc: {text}", file=sys.stderr))
    with Bag(args.results) as results, Bag(args.bag or args.results) as bag:
        series = recorded_grids(results, args.base_frame)
        if not series:
            raise BagError(f"bag {args.results} holds no voxel grids; `alocc run` records them")
        topic = lidar_topic(bag, args.lidar)
        drive, apart = LidarDrive(bag, topic, skips), round(args.apart * 1e9)
        scores = [score_grids(grids, drive, apart, args.origin) for grids in series]
    if args.json:
        told = {s.name: {**s.result.as_dict(), "still": s.still} for s in scores}
        print(json.dumps({"lidar": topic, "scores": told, "skipped": dict(skips.counts)}))
        return 0
    for score in scores:
        print(f"{score.name} against {topic}, {counted(score.result.frames, 'grid')}")
        print(score.result.table())
        if score.result.blind:
            print(
                f"in {counted(score.result.blind, 'grid')} the LiDAR is inside a voxel that is not "
                "free, so no ray gets away: give its place with --origin if the point clouds are "
                "not in its own frame"
            )
        if score.still:
            print(
                f"{counted(score.still, 'grid')} compared as if the vehicle stood still: "
                "the recording has no pose of it then"
            )
    for what, count in sorted(skips.counts.items()):
        print(f"left out: {count} x {what}")
    return 0
