# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Soft filling: scatter lifted context into the voxel lattice (paper 3.2; docs/network.md sections
6.2 to 6.4).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from alocc_ros.ops.library import operator
from alocc_ros.ops.lift import cpu
from alocc_ros.ops.lift.geometry import Lattice, bin_points, lattice_nodes, pixel_rays
from alocc_ros.ops.lift.reference import lift_reference

__all__ = ["Lattice", "bin_points", "lattice_nodes", "lift", "lift_reference"]


def _general(
    geometry: Tensor,
    context: Tensor,
    rays: Tensor,
    origin: Tensor,
    us: Tensor,
    vs: Tensor,
    camera_mask: Tensor,
    side_weight: Tensor | None,
    side_offset: Tensor | None,
    rows: Tensor | None,
    weights: Tensor | None,
    first_depth: float,
    depth_step: float,
    side_index_max: int,
    lower: list[float],
    step: list[float],
    size: list[int],
    samples: int,
) -> Tensor:
    """All cameras and all side copies at once; the volumes of a batch lie one after the other."""
    cameras, nodes = len(geometry) // samples, math.prod(size)
    if rows is None or weights is None:
        places = bin_points(rays, origin, us, vs, first_depth, depth_step, geometry.shape[1])
        rows, weights = lattice_nodes(places, lower, step, size)
    # Filled, not multiplied: what a masked camera saw may be NaN.
    absent = ~camera_mask[:, None, None, None]
    geometry, context = geometry.masked_fill(absent, 0), context.masked_fill(absent, 0)
    features = context.permute(0, 2, 3, 1)[:, None]  # [B N, 1, h, w, C]
    volume = context.new_zeros(samples * nodes, context.shape[1])
    volume = _scatter(volume, _of_sample(rows, cameras, nodes), weights, geometry, features)
    if side_weight is not None and side_offset is not None:
        points, masses = _side_copies(
            geometry, rays, origin, us, vs, side_weight, side_offset,
            first_depth, depth_step, side_index_max,
        )  # fmt: skip
        rows, weights = lattice_nodes(points, lower, step, size)
        masses = masses.masked_fill(absent, 0)
        volume = _scatter(volume, _of_sample(rows, cameras, nodes), weights, masses, features)
    x_size, y_size, z_size = size
    return volume.view(samples, y_size, x_size, z_size, -1).permute(0, 4, 1, 2, 3)


def _of_sample(rows: Tensor, cameras: int, nodes: int) -> Tensor:  # [8, B N, K, h, w]
    """Rows of the volume of each camera's sample."""
    if rows.shape[1] == cameras:
        return rows
    first = torch.arange(rows.shape[1], device=rows.device) // cameras * nodes
    return rows + first[:, None, None, None]


def _side_copies(
    geometry: Tensor,  # [N, D, h, w]
    rays: Tensor,
    origin: Tensor,
    us: Tensor,
    vs: Tensor,
    side_weight: Tensor,
    side_offset: Tensor,
    first_depth: float,
    depth_step: float,
    side_index_max: int,
) -> tuple[Tensor, Tensor]:  # [N, 24, h, w, 3] metres, [N, 24, h, w]
    """Inter-object lifting: where each pixel also leaves a share of its peak, and how much."""
    n, _, h, w = geometry.shape
    slot = torch.arange(-1, 2, device=geometry.device)[:, None, None]
    index = geometry.argmax(1, keepdim=True) + slot  # [N, 3, h, w]
    exists = index >= 0
    index = index.clamp(0, side_index_max)
    peaks = geometry.gather(1, index) * exists
    sides = torch.cat([side_offset[:, :8], side_offset[:, 10:]], 1).double().unflatten(1, (8, 2))
    moved = pixel_rays(rays, us, vs, sides[:, :, 0], sides[:, :, 1])  # [N, 8, h, w, 3]
    depth = (first_depth + depth_step * index.double())[:, None, ..., None]  # [N, 1, 3, h, w, 1]
    points = depth * moved[:, :, None] + origin[:, None, None, None, None]
    shares = torch.cat([side_weight[:, :12], side_weight[:, 15:]], 1).view(n, 8, 3, h, w)
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


# Arguments and result: see lift_reference. rows, weights: the nodes of the depth bins where they
# were worked out before (a rig at rest), else None.
lift = operator(
    "lift(Tensor geometry, Tensor context, Tensor rays, Tensor origin, Tensor us, Tensor vs, "
    "Tensor camera_mask, Tensor? side_weight, Tensor? side_offset, Tensor? rows, Tensor? weights, "
    "float first_depth, float depth_step, int side_index_max, float[] lower, float[] step, "
    "int[] size, int samples) -> Tensor",
    _general,
    cpu.lift,
)
