# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""The step of the scene layer on a GPU in three kernels (sums by program, their sum, the answer),
each in an order that is always the same.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from alocc_ros.ops.recurrent.reference import NORM_EPSILON, SceneWeights
from alocc_ros.ops.triton_common import Launch, blocks, power_of_2, run

# Voxels of a program at a time.
_VOXELS = 64
# At most so many programs sum over the volume, one partial sum each; and added at a time.
_PARTS, _PARTS_AT_ONCE = 528, 16


def scene_step(
    rows: Tensor, sums: Tensor, keep: Tensor, layer: list[Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """See ``scene_step_reference``; of the results only the rows may be half precision."""
    batch, channels = len(rows), rows.shape[-1]
    answer = torch.empty_like(rows, memory_format=torch.contiguous_format)
    new = rows.new_empty(sums.shape, dtype=torch.float32)
    norm = new.new_empty(batch, 2, channels)
    parts = new.new_empty(batch, _part_count(rows), channels, channels + 3)
    weights = SceneWeights(*(t.contiguous() for t in layer))
    inputs = (rows.contiguous(), sums.contiguous(), keep.contiguous())
    run(_scene_launches(*inputs, weights, parts, answer, new, norm))
    return answer, new, norm


def signatures(data: torch.dtype = torch.float16) -> dict[str, Launch]:
    """By name, the kernels that the published networks start."""

    def empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.empty(shape, dtype=dtype, device="meta")

    c = 32
    rows, sums = empty(1, 200, 200, 16, c, dtype=data), empty(1, c, c + 1)
    weights = SceneWeights(*[empty(c, c, dtype=data)] * 4, *[empty(c)] * 3)
    small = (empty(1), weights, empty(1, _PARTS, c, c + 3), rows, sums, empty(1, 2, c))
    names = (f"scene_step, {step}" for step in ("gradient", "renew", "answer"))
    return dict(zip(names, _scene_launches(rows, sums, *small), strict=True))


def _part_count(rows: Tensor) -> int:
    return min(_PARTS, blocks(rows[0, ..., 0].numel(), _VOXELS))


def _scene_launches(
    rows: Tensor,
    sums: Tensor,
    keep: Tensor,
    layer: SceneWeights,
    parts: Tensor,
    answer: Tensor,
    new: Tensor,
    norm: Tensor,
) -> list[Launch]:
    batch, channels = len(rows), rows.shape[-1]
    common = {"COUNT": rows[0, ..., 0].numel(), "C": channels}
    wide = {"P": _VOXELS, "CB": power_of_2(channels, 16), "EPSILON": NORM_EPSILON}
    # Ten bits of mantissa as half precision has, but the exponents of float32.
    wide |= {"PRECISION": "ieee" if rows.dtype == torch.float32 else "tf32"}
    count = parts.shape[1]
    renewal = {"PARTS": count, "SOME": _PARTS_AT_ONCE}
    renewal |= {"CB": power_of_2(channels), "WB": power_of_2(channels + 3)}
    tail = (layer.weight, layer.bias, layer.scale, layer.shift)
    return [
        Launch(
            gradient_kernel,
            (count, batch),
            (rows, sums, keep, layer.key, layer.value, *tail, parts),
            common | wide,
        ),
        Launch(
            renew_kernel,
            (channels, batch),
            (parts, sums, keep, layer.key, new, norm),
            common | renewal,
        ),
        Launch(
            answer_kernel,
            (count, batch),
            (rows, new, norm, layer.query, *tail, answer),
            common | wide,
        ),
    ]


@triton.jit
def _transposed(matrix, C: tl.constexpr, CB: tl.constexpr):
    """[C, C] in memory -> its transpose, padded with zeros, float32."""
    i, o = tl.arange(0, CB)[:, None], tl.arange(0, CB)[None, :]
    return tl.load(matrix + o * C + i, mask=(i < C) & (o < C), other=0.0).to(tl.float32)


@triton.jit
def _learned(
    weight, bias, sums, keep, first, C: tl.constexpr, CB: tl.constexpr
):  # fmt: skip
    """What the scene layer is now, less its sums of gradients: product with the transpose
    ``first`` [in, k] of the matrix before it, as [in, out], and offset [out].
    """
    k, o = tl.arange(0, CB)[:, None], tl.arange(0, CB)
    gone = tl.load(sums + o[None, :] * (C + 1) + k, mask=(k < C) & (o < C)[None, :], other=0.0)
    now = _transposed(weight, C, CB) - gone.to(tl.float32) * keep
    offset = tl.load(bias + o, mask=o < C, other=0.0).to(tl.float32)
    offset -= tl.load(sums + o * (C + 1) + C, mask=o < C, other=0.0).to(tl.float32) * keep
    return tl.dot(first, now, input_precision="ieee"), offset


@triton.jit
def _mean(x, C: tl.constexpr):
    return (tl.sum(x, 1) / C)[:, None]


@triton.jit
def _standardised(x, c, EPSILON: tl.constexpr, C: tl.constexpr):
    """Mean 0 and variance 1 over the channels, and the deviation it had; zero beyond them."""
    centred = tl.where((c < C)[None, :], x - _mean(x, C), 0.0)
    deviation = tl.sqrt(_mean(centred * centred, C) + EPSILON)
    return centred / deviation, deviation


@triton.jit
def gradient_kernel(
    rows, sums, keep, key, value, weight, bias, scale, shift, parts,
    COUNT: tl.constexpr,  # voxels of a sample
    C: tl.constexpr,
    P: tl.constexpr,  # voxels at a time
    CB: tl.constexpr,  # power of two, at least C
    EPSILON: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Parts [B, programs, C, C + 3]: sums of gradient x input, gradient, error x unit, error.

    Grid (programs, B); each program takes every so manieth block of voxels.
    """
    program, sample = tl.program_id(0), tl.program_id(1).to(tl.int64)
    c = tl.arange(0, CB)
    key_t = _transposed(key, C, CB)
    decay = tl.load(keep + sample).to(tl.float32)
    first, offset = _learned(weight, bias, sums + sample * (C * (C + 1)), decay, key_t, C, CB)
    wanted = _transposed(value, C, CB) - key_t
    gain = tl.load(scale + c, mask=c < C, other=0.0).to(tl.float32)[None, :]
    lift = tl.load(shift + c, mask=c < C, other=0.0).to(tl.float32)[None, :]
    outer = tl.zeros((CB, CB), tl.float32)
    pulls, products = tl.zeros((CB,), tl.float32), tl.zeros((CB,), tl.float32)
    errors = tl.zeros((CB,), tl.float32)
    rows += sample * (COUNT * C)
    for start in range(program * P, COUNT, tl.num_programs(0) * P):
        voxel = start + tl.arange(0, P)
        there = (voxel < COUNT)[:, None] & (c < C)[None, :]
        x = tl.load(rows + (voxel * C)[:, None] + c[None, :], mask=there, other=0.0)
        x = x.to(tl.float32)
        unit, deviation = _standardised(
            tl.dot(x, first, input_precision=PRECISION) + offset[None, :], c, EPSILON, C
        )
        error = gain * unit + lift - tl.dot(x, wanted, input_precision=PRECISION)
        pull = gain * error
        pull = pull - _mean(pull, C) - unit * _mean(pull * unit, C)
        pull = tl.where(there, 2 * pull / deviation, 0.0)
        outer += tl.dot(tl.trans(pull), x, input_precision=PRECISION)
        pulls += tl.sum(pull, 0)
        products += tl.sum(tl.where(there, error * unit, 0.0), 0)
        errors += tl.sum(tl.where(there, error, 0.0), 0)
    parts += (sample * tl.num_programs(0) + program) * (C * (C + 3))
    line = parts + c * (C + 3)
    square = (c < C)[:, None] & (c < C)[None, :]
    tl.store(line[:, None] + c[None, :], outer, mask=square)
    tl.store(line + C, pulls, mask=c < C)
    tl.store(line + (C + 1), products, mask=c < C)
    tl.store(line + (C + 2), errors, mask=c < C)


@triton.jit
def renew_kernel(
    parts, sums, keep, key, new, norm,
    COUNT: tl.constexpr,
    C: tl.constexpr,
    PARTS: tl.constexpr,
    SOME: tl.constexpr,  # parts at a time
    CB: tl.constexpr,
    WB: tl.constexpr,  # power of two, at least C + 3
):  # fmt: skip
    """New [B, C, C + 1], norm [B, 2, C]; grid (C, B), an output channel each."""
    o, sample = tl.program_id(0), tl.program_id(1).to(tl.int64)
    part, k, j = tl.arange(0, SOME), tl.arange(0, WB), tl.arange(0, CB)
    parts += sample * (PARTS * C * (C + 3)) + o * (C + 3)
    total = tl.zeros((WB,), tl.float32)
    for start in range(0, PARTS, SOME):
        number = start + part
        some = tl.load(
            parts + (number * (C * (C + 3)))[:, None] + k[None, :],
            mask=(number < PARTS)[:, None] & (k < C + 3)[None, :],
            other=0.0,
        )
        total += tl.sum(some, 0)
    total /= COUNT * C
    matrix = tl.load(
        key + (j * C)[:, None] + k[None, :],
        mask=(j < C)[:, None] & (k < C)[None, :],
        other=0.0,
    ).to(tl.float32)
    gradient = tl.sum(matrix * tl.where(k < C, total, 0.0)[None, :], 1)
    decay = tl.load(keep + sample).to(tl.float32)
    line = sample * (C * (C + 1)) + o * (C + 1)
    old = tl.load(sums + line + j, mask=j < C, other=0.0).to(tl.float32)
    tl.store(new + line + j, old * decay + gradient, mask=j < C)
    old = tl.load(sums + line + C).to(tl.float32)
    tl.store(new + line + C, old * decay + tl.sum(tl.where(k == C, total, 0.0), 0))
    norm += sample * (2 * C) + o
    tl.store(norm, 2 * tl.sum(tl.where(k == C + 1, total, 0.0), 0))
    tl.store(norm + C, 2 * tl.sum(tl.where(k == C + 2, total, 0.0), 0))


@triton.jit
def answer_kernel(
    rows, new, norm, query, weight, bias, scale, shift, answer,
    COUNT: tl.constexpr,
    C: tl.constexpr,
    P: tl.constexpr,
    CB: tl.constexpr,
    EPSILON: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """What the renewed layer says; grid (programs, B)."""
    program, sample = tl.program_id(0), tl.program_id(1).to(tl.int64)
    c = tl.arange(0, CB)
    asked = _transposed(query, C, CB)
    first, offset = _learned(weight, bias, new + sample * (C * (C + 1)), 1.0, asked, C, CB)
    norm += sample * (2 * C) + c
    gain = tl.load(scale + c, mask=c < C, other=0.0).to(tl.float32)
    gain -= tl.load(norm, mask=c < C, other=0.0)
    lift = tl.load(shift + c, mask=c < C, other=0.0).to(tl.float32)
    lift -= tl.load(norm + C, mask=c < C, other=0.0)
    rows += sample * (COUNT * C)
    answer += sample * (COUNT * C)
    for start in range(program * P, COUNT, tl.num_programs(0) * P):
        voxel = start + tl.arange(0, P)
        there = (voxel < COUNT)[:, None] & (c < C)[None, :]
        place = (voxel * C)[:, None] + c[None, :]
        x = tl.load(rows + place, mask=there, other=0.0).to(tl.float32)
        unit, _ = _standardised(
            tl.dot(x, first, input_precision=PRECISION) + offset[None, :], c, EPSILON, C
        )
        said = gain[None, :] * unit + lift[None, :]
        said += tl.dot(x, asked, input_precision=PRECISION)
        tl.store(answer + place, said.to(answer.dtype.element_ty), mask=there)
