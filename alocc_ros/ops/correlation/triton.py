# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Flow correlation on a GPU: no shifted copies; scores of all displacements stay in registers."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from alocc_ros.ops.correlation.reference import DILATION, EMPTY_PENALTY, TAPS, TEMPERATURE
from alocc_ros.ops.triton_common import Launch, blocks, power_of_2, run

# Elements of a block of pixels x displacements along x x channels.
_BLOCK = 4096


def correlation(current: Tensor, previous: Tensor) -> Tensor:
    """See ``correlation_reference``."""
    batch, _, y_size, x_size = current.shape
    out = current.new_empty(batch, TAPS * TAPS, y_size, x_size)
    run(_launches(current, previous, out))
    return out


def signatures(data: torch.dtype = torch.float16) -> dict[str, Launch]:
    """By name, the kernels that the published networks start."""
    listed = {}
    for channels in (48, 16):
        bev = torch.empty(1, channels, 100, 100, dtype=data, device="meta")
        bev = bev.contiguous(memory_format=torch.channels_last)
        out = torch.empty(1, TAPS * TAPS, 100, 100, dtype=data, device="meta")
        listed[f"correlation, {channels}"] = _launches(bev, bev, out)[0]
    return listed


def _launches(current: Tensor, previous: Tensor, out: Tensor) -> list[Launch]:
    batch, channels, y_size, x_size = current.shape
    across, wide = power_of_2(TAPS), power_of_2(channels)
    pixels = max(1, _BLOCK // (across * wide))
    constants = {"C": channels, "TAPS": TAPS, "DILATION": DILATION, "TEMPERATURE": TEMPERATURE}
    constants |= {"PENALTY": EMPTY_PENALTY, "P": pixels, "K": across, "CB": wide}
    return [
        Launch(
            correlation_kernel,
            (blocks(x_size, pixels), y_size, batch),
            (current, previous, out, y_size, x_size)
            + (*current.stride(), *previous.stride(), *out.stride()),
            constants,
        )
    ]


@triton.jit
def _unit_length(square_sum):
    """Length that something is divided by, as ``F.normalize`` has it; NaN stays NaN."""
    length = tl.sqrt(square_sum)
    return tl.where(length < 1e-12, 1e-12, length)


@triton.jit
def correlation_kernel(
    current, previous, out, height, width,
    current_n, current_c, current_y, current_x,
    previous_n, previous_c, previous_y, previous_x,
    out_n, out_k, out_y, out_x,
    C: tl.constexpr,
    TAPS: tl.constexpr,
    DILATION: tl.constexpr,
    TEMPERATURE: tl.constexpr,
    PENALTY: tl.constexpr,
    P: tl.constexpr,  # pixels of a program, side by side
    K: tl.constexpr,  # power of two, at least TAPS
    CB: tl.constexpr,  # power of two, at least C
):  # fmt: skip
    """Grid (blocks of pixels of a row, rows, samples)."""
    n, y = tl.program_id(2).to(tl.int64), tl.program_id(1)
    x = tl.program_id(0) * P + tl.arange(0, P)
    tap, c = tl.arange(0, K), tl.arange(0, CB)
    here = x < width
    now = tl.load(
        current + n * current_n + y * current_y + (x * current_x)[:, None] + c * current_c,
        mask=here[:, None] & (c < C)[None, :],
        other=0.0,
    ).to(tl.float32)
    now /= _unit_length(tl.sum(now * now, 1))[:, None]
    from_x = x[:, None] + (tap * DILATION - TAPS // 2 * DILATION)[None, :]  # [P, K]
    looked = (from_x >= 0) & (from_x < width) & (tap < TAPS)[None, :]
    scores = tl.full((P, K, K), float("-inf"), tl.float32)  # pixel, tap along y, tap along x
    for ky in range(TAPS):
        from_y = y + (ky - TAPS // 2) * DILATION
        inside = looked & (from_y >= 0) & (from_y < height)
        then = tl.load(
            previous + n * previous_n + from_y * previous_y
            + (from_x * previous_x)[:, :, None] + (c * previous_c)[None, None, :],
            mask=inside[:, :, None] & (c < C)[None, None, :],
            other=0.0,
        ).to(tl.float32)  # fmt: skip
        cosine = tl.sum(now[:, None, :] * then, 2) / _unit_length(tl.sum(then * then, 2))
        score = cosine / TEMPERATURE - tl.where(tl.sum(then, 2) == 0.0, PENALTY, 0.0)
        score = tl.where((tap < TAPS)[None, :], score, float("-inf"))
        scores = tl.where((tap == ky)[None, :, None], score[:, None, :], scores)
    # Cosines are at most 1, so exponents need no maximum taken off to stay in range.
    share = tl.exp(scores - 1 / TEMPERATURE)
    share /= tl.sum(tl.sum(share, 2), 1)[:, None, None]
    number = tap[:, None] * TAPS + tap[None, :]
    wanted = ((tap < TAPS)[:, None] & (tap < TAPS)[None, :])[None, :, :] & here[:, None, None]
    to = out + n * out_n + y * out_y + (x * out_x)[:, None, None] + (number * out_k)[None, :, :]
    tl.store(to, share.to(out.dtype.element_ty), mask=wanted)
