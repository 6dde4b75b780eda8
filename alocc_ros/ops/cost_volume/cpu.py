# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Stereo matching cost on a CPU: taps, differences, penalty and softmax of a pixel in one pass."""

from __future__ import annotations

import torch
from torch import Tensor

from alocc_ros.ops import native
from alocc_ros.ops.cost_volume.reference import INVALID_PENALTY, validity_channel


def cost_volume(
    current: Tensor,
    previous: Tensor,
    homography: Tensor,
    offset: Tensor,
    first_depth: float,
    depth_step: float,
    bins: int,
) -> Tensor:
    """See ``cost_volume_reference``."""
    n, channels, h, w = current.shape
    here = current.permute(0, 2, 3, 1).contiguous()
    there = previous.permute(0, 2, 3, 1).contiguous()
    homography, offset = homography.contiguous(), offset.contiguous()
    out = torch.empty(n, h, w, bins)
    library = native.library()
    native.parallel(
        lambda begin, end: library.cost_volume(
            *map(native.pointer, (here, there, homography, offset, out)),
            *map(native.i64, (h, w, channels, bins)),
            native.f64(first_depth),
            native.f64(depth_step),
            native.i64(validity_channel(channels)),
            native.f32(INVALID_PENALTY),
            native.i64(begin),
            native.i64(end),
        ),
        n * h,
    )
    return out.permute(0, 3, 1, 2)
