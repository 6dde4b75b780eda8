# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Intra-object lifting: a surface also fills the bins behind it (paper 3.2; docs/network.md
section 6.1).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from alocc_ros.ops.intra_object import cpu
from alocc_ros.ops.intra_object.reference import intra_object_reference
from alocc_ros.ops.library import fused, operator

__all__ = ["intra_object", "intra_object_reference"]


def _general(depth: Tensor, fill: Tensor) -> Tensor:
    """All shifts at once: bin k looks at a window of the L bins before it."""
    bins, length = depth.shape[1], fill.shape[1]
    before = F.pad(depth, (0, 0, 0, 0, length, 0)).unfold(1, length, 1)[:, :bins]
    share = fill.flip(1).movedim(1, -1)[:, None]  # the bin just before comes last
    return depth + (before * share).sum(-1)


# depth [N, D, h, w], fill [N, L, h, w] -> [N, D, h, w]; see intra_object_reference.
intra_object = operator(
    "intra_object(Tensor depth, Tensor fill) -> Tensor", _general, cpu.intra_object, compiled=False
)
fused(intra_object, "alocc_ros.ops.intra_object.triton:intra_object", launches=1)
