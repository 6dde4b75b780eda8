# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Velocities on a GPU. The 176 logits of a voxel exist in registers only: the hidden layer is made
a few channels at a time, each at once multiplied into the logits; 88 bins are blocks of 64 and 32.

Where only some voxels are asked for, they are listed in order: counted by blocks of cells, then
placed behind what earlier blocks found. The work behind follows the list's length, which stays on
the device.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from alocc_ros.ops.flow_head.reference import (
    FLOW_BINS,
    FLOW_START,
    FLOW_STEP,
    SparseFlowArguments,
)
from alocc_ros.ops.triton_common import Launch, blocks, power_of_2, relu, run

# Cells that one program counts and places.
_CELLS = 1024
# Voxels that one program gives a velocity; float32 takes more registers.
_VOXELS = {2: 64, 4: 32}  # by bytes of a number
_LISTED_VOXELS = {2: 64, 4: 16}


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
    flow = deep.new_empty(*deep.shape[:4], 2)
    layers = (matrix1, offset1, matrix2, offset2)
    run(_dense_launches(deep.contiguous(), shared.contiguous(), bias, *layers, flow))
    return flow


def sparse_flow(*arguments: Any) -> tuple[Tensor, Tensor]:
    """See ``sparse_flow`` in ``flow_head``."""
    a = SparseFlowArguments(*arguments)
    batch, cells = len(a.where), a.where[0].numel()
    flow = a.cost.new_empty(*a.where.shape, 2)
    overflow = a.where.new_empty(batch, dtype=torch.int64)
    counts = a.where.new_empty(batch, blocks(cells, _CELLS), dtype=torch.int32)
    listed = a.where.new_empty(batch, a.capacity + 1, dtype=torch.int32)
    run(_sparse_launches(a, flow, overflow, counts, listed))
    return flow, overflow


def signatures(data: torch.dtype = torch.float16) -> dict[str, Launch]:
    """By name, the kernels that the published networks and ``alocc_tiny`` start."""

    def empty(*shape: int, dtype: torch.dtype = data) -> Tensor:
        return torch.empty(shape, dtype=dtype, device="meta")

    def layers(v: int) -> tuple[Tensor, ...]:
        real = torch.float32
        return (
            *(empty(v, 2 * v), empty(2 * v, dtype=real)),
            *(empty(2 * v, 2 * FLOW_BINS), empty(2 * FLOW_BINS, dtype=real)),
        )

    cells = (1, 200, 200, 16)
    deep, shared, flow = empty(*cells, 48), empty(1, 200, 200, 144), empty(*cells, 2)
    voxels = empty(*cells, 16).permute(0, 4, 1, 2, 3)
    where = empty(*cells, dtype=torch.bool).transpose(1, 2)  # X before Y in memory, as labels lie
    bias = empty(16, dtype=torch.float32)
    cost = empty(1, 24, 200, 200).contiguous(memory_format=torch.channels_last)
    a = SparseFlowArguments(
        cost, voxels, where, empty(40 * 27, 16), bias, *layers(16), capacity=80_000
    )
    counts, places = (empty(1, n, dtype=torch.int32) for n in (625, 80_001))
    sparse = _sparse_launches(a, flow, empty(1, dtype=torch.int64), counts, places)
    names = (f"sparse_flow, 16, {step}" for step in ("count", "place", "head"))
    return {
        "dense_flow, 48": _dense_launches(deep, shared, empty(48), *layers(48), flow)[0],
        **dict(zip(names, sparse, strict=True)),
    }


def _layer_constants(voxel_channels: int, hidden: int) -> dict[str, Any]:
    return {
        "V": voxel_channels,
        "VB": power_of_2(voxel_channels, 16),
        "HIDDEN": hidden,
        "STEP": 32 if hidden % 32 == 0 else 16,
        "BINS": FLOW_BINS,
        "START": FLOW_START,
        "WIDTH": FLOW_STEP,
    }


def _dense_launches(
    deep: Tensor,
    shared: Tensor,
    bias: Tensor | None,
    matrix1: Tensor,
    offset1: Tensor,
    matrix2: Tensor,
    offset2: Tensor,
    flow: Tensor,
) -> list[Launch]:
    z_size, width = deep.shape[3:]
    count = deep[..., 0].numel()
    constants = _layer_constants(width, len(offset1))
    constants |= {"Z": z_size, "P": _VOXELS[deep.element_size()], "BIAS": bias is not None}
    arguments = (
        deep,
        shared,
        shared if bias is None else bias,
        matrix1,
        offset1,
        matrix2,
        offset2,
        flow,
        count,
    )
    arguments += (*matrix1.stride(), *matrix2.stride())
    return [Launch(dense_kernel, (blocks(count, constants["P"]),), arguments, constants, stages=2)]


