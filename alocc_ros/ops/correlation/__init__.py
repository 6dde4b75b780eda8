# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Flow cost volume: the present bird's-eye feature against shifted past ones (docs/network.md
section 11).
"""

from __future__ import annotations

from alocc_ros.ops.correlation import cpu
from alocc_ros.ops.correlation.reference import TAPS, correlation_reference
from alocc_ros.ops.library import fused, operator

__all__ = ["TAPS", "correlation", "correlation_reference"]

# current [B, C, Y, X], previous [B, C, Y, X] -> [B, TAPS * TAPS, Y, X]; see correlation_reference.
correlation = operator(
    "correlation(Tensor current, Tensor previous) -> Tensor",
    correlation_reference,
    cpu.correlation,
)
fused(correlation, "alocc_ros.ops.correlation.triton:correlation", launches=1)
