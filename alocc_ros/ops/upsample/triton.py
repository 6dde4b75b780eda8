# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Sums of upsampled levels on a GPU: one pass over the full-size map, all levels at once.

A row of a tile is a piece of one cell's channels that lies side by side in memory, a power of two
of them: 48 channels are three pieces of 16, so no lane idles. Sizes are constants of the compiled
kernel, because a network has one set of them and divisions by constants are cheap.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

# Rows of a tile, and levels that one kernel takes.
_ROWS = 64
_LEVELS = 3
# A tile of a bird's-eye map is this many cells high and wide: neighbours read the same corners.
_HEIGHT, _WIDTH = 4, 8
_MOST_PIECE = 64


@triton.jit
def _aligned(i, scale, SIZE: tl.constexpr):
    """Lower node, upper node and the upper one's weight; ends lie on ends, as torch counts it."""
    place = i.to(tl.float32) * scale
    low = place.to(tl.int32)
    low = tl.minimum(low, SIZE - 1)
    return low, tl.minimum(low + 1, SIZE - 1), place - low.to(tl.float32)


@triton.jit
def _corner(rows, cell, c, weight, CHANNELS: tl.constexpr):
    value = tl.load(rows + (cell[:, None] * CHANNELS + c)).to(tl.float32)
    return weight[:, None] * value


