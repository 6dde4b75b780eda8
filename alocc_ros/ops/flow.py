# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Voxel features and flow cost to velocities (spec section 11, items 6 to 9)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alocc_ros.ops.conv import conv_bn
from alocc_ros.ops.derived import derived, frozen_conv
from alocc_ros.ops.mode import fast

# Velocity bins: -22.0, -21.5, ... 21.5 m/s, used as values as they stand.
FLOW_BINS = 88
FLOW_START, FLOW_STEP = -22.0, 0.5
# Where one voxel in so many is asked for, or fewer, each is looked at by itself.
_FEW = 32


def bin_values(like: Tensor) -> Tensor:  # [FLOW_BINS] m/s
    """The velocity that each bin stands for."""
    return FLOW_START + FLOW_STEP * torch.arange(FLOW_BINS, dtype=like.dtype, device=like.device)


def decode_flow_twin(
    cost: Tensor,  # [1, 24, Y, X] matching feature, the same at every height
    voxels: Tensor,  # [1, V, Y, X, Z]
    post_conv: nn.Conv3d,  # 3x3x3, 24 + V -> V
    predict: nn.Sequential,  # 1x1x1 V -> 2V, ReLU, 1x1x1 2V -> 2 * bins
    where: Tensor | None = None,  # [Y, X, Z] bool; elsewhere the flow is 0
) -> Tensor:  # [Y, X, Z, 2] m/s
    """Repeat the cost over z, convolve, and take the expected bin of each component."""
    z_size = voxels.shape[-1]
    x = torch.cat([cost[..., None].expand(-1, -1, -1, -1, z_size), voxels], 1)
    x = F.relu(post_conv(x))
    logits = predict(x)  # channel = 2 * bin + component
    share = torch.softmax(logits.unflatten(1, (FLOW_BINS, 2)), 1)
    flow = torch.einsum("bkcyxz,k->byxzc", share, bin_values(logits))[0]
    return flow if where is None else flow * where[..., None]


