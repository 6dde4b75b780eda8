# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Class scores to labels (docs/network.md sections 10 and 12)."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from alocc_ros.ops.argmax import cpu
from alocc_ros.ops.argmax.reference import (
    classify_reference,
    evenly_spaced,
    occupancy_argmax_reference,
)
from alocc_ros.ops.library import fused, operator

__all__ = [
    "classify",
    "classify_reference",
    "occupancy_argmax",
    "occupancy_argmax_reference",
]

# logits [..., classes], number of the first class -> [...] uint8, of volumes [B, Y, X, Z] X before
# Y in memory; see occupancy_argmax_reference.
occupancy_argmax = operator(
    "occupancy_argmax(Tensor logits, int first) -> Tensor",
    occupancy_argmax_reference,
    cpu.occupancy_argmax,
)
# voxels [..., V], classes [V, Q], leading classes that are no label -> logits [..., Q],
# labels as above; see classify_reference.
classify = operator(
    "classify(Tensor voxels, Tensor classes, int skip) -> (Tensor, Tensor)",
    classify_reference,
    cpu.classify,
)


def _launches(rows: Tensor, *_: Any) -> int:
    return 1 if evenly_spaced(rows) else 2  # what is not, is copied


fused(occupancy_argmax, "alocc_ros.ops.argmax.triton:occupancy_argmax", launches=1)
fused(classify, "alocc_ros.ops.argmax.triton:classify", launches=_launches)
