# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Recurrent fusion: one remembered volume, moved by learned offsets, and a scene layer that learns
while it runs (docs/network.md section 8b).
"""

from __future__ import annotations

from torch import Tensor

from alocc_ros.ops.library import fused, operator
from alocc_ros.ops.recurrent import cpu
from alocc_ros.ops.recurrent.mixing import gated_mix_reference, time_bias_reference
from alocc_ros.ops.recurrent.reference import (
    MOTION_LIMIT,
    MotionStep,
    SceneStep,
    SceneWeights,
    correct_motion_reference,
    frustum_grid,
    fuse_recurrent_reference,
    moved_indices,
    sample_rows,
    scene_step_reference,
    unit_grid,
    warp_frustum_reference,
)

__all__ = [
    "MOTION_LIMIT",
    "MotionStep",
    "SceneStep",
    "SceneWeights",
    "correct_motion_reference",
    "frustum_grid",
    "fuse_recurrent",
    "fuse_recurrent_reference",
    "gated_mix",
    "gated_mix_reference",
    "moved_indices",
    "sample_rows",
    "scene_step",
    "scene_step_reference",
    "time_bias",
    "time_bias_reference",
    "unit_grid",
    "warp_frustum",
    "warp_frustum_reference",
]


def _scene_step(
    rows: Tensor, sums: Tensor, keep: Tensor, layer: list[Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    return tuple(scene_step_reference(rows, sums, keep, SceneWeights(*layer)))


# Arguments: see fuse_recurrent_reference; the last two are overwritten.
fuse_recurrent = operator(
    "fuse_recurrent(Tensor current, Tensor history, Tensor? previous, Tensor motion, "
    "Tensor offset_matrix, Tensor offset_bias, Tensor time_matrix, Tensor time_bias, "
    "Tensor cat_matrix, Tensor cat_bias, Tensor(a!) fused, Tensor(b!) offsets) -> ()",
    fuse_recurrent_reference,
    cpu.fuse_recurrent,
)

# Rows, sums and norm of a SceneStep; ``layer`` are the fields of SceneWeights.
scene_step = operator(
    "scene_step(Tensor rows, Tensor sums, Tensor keep, Tensor[] layer) -> (Tensor, Tensor, Tensor)",
    _scene_step,
    cpu.scene_step,
    wide=(1, 2),
)
# values [N, D, h, w], homography [N, 3, 3], offset [N, 3] float64, metres of bin 0 and from bin to
# bin -> [N, D, h, w]; see warp_frustum_reference.
warp_frustum = operator(
    "warp_frustum(Tensor values, Tensor homography, Tensor offset, float first, float step) "
    "-> Tensor",
    warp_frustum_reference,
    warp_frustum_reference,
    compiled=False,
)
# See gated_mix_reference and time_bias_reference.
gated_mix = operator(
    "gated_mix(Tensor remembered, Tensor now, Tensor? mixed, Tensor matrix1, Tensor offset1, "
    "Tensor matrix2, Tensor offset2, bool shares) -> Tensor",
    gated_mix_reference,
    gated_mix_reference,
    compiled=False,
)
time_bias = operator(
    "time_bias(Tensor times, Tensor rates, Tensor phases, Tensor matrix1, Tensor bias1, "
    "Tensor matrix2, Tensor bias2) -> Tensor",
    time_bias_reference,
    time_bias_reference,
    compiled=False,
)
fused(fuse_recurrent, "alocc_ros.ops.recurrent.triton:fuse_recurrent", launches=1)
fused(scene_step, "alocc_ros.ops.recurrent.triton_scene:scene_step", launches=3)
fused(warp_frustum, "alocc_ros.ops.recurrent.triton_frustum:warp_frustum", launches=1)
fused(gated_mix, "alocc_ros.ops.recurrent.triton_mixing:gated_mix", launches=1)
fused(time_bias, "alocc_ros.ops.recurrent.triton_mixing:time_bias", launches=1)
