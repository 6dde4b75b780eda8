# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Temporal fusion on a GPU: gather, move on, rectify and multiply in one pass over the history.

``remembered_sum`` does what needs no image and can run on another stream while the images are
looked at. Slots and channels are one axis (T * C), of which a program takes a block at a time for a
tile of neighbouring cells: it reads the four or eight cells around each place, writes their mean
where the next frame looks for it, and multiplies it on the tensor cores. ``add_present`` does the
rest. Sums are float32; what goes into the tensor cores is rounded to the data's type. Places are
float64, as the reference's.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from alocc_ros.ops.triton_common import Launch, blocks, power_of_2, relu, run


def remembered_sum(
    history: Tensor,  # [B, Y, X, Z, T * C]
    bias: Tensor,  # [B, (T + 1) * C]
    motion: Tensor,  # [B, 3, 4] float64
    matrix: Tensor,  # [(T + 1) * C, C]
    out: Tensor | None,  # as history, never the history itself; gets all slots but the first
) -> Tensor:  # [B, Y, X, Z, C] float32
    """The share of the remembered slots in the product, before offset and ReLU."""
    size = (*history.shape[:4], matrix.shape[1])
    partial = torch.empty(size, dtype=torch.float32, device=history.device)
    run([_remembering(history.contiguous(), bias, motion, matrix, out, partial)])
    return partial


def add_present(
    current: Tensor,  # [B, Y, X, Z, C]
    partial: Tensor,  # [B, Y, X, Z, C] float32, of ``remembered_sum``
    bias: Tensor,  # [B, (T + 1) * C]
    matrix: Tensor,  # [(T + 1) * C, C]
    offset: Tensor,  # [C]
    out: Tensor | None,  # [B, Y, X, Z, T * C], gets the first slot
) -> Tensor:  # [B, Y, X, Z, C]
    """What ``fuse_history_reference`` returns."""
    fused = torch.empty(current.shape, dtype=current.dtype, device=current.device)
    run([_adding(current.contiguous(), partial, bias, matrix, offset, out, fused)])
    return fused


def signatures(data: torch.dtype = torch.float16) -> dict[str, Launch]:
    """By name, the kernels that the published networks start."""
    shapes = {"mini": (200, 200, 1, 40, 16), "2d": (200, 200, 1, 80, 16)}
    shapes |= {"3d": (200, 200, 16, 32, 16)}
    listed = {}
    for name, (y, x, z, c, slots) in shapes.items():
        current = torch.empty(1, y, x, z, c, dtype=data, device="meta")
        history = torch.empty(1, y, x, z, slots * c, dtype=data, device="meta")
        bias = torch.empty(1, (slots + 1) * c, device="meta")
        motion = torch.empty(1, 3, 4, dtype=torch.float64, device="meta")
        matrix = torch.empty((slots + 1) * c, c, dtype=data, device="meta")
        partial = torch.empty(1, y, x, z, c, device="meta")
        listed[f"history, {name}, remembered"] = _remembering(
            history, bias, motion, matrix, history, partial
        )
        listed[f"history, {name}, present"] = _adding(
            current, partial, bias, matrix, bias[0, :c], history, current
        )
    return listed


def _remembering(
    history: Tensor,
    bias: Tensor,
    motion: Tensor,
    matrix: Tensor,
    out: Tensor | None,
    partial: Tensor,
) -> Launch:
    grid, shape = _tiles(history, matrix)
    # Without a place to keep it nothing is stored; a pointer of its type stands for that.
    kept = history if out is None else _room(out)
    tensors = (history, bias.contiguous(), motion.contiguous(), matrix.contiguous(), kept, partial)
    block = 64 if history.element_size() == 2 else 32
    constants = shape | {"KEEP": out is not None, "VOLUME": history.shape[3] > 1, "K": block}
    return Launch(_remember, grid, (*tensors, *history.shape[1:4]), constants, stages=2)


def _adding(
    current: Tensor,
    partial: Tensor,
    bias: Tensor,
    matrix: Tensor,
    offset: Tensor,
    out: Tensor | None,
    fused: Tensor,
) -> Launch:
    grid, shape = _tiles(current, matrix)
    kept = current if out is None else _room(out)
    layers = (bias.contiguous(), matrix.contiguous(), offset.contiguous())
    constants = shape | {"KEEP": out is not None, "K": 16}
    tensors = (current, partial, *layers, kept, fused)
    return Launch(_add, grid, (*tensors, *current.shape[1:4]), constants, stages=2)


