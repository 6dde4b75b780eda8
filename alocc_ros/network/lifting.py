# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Adaptive lifting: per-pixel depth to a voxel volume (paper section 3.2; spec section 6)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from alocc_ros.network.cameras import CameraGeometry
from alocc_ros.network.depth import Lifted
from alocc_ros.network.observe import observe
from alocc_ros.network.variants import Variant
from alocc_ros.ops.intra import fill_behind
from alocc_ros.ops.splat import Lattice, SideCopies, splat, splat_many

# BUG-COMPAT: the reference clamps the depth index of a side copy with the size of the CAMERA
# axis (6), so copies only ever land in bins 0..5 (1.0 to 3.5 m). The released weights
# were trained with it. The paper's intent is depth_bins - 1: pass that as ``inter_index_max``.
RELEASED_INTER_INDEX_MAX = 5


def lift(
    lifted: Lifted,
    cameras: CameraGeometry,
    variant: Variant,
    inter_index_max: int = RELEASED_INTER_INDEX_MAX,
    alive: Tensor | None = None,  # [N] bool; a dead camera lifts nothing
    lidar_depth: Tensor | None = None,  # [N, H, W] metres, 0: no return
    samples: int = 1,
) -> Tensor:  # [samples, C, Y, X, Z] (Z = 1 for bird's-eye variants)
    """Context features of all cameras, spread along their rays and pooled into the lattice.

    The cameras of several samples come one sample after the other.
    """
    depth = lifted.depth
    if lidar_depth is not None:
        measured, known = lidar_bins(lidar_depth, variant)
        depth = torch.where(known, measured.to(depth), depth)
    geometry = fill_behind(depth, lifted.fill)
    observe("depth_net/geometry_after_intra", lambda: geometry[None])
    sides = None
    if lifted.side_weight is not None:
        sides = SideCopies(lifted.side_weight, lifted.side_offset, inter_index_max)
    frustum = cameras.frustum(variant)
    what = geometry, lifted.context, frustum, lattice(variant), sides, alive
    return splat(*what)[None] if samples == 1 else splat_many(*what, samples)


def lattice(variant: Variant) -> Lattice:
    """The nodes that the variant lifts to."""
    return Lattice(variant.grid.lower, variant.lift_step, variant.lift_cells)


def lidar_bins(
    lidar_depth: Tensor,  # [N, H, W] metres at network-input pixels, 0: no return
    variant: Variant,
) -> tuple[Tensor, Tensor]:  # [N, D, h, w] one-hot, [N, 1, h, w] bool
    """The nearest return of each 16x16 block as a one-hot depth bin, and where there is one.

    Returns before the first or beyond the last bin count as none.
    """
    near = -F.max_pool2d(-torch.where(lidar_depth > 0, lidar_depth, torch.inf)[:, None], 16)
    index = torch.floor((near - variant.depth_range[0]) / variant.depth_step)
    known = (index >= 0) & (index < variant.depth_bins)
    index = torch.where(known, index, 0).long()[:, 0]
    one_hot = F.one_hot(index, variant.depth_bins).permute(0, 3, 1, 2)
    return one_hot, known
