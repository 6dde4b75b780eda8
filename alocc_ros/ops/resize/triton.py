# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Resizing on a GPU: across to 8-bit pixels again, then down, normalised and stored in the
network's precision and order in memory. In integers as Pillow's: the same bit for bit.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from alocc_ros.ops.resize.reference import WEIGHT_BITS
from alocc_ros.ops.triton_common import Launch, blocks, run

# Rows, and numbers of a row, of a program.
_ROWS, _NUMBERS = 4, 256


def resize_images_(
    images: Tensor,
    column_starts: Tensor,
    column_weights: Tensor,
    row_starts: Tensor,
    row_weights: Tensor,
    mean: Tensor,
    scale: Tensor,
    reverse: bool,
    out: Tensor,
) -> None:
    """See ``resize_images``; ``out`` is overwritten with its result."""
    n, height = images.shape[:2]
    narrow = images.new_empty(n, height, len(column_starts), 3)
    across, down = (column_starts, column_weights), (row_starts, row_weights)
    filters = tuple(t.contiguous() for t in (*across, *down))
    run(_launches(images, *filters, mean.contiguous(), scale.contiguous(), reverse, narrow, out))


def signatures(data: torch.dtype = torch.float16) -> dict[str, Launch]:
    """By name, the kernels that images of nuScenes start."""

    def empty(*shape: int, dtype: torch.dtype = torch.int32) -> Tensor:
        return torch.empty(shape, dtype=dtype, device="meta")

    images, narrow = (empty(6, 585, w, 3, dtype=torch.uint8) for w in (1600, 704))
    out = empty(6, 3, 256, 704, dtype=data).contiguous(memory_format=torch.channels_last)
    numbers = empty(3, dtype=torch.float32)
    filters = (empty(704), empty(704, 10), empty(256), empty(256, 10))
    across, down = _launches(images, *filters, numbers, numbers, True, narrow, out)
    return {"resize_images, across": across, "resize_images, down": down}


def _launches(
    images: Tensor,
    column_starts: Tensor,
    column_weights: Tensor,
    row_starts: Tensor,
    row_weights: Tensor,
    mean: Tensor,
    scale: Tensor,
    reverse: bool,
    narrow: Tensor,
    out: Tensor,
) -> list[Launch]:
    n, rows, width = narrow.shape[:3]
    height, steps = len(row_starts), blocks(3 * width, _NUMBERS)
    common = {"WIDTH": width, "BITS": WEIGHT_BITS, "NUMBERS": _NUMBERS, "ROWS": _ROWS}
    return [
        Launch(
            across_kernel,
            (steps, blocks(rows, _ROWS), n),
            (images, column_starts, column_weights, narrow, rows, *images.stride()),
            common | {"TAPS": column_weights.shape[1]},
        ),
        Launch(
            down_kernel,
            (steps, blocks(height, _ROWS), n),
            (narrow, row_starts, row_weights, mean, scale, out, rows, height, *out.stride()),
            common | {"TAPS": row_weights.shape[1], "REVERSE": reverse},
        ),
    ]


@triton.jit
def _pixel(total, BITS: tl.constexpr):
    """A sum of weighted pixels to the nearest pixel."""
    rounded = (total + (1 << (BITS - 1))) >> BITS
    return tl.minimum(tl.maximum(rounded, 0), 255)


@triton.jit
def across_kernel(
    images, starts, weights, narrow, height, images_n, images_y, images_x, images_c,
    WIDTH: tl.constexpr,  # of the result
    BITS: tl.constexpr,
    NUMBERS: tl.constexpr,  # of a row, for a program
    ROWS: tl.constexpr,  # of a program
    TAPS: tl.constexpr,
):  # fmt: skip
    """Narrow [N, height, WIDTH, 3]; grid (blocks of a row, blocks of rows, N)."""
    n = tl.program_id(2).to(tl.int64)
    number = tl.program_id(0) * NUMBERS + tl.arange(0, NUMBERS)
    y = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    x, c, there = number // 3, number % 3, number < 3 * WIDTH
    live = (y < height)[:, None] & there[None, :]
    start = tl.load(starts + x, mask=there, other=0)
    source = images + n * images_n + (y * images_y)[:, None]
    source += (start * images_x + c * images_c)[None, :]
    total = tl.zeros((ROWS, NUMBERS), tl.int32)
    for k in range(TAPS):
        weight = tl.load(weights + x * TAPS + k, mask=there, other=0)
        pixel = tl.load(source + k * images_x, mask=live, other=0).to(tl.int32)
        total += pixel * weight[None, :]
    to = narrow + (n * height + y)[:, None] * (3 * WIDTH) + number[None, :]
    tl.store(to, _pixel(total, BITS).to(tl.uint8), mask=live)


@triton.jit
def down_kernel(
    narrow, starts, weights, mean, scale, out, rows, height, out_n, out_c, out_y, out_x,
    WIDTH: tl.constexpr,
    BITS: tl.constexpr,
    NUMBERS: tl.constexpr,
    ROWS: tl.constexpr,
    TAPS: tl.constexpr,
    REVERSE: tl.constexpr,  # the order of channels
):  # fmt: skip
    """Out [N, 3, height, WIDTH]; grid (blocks of a row, blocks of rows, N)."""
    n = tl.program_id(2).to(tl.int64)
    number = tl.program_id(0) * NUMBERS + tl.arange(0, NUMBERS)
    y = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    x, c, there = number // 3, number % 3, number < 3 * WIDTH
    inside = y < height
    live = inside[:, None] & there[None, :]
    start = tl.load(starts + y, mask=inside, other=0)
    source = narrow + n * rows * (3 * WIDTH) + (start * (3 * WIDTH))[:, None] + number[None, :]
    total = tl.zeros((ROWS, NUMBERS), tl.int32)
    for k in range(TAPS):
        weight = tl.load(weights + y * TAPS + k, mask=inside, other=0)
        pixel = tl.load(source + k * (3 * WIDTH), mask=live, other=0).to(tl.int32)
        total += pixel * weight[:, None]
    channel = 2 - c if REVERSE else c
    value = _pixel(total, BITS).to(tl.float32) - tl.load(mean + channel)[None, :]
    value *= tl.load(scale + channel)[None, :]
    to = out + n * out_n + (y * out_y)[:, None] + (channel * out_c + x * out_x)[None, :]
    tl.store(to, value.to(out.dtype.element_ty), mask=live)