def _tiles(like: Tensor, matrix: Tensor) -> tuple[tuple[int, ...], dict[str, int]]:
    """Programs, and what both kernels know of the shapes."""
    batch, y_size, x_size, z_size = like.shape[:4]
    channels = matrix.shape[1]
    # Wide layers as two blocks of columns: 80 as 64 + 16 instead of 128.
    wide = min(power_of_2(channels), 64)
    if channels < wide:
        wide = max(16, wide // 2)
    narrow = power_of_2(channels - wide, 16) if channels > wide else 0
    # Tiles of neighbours read the same cells: 64 cells need 81 of a plane, 125 of a volume.
    tile = (8, 8, 1) if z_size == 1 else (4, 4, 4)
    grid = (blocks(x_size, tile[1]) * blocks(z_size, tile[2]), blocks(y_size, tile[0]), batch)
    sizes = {"TY": tile[0], "TX": tile[1], "TZ": tile[2], "N0": wide, "N1": narrow}
    return grid, {"C": channels, "T": matrix.shape[0] // channels - 1, **sizes}


def _room(out: Tensor) -> Tensor:
    if not out.is_contiguous():
        raise ValueError(f"room for a history must be contiguous, its strides are {out.stride()}")
    return out


@triton.jit
def _remember(
    history,  # [b, Y, X, Z, T * C]
    bias,  # [b, (T + 1) * C]
    motion,  # [b, 3, 4] float64
    matrix,  # [(T + 1) * C, C]
    out,  # [b, Y, X, Z, T * C]
    partial,  # [b, Y, X, Z, C] float32
    y_size,
    x_size,
    z_size,
    C: tl.constexpr,
    T: tl.constexpr,
    KEEP: tl.constexpr,  # write the new history
    VOLUME: tl.constexpr,
    TY: tl.constexpr,  # tile of a program
    TX: tl.constexpr,
    TZ: tl.constexpr,
    N0: tl.constexpr,  # columns of the product in two blocks
    N1: tl.constexpr,
    K: tl.constexpr,  # rows of the matrix at a time
):
    y, x, z, here, cells = _place(y_size, x_size, z_size, TY, TX, TZ)
    cell = cells + (y * x_size + x) * z_size + z  # int64
    b = tl.program_id(2).to(tl.int64)
    bias += b * (T + 1) * C + C
    matrix += C * C
    first, second = tl.arange(0, N0), N0 + tl.arange(0, N1 if N1 else 16)
    total = tl.zeros((TY * TX * TZ, N0), tl.float32)
    rest = tl.zeros((TY * TX * TZ, N1 if N1 else 16), tl.float32)
    m = motion + b * 12
    # A planar lattice's slab counts as the plane z = 1 m (docs/network.md section 8).
    height = z.to(tl.float64) if VOLUME else tl.full((TY * TX * TZ,), 1.0, tl.float64)
    x0, right, has_x0, has_x1 = _between(m, x, y, height, x_size)
    y0, down, has_y0, has_y1 = _between(m + 4, x, y, height, y_size)
    has_y0, has_y1 = has_y0 & here, has_y1 & here
    if VOLUME:
        z0, up, has_z0, has_z1 = _between(m + 8, x, y, height, z_size)
    else:
        z0, up, has_z0, has_z1 = tl.zeros_like(x0), tl.zeros_like(right), here, here
    source = cells + (y0 * x_size + x0) * z_size + z0
    row = history + source * (T * C)
    to_x, to_y = z_size * (T * C), x_size * z_size * (T * C)
    w00, w01 = (1 - down) * (1 - right), (1 - down) * right
    w10, w11 = down * (1 - right), down * right
    for start in range(0, T * C, K):
        k = start + tl.arange(0, K)
        low = 1 - up if VOLUME else tl.full((TY * TX * TZ,), 1.0, tl.float32)
        value = _tap(row, w00 * low, has_y0 & has_x0 & has_z0, k, T * C, K)
        value += _tap(row + to_x, w01 * low, has_y0 & has_x1 & has_z0, k, T * C, K)
        value += _tap(row + to_y, w10 * low, has_y1 & has_x0 & has_z0, k, T * C, K)
        value += _tap(row + to_y + to_x, w11 * low, has_y1 & has_x1 & has_z0, k, T * C, K)
        if VOLUME:
            top = row + T * C
            value += _tap(top, w00 * up, has_y0 & has_x0 & has_z1, k, T * C, K)
            value += _tap(top + to_x, w01 * up, has_y0 & has_x1 & has_z1, k, T * C, K)
            value += _tap(top + to_y, w10 * up, has_y1 & has_x0 & has_z1, k, T * C, K)
            value += _tap(top + to_y + to_x, w11 * up, has_y1 & has_x1 & has_z1, k, T * C, K)
        if KEEP:  # slot k becomes slot k + 1, the oldest is dropped
            tl.store(
                out + cell[:, None] * (T * C) + (C + k)[None, :],
                value.to(out.dtype.element_ty),
                mask=here[:, None] & (C + k < T * C)[None, :],
            )
        shift = tl.load(bias + k, mask=k < T * C, other=0.0).to(tl.float32)
        active = relu(value + shift[None, :]).to(matrix.dtype.element_ty)
        total = _multiply(total, active, matrix, k, first, T * C, C)
        if N1:
            rest = _multiply(rest, active, matrix, k, second, T * C, C)
    place = partial + cell[:, None] * C
    tl.store(place + first[None, :], total, mask=here[:, None] & (first < C)[None, :])
    if N1:
        tl.store(place + second[None, :], rest, mask=here[:, None] & (second < C)[None, :])


@triton.jit
def _add(
    current,  # [b, Y, X, Z, C]
    partial,  # [b, Y, X, Z, C] float32
    bias,  # [b, (T + 1) * C]
    matrix,  # [(T + 1) * C, C]
    offset,  # [C]
    out,  # [b, Y, X, Z, T * C]
    fused,  # [b, Y, X, Z, C]
    y_size,
    x_size,
    z_size,
    C: tl.constexpr,
    T: tl.constexpr,
    KEEP: tl.constexpr,
    TY: tl.constexpr,
    TX: tl.constexpr,
    TZ: tl.constexpr,
    N0: tl.constexpr,
    N1: tl.constexpr,
    K: tl.constexpr,
):
    y, x, z, here, cells = _place(y_size, x_size, z_size, TY, TX, TZ)
    cell = cells + (y * x_size + x) * z_size + z
    bias += tl.program_id(2).to(tl.int64) * (T + 1) * C
    first, second = tl.arange(0, N0), N0 + tl.arange(0, N1 if N1 else 16)
    total = _summed(partial, cell, here, first, C)
    rest = _summed(partial, cell, here, second, C)
    for start in range(0, C, K):
        k = start + tl.arange(0, K)
        live = here[:, None] & (k < C)[None, :]
        value = tl.load(current + cell[:, None] * C + k[None, :], mask=live, other=0.0)
        if KEEP:
            tl.store(out + cell[:, None] * (T * C) + k[None, :], value, mask=live)
        shift = tl.load(bias + k, mask=k < C, other=0.0).to(tl.float32)
        active = relu(value.to(tl.float32) + shift[None, :]).to(matrix.dtype.element_ty)
        total = _multiply(total, active, matrix, k, first, C, C)
        if N1:
            rest = _multiply(rest, active, matrix, k, second, C, C)
    _finish(fused, total, offset, cell, here, first, C)
    if N1:
        _finish(fused, rest, offset, cell, here, second, C)


@triton.jit
def _place(y_size, x_size, z_size, TY: tl.constexpr, TX: tl.constexpr, TZ: tl.constexpr):
    """Cells of a program, whether they are there, and how many lie before its sample (int64)."""
    tiles_z = tl.cdiv(z_size, TZ)
    inner = tl.arange(0, TY * TX * TZ)
    z = tl.program_id(0) % tiles_z * TZ + inner % TZ
    x = tl.program_id(0) // tiles_z * TX + inner // TZ % TX
    y = tl.program_id(1) * TY + inner // (TZ * TX)
    here = (y < y_size) & (x < x_size) & (z < z_size)
    return y, x, z, here, tl.program_id(2).to(tl.int64) * y_size * x_size * z_size


@triton.jit
def _summed(partial, cell, here, column, C: tl.constexpr):
    live = here[:, None] & (column < C)[None, :]
    return tl.load(partial + cell[:, None] * C + column[None, :], mask=live, other=0.0)


@triton.jit
def _between(m, x, y, height, size):
    """Along one axis: the lower node (0 where it is no index), the share of the upper one, and
    which of the two there are.
    """
    place = tl.load(m) * x.to(tl.float64) + tl.load(m + 1) * y.to(tl.float64)
    place += tl.load(m + 2) * height + tl.load(m + 3)
    inside = (place > -1) & (place < size)  # False of NaN
    place = tl.where(inside, place, 0.0)
    low = tl.floor(place)
    index = low.to(tl.int32)
    share = (place - low).to(tl.float32)
    return index, share, inside & (index >= 0), inside & (index + 1 < size)


@triton.jit
def _tap(row, weight, there, k, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    """A block of a cell's numbers, weighted; 0 where there is none."""
    live = there[:, None]
    if WIDTH % BLOCK:
        live = live & (k < WIDTH)[None, :]
    value = tl.load(row[:, None] + k[None, :], mask=live, other=0.0)
    return weight[:, None] * value.to(tl.float32)


@triton.jit
def _multiply(total, active, matrix, k, column, ROWS: tl.constexpr, C: tl.constexpr):
    live = (k < ROWS)[:, None] & (column < C)[None, :]
    weights = tl.load(matrix + k[:, None] * C + column[None, :], mask=live, other=0.0)
    return tl.dot(active, weights, total, input_precision="ieee")


@triton.jit
def _finish(fused, total, offset, cell, here, column, C: tl.constexpr):
    shift = tl.load(offset + column, mask=column < C, other=0.0).to(tl.float32)
    tl.store(
        fused + cell[:, None] * C + column[None, :],
        relu(total + shift[None, :]).to(fused.dtype.element_ty),
        mask=here[:, None] & (column < C)[None, :],
    )
