# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Lifting by its definition: every point scatters to the eight nodes around it."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from alocc_ros.ops.lift.geometry import bin_points, lattice_nodes, pixel_rays


class LiftArguments(NamedTuple):
    """What every form of the operator takes, of B samples with N cameras."""

    geometry: Tensor  # [B * N, D, h, w] occupancy of the depth bins
    context: Tensor  # [B * N, C, h, w] what is there
    rays: Tensor  # [B * N, 3, 3] float64; pixel (u, v) at depth d: d * M (u, v, 1) + origin
    origin: Tensor  # [B * N, 3] float64 metres, in the grid's frame
    us: Tensor  # [w] float64, input-image pixel of each feature column
    vs: Tensor  # [h] float64, likewise of each row
    camera_mask: Tensor  # [B * N] bool; False: nothing is lifted from this camera
    side_weight: Tensor | None  # [B * N, 27, h, w] in [0, 1]; channel (3 ku + kv) * 3 + slot
    side_offset: Tensor | None  # [B * N, 18, h, w] pixels; channel (3 ku + kv) * 2 + (0: u, 1: v)
    rows: Tensor | None  # [8, B * N, D, h, w] nodes of the depth bins where they are known, and
    weights: Tensor | None  # their weights (``lattice_nodes``); the reference works them out anew
    first_depth: float  # metres
    depth_step: float  # metres
    side_index_max: int  # highest depth bin that a side copy may take
    lower: list[float]  # the lattice, see ``Lattice``
    step: list[float]
    size: list[int]
    samples: int  # B


def lift_reference(*arguments: Any) -> Tensor:  # LiftArguments -> [B, C, Y, X, Z]
    """Points of each camera, and of each side copy, one camera after the other."""
    a = LiftArguments(*arguments)
    geometry, context, lattice = a.geometry, a.context, (a.lower, a.step, a.size)
    x_size, y_size, z_size = a.size
    volumes = [context.new_zeros(math.prod(a.size), context.shape[1]) for _ in range(a.samples)]
    cameras, bins = len(geometry) // a.samples, geometry.shape[1]
    for n in range(len(geometry)):
        if not a.camera_mask[n]:
            continue
        one = slice(n, n + 1)
        places = bin_points(
            a.rays[one], a.origin[one], a.us, a.vs, a.first_depth, a.depth_step, bins
        )
        scattered = [(places, geometry[one])]
        peak = geometry[n].argmax(0)  # [h, w]
        for cell in range(9) if a.side_weight is not None else ():
            if cell == 4:
                continue  # the centre is the pixel itself
            du, dv = a.side_offset[one, 2 * cell : 2 * cell + 2].double().split(1, 1)
            moved = pixel_rays(a.rays[one], a.us, a.vs, du, dv)
            for slot in range(3):
                index = peak + slot - 1
                exists = index >= 0
                index = index.clamp(0, a.side_index_max)
                depth = (a.first_depth + a.depth_step * index.double())[None, None, ..., None]
                mass = geometry[n].gather(0, index[None])[0] * a.side_weight[n, cell * 3 + slot]
                points = depth * moved + a.origin[one, None, None, None]
                scattered.append((points, (mass * exists)[None, None]))
        features = context[n].permute(1, 2, 0)  # [h, w, C]
        for points, values in scattered:
            for row, weight in zip(*lattice_nodes(points, *lattice), strict=True):
                mass = (weight.to(values) * values)[..., None] * features
                volumes[n // cameras] = volumes[n // cameras].index_add(
                    0, row.flatten(), mass.flatten(0, -2)
                )
    return torch.stack(volumes).view(a.samples, y_size, x_size, z_size, -1).permute(0, 4, 1, 2, 3)