def _sparse_launches(
    a: SparseFlowArguments, flow: Tensor, overflow: Tensor, counts: Tensor, listed: Tensor
) -> list[Launch]:
    batch, y_size, x_size, z_size = a.where.shape
    where = a.where.view(torch.uint8)
    sizes = {"Y": y_size, "X": x_size, "Z": z_size}
    grid = (counts.shape[1], batch)
    common = {"CELLS": _CELLS, **sizes}
    size = {"CAPACITY": a.capacity, **sizes}
    constants = _layer_constants(len(a.post_bias), len(a.offset1)) | size
    constants |= {"W": a.cost.shape[1], "WB": power_of_2(a.cost.shape[1], 16)}
    constants |= {"P": _LISTED_VOXELS[a.cost.element_size()]}
    arguments = (a.cost, a.voxels, listed, a.post_weight, a.post_bias)
    arguments += (a.matrix1, a.offset1, a.matrix2, a.offset2, flow)
    arguments += (*a.cost.stride(), *a.voxels.stride(), *a.post_weight.stride())
    arguments += (*a.matrix1.stride(), *a.matrix2.stride())
    return [
        Launch(count_kernel, grid, (where, counts, *where.stride()), common),
        Launch(
            place_kernel,
            grid,
            (where, counts, listed, flow, overflow, *where.stride()),
            {**common, **size, "BLOCKS": counts.shape[1], "BB": power_of_2(counts.shape[1])},
        ),
        Launch(
            sparse_kernel,
            (blocks(a.capacity, constants["P"]), batch),
            arguments,
            constants,
            stages=2,
        ),
    ]


@triton.jit
def _bins(
    hidden, matrix2, channel, matrix2_k, matrix2_n,
    FIRST: tl.constexpr, COUNT: tl.constexpr, LAST: tl.constexpr, HIDDEN: tl.constexpr,
):  # fmt: skip
    """What some channels of the hidden layer add to columns FIRST.. of the logits."""
    n = FIRST + tl.arange(0, COUNT)
    weight = tl.load(
        matrix2 + channel[:, None] * matrix2_k + n[None, :] * matrix2_n,
        mask=(channel < HIDDEN)[:, None] & (n < LAST)[None, :],
        other=0.0,
    )
    return tl.dot(hidden, weight.to(hidden.dtype), input_precision="ieee")


