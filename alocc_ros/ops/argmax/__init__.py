# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Class scores to labels (docs/network.md sections 10 and 12)."""

from __future__ import annotations

from alocc_ros.ops.argmax import cpu
from alocc_ros.ops.argmax.reference import classify_reference, occupancy_argmax_reference
from alocc_ros.ops.library import fused, operator

__all__ = [
    "classify",
    "classify_reference",
    "occupancy_argmax",
    "occupancy_argmax_reference",
]

# logits [B, Y, X, ..., classes], first class that can be an answer -> [B, Y, X, ...] uint8, X
# before Y in memory; see occupancy_argmax_reference.
occupancy_argmax = operator(
    "occupancy_argmax(Tensor logits, int first) -> Tensor",
    occupancy_argmax_reference,
    cpu.occupancy_argmax,
)
# voxels [B, Y, X, ..., V], classes [V, Q], first class that can be an answer -> logits [..., Q] and
# labels, as above; see classify_reference.
classify = operator(
    "classify(Tensor voxels, Tensor classes, int first) -> (Tensor, Tensor)",
    classify_reference,
    cpu.classify,
)

fused(occupancy_argmax, "alocc_ros.ops.argmax.triton:occupancy_argmax", launches=1)
fused(classify, "alocc_ros.ops.argmax.triton:classify", launches=1)
