# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Names on the command line to variants."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from alocc_ros import records
from alocc_ros.errors import ParameterError

if TYPE_CHECKING:
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
