# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""``alocc rig``: the cameras of another vehicle: files to begin with, pictures to check, scores."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from alocc_ros.cli._motion import add_motion_arguments, of_pictures
from alocc_ros.cli._values import image_size, whole_number_from
from alocc_ros.errors import BagError, ModelError, OutputError

if TYPE_CHECKING:
    from alocc_ros.evaluation.rig_score import RigScores


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The subcommands of ``alocc rig``."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    _add_example(actions.add_parser("example", help="write a preset for a bag, or a rig file"))
    _add_draw(actions.add_parser("draw", help="draw the ground and the crop into the images"))
    _add_score(actions.add_parser("score", help="drive through synthetic streets with a rig"))


def run(args: argparse.Namespace) -> int:
    """Runs the subcommand."""
    return args.act(args)


# --- example -------------------------------------------------------------------------------------


def _add_example(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "bag",
        type=Path,
        nargs="?",
        help="write a preset from what it holds; left out: a rig file that explains every entry",
    )
    parser.add_argument("-o", "--output", type=Path, help="file to write (default: print it)")
    parser.set_defaults(act=_example)


def _example(args: argparse.Namespace) -> int:
    from alocc_ros.cli._rig_yaml import EXAMPLE
    from alocc_ros.files import whole_file

    if args.bag is None:
        text = EXAMPLE
    else:
        from alocc_ros.bags.reader import Bag
        from alocc_ros.bags.rig_example import preset_text

        with Bag(args.bag) as bag:
            text = preset_text(bag)
    if args.output is None:
        print(text, end="")
        return 0
    if args.output.suffix not in {".yaml", ".yml"}:
        raise OutputError(f"-o {args.output}: the name must end in .yaml")
    if args.output.exists():
        raise OutputError(f"-o {args.output}: there is a file of that name")
    try:
        with whole_file(args.output) as scratch:
            scratch.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputError(f"cannot write {args.output}: {error.strerror}") from error
    return 0


# --- draw ----------------------------------------------------------------------------------------


def _add_draw(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bag", type=Path, help="a bag, or a folder of pictures or films")
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="preset, or of pictures the rig file"
    )
    parser.add_argument("--calibration", type=Path, help="rig YAML, or folder of camera_info YAMLs")
    parser.add_argument("--model", default="alocc_flow_2d", help="whose input is drawn")
    parser.add_argument("-o", "--output", type=Path, required=True, help="picture to write, .png")
    add_motion_arguments(parser)
    parser.set_defaults(act=_draw)


def _draw(args: argparse.Namespace) -> int:
    from alocc_ros import records
    from alocc_ros.bags.frames import FrameSource, preset_of
    from alocc_ros.bags.reader import Bag
    from alocc_ros.files import whole_file
    from alocc_ros.stream.crop_placement import crop_remark, place_crop
    from alocc_ros.stream.preset import load_preset
    from alocc_ros.stream.rig_picture import rig_picture

    if args.output.suffix != ".png":
        raise OutputError(f"-o {args.output}: the name must end in .png")
    size = records.find(args.model).input_size
    pictures = of_pictures(args, needs_motion=False)
    with pictures or Bag(args.bag) as bag:
        chosen = load_preset(args.config) if args.config and not pictures else None
        preset = pictures.preset if pictures else chosen or preset_of(bag)
        frame = next(iter(FrameSource(bag, preset, args.calibration)), None)
    if frame is None:
        raise BagError(f"{args.bag}: not one set of images could be made")
    with whole_file(args.output) as scratch:
        rig_picture(frame, size).save(scratch, format="PNG")
    print(
        f"{args.output}: lines every 5 m on the ground; ahead red, left green; what the network "
        "sees blue; white where the horizon is"
    )
    for camera in frame.images:
        calibration = frame.calibration[camera]
        if remark := crop_remark(calibration, place_crop(calibration, size)):
            print(f"alocc: warning: {remark}", file=sys.stderr)
    return 0


# --- score ---------------------------------------------------------------------------------------


def _add_score(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("rig", metavar="RIG.yaml", type=Path, help="as config/rigs/*")
    parser.add_argument(
        "--model", default="alocc_tiny", help="a name of `alocc models list`, or a file"
    )
    parser.add_argument("--variant", help="the network that a file of unknown origin is for")
    parser.add_argument("--streets", type=whole_number_from(1), default=4, help="how many (4)")
    parser.add_argument(
        "--frames", type=whole_number_from(1), default=8, help="key frames of each, 2 Hz (8)"
    )
    parser.add_argument("--seed", type=whole_number_from(0), default=7001, help="of the first")
    parser.add_argument(
        "--size",
        metavar="HxW",
        type=image_size,
        default=(900, 1600),
        help="images of nuScenes' rig (default 900x1600; alocc_tiny was trained on 160x440)",
    )
    parser.add_argument("--device", default="cpu", help="where streets are drawn: cpu or cuda")
    parser.set_defaults(act=_score, random_weights=False)


def _score(args: argparse.Namespace) -> int:
    from alocc_ros.cli._models import find_model, load_network
    from alocc_ros.cli._progress import bars
    from alocc_ros.evaluation.rig_score import calibrations_of, score_rig
    from alocc_ros.stream.rig import load_rig

    cameras = calibrations_of(load_rig(args.rig, rectified=False))
    record, weights = find_model(args)
    if record.frame != "ego" or record.classes.name not in ("occ3d", "openocc"):
        raise ModelError(f"{record.name}: streets are scored in the grids of Occ3D and OpenOcc")
    network, _ = load_network(record, weights, args.device, seed=0)
    with bars() as on_progress:
        scores = score_rig(
            network,
            record,
            cameras,
            seeds=tuple(range(args.seed, args.seed + args.streets)),
            frames=args.frames,
            size=args.size,
            device=args.device,
            on_progress=on_progress,
        )
    _tell(scores)
    return 0


def _tell(scores: RigScores) -> None:
    from alocc_ros.evaluation.rig_score import ARMS
    from alocc_ros.metrics.sums import text_table

    rows = []
    for arm in ARMS:
        everywhere, beside = scores.everywhere[arm], scores.beside[arm]
        rows.append((arm, everywhere.miou, everywhere.iou, beside.miou, beside.iou))
    heads = ("voxels that this rig sees", "mIoU %", "IoU %", "beside mIoU %", "beside IoU %")
    print(text_table(heads, rows))
    print(f"this rig costs {scores.cost:.2f} points of mIoU")
    for remark in scores.remarks:
        print(f"alocc: warning: {remark}", file=sys.stderr)
