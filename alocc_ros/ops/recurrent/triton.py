# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Recurrent fusion on a GPU: one kernel from offsets to the fused volume.

Where a voxel was is worked out in float64 as far as a whole cell and a fraction; what is added to
the fraction is float32, at most some tens of cells.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from alocc_ros.ops.recurrent.reference import (
    MOTION_LIMIT,
    MOTION_STEP,
)
from alocc_ros.ops.triton_common import Launch, blocks, power_of_2, relu, run

# Voxels of a program, by bytes of a number.
_VOXELS = {2: 64, 4: 32}


def fuse_recurrent(
    current: Tensor,
    history: Tensor,
    previous: Tensor | None,
    motion: Tensor,
    offset_matrix: Tensor,
    offset_bias: Tensor,
    time_matrix: Tensor,
    time_bias: Tensor,
    cat_matrix: Tensor,
    cat_bias: Tensor,
    fused: Tensor,
    offsets: Tensor,
) -> None:
    """See ``fuse_recurrent_reference``.

    Raises:
        ValueError: what is written to is not contiguous.
    """
    if not offsets.is_contiguous() or not fused.is_contiguous():
        raise ValueError("fuse_recurrent writes into contiguous tensors")
    previous = None if previous is None else previous.contiguous()
    volumes = (current.contiguous(), history.contiguous(), previous, motion.contiguous())
    layers = (offset_matrix, offset_bias, time_matrix, time_bias, cat_matrix, cat_bias)
    run(_fuse_launches(*volumes, *(t.contiguous() for t in layers), fused, offsets))


def signatures(data: torch.dtype = torch.float16) -> dict[str, Launch]:
    """By name, the kernels that the published networks start."""

    def empty(*shape: int, dtype: torch.dtype = data) -> Tensor:
        return torch.empty(shape, dtype=dtype, device="meta")

    real, c, cells = torch.float32, 32, (1, 200, 200, 16)
    rows, offsets = empty(*cells, c), empty(*cells, 3)
    motion = empty(1, 3, 4, dtype=torch.float64)
    layers = (empty(c, 3), empty(3, dtype=real), empty(c, c), empty(1, 2, c, dtype=real))
    layers += (empty(2 * c, c), empty(c, dtype=real))
    return {
        name: _fuse_launches(rows, rows, previous, motion, *layers, rows, offsets)[0]
        for name, previous in (("fuse_recurrent", offsets), ("fuse_recurrent, first", None))
    }


def _fuse_launches(
    current: Tensor,
    history: Tensor,
    previous: Tensor | None,
    motion: Tensor,
    offset_matrix: Tensor,
    offset_bias: Tensor,
    time_matrix: Tensor,
    time_bias: Tensor,
    cat_matrix: Tensor,
    cat_bias: Tensor,
    fused: Tensor,
    offsets: Tensor,
) -> list[Launch]:
    batch, y_size, x_size, z_size, channels = current.shape
    voxels = _VOXELS[current.element_size()]
    tensors = (current, history, current if previous is None else previous, motion)
    tensors += (offset_matrix, offset_bias, time_matrix, time_bias, cat_matrix, cat_bias)
    constants = {"Y": y_size, "X": x_size, "Z": z_size, "C": channels, "LIMIT": MOTION_LIMIT}
    constants |= {"STEP": MOTION_STEP, "CORRECT": previous is not None}
    constants |= {"P": voxels, "CB": power_of_2(channels, 16)}
    grid = (blocks(y_size * x_size * z_size, voxels), batch)
    return [Launch(fuse_kernel, grid, (*tensors, fused, offsets), constants, stages=2)]


@triton.jit
def _limited(x, LIMIT: tl.constexpr):
    """Within +-LIMIT; NaN stays NaN."""
    return tl.where(x > LIMIT, LIMIT, tl.where(x < -LIMIT, -LIMIT, x))


@triton.jit
def _base(row, x, y, z):
    """One coordinate of where a voxel was if nothing moved but the vehicle: cell and fraction."""
    m = tl.load(row) * x.to(tl.float64) + tl.load(row + 1) * y.to(tl.float64)
    m += tl.load(row + 2) * z.to(tl.float64) + tl.load(row + 3)
    cell = tl.floor(m)
    return cell.to(tl.int32), (m - cell).to(tl.float32)


