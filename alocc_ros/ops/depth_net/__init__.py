# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""The small steps of the depth network between its convolutions (docs/network.md sections 4, 5)."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from alocc_ros.ops.conv import channels_last
from alocc_ros.ops.depth_net.reference import (
    camera_gates_reference,
    depth_answer_reference,
    gate_feature_reference,
)
from alocc_ros.ops.library import fused, operator

__all__ = [
    "camera_gates",
    "camera_gates_reference",
    "depth_answer",
    "depth_answer_reference",
    "gate_feature",
    "gate_feature_reference",
]

# Arguments and results: see the references. Geometry comes as it lies in the plan, float64, and
# the gates are float32 whatever the network is.
camera_gates = operator(
    "camera_gates(Tensor camera, Tensor matrix0, Tensor bias0, Tensor matrix1, Tensor bias1, "
    "Tensor matrix2, Tensor bias2) -> Tensor",
    camera_gates_reference,
    camera_gates_reference,
    compiled=False,
)
gate_feature = operator(
    "gate_feature(Tensor feature, Tensor first, Tensor second, Tensor? beside, Tensor? bias) "
    "-> (Tensor, Tensor)",
    gate_feature_reference,
    gate_feature_reference,
    compiled=False,
)
depth_answer = operator(
    "depth_answer(Tensor logits, Tensor fill, Tensor? sides, int bins, int weights, float scale, "
    "float limit) -> (Tensor, Tensor, Tensor, Tensor)",
    depth_answer_reference,
    depth_answer_reference,
    compiled=False,
)


def _launches(feature: Tensor, first: Tensor, second: Tensor, beside: Tensor | None, _: Any) -> int:
    maps = (feature,) if beside is None else (feature, beside)
    # What is not channels last is copied.
    return 1 + sum(not x.is_contiguous(memory_format=channels_last(x)) for x in maps)


fused(camera_gates, "alocc_ros.ops.depth_net.triton:camera_gates", launches=1)
fused(gate_feature, "alocc_ros.ops.depth_net.triton:gate_feature", launches=_launches)
fused(depth_answer, "alocc_ros.ops.depth_net.triton:depth_answer", launches=1)
