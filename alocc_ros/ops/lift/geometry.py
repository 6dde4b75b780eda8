# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Where lifted pixels lie, and in which nodes of the lattice."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Lattice:
    """Where the nodes of the lifted volume lie.

    Node i sits at ``lower + i * step``, the LOWER CORNER of output cell i, not its centre:
    a quirk that the released weights were trained with (docs/network.md section 6.4), shared with
    the history warp. A bird's-eye volume has one node in z, at the floor of the grid.
    """

    lower: tuple[float, float, float]  # metres
    step: tuple[float, float, float]  # metres
    size: tuple[int, int, int]  # nodes along x, y, z


def pixel_rays(
    rays: Tensor,  # [N, 3, 3] float64; pixel (u, v) at depth d lies at d * M (u, v, 1) + origin
    us: Tensor,  # [w] float64, input-image pixel of each feature column
    vs: Tensor,  # [h] float64, likewise of each row
    du: Tensor | None = None,  # [N, K, h, w] pixels, moves
    dv: Tensor | None = None,
) -> Tensor:  # [N, K, h, w, 3] metres per metre of depth (K = 1 without moves)
    """Directions of all pixels."""
    u, v = us[None, None, None, :], vs[None, None, :, None]
    if du is not None:
        u, v = u + du, v + dv
    m = rays[:, None, None, None]
    return m[..., 0] * u[..., None] + m[..., 1] * v[..., None] + m[..., 2]


def bin_points(
    rays: Tensor,  # [N, 3, 3] float64
    origin: Tensor,  # [N, 3] float64 metres
    us: Tensor,
    vs: Tensor,
    first_depth: float,
    depth_step: float,
    bins: int,
) -> Tensor:  # [N, D, h, w, 3] metres
    """Where every depth bin of every pixel lies."""
    index = torch.arange(bins, dtype=rays.dtype, device=rays.device)
    depths = (first_depth + depth_step * index)[None, :, None, None, None]
    return depths * pixel_rays(rays, us, vs) + origin[:, None, None, None]


def lattice_nodes(
    points: Tensor,  # [N, K, h, w, 3] metres, float64
    lower: list[float],
    step: list[float],
    size: list[int],
) -> tuple[Tensor, Tensor]:  # [8, N, K, h, w] int64 rows of the volume, float32 weights
    """The eight nodes around each point; a node outside becomes node 0 with weight 0."""
    places = []  # by axis: index of the lower and the upper node [2, N, K, h, w], weights alike
    for axis in range(3):
        g = (points[..., axis] - lower[axis]) / step[axis]
        low = torch.floor(g)
        share = g - low
        index = torch.stack([low, low + 1])
        inside = (index >= 0) & (index < size[axis])
        weight = torch.stack([1 - share, share])
        # What is not inside (NaN too) must not become an index.
        places.append((index.masked_fill(~inside, 0).long(), weight.masked_fill(~inside, 0)))
    (x, x_weight), (y, y_weight), (z, z_weight) = places
    # Corner = 4 * upper z + 2 * upper y + upper x.
    flat = y[None, :, None] * size[0] + x[None, None]
    rows = flat * size[2] + z[:, None, None]
    weights = z_weight[:, None, None] * (y_weight[None, :, None] * x_weight[None, None])
    return rows.flatten(0, 2), weights.flatten(0, 2).float()
