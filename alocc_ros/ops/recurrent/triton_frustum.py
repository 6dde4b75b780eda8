# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""What a camera's frustum held, moved to another's, on a GPU. Places are float64 as far as a whole
cell and a fraction.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from alocc_ros.ops.recurrent.reference import NEAREST
from alocc_ros.ops.recurrent.triton import share
from alocc_ros.ops.triton_common import Launch, blocks, run

# Points of the frustum of a program.
_POINTS = 256


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
    points = torch.empty(6, 88, 16, 44, dtype=data, device="meta")
    exact = {"dtype": torch.float64, "device": "meta"}
    geometry = (torch.empty(6, 3, 3, **exact), torch.empty(6, 3, **exact))
    return {"warp_frustum": _frustum_launches(points, *geometry, 1.0, 0.5, points)[0]}


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
        wx = share(ax, corner & 1)
        wy = share(ay, corner >> 1 & 1)
        wz = share(az, corner >> 2)
        tap = values + (kz * values_d + ky * values_y + kx * values_x)
        value = tl.load(tap, mask=inside, other=0.0).to(tl.float32)
        total += tl.where(inside, wx * wy * wz * value, 0.0)
    to = out + n * (D * H * W) + point
    tl.store(to, total.to(out.dtype.element_ty), mask=live)
