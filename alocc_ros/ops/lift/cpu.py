# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Lifting on a CPU without sorting and without materialising points: each thread owns some rows of
the volume and scans all points, so the order of summation never depends on the threads.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from alocc_ros.ops import native
from alocc_ros.ops.lift.reference import LiftArguments


def lift(*arguments: Any) -> Tensor:
    """See ``lift_reference``."""
    a = LiftArguments(*arguments)
    count, bins, h, w = a.geometry.shape
    channels, cameras = a.context.shape[1], count // a.samples
    x_size, y_size, z_size = a.size
    volumes = torch.zeros(a.samples, y_size, x_size, z_size, channels)
    by_camera = [
        a.geometry.permute(0, 2, 3, 1).contiguous(),
        a.context.permute(0, 2, 3, 1).contiguous(),
        a.rays.contiguous(),
        a.origin.contiguous(),
    ]
    sides = [None, None]
    if a.side_weight is not None and a.side_offset is not None:
        sides = [t.permute(0, 2, 3, 1).contiguous() for t in (a.side_weight, a.side_offset)]
    mask = a.camera_mask.to(torch.uint8)
    corner, spacing = (torch.tensor(v, dtype=torch.float64) for v in (a.lower, a.step))
    nodes = torch.tensor(a.size, dtype=torch.int64)
    library = native.library()
    for sample, volume in enumerate(volumes):
        its = slice(sample * cameras, (sample + 1) * cameras)
        inputs = [t[its] for t in by_camera]
        its_sides = [None if t is None else t[its] for t in sides]
        native.parallel(
            lambda begin, end, inputs=inputs, sides=its_sides, mask=mask[its], volume=volume: (
                library.lift(
                    *map(native.pointer, (*inputs, a.us, a.vs)),
                    *(None if t is None else native.pointer(t) for t in sides),
                    native.pointer(mask),
                    native.pointer(volume),
                    *map(native.i64, (cameras, h, w, bins, channels)),
                    native.f64(a.first_depth),
                    native.f64(a.depth_step),
                    native.i64(a.side_index_max),
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
