# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Decoded images to the network's input: resized as Pillow does it, cropped, normalised (docs/
network.md section 1).

Pillow's antialiased bicubic works on 8-bit pixels with weights of 22 binary places and rounds after
each pass. So its results can be had exactly: integers have no order of summation.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from alocc_ros.ops.library import fused, operator
from alocc_ros.ops.resize.filters import Resampling, bicubic_filters
from alocc_ros.ops.resize.reference import (
    WEIGHT_BITS,
    resize_images,
    resize_images_reference,
)

__all__ = [
    "WEIGHT_BITS",
    "Resampling",
    "bicubic_filters",
    "resize_images_",
    "resize_images_reference",
]


def _write(images: Tensor, *arguments: Any) -> None:
    *given, out = arguments
    out.copy_(resize_images(images, *given))


# Arguments: see ``resize_images``; ``out`` [N, 3, H, W], of any floating type and order in memory,
# is overwritten.
resize_images_ = operator(
    "resize_images_(Tensor images, Tensor column_starts, Tensor column_weights, "
    "Tensor row_starts, Tensor row_weights, Tensor mean, Tensor scale, bool reverse, "
    "Tensor(a!) out) -> ()",
    _write,
    _write,
    compiled=False,
)
fused(resize_images_, "alocc_ros.ops.resize.triton:resize_images_", launches=2)
