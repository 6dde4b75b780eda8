# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""``alocc rig``: the cameras of another vehicle: how well a network would see through them."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from alocc_ros.cli._values import image_size, whole_number_from
from alocc_ros.errors import ModelError

if TYPE_CHECKING:
    from alocc_ros.evaluation.rig_score import RigScores


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The subcommands of ``alocc rig``."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    _add_score(actions.add_parser("score", help="drive through synthetic streets with a rig"))


def run(args: argparse.Namespace) -> int:
    """Runs the subcommand."""
    return args.act(args)


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
        default=(160, 440),
        help="images of nuScenes' rig (default 160x440, as alocc_tiny was trained)",
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
