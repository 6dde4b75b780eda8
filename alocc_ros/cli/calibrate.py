# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""``alocc calibrate``: ranges of a network's activations on your own cameras, for int8 on a CPU
and in TensorRT.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from alocc_ros.cli._models import find_model, load_network
from alocc_ros.cli._values import whole_number_from
from alocc_ros.errors import DataError
from alocc_ros.stream.preset import load_preset, preset_names

if TYPE_CHECKING:
    import numpy as np

    from alocc_ros.bags.frames import FrameSource
    from alocc_ros.stream.preprocessing import Preprocessor

# Sets of six images; with fewer, rare brightness is missed, with more nothing changes.
_SETS = 32


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("bag", type=Path, help="a recording of the cameras that will be used")
    parser.add_argument("--model", required=True, help="a name of `alocc models list`, or a file")
    parser.add_argument("--variant", help="the network that a file of unknown origin is for")
    parser.add_argument(
        "--preset", help=f"topics and frames: {', '.join(preset_names())}, or a YAML file"
    )
    parser.add_argument("--calibration", type=Path, help="rig YAML, or folder of camera_info YAMLs")
    parser.add_argument("--grid-frame", help="TF frame of the grid (models of the LiDAR frame)")
    parser.add_argument(
        "--sets", type=whole_number_from(1), default=_SETS, metavar="N",
        help=f"camera sets to look at, spread over the recording (default {_SETS})",
    )  # fmt: skip
    parser.set_defaults(random_weights=False, seed=0, device="cpu")


def run(args: argparse.Namespace) -> int:
    """Look at images, and keep what they say."""
    from alocc_ros.bags.frames import FrameSource, preset_of
    from alocc_ros.bags.reader import Bag
    from alocc_ros.runtime.calibration import calibrate
    from alocc_ros.stream.preprocessing import Preprocessor

    record, weights_file = find_model(args)
    network, _ = load_network(record, weights_file, "cpu", args.seed)
    with Bag(args.bag) as bag:
        preset = load_preset(args.preset) if args.preset else preset_of(bag)
        source = FrameSource(bag, preset, args.calibration, args.grid_frame)
        size = network.variant.input_size
        with Preprocessor.for_model(record, size) as preprocessor:
            sets = _spread(source, preprocessor, args.sets)
            ranges = calibrate(network, sets)
    print(
        f"{record.name}: the ranges of {len(ranges.values)} activations are kept for "
        "`--precision int8`, on a CPU and in TensorRT",
        file=sys.stderr,
    )
    return 0


def _spread(source: FrameSource, preprocessor: Preprocessor, wanted: int) -> Iterator[np.ndarray]:
    """So many sets, as evenly as the number that is expected lets it be."""
    step, seen = max(1, source.expected // wanted), 0
    for number, frame in enumerate(source):
        if number % step:
            continue
        seen += 1
        print(f"alocc: set {seen} of at most {wanted}", file=sys.stderr)
        yield preprocessor(frame)
        if seen == wanted:
            return
    if not seen:
        raise DataError("the recording has not one set of images that can be used")
