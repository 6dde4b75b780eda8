# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Soft filling: scatter lifted context into the voxel lattice (paper 3.2; docs/network.md sections
6.2 to 6.4).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from alocc_ros.ops.library import fused, operator
from alocc_ros.ops.lift import cpu
from alocc_ros.ops.lift.geometry import Lattice, bin_points, lattice_nodes, pixel_rays
from alocc_ros.ops.lift.reference import LiftArguments, lift_reference

__all__ = ["Lattice", "bin_points", "lattice_nodes", "lift", "lift_reference"]


def _general(*arguments: Any) -> Tensor:
    """All cameras and all side copies at once; the volumes of a batch lie one after the other."""
    a = LiftArguments(*arguments)
    geometry, lattice, frustum = a.geometry, (a.lower, a.step, a.size), a[2:6]
    cameras, nodes = len(geometry) // a.samples, math.prod(a.size)
    rows, weights = a.rows, a.weights
    if rows is None or weights is None:
        places = bin_points(*frustum, a.first_depth, a.depth_step, geometry.shape[1])
        rows, weights = lattice_nodes(places, *lattice)
    # Filled, not multiplied: what a masked camera saw may be NaN.
    absent = ~a.camera_mask[:, None, None, None]
    geometry, context = geometry.masked_fill(absent, 0), a.context.masked_fill(absent, 0)
    features = context.permute(0, 2, 3, 1)[:, None]  # [B N, 1, h, w, C]
    volume = context.new_zeros(a.samples * nodes, context.shape[1])
    volume = _scatter(volume, _of_sample(rows, cameras, nodes), weights, geometry, features)
    if a.side_weight is not None and a.side_offset is not None:
        points, masses = _side_copies(a, geometry)
        rows, weights = lattice_nodes(points, *lattice)
        masses = masses.masked_fill(absent, 0)
        volume = _scatter(volume, _of_sample(rows, cameras, nodes), weights, masses, features)
    x_size, y_size, z_size = a.size
    return volume.view(a.samples, y_size, x_size, z_size, -1).permute(0, 4, 1, 2, 3)


def _of_sample(rows: Tensor, cameras: int, nodes: int) -> Tensor:  # [8, B N, K, h, w]
    """Rows of the volume of each camera's sample."""
    if rows.shape[1] == cameras:
        return rows
    first = torch.arange(rows.shape[1], device=rows.device) // cameras * nodes
    return rows + first[:, None, None, None]


def _side_copies(
    a: LiftArguments,
    geometry: Tensor,  # [N, D, h, w]
) -> tuple[Tensor, Tensor]:  # [N, 24, h, w, 3] metres, [N, 24, h, w]
    """Inter-object lifting: where each pixel also leaves a share of its peak, and how much."""
    n, _, h, w = geometry.shape
    slot = torch.arange(-1, 2, device=geometry.device)[:, None, None]
    index = geometry.argmax(1, keepdim=True) + slot  # [N, 3, h, w]
    exists = index >= 0
    index = index.clamp(0, a.side_index_max)
    peaks = geometry.gather(1, index) * exists
    sides = torch.cat([a.side_offset[:, :8], a.side_offset[:, 10:]], 1).double()
    moved = pixel_rays(a.rays, a.us, a.vs, sides[:, 0::2], sides[:, 1::2])  # [N, 8, h, w, 3]
    depth = a.first_depth + a.depth_step * index.double()  # [N, 3, h, w]
    points = depth[:, None, ..., None] * moved[:, :, None] + a.origin[:, None, None, None, None]
    shares = torch.cat([a.side_weight[:, :12], a.side_weight[:, 15:]], 1).view(n, 8, 3, h, w)
    return points.flatten(1, 2), (peaks[:, None] * shares).flatten(1, 2)


def _scatter(
    volume: Tensor,  # [B * Y * X * Z, C]
    rows: Tensor,  # [8, N, K, h, w]
    weights: Tensor,  # [8, N, K, h, w]
    values: Tensor,  # [N, K, h, w]
    features: Tensor,  # [N, 1, h, w, C]
) -> Tensor:  # [B * Y * X * Z, C]
    for row, weight in zip(rows.unbind(0), weights.unbind(0), strict=True):
        mass = (weight.to(values.dtype) * values)[..., None] * features
        volume = volume.index_add(0, row.flatten(), mass.flatten(0, -2))
    return volume


# LiftArguments -> [B, C, Y, X, Z]; see lift_reference.
lift = operator(
    "lift(Tensor geometry, Tensor context, Tensor rays, Tensor origin, Tensor us, Tensor vs, "
    "Tensor camera_mask, Tensor? side_weight, Tensor? side_offset, Tensor? rows, Tensor? weights, "
    "float first_depth, float depth_step, int side_index_max, float[] lower, float[] step, "
    "int[] size, int samples) -> Tensor",
    _general,
    cpu.lift,
)


def _launches(*arguments: Any) -> int:
    """Places, sums, and for half precision a conversion (where atomics are allowed)."""
    return 2 if LiftArguments(*arguments).context.dtype == torch.float32 else 3


fused(lift, "alocc_ros.ops.lift.gpu:lift", _launches)
