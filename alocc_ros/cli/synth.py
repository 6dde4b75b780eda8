# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""``alocc synth``: write a synthetic nuScenes, as a dataset, as bags, or both."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from alocc_ros.cli._progress import bars
from alocc_ros.cli._values import image_size, whole_number_from
from alocc_ros.words import counted

FORMATS = ("nuscenes", "bag", "both")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("out", metavar="OUT", type=Path, help="folder to write")
    parser.add_argument(
        "--scenes", type=whole_number_from(1), default=2, help="how many (default 2)"
    )
    parser.add_argument(
        "--seed", type=whole_number_from(0), default=0, help="other seed, other scenes"
    )
    parser.add_argument("--format", choices=FORMATS, default="nuscenes")
    parser.add_argument(
        "--size",
        metavar="HxW",
        type=image_size,
        default=(900, 1600),
        help="images (default 900x1600)",
    )
    parser.add_argument(
        "--frames",
        type=whole_number_from(1),
        default=40,
        help="key frames a scene, 2 Hz (default 40)",
    )
    parser.add_argument(
        "--split",
        metavar="NAME=N,...",
        type=_split,
        help="such as train=8,val=2 (default: all val)",
    )
    parser.add_argument(
        "--no-sweeps", action="store_true", help="key frames only: all that training reads"
    )
    parser.add_argument(
        "--rare",
        metavar="FACTOR",
        type=_factor,
        default=1.0,
        help="so many times as many people, two-wheelers, cones, building sites and vehicles other "
        "than cars, 1 to 8, for streets to train on (default 1)",
    )
    parser.add_argument(
        "--vary-rig",
        action="store_true",
        help="every scene from another vehicle: focal lengths, height and directions of its "
        "cameras, for training",
    )
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default cpu)")
    parser.add_argument(
        "--jobs", type=whole_number_from(1), help="processes (default: one a core, cuda: 1)"
    )


def run(args: argparse.Namespace) -> int:
    """Write what was asked for, or go on with it."""
    import torch

    from alocc_ros.errors import ParameterError
    from alocc_ros.synthetic.dataset import write_bags, write_both, write_dataset
    from alocc_ros.synthetic.nuscenes.spec import DatasetSpec

    split = args.split or (("val", args.scenes),)
    if sum(count for _, count in split) != args.scenes:
        counts = " + ".join(str(count) for _, count in split)
        raise ParameterError(f"--split gives {counts} scenes, --scenes says {args.scenes}")
    device = _device(args.device)
    jobs = args.jobs or (torch.get_num_threads() if device == "cpu" else 1)
    spec = DatasetSpec(
        args.seed,
        args.scenes,
        args.frames,
        args.size,
        not args.no_sweeps,
        tuple(split),
        args.rare,
        args.vary_rig,
    )
    with bars() as on_progress:
        for_format = {"nuscenes": write_dataset, "bag": write_bags, "both": write_both}[args.format]
        for_format(args.out, spec, device, min(jobs, args.scenes), on_progress)
    print(
        f"{counted(args.scenes, 'scene')} with {counted(args.frames, 'key frame')} each "
        f"in {args.out}"
    )
    return 0


def _device(name: str) -> str:
    import torch

    from alocc_ros.errors import DeviceError

    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceError(f"--device {name}: expected cpu, cuda or cuda:1") from error
    if device.type == "cpu":
        return "cpu"
    if device.type != "cuda" or (device.index or 0) >= torch.cuda.device_count():
        raise DeviceError(f"--device {name}: torch finds no such GPU here; take --device cpu")
    return name


def _factor(text: str) -> float:
    try:
        factor = float(text)
    except ValueError:
        factor = 0.0
    if not 1 <= factor <= 8:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 to 8")
    return factor


def _split(text: str) -> tuple[tuple[str, int], ...]:
    parts = re.findall(r"([a-z_]+)=(\d+)(?:,|$)", text)
    if not parts or ",".join(f"{a}={b}" for a, b in parts) != text:
        raise argparse.ArgumentTypeError(f"{text!r} is no split such as train=8,val=2")
    return tuple((name, int(count)) for name, count in parts)
