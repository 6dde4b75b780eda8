# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Lifting on a GPU in one order of summation: two runs give the same bits.

Every point, side copies too, is listed under each node that it reaches; a stable sort brings each
node's list together, in the order of the points. Lists are cut into pieces of ``PIECE``, so that a
node near the vehicle, which thousands of points reach, does not keep one program busy long after
all others: pieces are summed side by side, then the pieces of a node one after the other. All sizes
are static and nothing is read back, so a call can be captured in a CUDA graph; it takes a sort of
some millions of numbers and a few hundred MB, where ``lift`` takes atomics.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from alocc_ros.ops.lift.reference import LiftArguments
from alocc_ros.ops.lift.triton import place, published, records, volume_size
from alocc_ros.ops.triton_common import Launch, blocks, power_of_2, run

PIECE = 32


def lift_deterministic(*arguments: Any) -> Tensor:
    """As ``lift`` (triton.py), and the same bits in every run on the same machine."""
    a = LiftArguments(*arguments)
    keys, shares = records(a)
    corners = _corners(a)
    rows = torch.empty((keys.numel(), corners), dtype=torch.int32, device=keys.device)
    weights = torch.empty(rows.shape, dtype=torch.float32, device=keys.device)
    run([place(a, keys, shares, None), _list(a, keys, shares, rows, weights)])
    rows, order = torch.sort(rows.flatten(), stable=True)
    nodes = a.samples * a.size[0] * a.size[1] * a.size[2]
    every = torch.arange(nodes + 1, dtype=torch.int32, device=keys.device)
    begin = torch.searchsorted(rows, every, out_int32=True)  # what reaches no node comes last
    count = begin[1:] - begin[:-1]
    pieces = (count + PIECE - 1) // PIECE
    last = torch.cumsum(pieces, 0, dtype=torch.int32)  # the piece behind each node's
    most = min(nodes, rows.numel()) + rows.numel() // PIECE
    # The node of each piece; behind the last piece it is ``nodes``.
    piece = torch.arange(most, dtype=torch.int32, device=keys.device)
    owner = torch.searchsorted(last, piece, right=True, out_int32=True)
    sums = torch.empty((most, a.context.shape[1]), dtype=torch.float32, device=keys.device)
    out = torch.empty(volume_size(a), dtype=a.context.dtype, device=keys.device)
    run(_sum_launches(a, keys, (order, weights, owner, begin, pieces, last, sums), out))
    return out.permute(0, 4, 1, 2, 3)


def signatures(data: torch.dtype = torch.float16) -> dict[str, Launch]:
    """By name, the kernels that the published networks start besides those of triton.py."""
    a = published("3d", data)
    keys, shares = records(a)
    nodes, corners = a.size[0] * a.size[1] * a.size[2], _corners(a)
    rows = torch.empty((keys.numel(), corners), dtype=torch.int32, device="meta")
    weights, order = torch.empty(rows.shape, device="meta"), rows.long()
    most = nodes + rows.numel() // PIECE
    owner = torch.empty(most, dtype=torch.int32, device="meta")
    begin = torch.empty(nodes + 1, dtype=torch.int32, device="meta")
    sums = torch.empty((most, a.context.shape[1]), device="meta")
    out = torch.empty(volume_size(a), dtype=data, device="meta")
    tables = (order, weights, owner, begin, begin, begin, sums)
    kernels = (_list(a, keys, shares, rows, weights), *_sum_launches(a, keys, tables, out))
    return {f"lift_deterministic, 3d, {k.kernel.__name__.strip('_')}": k for k in kernels}


def _corners(a: LiftArguments) -> int:
    return 4 if a.size[2] == 1 else 8


