# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Adaptive lifting: per-pixel depth to a voxel volume (paper section 3.2; docs/network.md
section 6).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alocc_ros.errors import ModelError
from alocc_ros.network.cameras import feature_pixels
from alocc_ros.network.depth import DepthPrediction
from alocc_ros.network.plan import PlanTensors
from alocc_ros.network.variants import Variant
from alocc_ros.ops.intra_object import intra_object
from alocc_ros.ops.lift import Lattice, bin_points, lattice_nodes, lift

# BUG-COMPAT: the reference clamps the depth index of a side copy with the size of the CAMERA
# axis (6), so copies only ever land in bins 0..5 (1.0 to 3.5 m). The released weights
# were trained with it. The paper's intent is depth_bins - 1: pass that as ``inter_index_max``.
RELEASED_INTER_INDEX_MAX = 5


class IntraObject(nn.Module):
    """A surface also fills the bins behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.operator = intra_object

    def forward(self, depth: Tensor, fill: Tensor) -> Tensor:  # [N, D, h, w], [N, L, h, w]
        return self.operator(depth, fill)


class NoGeometryMix(nn.Module):
    """Of variants that lift the geometry of the present only."""

    def forward(self, geometry: Tensor, prediction: DepthPrediction) -> Tensor:
        return geometry


class Lifting(nn.Module):
    """Context features of all cameras, spread along their rays and pooled into the lattice."""

    def __init__(self, variant: Variant, inter_index_max: int) -> None:
        super().__init__()
        self.operator = lift
        self.intra_object = IntraObject()
        self.mix: nn.Module = NoGeometryMix()  # with what is remembered, see network/recurrent.py
        us, vs = feature_pixels(variant)
        self.register_buffer("us", us, persistent=False)
        self.register_buffer("vs", vs, persistent=False)
        self._depths = (float(variant.depth_range[0]), float(variant.depth_step))
        self._bins, self._lattice = variant.depth_bins, lattice(variant)
        self.inter_index_max = inter_index_max

    def forward(
        self,
        prediction: DepthPrediction,  # of B * N cameras
        plan: PlanTensors,
        nodes: tuple[Tensor, Tensor] | None = None,  # of ``place``, where they are known
        measured: tuple[Tensor, float] | None = None,  # depth bins [B * N, h, w], their share
    ) -> Tensor:  # [B, C, Y, X, Z] (Z = 1 for bird's-eye variants)
        depth = prediction.depth
        if measured is not None:
            depth = mix_measured_depth(depth, *measured)
        geometry = self.mix(self.intra_object(depth, prediction.fill), prediction)
        rows, weights = (None, None) if nodes is None else nodes
        grid = self._lattice
        return self.operator(
            geometry, prediction.context, plan.rays, plan.origin, self.us, self.vs,
            plan.camera_mask, prediction.side_weight, prediction.side_offset, rows, weights,
            *self._depths, self.inter_index_max,
            list(grid.lower), list(grid.step), list(grid.size), len(plan.motion),
        )  # fmt: skip

    def place(self, plan: PlanTensors) -> tuple[Tensor, Tensor]:  # [8, B * N, D, h, w] each
        """Nodes (int64 rows, float32 weights) of the depth bins, which only the rig decides."""
        points = bin_points(plan.rays, plan.origin, self.us, self.vs, *self._depths, self._bins)
        grid = self._lattice
        return lattice_nodes(points, list(grid.lower), list(grid.step), list(grid.size))


def lattice(variant: Variant) -> Lattice:
    """The nodes that the variant lifts to."""
    return Lattice(variant.lift_lower, variant.lift_step, variant.lift_cells)


def lidar_bins(
    lidar_depth: Tensor,  # [N, H, W] metres at network-input pixels, 0: no return
    variant: Variant,
) -> Tensor:  # [N, h, w] int64, -1: nothing measured
    """The depth bin of the nearest return of each 16x16 block.

    Returns before the first or beyond the last bin count as none.

    Raises:
        ModelError: the depth is not at the pixels of the network's input.
    """
    if lidar_depth.dim() != 3 or tuple(lidar_depth.shape[1:]) != tuple(variant.input_size):
        raise ModelError(
            f"lidar_depth is {list(lidar_depth.shape)}, {variant.name} takes "
            f"[N, {', '.join(map(str, variant.input_size))}]"
        )
    near = -F.max_pool2d(-torch.where(lidar_depth > 0, lidar_depth, torch.inf)[:, None], 16)
    index = torch.floor((near[:, 0] - variant.depth_range[0]) / variant.depth_step)
    known = (index >= 0) & (index < variant.depth_bins)
    return index.masked_fill(~known, -1).long()


def mix_measured_depth(
    probability: Tensor,  # [N, D, h, w]
    bins: Tensor,  # [N, h, w] int64, -1: nothing measured
    share: float,
) -> Tensor:  # [N, D, h, w]
    """The depth to lift: ``share`` of the measured bin where there is one."""
    known = (bins >= 0)[:, None]
    every = torch.arange(probability.shape[1], device=bins.device)[:, None, None]
    measured = bins[:, None] == every
    mixed = share * measured.to(probability) + (1 - share) * probability
    return torch.where(known, mixed, probability)
