# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Lifting on a CPU without sorting and without materialising points: each thread owns some rows of
the volume and scans all points, so the order of summation never depends on the threads.
"""

from __future__ import annotations

import torch
from torch import Tensor

from alocc_ros.ops import native


def lift(
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
    """See ``lift_reference``."""
    count, bins, h, w = geometry.shape
    channels, cameras = context.shape[1], count // samples
    x_size, y_size, z_size = size
    volumes = torch.zeros(samples, y_size, x_size, z_size, channels)
    by_camera = [
        geometry.permute(0, 2, 3, 1).contiguous(),
        context.permute(0, 2, 3, 1).contiguous(),
        rays.contiguous(),
        origin.contiguous(),
    ]
    sides = [None, None]
    if side_weight is not None and side_offset is not None:
        sides = [t.permute(0, 2, 3, 1).contiguous() for t in (side_weight, side_offset)]
    mask = camera_mask.to(torch.uint8)
    corner, spacing = (torch.tensor(v, dtype=torch.float64) for v in (lower, step))
    nodes = torch.tensor(size, dtype=torch.int64)
    library = native.library()
    for sample, volume in enumerate(volumes):
        its = slice(sample * cameras, (sample + 1) * cameras)
        inputs = [t[its] for t in by_camera]
        its_sides = [None if t is None else t[its] for t in sides]
        native.parallel(
            lambda begin, end, inputs=inputs, sides=its_sides, mask=mask[its], volume=volume: (
                library.lift(
                    *map(native.pointer, (*inputs, us, vs)),
                    *(None if t is None else native.pointer(t) for t in sides),
                    native.pointer(mask),
                    native.pointer(volume),
                    *map(native.i64, (cameras, h, w, bins, channels)),
                    native.f64(first_depth),
                    native.f64(depth_step),
                    native.i64(side_index_max),
                    *map(native.pointer, (corner, spacing, nodes)),
                    native.i64(begin),
                    native.i64(end),
                )
            ),
            y_size,
            # Every range scans all points: one range a thread.
            grain=-(-y_size // torch.get_num_threads()),
        )
    return volumes.permute(0, 4, 1, 2, 3)