@triton.jit
def _moved(cell, fraction, offset):
    """Cell and fraction of a place that lies ``offset`` further; of NaN the fraction is NaN."""
    place = fraction + offset
    lower = tl.floor(place)
    # NaN is no cell at all; which one stands for it does not matter, but it must be a number.
    known = place == place
    return tl.where(known, cell + tl.where(known, lower, 0.0).to(tl.int32), 0), place - lower


@triton.jit
def share(fraction, UPPER: tl.constexpr):
    """Of the upper or the lower one of two neighbours."""
    return fraction if UPPER else 1 - fraction


@triton.jit
def _signed(x, UPPER: tl.constexpr):
    return x if UPPER else -x


@triton.jit
def _corrected(
    previous, mx, my, mz, ix, fx, iy, fy, iz, fz, live,
    Y: tl.constexpr, X: tl.constexpr, Z: tl.constexpr, LIMIT: tl.constexpr, STEP: tl.constexpr,
):  # fmt: skip
    """Predicted offsets after one step towards those that are remembered where they lead to."""
    cx, ax = _moved(ix, fx, mx)
    cy, ay = _moved(iy, fy, my)
    cz, az = _moved(iz, fz, mz)
    error_x, error_y, error_z = -mx, -my, -mz
    zero = tl.zeros_like(mx)
    # Slopes by axis of each component.
    xx, xy, xz, yx, yy, yz, zx, zy, zz = zero, zero, zero, zero, zero, zero, zero, zero, zero
    for corner in tl.static_range(8):
        x = tl.minimum(tl.maximum(cx + (corner & 1), 0), X - 1)
        y = tl.minimum(tl.maximum(cy + (corner >> 1 & 1), 0), Y - 1)
        z = tl.minimum(tl.maximum(cz + (corner >> 2), 0), Z - 1)
        tap = previous + ((y * X + x) * Z + z) * 3
        ux = tl.load(tap, mask=live, other=0.0).to(tl.float32)
        uy = tl.load(tap + 1, mask=live, other=0.0).to(tl.float32)
        uz = tl.load(tap + 2, mask=live, other=0.0).to(tl.float32)
        wx = share(ax, corner & 1)
        wy = share(ay, corner >> 1 & 1)
        wz = share(az, corner >> 2)
        error_x += wx * wy * wz * ux
        error_y += wx * wy * wz * uy
        error_z += wx * wy * wz * uz
        sx = _signed(wy * wz, corner & 1)
        sy = _signed(wx * wz, corner >> 1 & 1)
        sz = _signed(wx * wy, corner >> 2)
        xx, xy, xz = xx + sx * ux, xy + sx * uy, xz + sx * uz
        yx, yy, yz = yx + sy * ux, yy + sy * uy, yz + sy * uz
        zx, zy, zz = zx + sz * ux, zy + sz * uy, zz + sz * uz
    along_x = xx * error_x + xy * error_y + xz * error_z - error_x
    along_y = yx * error_x + yy * error_y + yz * error_z - error_y
    along_z = zx * error_x + zy * error_y + zz * error_z - error_z
    outside = (cx < 0) | (cx + ax > X - 1) | (cy < 0) | (cy + ay > Y - 1)
    outside |= (cz < 0) | (cz + az > Z - 1)
    # A place that is NaN is not outside: its step is NaN.
    mx -= tl.where(outside, 0.0, STEP * _limited(along_x * (2 / 3), LIMIT))
    my -= tl.where(outside, 0.0, STEP * _limited(along_y * (2 / 3), LIMIT))
    mz -= tl.where(outside, 0.0, STEP * _limited(along_z * (2 / 3), LIMIT))
    return mx, my, mz


@triton.jit
def _product(rows, matrix, C: tl.constexpr, CB: tl.constexpr):
    """Rows [P, CB] times a matrix [C, C]."""
    k, n = tl.arange(0, CB)[:, None], tl.arange(0, CB)[None, :]
    weight = tl.load(matrix + k * C + n, mask=(k < C) & (n < C), other=0.0)
    return tl.dot(rows, weight.to(rows.dtype), input_precision="ieee")


@triton.jit
def _predicted(rows, matrix, bias, c, AXIS: tl.constexpr, C: tl.constexpr, LIMIT: tl.constexpr):
    column = tl.load(matrix + c * 3 + AXIS, mask=c < C, other=0.0).to(tl.float32)
    offset = tl.sum(rows.to(tl.float32) * column[None, :], 1)
    return _limited(offset + tl.load(bias + AXIS).to(tl.float32), LIMIT)