@triton.jit
def _expected(
    low, high, offset2,
    FIRST: tl.constexpr, BINS: tl.constexpr, START: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Mean bin under the softmax of logits of bins 0..63 and 64.. ."""
    n, m = tl.arange(0, 64), 64 + tl.arange(0, 32)
    low += tl.load(offset2 + FIRST + n).to(tl.float32)[None, :]
    high += tl.load(offset2 + FIRST + m, mask=m < BINS, other=0.0).to(tl.float32)[None, :]
    high = tl.where((m < BINS)[None, :], high, float("-inf"))
    most = tl.maximum(tl.max(low, 1), tl.max(high, 1))[:, None]
    low, high = tl.exp(low - most), tl.exp(high - most)
    mean = tl.sum(low * (START + WIDTH * n)[None, :], 1)
    mean += tl.sum(high * (START + WIDTH * m)[None, :], 1)
    return mean / (tl.sum(low, 1) + tl.sum(high, 1))


@triton.jit
def _velocities(
    features, matrix1, offset1, matrix2, offset2, matrix1_k, matrix1_n, matrix2_k, matrix2_n,
    V: tl.constexpr, VB: tl.constexpr, HIDDEN: tl.constexpr, STEP: tl.constexpr,
    BINS: tl.constexpr, START: tl.constexpr, WIDTH: tl.constexpr, P: tl.constexpr,
):  # fmt: skip
    """Features [P, VB] behind their ReLU -> both components, [P] each."""
    tl.static_assert(BINS > 64 and BINS <= 96)
    v = tl.arange(0, VB)
    low0, high0 = tl.zeros((P, 64), tl.float32), tl.zeros((P, 32), tl.float32)
    low1, high1 = tl.zeros((P, 64), tl.float32), tl.zeros((P, 32), tl.float32)
    for start in range(0, HIDDEN, STEP):
        h = start + tl.arange(0, STEP)
        weight = tl.load(
            matrix1 + v[:, None] * matrix1_k + h[None, :] * matrix1_n,
            mask=(v < V)[:, None] & (h < HIDDEN)[None, :],
            other=0.0,
        ).to(features.dtype)
        hidden = tl.dot(features, weight, input_precision="ieee")
        hidden += tl.load(offset1 + h, mask=h < HIDDEN, other=0.0).to(tl.float32)[None, :]
        hidden = relu(hidden).to(features.dtype)
        low0 += _bins(hidden, matrix2, h, matrix2_k, matrix2_n, 0, 64, BINS, HIDDEN)
        high0 += _bins(hidden, matrix2, h, matrix2_k, matrix2_n, 64, 32, BINS, HIDDEN)
        low1 += _bins(hidden, matrix2, h, matrix2_k, matrix2_n, BINS, 64, 2 * BINS, HIDDEN)
        high1 += _bins(hidden, matrix2, h, matrix2_k, matrix2_n, BINS + 64, 32, 2 * BINS, HIDDEN)
    first = _expected(low0, high0, offset2, 0, BINS, START, WIDTH)
    return first, _expected(low1, high1, offset2, BINS, BINS, START, WIDTH)


@triton.jit
def dense_kernel(
    deep, shared, bias, matrix1, offset1, matrix2, offset2, flow, count,
    matrix1_k, matrix1_n, matrix2_k, matrix2_n,
    V: tl.constexpr,  # voxel channels
    VB: tl.constexpr,  # power of two, at least V
    HIDDEN: tl.constexpr,  # channels of the hidden layer
    STEP: tl.constexpr,  # of them at a time
    BINS: tl.constexpr,
    START: tl.constexpr,  # m/s, of the first bin
    WIDTH: tl.constexpr,  # m/s from bin to bin
    P: tl.constexpr,  # voxels of a program
    Z: tl.constexpr,
    BIAS: tl.constexpr,
):  # fmt: skip
    """Deep [count, V] with z innermost, shared [count / Z, 3 * V]; grid (blocks of voxels,)."""
    voxel, v = tl.program_id(0) * P + tl.arange(0, P), tl.arange(0, VB)
    live = voxel < count
    there = live[:, None] & (v < V)[None, :]
    z, wide = voxel % Z, voxel.to(tl.int64)
    part = tl.where(z == 0, 1, tl.where(z == Z - 1, 2, 0))  # bottom, top, inside
    value = tl.load(deep + wide[:, None] * V + v, mask=there, other=0.0).to(tl.float32)
    column = (wide // Z * (3 * V) + part * V)[:, None] + v
    value += tl.load(shared + column, mask=there, other=0.0).to(tl.float32)
    if BIAS:
        value += tl.load(bias + v, mask=v < V, other=0.0).to(tl.float32)[None, :]
    features = relu(value).to(deep.dtype.element_ty)
    first, second = _velocities(
        features, matrix1, offset1, matrix2, offset2, matrix1_k, matrix1_n, matrix2_k, matrix2_n,
        V, VB, HIDDEN, STEP, BINS, START, WIDTH, P,
    )  # fmt: skip
    tl.store(flow + wide * 2, first.to(flow.dtype.element_ty), mask=live)
    tl.store(flow + wide * 2 + 1, second.to(flow.dtype.element_ty), mask=live)


@triton.jit
def _wanted(
    where, cell, along_y, along_x, along_z, Y: tl.constexpr, X: tl.constexpr, Z: tl.constexpr
):
    """Whether cells, counted in order of (z, y, x), are asked for."""
    z, y, x = cell // (Y * X), cell // X % Y, cell % X
    place = where + y * along_y + x * along_x + z * along_z
    return tl.load(place, mask=cell < Y * X * Z, other=0).to(tl.int32)


@triton.jit
def count_kernel(
    where, counts, where_n, where_y, where_x, where_z,
    CELLS: tl.constexpr,  # of a program
    Y: tl.constexpr, X: tl.constexpr, Z: tl.constexpr,
):  # fmt: skip
    """Where [B, Y, X, Z], counts [B, blocks]; grid (blocks of cells, B)."""
    block, sample = tl.program_id(0), tl.program_id(1).to(tl.int64)
    cell = block * CELLS + tl.arange(0, CELLS)
    wanted = _wanted(where + sample * where_n, cell, where_y, where_x, where_z, Y, X, Z)
    tl.store(counts + sample * tl.num_programs(0) + block, tl.sum(wanted, 0))


@triton.jit
def place_kernel(
    where, counts, listed, flow, overflow, where_n, where_y, where_x, where_z,
    CELLS: tl.constexpr,
    Y: tl.constexpr, X: tl.constexpr, Z: tl.constexpr,
    CAPACITY: tl.constexpr,
    BLOCKS: tl.constexpr,
    BB: tl.constexpr,  # power of two, at least BLOCKS
):  # fmt: skip
    """Listed [B, 1 + CAPACITY]: how many, then the cells; flow [B, Y, X, Z, 2] becomes zero."""
    block, sample = tl.program_id(0), tl.program_id(1).to(tl.int64)
    cell = block * CELLS + tl.arange(0, CELLS)
    wanted = _wanted(where + sample * where_n, cell, where_y, where_x, where_z, Y, X, Z)
    place = cell % (Y * X) * Z + cell // (Y * X)
    number = tl.arange(0, BB)
    count = tl.load(counts + sample * BLOCKS + number, mask=number < BLOCKS, other=0)
    before = tl.sum(tl.where(number < block, count, 0), 0)
    rank = before + tl.cumsum(wanted, 0) - wanted
    listed += sample * (1 + CAPACITY)
    tl.store(listed + 1 + rank, cell, mask=(wanted != 0) & (rank < CAPACITY))
    here = flow + (sample * (Y * X * Z) + place) * 2
    none = tl.zeros((CELLS,), flow.dtype.element_ty)
    tl.store(here, none, mask=cell < Y * X * Z)
    tl.store(here + 1, none, mask=cell < Y * X * Z)
    if block == 0:
        total = tl.sum(count, 0)
        tl.store(listed, tl.minimum(total, CAPACITY))
        tl.store(overflow + sample, tl.maximum(total - CAPACITY, 0).to(tl.int64))


@triton.jit
def _tap(
    rows, channel, weight, live, k, n, weight_k, weight_n, dtype,
    FIRST: tl.constexpr, COUNT: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """One tap of the first convolution: rows of COUNT channels times their 27th part of it."""
    there = (k < COUNT)[None, :]
    value = tl.load(rows[:, None] + (k * channel)[None, :], mask=live[:, None] & there, other=0.0)
    row = (FIRST + k * 27) * weight_k
    matrix = tl.load(
        weight + row[:, None] + (n * weight_n)[None, :],
        mask=(k < COUNT)[:, None] & (n < N)[None, :],
        other=0.0,
    )
    return tl.dot(value.to(dtype), matrix.to(dtype), input_precision="ieee")


@triton.jit
def sparse_kernel(
    cost, voxels, listed, post_weight, post_bias, matrix1, offset1, matrix2, offset2, flow,
    cost_n, cost_c, cost_y, cost_x,
    voxels_n, voxels_c, voxels_y, voxels_x, voxels_z,
    weight_k, weight_n, matrix1_k, matrix1_n, matrix2_k, matrix2_n,
    V: tl.constexpr,
    VB: tl.constexpr,
    HIDDEN: tl.constexpr,
    STEP: tl.constexpr,
    BINS: tl.constexpr,
    START: tl.constexpr,
    WIDTH: tl.constexpr,
    P: tl.constexpr,
    CAPACITY: tl.constexpr,
    Y: tl.constexpr, X: tl.constexpr, Z: tl.constexpr,
    W: tl.constexpr,  # channels of the cost
    WB: tl.constexpr,  # power of two, at least W
):  # fmt: skip
    """Velocities of the listed voxels to their places; grid (blocks of the longest list, B)."""
    sample = tl.program_id(1).to(tl.int64)
    listed += sample * (1 + CAPACITY)
    count = tl.load(listed)
    start = tl.program_id(0) * P
    if start < count:
        entry = start + tl.arange(0, P)
        live = entry < count
        cell = tl.load(listed + 1 + entry, mask=live, other=0)
        z, y, x = cell // (Y * X), cell // X % Y, cell % X
        n, w = tl.arange(0, VB), tl.arange(0, WB)
        cost += sample * cost_n
        voxels += sample * voxels_n
        dtype = cost.dtype.element_ty
        features = tl.zeros((P, VB), tl.float32)
        for tap in range(27):
            yy, xx, zz = y + (tap // 9 - 1), x + (tap // 3 % 3 - 1), z + (tap % 3 - 1)
            inside = live & (yy >= 0) & (yy < Y) & (xx >= 0) & (xx < X) & (zz >= 0) & (zz < Z)
            rows = cost + (yy.to(tl.int64) * cost_y + xx * cost_x)
            weight = post_weight + tap * weight_k
            features += _tap(
                rows, cost_c, weight, inside, w, n, weight_k, weight_n, dtype, 0, W, V
            )  # fmt: skip
            rows = voxels + (yy.to(tl.int64) * voxels_y + xx * voxels_x + zz * voxels_z)
            features += _tap(
                rows, voxels_c, weight, inside, n, n, weight_k, weight_n, dtype, W * 27, V, V
            )  # fmt: skip
        features += tl.load(post_bias + n, mask=n < V, other=0.0).to(tl.float32)[None, :]
        first, second = _velocities(
            relu(features).to(dtype), matrix1, offset1, matrix2, offset2,
            matrix1_k, matrix1_n, matrix2_k, matrix2_n,
            V, VB, HIDDEN, STEP, BINS, START, WIDTH, P,
        )  # fmt: skip
        here = flow + (sample * (Y * X * Z) + (cell % (Y * X)) * Z + z) * 2
        tl.store(here, first.to(flow.dtype.element_ty), mask=live)
        tl.store(here + 1, second.to(flow.dtype.element_ty), mask=live)
