# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Velocities by their definition: repeat the cost over z, convolve, take the expected bin."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Velocity bins: -22.0, -21.5, ... 21.5 m/s, used as values as they stand.
FLOW_BINS = 88
FLOW_START, FLOW_STEP = -22.0, 0.5


class SparseFlowArguments(NamedTuple):
    """What both forms of ``sparse_flow`` take: the layers as matrices."""

    cost: Tensor  # [B, 24, Y, X] matching feature
    voxels: Tensor  # [B, V, Y, X, Z]
    where: Tensor  # [B, Y, X, Z] bool
    post_weight: Tensor  # [(24 + V) * 27, V]
    post_bias: Tensor  # [V]
    matrix1: Tensor  # [V, 2V]
    offset1: Tensor  # [2V]
    matrix2: Tensor  # [2V, 2 * FLOW_BINS], component-major
    offset2: Tensor  # [2 * FLOW_BINS]
    capacity: int  # most voxels that get a velocity


def bin_values(like: Tensor) -> Tensor:  # [FLOW_BINS] m/s
    """The velocity that each bin stands for."""
    return FLOW_START + FLOW_STEP * torch.arange(FLOW_BINS, dtype=like.dtype, device=like.device)


def decode_flow_reference(
    cost: Tensor,  # [B, 24, Y, X] matching feature, the same at every height
    voxels: Tensor,  # [B, V, Y, X, Z]
    post_conv: nn.Conv3d,  # 3x3x3, 24 + V -> V
    predict: nn.Sequential,  # 1x1x1 V -> 2V, ReLU, 1x1x1 2V -> 2 * bins
    where: Tensor | None = None,  # [B, Y, X, Z] bool; elsewhere the flow is 0
) -> Tensor:  # [B, Y, X, Z, 2] m/s
    """Expected velocity of each component, (along Y, along X)."""
    z_size = voxels.shape[-1]
    x = torch.cat([cost[..., None].expand(-1, -1, -1, -1, z_size), voxels], 1)
    x = F.relu(post_conv(x))
    logits = predict(x)  # channel = 2 * bin + component
    share = torch.softmax(logits.unflatten(1, (FLOW_BINS, 2)), 1)
    flow = torch.einsum("bkcyxz,k->byxzc", share, bin_values(logits))
    return flow if where is None else flow * where[..., None]
