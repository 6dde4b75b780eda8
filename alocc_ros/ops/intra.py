# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Intra-object lifting: a surface also fills the bins behind it (paper 3.2; spec section 6.1)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from alocc_ros.ops.mode import forced


def fill_behind_twin(
    depth: Tensor,  # [N, D, h, w] probability of the surface
    fill: Tensor,  # [N, L, h, w] in [0, 1], share that bin k+1 behind inherits
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


def fill_behind(
    depth: Tensor,  # [N, D, h, w]
    fill: Tensor,  # [N, L, h, w]
) -> Tensor:  # [N, D, h, w]
    """The same as L shifted multiply-adds; no D x D matrix a pixel."""
    if forced():
        return fill_behind_twin(depth, fill)
    if torch.is_grad_enabled():
        return _fill_behind_with_gradient(depth, fill)
    bins = depth.shape[1]
    # Bins outermost: every shift is then one contiguous block.
    surface = depth.transpose(0, 1).contiguous()  # [D, N, h, w]
    share = fill.transpose(0, 1).contiguous()
    out = surface.clone()
    for behind in range(1, min(len(share), bins - 1) + 1):
        out[behind:].addcmul_(surface[: bins - behind], share[behind - 1])
    return out.transpose(0, 1)


def _fill_behind_with_gradient(depth: Tensor, fill: Tensor) -> Tensor:
    """The same without writing into what a gradient needs."""
    bins = depth.shape[1]
    out = depth
    for behind in range(1, min(fill.shape[1], bins - 1) + 1):
        share = depth[:, : bins - behind] * fill[:, behind - 1, None]
        out = out + F.pad(share, (0, 0, 0, 0, behind, 0))
    return out
