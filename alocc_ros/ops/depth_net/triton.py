# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""The small steps of the depth network on a GPU.

The cameras' gates are three layers of a few rows: a program has one camera and some channels of one
gate. It makes the hidden layers itself, the second a few channels at a time, each at once
multiplied into the last.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from alocc_ros.ops.triton_common import (
    Launch,
    blocks,
    channels_last,
    power_of_2,
    relu,
    run,
    sigmoid,
)

# Channels of a gate that one program makes, and of the hidden layer at a time.
_GATES, _HIDDEN = 64, 16
# Elements of a block of pixels x channels.
_BLOCK = 2048


def camera_gates(camera: Tensor, *layers: Tensor) -> Tensor:
    """See ``camera_gates_reference``."""
    matrix = layers[0]
    gates = matrix.new_empty(len(matrix), len(camera), matrix.shape[2], 1, 1)
    run(_gates_launches(camera.contiguous(), [t.contiguous() for t in layers], gates))
    return gates


def gate_feature(
    feature: Tensor, first: Tensor, second: Tensor, beside: Tensor | None, bias: Tensor | None
) -> tuple[Tensor, Tensor]:
    """See ``gate_feature_reference``."""
    feature = channels_last(feature)
    n, channels, h, w = feature.shape
    more = 0 if beside is None else beside.shape[1]
    seen = torch.empty_like(feature)
    joined = feature.new_empty(n, h, w, channels + more).permute(0, 3, 1, 2)
    beside = None if beside is None else channels_last(beside)
    gates = first.contiguous(), second.contiguous()
    run(_feature_launches(feature, *gates, beside, bias, seen, joined))
    return seen, joined