@triton.jit
def fuse_kernel(
    current, history, previous, motion, offset_matrix, offset_bias,
    time_matrix, time_bias, cat_matrix, cat_bias, fused, offsets,
    Y: tl.constexpr, X: tl.constexpr, Z: tl.constexpr, C: tl.constexpr,
    LIMIT: tl.constexpr,
    STEP: tl.constexpr,
    CORRECT: tl.constexpr,  # whether there are remembered offsets
    P: tl.constexpr,  # voxels of a program
    CB: tl.constexpr,  # power of two, at least C
):  # fmt: skip
    """Grid (blocks of voxels, B)."""
    SIZE: tl.constexpr = Y * X * Z
    sample = tl.program_id(1).to(tl.int64)
    voxel, c = tl.program_id(0) * P + tl.arange(0, P), tl.arange(0, CB)
    live = voxel < SIZE
    there = live[:, None] & (c < C)[None, :]
    place = sample * (SIZE * C) + (voxel * C)[:, None] + c[None, :]
    now = tl.load(current + place, mask=there, other=0.0)
    mx = _predicted(now, offset_matrix, offset_bias, c, 0, C, LIMIT)
    my = _predicted(now, offset_matrix, offset_bias, c, 1, C, LIMIT)
    mz = _predicted(now, offset_matrix, offset_bias, c, 2, C, LIMIT)
    z, x, y = voxel % Z, voxel // Z % X, voxel // (Z * X)
    plane = z + 1 if Z == 1 else z  # a slab lies in the plane z = 1
    ix, fx = _base(motion + sample * 12, x, y, plane)
    iy, fy = _base(motion + sample * 12 + 4, x, y, plane)
    iz, fz = _base(motion + sample * 12 + 8, x, y, plane)
    if Z == 1:  # and has no other place along z
        iz, fz = tl.zeros_like(iz), tl.zeros_like(fz)
    if CORRECT:
        mx, my, mz = _corrected(
            previous + sample * (SIZE * 3), mx, my, mz, ix, fx, iy, fy, iz, fz, live,
            Y, X, Z, LIMIT, STEP,
        )  # fmt: skip
    to = offsets + (sample * SIZE + voxel) * 3
    tl.store(to, mx.to(offsets.dtype.element_ty), mask=live)
    tl.store(to + 1, my.to(offsets.dtype.element_ty), mask=live)
    tl.store(to + 2, mz.to(offsets.dtype.element_ty), mask=live)
    cx, ax = _moved(ix, fx, mx)
    cy, ay = _moved(iy, fy, my)
    cz, az = _moved(iz, fz, mz)
    known = live & (ax == ax) & (ay == ay) & (az == az)  # by way of NaN nothing is found
    if Z == 1:
        cz, az = tl.zeros_like(cz), tl.zeros_like(az)
    history += sample * (SIZE * C)
    then = tl.zeros((P, CB), tl.float32)
    for corner in tl.static_range(8):
        kx, ky, kz = cx + (corner & 1), cy + (corner >> 1 & 1), cz + (corner >> 2)
        inside = known & (kx >= 0) & (kx < X) & (ky >= 0) & (ky < Y) & (kz >= 0) & (kz < Z)
        wx = share(ax, corner & 1)
        wy = share(ay, corner >> 1 & 1)
        wz = share(az, corner >> 2)
        cell = ((ky * X + kx) * Z + kz) * C
        value = tl.load(
            history + cell[:, None] + c[None, :],
            mask=inside[:, None] & (c < C)[None, :],
            other=0.0,
        )
        then += tl.where(inside, wx * wy * wz, 0.0)[:, None] * value.to(tl.float32)
    bias = time_bias + sample * (2 * C) + c
    timed = _product(now, time_matrix, C, CB)
    timed = relu(timed + tl.load(bias, mask=c < C, other=0.0).to(tl.float32)[None, :])
    merged = _product(timed.to(now.dtype), cat_matrix, C, CB)
    timed = _product(then.to(now.dtype), time_matrix, C, CB)
    timed = relu(timed + tl.load(bias + C, mask=c < C, other=0.0).to(tl.float32)[None, :])
    merged += _product(timed.to(now.dtype), cat_matrix + C * C, C, CB)
    merged = relu(merged + tl.load(cat_bias + c, mask=c < C, other=0.0).to(tl.float32)[None, :])
    tl.store(fused + place, merged.to(fused.dtype.element_ty), mask=there)