@triton.jit
def _trilinear(
    rows, y, x, z, c, scale_y, scale_x, scale_z,
    Y: tl.constexpr, X: tl.constexpr, Z: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    y0, y1, ay = _aligned(y, scale_y, Y)
    x0, x1, ax = _aligned(x, scale_x, X)
    z0, z1, az = _aligned(z, scale_z, Z)
    by, bx, bz = 1 - ay, 1 - ax, 1 - az
    value = _corner(rows, (y0 * X + x0) * Z + z0, c, by * bx * bz, C)
    value += _corner(rows, (y0 * X + x0) * Z + z1, c, by * bx * az, C)
    value += _corner(rows, (y0 * X + x1) * Z + z0, c, by * ax * bz, C)
    value += _corner(rows, (y0 * X + x1) * Z + z1, c, by * ax * az, C)
    value += _corner(rows, (y1 * X + x0) * Z + z0, c, ay * bx * bz, C)
    value += _corner(rows, (y1 * X + x0) * Z + z1, c, ay * bx * az, C)
    value += _corner(rows, (y1 * X + x1) * Z + z0, c, ay * ax * bz, C)
    value += _corner(rows, (y1 * X + x1) * Z + z1, c, ay * ax * az, C)
    return value


@triton.jit
def add_kernel(
    total, low0, low1, low2,
    sy0, sx0, sz0, sy1, sx1, sz1, sy2, sx2, sz2,
    Y: tl.constexpr, X: tl.constexpr, Z: tl.constexpr, C: tl.constexpr,
    Y0: tl.constexpr, X0: tl.constexpr, Z0: tl.constexpr,
    Y1: tl.constexpr, X1: tl.constexpr, Z1: tl.constexpr,
    Y2: tl.constexpr, X2: tl.constexpr, Z2: tl.constexpr,
    LEVELS: tl.constexpr, RELU: tl.constexpr, ROWS: tl.constexpr, PIECE: tl.constexpr,
):  # fmt: skip
    """total [B, Y, X, Z, C] += upsampled levels; grid (tiles of cells and pieces, B)."""
    sample = tl.program_id(1).to(tl.int64)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    cell = row // (C // PIECE)
    live = (cell < Y * X * Z)[:, None]
    cell = tl.minimum(cell, Y * X * Z - 1)
    c = (row % (C // PIECE) * PIECE)[:, None] + tl.arange(0, PIECE)[None, :]
    z, x, y = cell % Z, cell // Z % X, cell // (Z * X)
    here = total + sample * (Y * X * Z * C) + (cell[:, None] * C + c)
    value = tl.load(here).to(tl.float32)
    if LEVELS > 0:
        rows = low0 + sample * (Y0 * X0 * Z0 * C)
        value += _trilinear(rows, y, x, z, c, sy0, sx0, sz0, Y0, X0, Z0, C)
    if LEVELS > 1:
        rows = low1 + sample * (Y1 * X1 * Z1 * C)
        value += _trilinear(rows, y, x, z, c, sy1, sx1, sz1, Y1, X1, Z1, C)
    if LEVELS > 2:
        rows = low2 + sample * (Y2 * X2 * Z2 * C)
        value += _trilinear(rows, y, x, z, c, sy2, sx2, sz2, Y2, X2, Z2, C)
    if RELU:
        value = tl.where(value < 0, 0.0, value)  # NaN stays NaN
    tl.store(here, value.to(total.dtype.element_ty), mask=live)


@triton.jit
def _shifted_taps(
    rows, y, x, c, scale_y, scale_x,
    Y: tl.constexpr, X: tl.constexpr, H: tl.constexpr, W: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """Sum over nine taps of [H, W, 9 * C] of what lies a step away; a zero outside."""
    value = tl.zeros((c.shape[0], c.shape[1]), tl.float32)
    for k in range(9):
        yy, xx = y + (k // 3 - 1), x + (k % 3 - 1)
        inside = ((yy >= 0) & (yy < Y) & (xx >= 0) & (xx < X))[:, None]
        y0, y1, ay = _aligned(tl.maximum(yy, 0), scale_y, H)
        x0, x1, ax = _aligned(tl.maximum(xx, 0), scale_x, W)
        tap = rows + k * C
        by, bx = 1 - ay, 1 - ax
        part = _corner(tap, y0 * W + x0, c, by * bx, 9 * C)
        part += _corner(tap, y0 * W + x1, c, by * ax, 9 * C)
        part += _corner(tap, y1 * W + x0, c, ay * bx, 9 * C)
        part += _corner(tap, y1 * W + x1, c, ay * ax, 9 * C)
        value += tl.where(inside, part, 0.0)
    return value


@triton.jit
def taps_kernel(
    total, low0, low1, low2, sy0, sx0, sy1, sx1, sy2, sx2,
    Y: tl.constexpr, X: tl.constexpr, C: tl.constexpr,
    Y0: tl.constexpr, X0: tl.constexpr, Y1: tl.constexpr, X1: tl.constexpr,
    Y2: tl.constexpr, X2: tl.constexpr,
    LEVELS: tl.constexpr, RELU: tl.constexpr,
    HEIGHT: tl.constexpr, WIDTH: tl.constexpr, PIECE: tl.constexpr,
):  # fmt: skip
    """total [B, Y, X, C] += shifted upsampled taps; grid (tiles of cells, pieces, B)."""
    ACROSS: tl.constexpr = (X + WIDTH - 1) // WIDTH
    tile, sample = tl.program_id(0), tl.program_id(2).to(tl.int64)
    i = tl.arange(0, HEIGHT * WIDTH)
    y = tile // ACROSS * HEIGHT + i // WIDTH
    x = tile % ACROSS * WIDTH + i % WIDTH
    live = ((y < Y) & (x < X))[:, None]
    y, x = tl.minimum(y, Y - 1), tl.minimum(x, X - 1)
    c = tl.program_id(1) * PIECE + tl.arange(0, PIECE)[None, :] + tl.zeros_like(i)[:, None]
    here = total + sample * (Y * X * C) + ((y * X + x)[:, None] * C + c)
    value = tl.load(here).to(tl.float32)
    if LEVELS > 0:
        rows = low0 + sample * (Y0 * X0 * 9 * C)
        value += _shifted_taps(rows, y, x, c, sy0, sx0, Y, X, Y0, X0, C)
    if LEVELS > 1:
        rows = low1 + sample * (Y1 * X1 * 9 * C)
        value += _shifted_taps(rows, y, x, c, sy1, sx1, Y, X, Y1, X1, C)
    if LEVELS > 2:
        rows = low2 + sample * (Y2 * X2 * 9 * C)
        value += _shifted_taps(rows, y, x, c, sy2, sx2, Y, X, Y2, X2, C)
    if RELU:
        value = tl.where(value < 0, 0.0, value)
    tl.store(here, value.to(total.dtype.element_ty), mask=live)


def upsample_add_(total: Tensor, levels: Sequence[Tensor]) -> None:
    """See ``upsample_add_reference``; ``total`` becomes the result.

    Raises:
        ValueError: ``total`` is not contiguous.
    """
    y_size, x_size, z_size, channels = total.shape[1:]
    piece = _piece(channels)
    rows = y_size * x_size * z_size * (channels // piece)
    grid = (triton.cdiv(rows, _ROWS), len(total))
    for some, last in _groups(total, levels):
        sizes = [level.shape[1:4] for level in some]
        add_kernel[grid](
            *(total, *_filled(some, total)),
            *_filled([s for size in sizes for s in _scales(size, total)], 0.0, 3 * _LEVELS),
            *(y_size, x_size, z_size, channels),
            *_filled([s for size in sizes for s in size], 1, 3 * _LEVELS),
            *(len(some), last, _ROWS, piece),
        )


def upsample_taps_(total: Tensor, levels: Sequence[Tensor]) -> None:
    """See ``upsample_taps_reference``; ``total`` becomes the result.

    Raises:
        ValueError: ``total`` is not contiguous.
    """
    y_size, x_size, channels = total.shape[1:]
    piece = _piece(channels)
    tiles = triton.cdiv(y_size, _HEIGHT) * triton.cdiv(x_size, _WIDTH)
    for some, last in _groups(total, levels):
        sizes = [level.shape[1:3] for level in some]
        taps_kernel[tiles, channels // piece, len(total)](
            *(total, *_filled(some, total)),
            *_filled([s for size in sizes for s in _scales(size, total)], 0.0, 2 * _LEVELS),
            *(y_size, x_size, channels),
            *_filled([s for size in sizes for s in size], 1, 2 * _LEVELS),
            *(len(some), last, _HEIGHT, _WIDTH, piece),
        )


def _piece(channels: int) -> int:
    """Channels of a row of a tile: the largest power of two that divides them."""
    return min(_MOST_PIECE, channels & -channels)


def _groups(total: Tensor, levels: Sequence[Tensor]) -> list[tuple[list[Tensor], bool]]:
    """As many levels as a kernel takes, and whether they are the last ones."""
    if not total.is_contiguous():
        raise ValueError("levels are added to a contiguous tensor")
    levels = [level.contiguous() for level in levels]
    starts = range(0, max(1, len(levels)), _LEVELS)
    return [(levels[i : i + _LEVELS], i + _LEVELS >= len(levels)) for i in starts]


def _filled(values: Sequence[object], filler: object, length: int = _LEVELS) -> list[object]:
    return [*values, *[filler] * (length - len(values))]


def _scales(size: Sequence[int], total: Tensor) -> list[float]:
    """Nodes of a level a cell of the whole, by axis, rounded as torch rounds it."""
    return [
        float(torch.tensor(low - 1).float() / (full - 1)) if full > 1 else 0.0
        for low, full in zip(size, total.shape[1:], strict=False)
    ]


def piece_of(channels: int) -> int:
    """For tests of what is compiled."""
    return _piece(channels)
