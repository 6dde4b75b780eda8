# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Names on the command line to networks."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from alocc_ros import records
from alocc_ros.errors import ModelError, ParameterError

if TYPE_CHECKING:
    from alocc_ros.network.model import Alocc
    from alocc_ros.network.variants import Variant


# The networks of the paper.
FIVE = ("alocc_2d_mini", "alocc_2d", "alocc_3d", "alocc_flow_2d", "alocc_flow_3d")


def add_variant_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of commands that look at networks without weights."""
    parser.add_argument(
        "--model", action="append", help="model or variant; may be repeated (default: all five)"
    )
    parser.add_argument("--shape", nargs=2, type=int, metavar=("H", "W"), help="image size")
    parser.add_argument("--json", action="store_true", help="machine-readable result")


def variant_of(name: str, shape: Sequence[int] | None = None) -> Variant:
    """The network behind a model or variant name, for images of that height and width.

    Raises:
        ModelError: no such model.
        ParameterError: a size that the backbone cannot halve five times.
    """
    from alocc_ros.network.variants import VARIANTS

    variant = VARIANTS.get(name) or VARIANTS[records.find(name).variant]
    if shape is None:
        return variant
    height, width = shape
    if min(height, width) < 64 or height % 32 or width % 32:
        raise ParameterError(f"--shape {height} {width}: both must be multiples of 32, 64 or more")
    return replace(variant, input_size=(height, width))


def add_model_arguments(parser: argparse.ArgumentParser, backend: str = "auto") -> None:
    """The options of commands that run one network with its weights."""
    add_weights_arguments(parser)
    add_backend_arguments(parser, backend)


def add_weights_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of commands that take one network with its weights, and where."""
    parser.add_argument(
        "--model",
        required=True,
        help="a name of `alocc models list`, a file, or the folder of a run",
    )
    parser.add_argument("--variant", help="the network that a file of unknown origin is for")
    parser.add_argument("--random-weights", action="store_true", help="run without trained weights")
    parser.add_argument("--seed", type=int, default=0, help="of the random weights")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")


def add_backend_arguments(parser: argparse.ArgumentParser, backend: str = "auto") -> None:
    """How a network is run; the names are those of ``runtime.runner`` and ``runtime.precision``."""
    parser.add_argument(
        "--backend", default=backend,
        help="auto, eager, reference, compiled, graph, tensorrt, or emulated: graph's precision "
        f"without a GPU (default: {backend})",
    )  # fmt: skip
    parser.add_argument(
        "--precision", default="auto",
        help="fp32, tf32, fp16, bf16 or int8 (default: fp16 on graph and tensorrt, else fp32)",
    )  # fmt: skip


def find_model(args: argparse.Namespace) -> tuple[records.ModelRecord, Path | None]:
    """The model that these options name, and its weights; None: random ones.

    Raises:
        ModelError: there is none, or its weights are not here.
    """
    if args.random_weights:  # also of models that were never published
        return records.find(args.model), None
    record, path = records.resolve(args.model, args.variant)
    if path is None:
        what = f"{record.name} has no published weights: "
        if record.file:
            what = (
                f"the weights of {record.name} are not here: fetch them with "
                f"`alocc models fetch {record.name}`, "
            )
        raise ModelError(
            f"{what}give a checkpoint with "
            "--model FILE, or try things out with --random-weights (the output means nothing)"
        )
    return record, path


def load_network(
    record: records.ModelRecord,
    weights_file: Path | None,
    device: str,
    seed: int,
    quiet: bool = False,
) -> tuple[Alocc, str]:
    """See ``runtime.loading.load_network``, which needs torch; unless ``quiet`` it is said on
    standard error which tensors of the file are used.
    """
    from alocc_ros.runtime.loading import load_network as load

    def say(text: str) -> None:
        if not quiet:
            print(f"alocc: {text}", file=sys.stderr)

    return load(record, weights_file, device, seed, say)
