# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Recurrent fusion on a GPU: one kernel from offsets to the fused volume; the scene layer's step in
three (sums by program, their sum, the answer), each in an order that is always the same.

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
    NEAREST,
    NORM_EPSILON,
    SceneWeights,
)
from alocc_ros.ops.triton_common import Launch, blocks, power_of_2, relu, run

# Voxels of a program: fused ones by bytes of a number, those of the scene layer.
_VOXELS = {2: 64, 4: 32}
_SCENE_VOXELS = 64
# At most so many programs sum over the volume, one partial sum each; and added at a time.
_PARTS, _PARTS_AT_ONCE = 528, 16
# Points of the frustum of a program.
_POINTS = 256


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


def warp_frustum(
    values: Tensor, homography: Tensor, offset: Tensor, first: float, step: float
) -> Tensor:
    """See ``warp_frustum_reference``."""
    out = torch.empty_like(values, memory_format=torch.contiguous_format)
    geometry = (homography.contiguous(), offset.contiguous())
    run(_frustum_launches(values, *geometry, first, step, out))
    return out


def signatures(data: torch.dtype = torch.float16) -> dict[str, Launch]:
    """By name, the kernels that the published networks start."""

    def empty(*shape: int, dtype: torch.dtype = data) -> Tensor:
        return torch.empty(shape, dtype=dtype, device="meta")

    real, double, c = torch.float32, torch.float64, 32
    cells = (1, 200, 200, 16)
    rows, offsets, motion = empty(*cells, c), empty(*cells, 3), empty(1, 3, 4, dtype=double)
    layers = (empty(c, 3), empty(3, dtype=real), empty(c, c), empty(1, 2, c, dtype=real))
    layers += (empty(2 * c, c), empty(c, dtype=real))
    fuse = {
        name: _fuse_launches(rows, rows, previous, motion, *layers, rows, offsets)[0]
        for name, previous in (("fuse_recurrent", offsets), ("fuse_recurrent, first", None))
    }
    weights = SceneWeights(*[empty(c, c)] * 4, *[empty(c, dtype=real)] * 3)
    sums, parts = empty(1, c, c + 1, dtype=real), empty(1, _PARTS, c, c + 3, dtype=real)
    small = (empty(1, dtype=real), weights, parts, rows, sums, empty(1, 2, c, dtype=real))
    names = (f"scene_step, {step}" for step in ("gradient", "renew", "answer"))
    points, geometry = empty(6, 88, 16, 44), (empty(6, 3, 3, dtype=double), motion)
    return {
        **fuse,
        **dict(zip(names, _scene_launches(rows, sums, *small), strict=True)),
        "warp_frustum": _frustum_launches(points, *geometry, 1.0, 0.5, points)[0],
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


def _part_count(rows: Tensor) -> int:
    return min(_PARTS, blocks(rows[0, ..., 0].numel(), _SCENE_VOXELS))


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
    wide = {"P": _SCENE_VOXELS, "CB": power_of_2(channels, 16), "EPSILON": NORM_EPSILON}
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


def _frustum_launches(
    values: Tensor, homography: Tensor, offset: Tensor, first: float, step: float, out: Tensor
) -> list[Launch]:
    n, bins, height, width = values.shape
    constants = {"D": bins, "H": height, "W": width, "FIRST": first, "STEP": step}
    constants |= {"NEAREST": NEAREST, "P": _POINTS}
    grid = (blocks(bins * height * width, _POINTS), n)
    arguments = (values, homography, offset, out, *values.stride())
    return [Launch(frustum_kernel, grid, arguments, constants)]


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
def _share(fraction, UPPER: tl.constexpr):
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
        wx = _share(ax, corner & 1)
        wy = _share(ay, corner >> 1 & 1)
        wz = _share(az, corner >> 2)
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
        wx = _share(ax, corner & 1)
        wy = _share(ay, corner >> 1 & 1)
        wz = _share(az, corner >> 2)
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


@triton.jit
def frustum_kernel(
    values, homography, offset, out, values_n, values_d, values_y, values_x,
    D: tl.constexpr, H: tl.constexpr, W: tl.constexpr,
    FIRST: tl.constexpr,  # metres, depth of bin 0
    STEP: tl.constexpr,
    NEAREST: tl.constexpr,  # metres, from here on something is visible
    P: tl.constexpr,  # points of a program
):  # fmt: skip
    """Out [N, D, H, W]; grid (blocks of points, N)."""
    n = tl.program_id(1).to(tl.int64)
    point = tl.program_id(0) * P + tl.arange(0, P)
    live = point < D * H * W
    first, step = tl.full((), FIRST, tl.float64), tl.full((), STEP, tl.float64)
    x, y = (point % W).to(tl.float64), (point // W % H).to(tl.float64)
    depth = first + step * (point // (H * W)).to(tl.float64)
    h, o = homography + n * 9, offset + n * 3
    z = depth * (tl.load(h + 6) * x + tl.load(h + 7) * y + tl.load(h + 8)) + tl.load(o + 2)
    seen = live & (z >= tl.full((), NEAREST, tl.float64))
    scale = 1.0 / tl.where(seen, z, 1.0)
    px = depth * (tl.load(h) * x + tl.load(h + 1) * y + tl.load(h + 2)) + tl.load(o)
    py = depth * (tl.load(h + 3) * x + tl.load(h + 4) * y + tl.load(h + 5)) + tl.load(o + 1)
    px, py, pz = px * scale, py * scale, (z - first) / step
    # What is far outside is no integer of 32 bits.
    seen &= (px > -1) & (px < W) & (py > -1) & (py < H) & (pz > -1) & (pz < D)
    px, py, pz = tl.where(seen, px, -2.0), tl.where(seen, py, -2.0), tl.where(seen, pz, -2.0)
    lx, ly, lz = tl.floor(px), tl.floor(py), tl.floor(pz)
    ax, ay, az = (px - lx).to(tl.float32), (py - ly).to(tl.float32), (pz - lz).to(tl.float32)
    cx, cy, cz = lx.to(tl.int32), ly.to(tl.int32), lz.to(tl.int32)
    values += n * values_n
    total = tl.zeros((P,), tl.float32)
    for corner in tl.static_range(8):
        kx, ky, kz = cx + (corner & 1), cy + (corner >> 1 & 1), cz + (corner >> 2)
        inside = seen & (kx >= 0) & (kx < W) & (ky >= 0) & (ky < H) & (kz >= 0) & (kz < D)
        wx = _share(ax, corner & 1)
        wy = _share(ay, corner >> 1 & 1)
        wz = _share(az, corner >> 2)
        tap = values + (kz * values_d + ky * values_y + kx * values_x)
        value = tl.load(tap, mask=inside, other=0.0).to(tl.float32)
        total += tl.where(inside, wx * wy * wz * value, 0.0)
    to = out + n * (D * H * W) + point
    tl.store(to, total.to(out.dtype.element_ty), mask=live)
