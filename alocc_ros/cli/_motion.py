# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""The options of commands that take pictures and poses instead of a bag."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from alocc_ros.cli._values import positive
from alocc_ros.errors import ParameterError

if TYPE_CHECKING:
    from alocc_ros.bags.pictures import Pictures

_OPTIONS = ("poses", "stamps", "rate", "standing")


def add_motion_arguments(parser: argparse.ArgumentParser) -> None:
    """What is known of time and motion apart from the pictures."""
    group = parser.add_argument_group("pictures or films instead of a bag")
    group.add_argument("--poses", type=Path, metavar="FILE", help="TUM, KITTI or CSV")
    group.add_argument(
        "--poses-of", default="base", metavar="WHAT", help="base (default), or a camera"
    )
    group.add_argument("--stamps", type=Path, metavar="FILE", help="CSV with lines `file,stamp`")
    group.add_argument("--rate", type=positive, metavar="HZ", help="of numbered pictures, or films")
    group.add_argument("--standing", action="store_true", help="the vehicle stands still")


def of_pictures(args: argparse.Namespace, *, needs_motion: bool = True) -> Pictures | None:
    """What ``args.bag`` and these options name; None: it is a bag.

    Without ``needs_motion`` a vehicle whose poses are not given stands still.

    Raises:
        ParameterError: options of pictures for a bag, or no rig file.
        BagError, CalibrationError, StampError, PoseError: see ``Pictures``.
    """
    from alocc_ros.bags.pictures import Motion, Pictures, is_pictures

    if not is_pictures(args.bag):
        if given := [o for o in _OPTIONS if getattr(args, o)]:
            raise ParameterError(f"--{given[0]} is for pictures and films, and {args.bag} is a bag")
        return None
    if args.config is None:
        raise ParameterError(
            f"{args.bag} holds no recording; of pictures or films say with --config FILE what the "
            "cameras are (`alocc rig example -o rig.yaml` writes one to fill in)"
        )
    standing = args.standing or not (needs_motion or args.poses)
    motion = Motion(args.poses, args.poses_of, args.stamps, args.rate, standing)
    return Pictures(args.bag, args.config, motion)