def _list(a: LiftArguments, keys: Tensor, shares: Tensor, rows: Tensor, weights: Tensor) -> Launch:
    points, block = keys.numel(), 128
    return Launch(
        _pairs,
        (blocks(points, block),),
        (keys, shares, rows, weights, points, points // a.samples),
        {"X": a.size[0], "Y": a.size[1], "Z": a.size[2], "S": a.samples, "Q": _corners(a)}
        | {"B": block},
    )


def _sum_launches(
    a: LiftArguments, keys: Tensor, tables: tuple[Tensor, ...], out: Tensor
) -> list[Launch]:
    order, weights, owner, begin, pieces, last, sums = tables
    _, w, h, points = keys.shape
    channels = a.context.shape[1]
    sizes = {"C": channels, "CP": power_of_2(channels, 16)}
    nodes = begin.numel() - 1
    return [
        Launch(
            _sum_pieces,
            (blocks(len(owner), 4),),
            (order, weights, owner, begin, last, pieces, a.context, sums, len(owner), nodes, w, h)
            + a.context.stride(),
            sizes | {"K": points, "Q": _corners(a), "PIECE": PIECE, "B": 4},
        ),
        Launch(
            _sum_nodes,
            (blocks(nodes, 8),),
            (sums, last, pieces, out, nodes),
            sizes | {"B": 8},
        ),
    ]


@triton.jit
def _pairs(
    keys, shares, rows, weights, count, count_of_sample,
    X: tl.constexpr, Y: tl.constexpr, Z: tl.constexpr, S: tl.constexpr, Q: tl.constexpr,
    B: tl.constexpr,
):  # fmt: skip
    """The nodes of each point, and its weights in them; ``S * Y * X * Z`` is none."""
    point = tl.program_id(0) * B + tl.arange(0, B)
    here = point < count
    key = tl.load(keys + point, mask=here, other=-1)
    live = key >= 0
    mass = tl.load(shares + point, mask=live, other=0.0)
    right = tl.load(shares + count + point, mask=live, other=0.0)
    down = tl.load(shares + 2 * count + point, mask=live, other=0.0)
    z0 = key % (Z + 1) - 1
    x0, y0 = key // (Z + 1) % (X + 1) - 1, key // ((Z + 1) * (X + 1)) - 1
    sample = point // count_of_sample
    for q in tl.static_range(Q):
        x, y = x0 + q % 2, y0 + q // 2 % 2
        weight = mass * (down if q // 2 % 2 else 1 - down) * (right if q % 2 else 1 - right)
        inside = live & (x >= 0) & (x < X) & (y >= 0) & (y < Y)
        if Q == 8:
            up = tl.load(shares + 3 * count + point, mask=live, other=0.0)
            z = z0 + q // 4
            inside = inside & (z >= 0) & (z < Z)
            weight *= up if q // 4 else 1 - up
        else:
            z = tl.zeros_like(x)
        row = ((sample * Y + y) * X + x) * Z + z
        at = point * Q + q
        tl.store(rows + at, tl.where(inside, row, S * Y * X * Z), mask=here)
        tl.store(weights + at, weight, mask=here)


@triton.jit
def _sum_pieces(
    order, weights, owner, begin, last, pieces, context, sums, count, nodes, w, h,
    context_n, context_c, context_y, context_x,
    C: tl.constexpr, CP: tl.constexpr, K: tl.constexpr, Q: tl.constexpr, PIECE: tl.constexpr,
    B: tl.constexpr,
):  # fmt: skip
    """Each piece of a node's list."""
    piece = tl.program_id(0) * B + tl.arange(0, B)
    node = tl.load(owner + piece, mask=piece < count, other=nodes)
    live = node < nodes
    number = piece - tl.load(last + node, mask=live, other=0)
    number += tl.load(pieces + node, mask=live, other=0)  # of the node's own
    first = tl.load(begin + node, mask=live, other=0) + number * PIECE
    stop = tl.minimum(first + PIECE, tl.load(begin + node + 1, mask=live, other=0))
    channel = tl.arange(0, CP)
    total = tl.zeros((B, CP), tl.float32)
    for i in range(PIECE):
        there = live & (first + i < stop)
        pair = tl.load(order + first + i, mask=there, other=0)
        weight = tl.load(weights + pair, mask=there, other=0.0)
        pixel = pair // (Q * K)
        y, x, n = pixel % h, pixel // h % w, pixel // (h * w)
        row = context + n * context_n + y * context_y + x * context_x
        feature = tl.load(
            row[:, None] + (channel * context_c)[None, :],
            mask=there[:, None] & (channel < C)[None, :],
            other=0.0,
        )
        total += weight[:, None] * feature.to(tl.float32)
    at = sums + piece.to(tl.int64)[:, None] * C + channel[None, :]
    tl.store(at, total, mask=live[:, None] & (channel < C)[None, :])


@triton.jit
def _sum_nodes(
    sums, last, pieces, out, nodes, C: tl.constexpr, CP: tl.constexpr, B: tl.constexpr
):  # fmt: skip
    """Each node's pieces, first to last."""
    node = tl.program_id(0) * B + tl.arange(0, B)
    here = node < nodes
    number = tl.load(pieces + node, mask=here, other=0)
    first = (tl.load(last + node, mask=here, other=0) - number).to(tl.int64)
    channel = tl.arange(0, CP)
    real = (channel < C)[None, :]
    total = tl.zeros((B, CP), tl.float32)
    for i in range(tl.max(number)):
        at = sums + (first + i)[:, None] * C + channel[None, :]
        total += tl.load(at, mask=(i < number)[:, None] & real, other=0.0)
    at = out + node.to(tl.int64)[:, None] * C + channel[None, :]
    tl.store(at, total.to(out.dtype.element_ty), mask=here[:, None] & real)