def depth_answer(
    logits: Tensor,
    fill: Tensor,
    sides: Tensor | None,
    bins: int,
    weights: int,
    scale: float,
    limit: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See ``depth_answer_reference``."""
    n, _, h, w = logits.shape
    counts = (0, 0) if sides is None else (weights, sides.shape[1] - weights)
    made = [
        logits.new_empty(n, h, w, k).permute(0, 3, 1, 2) for k in (bins, fill.shape[1], *counts)
    ]
    run(_answer_launches(logits, fill, sides, made, scale, limit))
    return made[0], made[1], made[2], made[3]


def signatures(data: torch.dtype = torch.float16) -> dict[str, Launch]:
    """By name, the kernels that the published networks start."""

    def pixels(channels: int) -> Tensor:
        return channels_last(torch.empty(6, channels, 16, 44, dtype=data, device="meta"))

    def real(*shape: int) -> Tensor:
        return torch.empty(shape, device="meta")

    matrices = (real(2, 27, 256), real(2, 256, 256), real(2, 256, 256))
    layers = [t for m in matrices for t in (m, real(2, 1, 256))]
    camera = torch.empty(6, 27, dtype=torch.float64, device="meta")
    bias = torch.empty(88, dtype=data, device="meta")
    feature, gate = pixels(256), real(6, 256, 1, 1)
    beside = (pixels(88), bias, feature, pixels(344))
    made = [pixels(k) for k in (88, 22, 27, 18)]
    listed = {
        "camera_gates": _gates_launches(camera, layers, real(2, 6, 256, 1, 1)),
        "gate_feature": _feature_launches(feature, gate, gate, *beside),
        "depth_answer": _answer_launches(pixels(88), pixels(22), pixels(45), made, 4.0, 8.0),
    }
    return {name: some[0] for name, some in listed.items()}


def _gates_launches(camera: Tensor, layers: list[Tensor], gates: Tensor) -> list[Launch]:
    count, cameras, channels = gates.shape[:3]
    constants = {"K": camera.shape[1], "C": channels, "KB": power_of_2(camera.shape[1])}
    constants |= {"CB": power_of_2(channels), "OUT": min(_GATES, power_of_2(channels))}
    constants |= {"STEP": min(_HIDDEN, power_of_2(channels))}
    grid = (blocks(channels, constants["OUT"]), cameras, count)
    return [Launch(gates_kernel, grid, (camera, *layers, gates), constants, warps=8)]


def _feature_launches(
    feature: Tensor,
    first: Tensor,
    second: Tensor,
    beside: Tensor | None,
    bias: Tensor | None,
    seen: Tensor,
    joined: Tensor,
) -> list[Launch]:
    n, channels, h, w = feature.shape
    more = joined.shape[1] - channels
    constants = {"C": channels, "D": more, "CB": power_of_2(channels), "DB": power_of_2(more)}
    constants |= {"BIAS": bias is not None, "P": max(1, _BLOCK // constants["CB"])}
    arguments = (feature, first, second, feature if beside is None else beside)
    arguments += (first if bias is None else bias, seen, joined, h * w)
    return [Launch(feature_kernel, (blocks(h * w, constants["P"]), n), arguments, constants)]


def _answer_launches(
    logits: Tensor,
    fill: Tensor,
    sides: Tensor | None,
    made: list[Tensor],
    scale: float,
    limit: float,
) -> list[Launch]:
    n, _, h, w = logits.shape
    bins, behind, weights, offsets = (t.shape[1] for t in made)
    sides = fill if sides is None else sides
    constants = {"D": bins, "L": behind, "WEIGHTS": weights, "OFFSETS": offsets}
    constants |= {"DB": power_of_2(bins), "LB": power_of_2(behind)}
    constants |= {"SB": power_of_2(weights + offsets), "SCALE": scale, "LIMIT": limit}
    constants |= {"P": max(1, _BLOCK // constants["DB"])}
    arguments = (logits, fill, sides, *made, h * w, w)
    arguments += (*logits.stride(), *fill.stride(), *sides.stride())
    return [Launch(answer_kernel, (blocks(h * w, constants["P"]), n), arguments, constants)]


@triton.jit
def gates_kernel(
    camera, matrix0, bias0, matrix1, bias1, matrix2, bias2, gates,
    K: tl.constexpr,  # numbers of a camera
    C: tl.constexpr,  # channels
    KB: tl.constexpr,  # powers of two, at least K and C
    CB: tl.constexpr,
    OUT: tl.constexpr,  # channels of a gate that a program makes
    STEP: tl.constexpr,  # channels of the second layer at a time
):  # fmt: skip
    """Gates [G, N, C]; grid (blocks of channels, N, G)."""
    n, g = tl.program_id(1), tl.program_id(2)
    k, c = tl.arange(0, KB), tl.arange(0, CB)
    out = tl.program_id(0) * OUT + tl.arange(0, OUT)
    told = tl.load(camera + n * K + k, mask=k < K, other=0.0).to(tl.float32)
    weight0 = tl.load(
        matrix0 + g * (K * C) + k[:, None] * C + c[None, :],
        mask=(k < K)[:, None] & (c < C)[None, :],
        other=0.0,
    )
    hidden = tl.sum(told[:, None] * weight0, 0)
    hidden = relu(hidden + tl.load(bias0 + g * C + c, mask=c < C, other=0.0))
    gate = tl.load(bias2 + g * C + out, mask=out < C, other=0.0)
    for start in range(0, C, STEP):
        some = start + tl.arange(0, STEP)
        weight1 = tl.load(
            matrix1 + g * (C * C) + c[:, None] * C + some[None, :],
            mask=(c < C)[:, None] & (some < C)[None, :],
            other=0.0,
        )
        second = tl.sum(hidden[:, None] * weight1, 0)
        second = relu(second + tl.load(bias1 + g * C + some, mask=some < C, other=0.0))
        weight2 = tl.load(
            matrix2 + g * (C * C) + some[:, None] * C + out[None, :],
            mask=(some < C)[:, None] & (out < C)[None, :],
            other=0.0,
        )
        gate += tl.sum(second[:, None] * weight2, 0)
    tl.store(gates + (g * tl.num_programs(1) + n) * C + out, sigmoid(gate), mask=out < C)


@triton.jit
def feature_kernel(
    feature, first, second, beside, bias, seen, joined, size,
    C: tl.constexpr,  # channels of the feature
    D: tl.constexpr,  # of what stands beside it
    CB: tl.constexpr,  # powers of two, at least C and D
    DB: tl.constexpr,
    BIAS: tl.constexpr,
    P: tl.constexpr,  # pixels of a program
):  # fmt: skip
    """Rows of channels, pixels [N, size]; grid (blocks of pixels, N)."""
    n = tl.program_id(1).to(tl.int64)
    pixel, c = tl.program_id(0) * P + tl.arange(0, P), tl.arange(0, CB)
    row = (n * size + pixel)[:, None]
    there = (pixel < size)[:, None] & (c < C)[None, :]
    x = tl.load(feature + row * C + c, mask=there, other=0.0).to(tl.float32)
    to_seen = tl.load(first + n * C + c, mask=c < C, other=0.0).to(tl.float32)
    to_joined = tl.load(second + n * C + c, mask=c < C, other=0.0).to(tl.float32)
    kind = seen.dtype.element_ty
    tl.store(seen + row * C + c, (x * to_seen[None, :]).to(kind), mask=there)
    tl.store(joined + row * (C + D) + c, (x * to_joined[None, :]).to(kind), mask=there)
    if D > 0:
        d = tl.arange(0, DB)
        there = (pixel < size)[:, None] & (d < D)[None, :]
        y = tl.load(beside + row * D + d, mask=there, other=0.0).to(tl.float32)
        if BIAS:
            y += tl.load(bias + d, mask=d < D, other=0.0).to(tl.float32)[None, :]
        tl.store(joined + row * (C + D) + C + d, y.to(kind), mask=there)


@triton.jit
def answer_kernel(
    logits, fill, sides, probability, filled, weight, offset, size, width,
    logits_n, logits_c, logits_y, logits_x,
    fill_n, fill_c, fill_y, fill_x,
    sides_n, sides_c, sides_y, sides_x,
    D: tl.constexpr,  # bins
    L: tl.constexpr,  # bins that are filled behind a surface
    WEIGHTS: tl.constexpr,  # of side copies
    OFFSETS: tl.constexpr,
    DB: tl.constexpr,  # powers of two, at least D, L and WEIGHTS + OFFSETS
    LB: tl.constexpr,
    SB: tl.constexpr,
    SCALE: tl.constexpr,
    LIMIT: tl.constexpr,
    P: tl.constexpr,  # pixels of a program
):  # fmt: skip
    """Results as rows of channels; grid (blocks of pixels, N)."""
    n = tl.program_id(1).to(tl.int64)
    pixel = tl.program_id(0) * P + tl.arange(0, P)
    live = pixel < size
    y, x, row = pixel // width, pixel % width, (n * size + pixel)[:, None]
    kind = probability.dtype.element_ty

    d = tl.arange(0, DB)
    there = live[:, None] & (d < D)[None, :]
    from_ = logits + n * logits_n + y * logits_y + x * logits_x
    value = tl.load(from_[:, None] + (d * logits_c)[None, :], mask=there, other=float("-inf"))
    value = tl.where(live[:, None], value.to(tl.float32), 0.0)
    value = tl.exp(value - tl.max(value, 1)[:, None])
    value /= tl.sum(value, 1)[:, None]
    tl.store(probability + row * D + d, value.to(kind), mask=there)

    k = tl.arange(0, LB)
    there = live[:, None] & (k < L)[None, :]
    from_ = fill + n * fill_n + y * fill_y + x * fill_x
    value = tl.load(from_[:, None] + (k * fill_c)[None, :], mask=there, other=0.0).to(tl.float32)
    tl.store(filled + row * L + k, sigmoid(value).to(kind), mask=there)

    if WEIGHTS + OFFSETS > 0:
        s = tl.arange(0, SB)
        there = live[:, None] & (s < WEIGHTS + OFFSETS)[None, :]
        from_ = sides + n * sides_n + y * sides_y + x * sides_x
        value = tl.load(from_[:, None] + (s * sides_c)[None, :], mask=there, other=0.0)
        value = value.to(tl.float32)
        of_weights = there & (s < WEIGHTS)[None, :]
        tl.store(weight + row * WEIGHTS + s, sigmoid(value).to(kind), mask=of_weights)
        pixels = value * SCALE
        # NaN stays NaN.
        pixels = tl.where(pixels > LIMIT, LIMIT, tl.where(pixels < -LIMIT, -LIMIT, pixels))
        of_offsets = there & (s >= WEIGHTS)[None, :]
        tl.store(offset + row * OFFSETS + s - WEIGHTS, pixels.to(kind), mask=of_offsets)
