# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Sums of upsampled levels on a GPU: one pass over the full-size map, all levels at once.

A row of a tile is a piece of one cell's channels that lies side by side in memory, a power of two
of them: 48 channels are three pieces of 16, so no lane idles. Sizes are constants of the compiled
kernel, because a network has one set of them and divisions by constants are cheap.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from alocc_ros.ops.triton_common import Launch, aligned, blocks, relu, run

# Levels that one kernel takes.
LEVELS = 3
# Rows of a tile; a tile of a bird's-eye map is so many cells high and wide, because neighbours
# read the same corners.
_ROWS = 64
_HEIGHT, _WIDTH = 8, 8
_MOST_PIECE = 64


def upsample_add_(total: Tensor, levels: Sequence[Tensor]) -> None:
    """See ``upsample_add_reference``; ``total`` becomes the result.

    Raises:
        ValueError: ``total`` is not contiguous.
    """
    run(_add_launches(total, levels))


def upsample_taps_(total: Tensor, levels: Sequence[Tensor]) -> None:
    """See ``upsample_taps_reference``; ``total`` becomes the result.

    Raises:
        ValueError: ``total`` is not contiguous.
    """
    run(_taps_launches(total, levels))


def signatures(data: torch.dtype = torch.float16) -> dict[str, Launch]:
    """By name, the kernels that the published networks start."""

    def empty(*shape: int) -> Tensor:
        return torch.empty(shape, dtype=data, device="meta")

    volume = [empty(1, 200 >> i, 200 >> i, 16 >> i, 48) for i in range(4)]
    bev = [empty(1, 200 >> i, 200 >> i, 256 if i == 0 else 9 * 256) for i in range(4)]
    mini = [empty(1, 200 >> i, 200 >> i, 128 if i == 0 else 9 * 128) for i in range(3)]
    return {
        "upsample_add, 3d": _add_launches(volume[0], volume[1:])[0],
        "upsample_taps, 2d": _taps_launches(bev[0], bev[1:])[0],
        "upsample_taps, mini": _taps_launches(mini[0], mini[1:])[0],
    }


