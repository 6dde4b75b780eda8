# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""The maps to match on a GPU: a cell of half size is made of four of full size, of the past each of
them of the four cells around where it was; nothing of full size is stored.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from alocc_ros.ops.triton_common import Launch, aligned, blocks, power_of_2, run

# Elements of a block of cells x channels.
_BLOCK = 1024


def matching_maps(now: Tensor, before: Tensor, motion: Tensor) -> Tensor:
    """See ``matching_maps_reference``."""
    batch, channels, y_size, x_size = now.shape
    maps = now.new_empty(2 * batch, y_size // 2, x_size // 2, channels).permute(0, 3, 1, 2)
    run(_launches(now, before, motion.contiguous(), maps))
    return maps


def signatures(data: torch.dtype = torch.float16) -> dict[str, Launch]:
    """By name, the kernels that the published networks and ``alocc_tiny`` start."""
    motion = torch.empty(1, 3, 4, dtype=torch.float64, device="meta")
    listed = {}
    for channels in (48, 16):
        bev, maps = (
            torch.empty(b, s, s, channels, dtype=data, device="meta").permute(0, 3, 1, 2)
            for b, s in ((1, 200), (2, 100))
        )
        listed[f"matching_maps, {channels}"] = _launches(bev, bev, motion, maps)[0]
    return listed


def _launches(now: Tensor, before: Tensor, motion: Tensor, maps: Tensor) -> list[Launch]:
    batch, channels, y_size, x_size = now.shape
    wide = power_of_2(channels)
    constants = {"Y": y_size, "X": x_size, "HY": y_size // 2, "HX": x_size // 2, "C": channels}
    constants |= {"CB": wide, "P": max(1, _BLOCK // wide)}
    grid = (blocks(y_size // 2 * (x_size // 2), constants["P"]), 2, batch)
    arguments = (now, before, motion, maps, *now.stride(), *before.stride())
    return [Launch(maps_kernel, grid, arguments, constants)]


@triton.jit
def _read(rows, y, x, along_y, along_x, channel, there, Y: tl.constexpr, X: tl.constexpr):
    """Cells as float32, zero outside."""
    inside = (y >= 0) & (y < Y) & (x >= 0) & (x < X)
    tap = rows + (y * along_y + x * along_x)[:, None] + channel[None, :]
    return tl.load(tap, mask=there & inside[:, None], other=0.0).to(tl.float32)


@triton.jit
def _moved(rows, y, x, motion, along_y, along_x, channel, there, Y: tl.constexpr, X: tl.constexpr):
    """The past map where cells were."""
    wide_x, wide_y = x.to(tl.float64), y.to(tl.float64)
    px = tl.load(motion) * wide_x + tl.load(motion + 1) * wide_y
    px += tl.load(motion + 2) + tl.load(motion + 3)
    py = tl.load(motion + 4) * wide_x + tl.load(motion + 5) * wide_y
    py += tl.load(motion + 6) + tl.load(motion + 7)
    # What is far outside is no integer of 32 bits.
    seen = (px > -1) & (px < X) & (py > -1) & (py < Y)
    px, py = tl.where(seen, px, -2.0), tl.where(seen, py, -2.0)
    lx, ly = tl.floor(px), tl.floor(py)
    ax, ay = (px - lx).to(tl.float32), (py - ly).to(tl.float32)
    cx, cy = lx.to(tl.int32), ly.to(tl.int32)
    total = tl.zeros(there.shape, tl.float32)
    for corner in tl.static_range(4):
        wx = ax if corner & 1 else 1 - ax
        wy = ay if corner >> 1 else 1 - ay
        kx, ky = cx + (corner & 1), cy + (corner >> 1)
        value = _read(rows, ky, kx, along_y, along_x, channel, there, Y, X)
        inside = (ky >= 0) & (ky < Y) & (kx >= 0) & (kx < X)
        total += tl.where(inside[:, None], (wx * wy)[:, None] * value, 0.0)
    return total


@triton.jit
def maps_kernel(
    now, before, motion, maps,
    now_n, now_c, now_y, now_x, before_n, before_c, before_y, before_x,
    Y: tl.constexpr, X: tl.constexpr,
    HY: tl.constexpr, HX: tl.constexpr,  # half of it
    C: tl.constexpr,
    CB: tl.constexpr,  # power of two, at least C
    P: tl.constexpr,  # cells of a program
):  # fmt: skip
    """Maps [2 * B, HY, HX, C]; grid (blocks of cells, now and before, B)."""
    past, n = tl.program_id(1), tl.program_id(2).to(tl.int64)
    cell, c = tl.program_id(0) * P + tl.arange(0, P), tl.arange(0, CB)
    there = (cell < HY * HX)[:, None] & (c < C)[None, :]
    y0, y1, ay = aligned(cell // HX, Y, HY)
    x0, x1, ax = aligned(cell % HX, X, HX)
    value = tl.zeros((P, CB), tl.float32)
    for corner in tl.static_range(4):
        y, wy = (y1, ay) if corner >> 1 else (y0, 1 - ay)
        x, wx = (x1, ax) if corner & 1 else (x0, 1 - ax)
        if past == 0:
            part = _read(now + n * now_n, y, x, now_y, now_x, c * now_c, there, Y, X)
        else:
            part = _moved(
                before + n * before_n, y, x, motion + n * 12, before_y, before_x, c * before_c,
                there, Y, X,
            )  # fmt: skip
        value += (wy * wx)[:, None] * part
    row = (past * tl.num_programs(2) + n) * (HY * HX) + cell
    to = maps + row[:, None] * C + c[None, :]
    tl.store(to, value.to(maps.dtype.element_ty), mask=there)
