# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Voxel features and flow cost to velocities (docs/network.md section 11, items 6 to 9).

A 3x3x3 convolution of a map that does not change with z is a 3x3 convolution with the kernel summed
over z; only at the bottom and the top is one of the three taps outside. So the cost is never
repeated over z, and the 176 logits of a voxel are never stored for all voxels.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alocc_ros.ops.flow_head import cpu
from alocc_ros.ops.flow_head.neighbourhood import gather_neighbourhoods
from alocc_ros.ops.flow_head.reference import (
    FLOW_BINS,
    SparseFlowArguments,
    bin_values,
    decode_flow_reference,
)
from alocc_ros.ops.library import fused, operator

__all__ = [
    "FLOW_BINS",
    "decode_flow_reference",
    "dense_flow",
    "flow_logits",
    "gather_neighbourhoods",
    "sparse_flow",
]

# Voxels at a time: 176 logits and as many shares of each are 180 MB.
_AT_ONCE = 1 << 17


def flow_logits(
    cost: Tensor,  # [B, 24, Y, X]
    voxels: Tensor,  # [B, V, Y, X, Z], in any order in memory
    where: Tensor,  # [B, Y, X, Z] bool, true of M voxels
    post_conv: nn.Conv3d,
    predict: nn.Sequential,
) -> Tensor:  # [M, FLOW_BINS, 2], voxels of a sample in order of (z, y, x)
    """Velocity bins of some voxels as ``decode_flow_reference`` has them; for training."""
    patches = []
    for flat, volume, wanted in zip(cost, voxels, where, strict=True):
        index = wanted.permute(2, 0, 1).flatten().nonzero()[:, 0]
        patches.append(gather_neighbourhoods(flat, volume.permute(0, 3, 1, 2), index))
    features = F.relu(F.linear(torch.cat(patches), post_conv.weight.flatten(1), post_conv.bias))
    # As matrices: a convolution of no voxels at all is an error.
    first, last = predict[0], predict[2]
    hidden = F.relu(F.linear(features, first.weight.flatten(1), first.bias))
    return F.linear(hidden, last.weight.flatten(1), last.bias).unflatten(1, (FLOW_BINS, 2))


def _dense(
    deep: Tensor,
    shared: Tensor,
    bias: Tensor | None,
    matrix1: Tensor,
    offset1: Tensor,
    matrix2: Tensor,
    offset2: Tensor,
) -> Tensor:
    z_size, values = deep.shape[3], bin_values(deep)
    inside, bottom, top = shared[:, :, :, None].chunk(3, -1)  # each [B, Y, X, 1, V]
    flat = torch.cat([bottom, inside.expand(-1, -1, -1, z_size - 2, -1), top], 3)
    deep = deep + flat
    features = torch.relu(deep if bias is None else deep + bias).flatten(0, 3)
    answers = []
    for some in features.split(_AT_ONCE):
        hidden = torch.relu(torch.addmm(offset1, some, matrix1))
        logits = torch.addmm(offset2, hidden, matrix2).view(-1, 2, FLOW_BINS)
        answers.append(torch.softmax(logits, -1) @ values)
    return torch.cat(answers).view(*deep.shape[:4], 2)


def _sparse(*arguments: Any) -> tuple[Tensor, Tensor]:
    """Static shapes: the first ``capacity`` voxels are listed by a running count."""
    a = SparseFlowArguments(*arguments)
    batch, y_size, x_size, z_size = a.where.shape
    cells, values = y_size * x_size * z_size, bin_values(a.cost)
    wanted = a.where.permute(0, 3, 1, 2).flatten(1)  # [B, Z * Y * X]
    place = wanted.cumsum(1)
    overflow = (place[:, -1] - a.capacity).clamp(min=0)
    # Cells without a place go to an entry behind the list.
    place = (place - 1).masked_fill(~wanted | (place > a.capacity), a.capacity)
    cell = torch.arange(cells, device=a.where.device).expand(batch, -1)
    listed = place.new_full((batch, a.capacity + 1), cells).scatter(1, place, cell)[:, : a.capacity]
    flows = []
    for b in range(batch):
        index = listed[b]  # entries that are not taken point behind the volume
        around = gather_neighbourhoods(
            a.cost[b], a.voxels[b].permute(0, 3, 1, 2), index.clamp(max=cells - 1)
        )
        features = torch.relu(torch.addmm(a.post_bias, around, a.post_weight))
        hidden = torch.relu(torch.addmm(a.offset1, features, a.matrix1))
        logits = torch.addmm(a.offset2, hidden, a.matrix2).view(-1, 2, FLOW_BINS)
        found = torch.softmax(logits, -1) @ values
        flow = a.cost.new_zeros(cells + 1, 2)
        flows.append(flow.index_copy(0, index, found)[:cells])
    flow = torch.stack(flows).view(batch, z_size, y_size, x_size, 2)
    return flow.permute(0, 2, 3, 1, 4).contiguous(), overflow


# deep [B, Y, X, Z, V], the convolution of the voxels; shared [B, Y, X, 3 * V], that of the cost
# inside the volume, at its bottom, at its top; bias [V], if it is in neither; matrix1 [V, 2V],
# matrix2 [2V, 2 * FLOW_BINS], component-major -> [B, Y, X, Z, 2] m/s.
dense_flow = operator(
    "dense_flow(Tensor deep, Tensor shared, Tensor? bias, Tensor matrix1, Tensor offset1, "
    "Tensor matrix2, Tensor offset2) -> Tensor",
    _dense,
    cpu.dense_flow,
    compiled=False,
)
# SparseFlowArguments -> velocities [B, Y, X, Z, 2] m/s of at most ``capacity`` of the voxels that
# ``where`` names, in order of (z, y, x), 0 elsewhere; and how many there were too many [B] int64.
sparse_flow = operator(
    "sparse_flow(Tensor cost, Tensor voxels, Tensor where, Tensor post_weight, Tensor post_bias, "
    "Tensor matrix1, Tensor offset1, Tensor matrix2, Tensor offset2, int capacity) "
    "-> (Tensor, Tensor)",
    _sparse,
    cpu.sparse_flow,
    compiled=False,
)
fused(dense_flow, "alocc_ros.ops.flow_head.triton:dense_flow", launches=1)
fused(sparse_flow, "alocc_ros.ops.flow_head.triton:sparse_flow", launches=3)
