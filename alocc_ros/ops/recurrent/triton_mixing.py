# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""The gate between what is remembered and what is now, and what time adds, each in one kernel. The
gate's hidden layer is made a few channels at a time and summed up at once.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from alocc_ros.ops.triton_common import Launch, blocks, power_of_2, relu, run, sigmoid

# Pixels of a program, and channels of the hidden layer at a time.
_PIXELS, _HIDDEN = 16, 32


def gated_mix(
    remembered: Tensor,
    now: Tensor,
    mixed: Tensor | None,
    matrix1: Tensor,
    offset1: Tensor,
    matrix2: Tensor,
    offset2: Tensor,
    shares: bool,
) -> Tensor:
    """See ``gated_mix_reference``."""
    n, bins, h, w = now.shape
    out = now.new_empty(n, h, w, bins).permute(0, 3, 1, 2)
    layers = (matrix1, offset1.contiguous(), matrix2.contiguous(), offset2)
    run(_mix_launches(remembered, now, mixed, layers, out, shares))
    return out


def time_bias(
    times: Tensor,
    rates: Tensor,
    phases: Tensor,
    matrix1: Tensor,
    bias1: Tensor,
    matrix2: Tensor,
    bias2: Tensor,
) -> Tensor:
    """See ``time_bias_reference``."""
    out = matrix2.new_empty(*times.shape, matrix2.shape[1])
    layers = (rates, phases, matrix1, bias1, matrix2, bias2)
    run(_time_launches(times.contiguous(), [t.contiguous() for t in layers], out))
    return out


def signatures(data: torch.dtype = torch.float16) -> dict[str, Launch]:
    """By name, the kernels that the published networks start."""

    def real(*shape: int) -> Tensor:
        return torch.empty(shape, device="meta")

    first, last = (
        torch.empty(shape, dtype=data, device="meta")
        for shape in ((6, 88, 16, 44), (6, 16, 44, 88))
    )
    last = last.permute(0, 3, 1, 2)
    matrix = torch.empty(88, 176, dtype=data, device="meta").T
    layers = (matrix, real(88), real(88), real(1))
    time = [real(32), real(32), real(32, 64), real(64), real(64, 32), real(32)]
    return {
        "gated_mix": _mix_launches(first, last, None, layers, last, False)[0],
        "gated_mix, shares": _mix_launches(last, last, None, layers, last, True)[0],
        "time_bias": _time_launches(real(1, 2), time, real(1, 2, 32))[0],
    }


def _mix_launches(
    remembered: Tensor,
    now: Tensor,
    mixed: Tensor | None,
    layers: tuple[Tensor, ...],
    out: Tensor,
    shares: bool,
) -> list[Launch]:
    n, bins, h, w = now.shape
    mixed = now if mixed is None else mixed
    constants = {"D": bins, "DB": power_of_2(bins, 16), "P": _PIXELS, "STEP": _HIDDEN}
    arguments = (remembered, now, mixed, *layers, out, h * w, w)
    arguments += (*remembered.stride(), *now.stride(), *mixed.stride(), *layers[0].stride())
    grid = (blocks(h * w, _PIXELS), n)
    return [Launch(mix_kernel, grid, arguments, constants | {"SHARES": shares}, stages=2)]


def _time_launches(times: Tensor, layers: list[Tensor], out: Tensor) -> list[Launch]:
    waves, hidden = layers[2].shape
    constants = {"C": waves, "H": hidden, "OUT": out.shape[-1]}
    constants |= {"CB": power_of_2(waves), "HB": power_of_2(hidden)}
    constants |= {"OB": power_of_2(out.shape[-1])}
    return [Launch(time_kernel, (times.numel(),), (times, *layers, out), constants)]


