# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Intra-object lifting on a CPU: one shifted multiply-add for each bin behind, in place."""

from __future__ import annotations

from torch import Tensor


def intra_object(depth: Tensor, fill: Tensor) -> Tensor:
    """See ``intra_object_reference``."""
    bins = depth.shape[1]
    # Bins outermost: every shift is then one contiguous block.
    surface = depth.transpose(0, 1).contiguous()  # [D, N, h, w]
    share = fill.transpose(0, 1).contiguous()
    out = surface.clone()
    for behind in range(1, min(len(share), bins - 1) + 1):
        out[behind:].addcmul_(surface[: bins - behind], share[behind - 1])
    return out.transpose(0, 1).contiguous()  # in memory as the general form's result
