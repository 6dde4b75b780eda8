# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Stereo matching cost on a CPU: taps, differences, penalty and softmax of a pixel in one pass."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from alocc_ros.ops import native
from alocc_ros.ops.cost_volume.reference import (
    INVALID_PENALTY,
    CostVolumeArguments,
    validity_channel,
)


def cost_volume(*arguments: Any) -> Tensor:
    """See ``cost_volume_reference``."""
    current, previous, homography, offset, first, step, bins = CostVolumeArguments(*arguments)
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
            native.f64(first),
            native.f64(step),
            native.i64(validity_channel(channels)),
            native.f32(INVALID_PENALTY),
            native.i64(begin),
            native.i64(end),
        ),
        n * h,
    )
    return out.permute(0, 3, 1, 2)