@triton.jit
def mix_kernel(
    remembered, now, mixed, matrix1, offset1, matrix2, offset2, out, size, width,
    remembered_n, remembered_c, remembered_y, remembered_x,
    now_n, now_c, now_y, now_x,
    mixed_n, mixed_c, mixed_y, mixed_x,
    matrix_k, matrix_n,
    D: tl.constexpr,  # bins
    DB: tl.constexpr,  # power of two, at least D
    P: tl.constexpr,  # pixels of a program
    STEP: tl.constexpr,  # channels of the hidden layer at a time
    SHARES: tl.constexpr,
):  # fmt: skip
    """Out [N, size, D]; grid (blocks of pixels, N)."""
    n = tl.program_id(1).to(tl.int64)
    pixel, d = tl.program_id(0) * P + tl.arange(0, P), tl.arange(0, DB)
    live = pixel < size
    there = live[:, None] & (d < D)[None, :]
    y, x = pixel // width, pixel % width
    at = remembered + n * remembered_n + y * remembered_y + x * remembered_x
    then = tl.load(at[:, None] + (d * remembered_c)[None, :], mask=there, other=0.0)
    at = now + n * now_n + y * now_y + x * now_x
    here = tl.load(at[:, None] + (d * now_c)[None, :], mask=there, other=0.0)
    dtype = here.dtype
    then = then.to(tl.float32)
    if SHARES:
        then = tl.where((d < D)[None, :], then, float("-inf"))
        then = tl.exp(then - tl.max(then, 1)[:, None])
        then /= tl.sum(then, 1)[:, None]
    rounded = then.to(dtype)
    gate = tl.zeros((P,), tl.float32)
    for start in range(0, D, STEP):
        k = start + tl.arange(0, STEP)
        part = matrix1 + d[:, None] * matrix_k + k[None, :] * matrix_n
        both = (d < D)[:, None] & (k < D)[None, :]
        upper = tl.load(part, mask=both, other=0.0).to(dtype)
        lower = tl.load(part + D * matrix_k, mask=both, other=0.0).to(dtype)
        hidden = tl.dot(rounded, upper, input_precision="ieee")
        hidden += tl.dot(here, lower, input_precision="ieee")
        hidden += tl.load(offset1 + k, mask=k < D, other=0.0).to(tl.float32)[None, :]
        share = tl.load(matrix2 + k, mask=k < D, other=0.0).to(tl.float32)
        gate += tl.sum(relu(hidden) * share[None, :], 1)
    gate = sigmoid(gate + tl.load(offset2).to(tl.float32))[:, None]
    at = mixed + n * mixed_n + y * mixed_y + x * mixed_x
    other = tl.load(at[:, None] + (d * mixed_c)[None, :], mask=there, other=0.0).to(tl.float32)
    value = gate * then + (1 - gate) * other
    if not SHARES:
        value = tl.where(then != 0, value, other)
    row = (n * size + pixel)[:, None]
    tl.store(out + row * D + d[None, :], value.to(out.dtype.element_ty), mask=there)


@triton.jit
def time_kernel(
    times, rates, phases, matrix1, bias1, matrix2, bias2, out,
    C: tl.constexpr,  # waves
    H: tl.constexpr,  # channels of the hidden layer
    OUT: tl.constexpr,  # channels of the result
    CB: tl.constexpr,  # powers of two, at least these
    HB: tl.constexpr,
    OB: tl.constexpr,
):  # fmt: skip
    """Out [times, OUT]; grid (times,)."""
    n = tl.program_id(0)
    c, h, o = tl.arange(0, CB), tl.arange(0, HB), tl.arange(0, OB)
    rate = tl.load(rates + c, mask=c < C, other=0.0)
    wave = tl.sin(tl.load(phases + c, mask=c < C, other=0.0) + tl.load(times + n) * rate)
    weight = tl.load(
        matrix1 + c[:, None] * H + h[None, :], mask=(c < C)[:, None] & (h < H)[None, :], other=0.0
    )
    hidden = tl.sum(wave[:, None] * weight, 0)
    hidden = relu(hidden + tl.load(bias1 + h, mask=h < H, other=0.0))
    weight = tl.load(
        matrix2 + h[:, None] * OUT + o[None, :],
        mask=(h < H)[:, None] & (o < OUT)[None, :],
        other=0.0,
    )
    said = tl.sum(hidden[:, None] * weight, 0)
    said += tl.load(bias2 + o, mask=o < OUT, other=0.0)
    tl.store(out + n * OUT + o, said, mask=o < OUT)
