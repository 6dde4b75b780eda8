# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Intra-object lifting by its definition: a banded matrix a pixel."""

from __future__ import annotations

import torch
from torch import Tensor


def intra_object_reference(
    depth: Tensor,  # [N, D, h, w] probability of the surface
    fill: Tensor,  # [N, L, h, w] in [0, 1], share that bin k + 1 behind inherits
) -> Tensor:  # [N, D, h, w]
    """The pixel's occupancy as a matrix product with a banded upper-triangular matrix.

    Not renormalised: the sum over bins may exceed one.
    """
    bins, length = depth.shape[1], fill.shape[1]
    matrix = torch.eye(bins, dtype=depth.dtype, device=depth.device)
    matrix = matrix.expand(*depth[:, 0].shape, bins, bins).clone()  # [N, h, w, from, to]
    for behind in range(1, min(length, bins - 1) + 1):
        source = torch.arange(bins - behind, device=depth.device)
        matrix[..., source, source + behind] = fill[:, behind - 1, :, :, None]
    return torch.einsum("ndhw,nhwdo->nohw", depth, matrix)