def _add_launches(total: Tensor, levels: Sequence[Tensor]) -> list[Launch]:
    cells, channels = total.shape[1:4], total.shape[4]
    piece = _piece(channels)
    grid = (blocks(cells.numel() * (channels // piece), _ROWS), len(total))
    constants = {"C": channels, "ROWS": _ROWS, "PIECE": piece}
    constants |= dict(zip("YXZ", cells, strict=True))
    return [
        Launch(add_kernel, grid, tensors, constants | more)
        for tensors, more in _groups(total, levels)
    ]


def _taps_launches(total: Tensor, levels: Sequence[Tensor]) -> list[Launch]:
    batch, y_size, x_size, channels = total.shape
    piece = _piece(channels)
    tiles = blocks(y_size, _HEIGHT) * blocks(x_size, _WIDTH)
    constants = {"C": channels, "HEIGHT": _HEIGHT, "WIDTH": _WIDTH, "PIECE": piece}
    constants |= {"Y": y_size, "X": x_size}
    return [
        Launch(taps_kernel, (tiles, channels // piece, batch), tensors, constants | more, warps=8)
        for tensors, more in _groups(total, levels)
    ]


def _piece(channels: int) -> int:
    """Channels of a row of a tile: the largest power of two that divides them."""
    return min(_MOST_PIECE, channels & -channels)


def _groups(
    total: Tensor, levels: Sequence[Tensor]
) -> list[tuple[tuple[Tensor, ...], dict[str, int]]]:
    """Tensors and level constants of each kernel; where levels are fewer, the rest is not read."""
    if not total.is_contiguous():
        raise ValueError("levels are added to a contiguous tensor")
    groups = []
    for start in range(0, max(1, len(levels)), LEVELS):
        some = [level.contiguous() for level in levels[start : start + LEVELS]]
        missing = LEVELS - len(some)
        last = start + LEVELS >= len(levels)
        constants = {"COUNT": len(some), "RELU": last}
        for i, level in enumerate([*some, *[total] * missing]):
            sizes = zip("YXZ", level.shape[1:-1], strict=False)
            constants |= {f"{axis}{i}": size for axis, size in sizes}
        groups.append(((total, *some, *[total] * missing), constants))
    return groups


@triton.jit
def _corner(rows, cell, c, weight, CHANNELS: tl.constexpr):
    return weight[:, None] * tl.load(rows + (cell[:, None] * CHANNELS + c)).to(tl.float32)


@triton.jit
def _trilinear(
    level, y, x, z, c, sample,
    Y: tl.constexpr, X: tl.constexpr, Z: tl.constexpr,  # of the whole
    YL: tl.constexpr, XL: tl.constexpr, ZL: tl.constexpr,  # of the level
    C: tl.constexpr,
):  # fmt: skip
    rows = level + sample * (YL * XL * ZL * C)
    y0, y1, ay = aligned(y, YL, Y)
    x0, x1, ax = aligned(x, XL, X)
    z0, z1, az = aligned(z, ZL, Z)
    by, bx, bz = 1 - ay, 1 - ax, 1 - az
    value = _corner(rows, (y0 * XL + x0) * ZL + z0, c, by * bx * bz, C)
    value += _corner(rows, (y0 * XL + x0) * ZL + z1, c, by * bx * az, C)
    value += _corner(rows, (y0 * XL + x1) * ZL + z0, c, by * ax * bz, C)
    value += _corner(rows, (y0 * XL + x1) * ZL + z1, c, by * ax * az, C)
    value += _corner(rows, (y1 * XL + x0) * ZL + z0, c, ay * bx * bz, C)
    value += _corner(rows, (y1 * XL + x0) * ZL + z1, c, ay * bx * az, C)
    value += _corner(rows, (y1 * XL + x1) * ZL + z0, c, ay * ax * bz, C)
    value += _corner(rows, (y1 * XL + x1) * ZL + z1, c, ay * ax * az, C)
    return value


@triton.jit
def add_kernel(
    total, low0, low1, low2,
    Y: tl.constexpr, X: tl.constexpr, Z: tl.constexpr, C: tl.constexpr,
    Y0: tl.constexpr, X0: tl.constexpr, Z0: tl.constexpr,
    Y1: tl.constexpr, X1: tl.constexpr, Z1: tl.constexpr,
    Y2: tl.constexpr, X2: tl.constexpr, Z2: tl.constexpr,
    COUNT: tl.constexpr,  # levels
    RELU: tl.constexpr,
    ROWS: tl.constexpr,  # of the tile
    PIECE: tl.constexpr,  # channels of a row
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
    if COUNT > 0:
        value += _trilinear(low0, y, x, z, c, sample, Y, X, Z, Y0, X0, Z0, C)
    if COUNT > 1:
        value += _trilinear(low1, y, x, z, c, sample, Y, X, Z, Y1, X1, Z1, C)
    if COUNT > 2:
        value += _trilinear(low2, y, x, z, c, sample, Y, X, Z, Y2, X2, Z2, C)
    if RELU:
        value = relu(value)
    tl.store(here, value.to(total.dtype.element_ty), mask=live)


@triton.jit
def _shifted_taps(
    level, y, x, c, sample,
    Y: tl.constexpr, X: tl.constexpr,  # of the whole
    YL: tl.constexpr, XL: tl.constexpr,  # of the level
    C: tl.constexpr,
):  # fmt: skip
    """Sum over nine taps of [YL, XL, 9 * C] of what lies a step away; zero outside."""
    rows = level + sample * (YL * XL * 9 * C)
    value = tl.zeros(c.shape, tl.float32)
    for k in range(9):
        yy, xx = y + (k // 3 - 1), x + (k % 3 - 1)
        inside = ((yy >= 0) & (yy < Y) & (xx >= 0) & (xx < X))[:, None]
        y0, y1, ay = aligned(tl.maximum(yy, 0), YL, Y)
        x0, x1, ax = aligned(tl.maximum(xx, 0), XL, X)
        tap = rows + k * C
        by, bx = 1 - ay, 1 - ax
        part = _corner(tap, y0 * XL + x0, c, by * bx, 9 * C)
        part += _corner(tap, y0 * XL + x1, c, by * ax, 9 * C)
        part += _corner(tap, y1 * XL + x0, c, ay * bx, 9 * C)
        part += _corner(tap, y1 * XL + x1, c, ay * ax, 9 * C)
        value += tl.where(inside, part, 0.0)
    return value


@triton.jit
def taps_kernel(
    total, low0, low1, low2,
    Y: tl.constexpr, X: tl.constexpr, C: tl.constexpr,
    Y0: tl.constexpr, X0: tl.constexpr,
    Y1: tl.constexpr, X1: tl.constexpr,
    Y2: tl.constexpr, X2: tl.constexpr,
    COUNT: tl.constexpr,
    RELU: tl.constexpr,
    HEIGHT: tl.constexpr,
    WIDTH: tl.constexpr,
    PIECE: tl.constexpr,
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
    if COUNT > 0:
        value += _shifted_taps(low0, y, x, c, sample, Y, X, Y0, X0, C)
    if COUNT > 1:
        value += _shifted_taps(low1, y, x, c, sample, Y, X, Y1, X1, C)
    if COUNT > 2:
        value += _shifted_taps(low2, y, x, c, sample, Y, X, Y2, X2, C)
    if RELU:
        value = relu(value)
    tl.store(here, value.to(total.dtype.element_ty), mask=live)
