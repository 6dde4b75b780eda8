# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Flow cost volume: the present bird's-eye feature against shifted past ones (docs/network.md
section 11).
"""

from __future__ import annotations

from alocc_ros.ops.correlation import cpu
from alocc_ros.ops.correlation.reference import (
    TAPS,
    correlation_reference,
    matching_maps_reference,
)
from alocc_ros.ops.library import fused, operator

__all__ = [
    "TAPS",
    "correlation",
    "correlation_reference",
    "matching_maps",
    "matching_maps_reference",
]

# current [B, C, Y, X], previous [B, C, Y, X] -> [B, TAPS * TAPS, Y, X]; see correlation_reference.
correlation = operator(
    "correlation(Tensor current, Tensor previous) -> Tensor",
    correlation_reference,
    cpu.correlation,
)
fused(correlation, "alocc_ros.ops.correlation.triton:correlation", launches=1)

# now [B, C, Y, X], before [B, C, Y, X], motion [B, 3, 4] float64 -> [2 * B, C, Y/2, X/2]; see
# matching_maps_reference.
matching_maps = operator(
    "matching_maps(Tensor now, Tensor before, Tensor motion) -> Tensor",
    matching_maps_reference,
    matching_maps_reference,
    compiled=False,
)
fused(matching_maps, "alocc_ros.ops.correlation.triton_maps:matching_maps", launches=1)
