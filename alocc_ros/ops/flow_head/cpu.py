# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Velocities on a CPU: a few thousand voxels at a time stay in the cache."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from alocc_ros.ops.flow_head.neighbourhood import gather_neighbourhoods
from alocc_ros.ops.flow_head.reference import FLOW_BINS, SparseFlowArguments, bin_values

_VOXELS = 4096
# Where one voxel in so many is asked for, or fewer, each is looked at by itself.
_FEW = 32


def dense_flow(
    deep: Tensor,
    shared: Tensor,
    bias: Tensor | None,
    matrix1: Tensor,
    offset1: Tensor,
    matrix2: Tensor,
    offset2: Tensor,
) -> Tensor:
    """See ``dense_flow`` in ``flow_head``."""
    batch, y_size, x_size, z_size, _ = deep.shape
    values = bin_values(deep)
    flow = deep.new_empty(batch, y_size, x_size * z_size, 2)
    if bias is not None:
        shared = (shared.unflatten(3, (3, -1)) + bias).flatten(3)
    rows = max(1, _VOXELS // (x_size * z_size))
    hidden_all = deep.new_empty(rows * x_size * z_size, len(offset1))
    logits_all = deep.new_empty(rows * x_size * z_size, len(offset2))
    for b in range(batch):
        inside, bottom, top = shared[b].chunk(3, -1)  # each [Y, X, V]
        for y in range(0, y_size, rows):
            block = deep[b, y : y + rows].clone()
            block[:, :, 1:-1] += inside[y : y + rows, :, None]
            block[:, :, 0] += bottom[y : y + rows]
            block[:, :, -1] += top[y : y + rows]
            features = block.relu_().flatten(0, 2)
            hidden, logits = hidden_all[: len(features)], logits_all[: len(features)]
            torch.addmm(offset1, features, matrix1, out=hidden).relu_()
            torch.addmm(offset2, hidden, matrix2, out=logits)
            share = torch.softmax(logits.view(-1, FLOW_BINS), -1)
            flow[b, y : y + rows] = (share @ values).view(-1, x_size * z_size, 2)
    return flow.view(batch, y_size, x_size, z_size, 2)


def sparse_flow(*arguments: Any) -> tuple[Tensor, Tensor]:
    """See ``sparse_flow`` in ``flow_head``. Only the voxels that are there are worked on, a few
    thousand at a time; where they are many, the first convolution is that of the whole volume.
    """
    a = SparseFlowArguments(*arguments)
    batch, y_size, x_size, z_size = a.where.shape
    values = bin_values(a.cost)
    flow = a.cost.new_zeros(batch, z_size * y_size * x_size, 2)
    overflow = torch.zeros(batch, dtype=torch.int64)
    for b in range(batch):
        found = a.where[b].permute(2, 0, 1).flatten().nonzero()[:, 0]
        overflow[b] = max(0, len(found) - a.capacity)
        many = len(found) * _FEW > flow.shape[1]
        everywhere = _convolved(a, b) if many else None  # [Z * Y * X, V]
        for some in found[: a.capacity].split(_VOXELS):
            if everywhere is None:
                patches = gather_neighbourhoods(a.cost[b], a.voxels[b].permute(0, 3, 1, 2), some)
                features = torch.addmm(a.post_bias, patches, a.post_weight)
            else:
                features = everywhere[some]
            features = features.relu_()
            hidden = torch.addmm(a.offset1, features, a.matrix1).relu_()
            logits = torch.addmm(a.offset2, hidden, a.matrix2).view(-1, 2, FLOW_BINS)
            flow[b, some] = torch.softmax(logits, -1) @ values
    flow = flow.view(batch, z_size, y_size, x_size, 2)
    return flow.permute(0, 2, 3, 1, 4).contiguous(), overflow


def _convolved(a: SparseFlowArguments, b: int) -> Tensor:  # [Z * Y * X, V]
    """The first convolution everywhere; the cost is not repeated over z, see ``flow_head``."""
    width = a.cost.shape[1]
    weight = a.post_weight.T.unflatten(1, (-1, 3, 3, 3))  # [V, 24 + V, 3, 3, 3]
    flat = weight[:, :width]
    parts = torch.cat([flat.sum(-1), flat[..., 1:].sum(-1), flat[..., :2].sum(-1)])
    shared = F.conv2d(a.cost[b][None], parts, a.post_bias.repeat(3), padding=1)
    inside, bottom, top = shared[0].permute(1, 2, 0).chunk(3, -1)  # each [Y, X, V]
    deep = F.conv3d(a.voxels[b][None], weight[:, width:], padding=1)[0]
    rising = deep.permute(3, 1, 2, 0).contiguous()  # [Z, Y, X, V]
    rising[1:-1] += inside
    rising[0] += bottom
    rising[-1] += top
    return rising.flatten(0, 2)