def decode_flow(
    cost: Tensor,  # [1, 24, Y, X]
    voxels: Tensor,  # [1, V, Y, X, Z]
    post_conv: nn.Conv3d,
    predict: nn.Sequential,
    where: Tensor | None = None,  # [Y, X, Z] bool
) -> Tensor:  # [Y, X, Z, 2] m/s
    """The same without repeating the cost or storing 176 logits a voxel.

    A 3x3x3 convolution of a map that does not change with z is a 3x3 convolution with
    the kernel summed over z; only at the bottom and the top is one of the three taps outside.
    """
    if not fast():
        return decode_flow_twin(cost, voxels, post_conv, predict, where)
    if where is not None and _FEW * int(where.sum()) <= where.numel():
        wanted = where.permute(2, 0, 1)  # heights first
        rising = voxels.permute(0, 1, 4, 2, 3)
        logits = few_flow_logits(cost, rising, wanted[None], post_conv, predict)
        flow = voxels.new_zeros(*wanted.shape, 2)
        flow[wanted] = torch.einsum("mkc,k->mc", torch.softmax(logits, 1), bin_values(logits))
        return flow.permute(1, 2, 0, 3).contiguous()
    channels = cost.shape[1]
    sources = (post_conv.weight, post_conv.bias)
    flat_conv, deep_conv = derived(post_conv, sources, "split", lambda: _split(post_conv, channels))
    shared = F.conv2d(cost, *flat_conv, padding=1)
    inside, bottom, top = shared[0].permute(1, 2, 0).chunk(3, -1)  # each [Y, X, V]
    x = conv_bn(voxels, deep_conv)[0].permute(1, 2, 3, 0)  # [Y, X, Z, V]
    y_size, x_size, z_size, _ = x.shape

    first, last = predict[0], predict[2]
    matrix1 = first.weight.flatten(1).T
    # Component-major, so that each component's bins lie side by side for the softmax.
    matrix2 = last.weight.flatten(1).unflatten(0, (FLOW_BINS, 2)).transpose(0, 1).flatten(0, 1).T
    offset2 = last.bias.unflatten(0, (FLOW_BINS, 2)).T.flatten()
    matrix1, matrix2 = matrix1.contiguous(), matrix2.contiguous()
    values = bin_values(x)
    flow = x.new_zeros(y_size * x_size * z_size, 2)
    rows = max(1, 4096 // (x_size * z_size))  # a few thousand voxels stay in cache
    scratch = [x.new_empty(rows * x_size * z_size, n) for n in (len(first.bias), len(offset2))]
    for y in range(0, y_size, rows):
        block = x[y : y + rows]
        block[:, :, 1:-1] += inside[y : y + rows, :, None]
        block[:, :, 0] += bottom[y : y + rows]
        block[:, :, -1] += top[y : y + rows]
        features = block.relu_().flatten(0, 2)
        here = flow[y * x_size * z_size :][: len(features)]
        if where is not None:
            wanted = where[y : y + rows].flatten()
            features = features[wanted]
        hidden, logits = (s[: len(features)] for s in scratch)
        torch.addmm(first.bias, features, matrix1, out=hidden).relu_()
        torch.addmm(offset2, hidden, matrix2, out=logits)
        share = torch.softmax(logits.view(-1, FLOW_BINS), -1)
        answer = (share @ values).view(-1, 2)
        if where is None:
            here.copy_(answer)
        else:
            here[wanted] = answer
    return flow.view(y_size, x_size, z_size, 2)


def few_flow_logits(
    cost: Tensor,  # [B, 24, Y, X]
    voxels: Tensor,  # [B, V, Z, Y, X], in any order in memory
    where: Tensor,  # [B, Z, Y, X] bool, true of M voxels
    post_conv: nn.Conv3d,
    predict: nn.Sequential,
) -> Tensor:  # [M, FLOW_BINS, 2]
    """The velocity bins of some voxels as ``decode_flow_twin`` has them; with gradients."""
    patches = neighbourhoods(voxels, cost, where)
    features = F.relu(F.linear(patches, post_conv.weight.flatten(1), post_conv.bias))
    # As matrices: a convolution of no voxels at all is an error.
    first, last = predict[0], predict[2]
    hidden = F.relu(F.linear(features, first.weight.flatten(1), first.bias))
    return F.linear(hidden, last.weight.flatten(1), last.bias).unflatten(1, (FLOW_BINS, 2))


def neighbourhoods(
    voxels: Tensor,  # [B, V, Z, Y, X]
    cost: Tensor,  # [B, W, Y, X], the same at every height
    where: Tensor,  # [B, Z, Y, X] bool, true of M voxels
) -> Tensor:  # [M, (W + V) * 27]
    """What a 3x3x3 convolution of cost and voxels over (Y, X, Z) looks at, in the order of its
    weights; zero outside.
    """
    offset = torch.arange(-1, 2, device=voxels.device)
    dy, dx, dz = torch.cartesian_prod(offset, offset, offset).unbind(1)  # [27] each
    samples = []
    for volume, flat, wanted in zip(voxels, cost, where, strict=True):
        at = [
            c[:, None] + d for c, d in zip(wanted.nonzero(as_tuple=True), (dz, dy, dx), strict=True)
        ]
        inside = torch.ones_like(at[0], dtype=torch.bool)  # [M, 27]
        for index, size in zip(at, wanted.shape, strict=True):
            inside &= (index >= 0) & (index < size)
            index.clamp_(0, size - 1)
        around = torch.cat([_columns(flat, at[1:]), _columns(volume, at)])  # [W + V, M, 27]
        samples.append((around * inside).permute(1, 0, 2).flatten(1))
    return torch.cat(samples)


def _columns(values: Tensor, index: Sequence[Tensor]) -> Tensor:  # [V, *sizes] -> [V, M, 27]
    """``values[:, *index]``, with a gradient that does not depend on what thread comes first: that
    of an index adds up as threads please.
    """
    if not (torch.is_grad_enabled() and values.requires_grad):
        return values[(slice(None), *index)]
    place = torch.zeros_like(index[0])
    for size, i in zip(values.shape[1:], index, strict=True):
        place = place * size + i
    rows = values.flatten(1).gather(1, place.flatten().expand(len(values), -1))
    return rows.unflatten(1, place.shape)


def _split(post_conv: nn.Conv3d, channels: int) -> tuple[tuple[Tensor, Tensor], nn.Module]:
    """The convolution as one of the flat cost (weight, bias) and one of the voxels.

    The first has three results a channel: inside the volume, at its bottom, at its top.
    """
    flat = post_conv.weight[:, :channels]  # [V, 24, 3, 3, 3]
    parts = [flat.sum(-1), flat[..., 1:].sum(-1), flat[..., :2].sum(-1)]
    weight = torch.cat(parts).contiguous(memory_format=torch.channels_last)
    deep = frozen_conv(post_conv, post_conv.weight[:, channels:], None)
    return (weight, post_conv.bias.repeat(3)), deep
