# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Lifting on a GPU: places in float64, then sums by atomics or, on request, in a fixed order.

The rig of a moving vehicle changes with every frame (each camera's pose at its own stamp), so the
nodes are worked out anew, once for each point: a kernel writes each point's lower node, shares and
mass as a record of 20 bytes. Nodes that are known (``rows``, ``weights``) are therefore not read.

``lift`` walks down the columns of the images. Points of one depth bin that lie below each other
mostly fall between the same nodes (all of them in a bird's-eye lattice seen by a level camera), so
their sum stays in registers until the next one lies elsewhere. Only then it goes to memory by
atomics, whose order is not fixed: two runs differ by the rounding of float32 sums, at most 2e-5 of
the largest value (as measured in ``test/operators.py``), before the result is rounded to the
data's type. ``lift_deterministic`` (triton_sorted.py) has one order instead, and takes longer.

What a masked camera saw is never read. NaN shows at the nodes around its point; the reference adds
points outside to the first node with weight 0, where NaN shows too, which no kernel does.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from alocc_ros.ops.lift.reference import LiftArguments
from alocc_ros.ops.triton_common import Launch, blocks, power_of_2, run

# Side copies of a pixel: eight neighbours with three depths each.
SIDES = 24


def lift(*arguments: Any) -> Tensor:
    """See ``lift_reference``."""
    a = LiftArguments(*arguments)
    sums = torch.empty(volume_size(a), dtype=torch.float32, device=a.context.device)
    out = (
        sums if a.context.dtype == torch.float32 else torch.empty_like(sums, dtype=a.context.dtype)
    )
    run(_launches(a, *records(a), sums, out))
    return out.permute(0, 4, 1, 2, 3)


def volume_size(a: LiftArguments) -> tuple[int, ...]:
    """[B, Y, X, Z, C]."""
    return (a.samples, a.size[1], a.size[0], a.size[2], a.context.shape[1])


def records(a: LiftArguments) -> tuple[Tensor, Tensor]:
    """Room for the points: keys [N, w, h, K] int32, and mass and shares [4, N, w, h, K] float32."""
    n, bins, h, w = a.geometry.shape
    size = (n, w, h, bins + (0 if a.side_weight is None else SIDES))
    keys = torch.empty(size, dtype=torch.int32, device=a.geometry.device)
    return keys, torch.empty((4, *size), dtype=torch.float32, device=keys.device)


def signatures(data: torch.dtype = torch.float16) -> dict[str, Launch]:
    """By name, the kernels that the published networks start."""
    listed = {}
    for name in ("mini", "2d", "3d"):
        a = published(name, data)
        sums = torch.empty(volume_size(a), device="meta")
        for one in _launches(a, *records(a), sums, sums.to(data)):
            listed[f"lift, {name}, {one.kernel.__name__.strip('_')}"] = one
    # As another's, or nearly so.
    for name in ("mini, place", "mini, store", "2d, place", "3d, store"):
        listed.pop(f"lift, {name}", None)
    return listed


def published(name: str, data: torch.dtype) -> LiftArguments:
    """Arguments of the size that a published network has, on the meta device."""
    bins, channels, z_size = {"mini": (44, 40, 1), "2d": (88, 80, 1), "3d": (88, 32, 16)}[name]

    def empty(*size: int, dtype: torch.dtype = data) -> Tensor:
        tensor = torch.empty(size, dtype=dtype, device="meta")
        return tensor.contiguous(memory_format=torch.channels_last) if len(size) == 4 else tensor

    exact, sided = torch.float64, name != "mini"
    return LiftArguments(
        geometry=empty(6, bins, 16, 44),
        context=empty(6, channels, 16, 44),
        rays=empty(6, 3, 3, dtype=exact),
        origin=empty(6, 3, dtype=exact),
        us=empty(44, dtype=exact),
        vs=empty(16, dtype=exact),
        camera_mask=empty(6, dtype=torch.bool),
        side_weight=empty(6, 27, 16, 44) if sided else None,
        side_offset=empty(6, 18, 16, 44) if sided else None,
        rows=None,
        weights=None,
        first_depth=1.0,
        depth_step=0.5 if sided else 1.0,
        side_index_max=5,
        lower=[-40.0, -40.0, -1.0],
        step=[0.4, 0.4, 6.4 / z_size],
        size=[200, 200, z_size],
        samples=1,
    )


def _launches(
    a: LiftArguments, keys: Tensor, shares: Tensor, sums: Tensor, out: Tensor
) -> list[Launch]:
    n, w, h, points = keys.shape
    channels, (x_size, y_size, z_size) = a.context.shape[1], a.size
    lanes, at_once = power_of_2(channels, 32), 4
    listed = [
        place(a, keys, shares, sums),
        Launch(
            _sum,
            (blocks(points, at_once), w, n),
            (keys, shares, a.context, a.camera_mask, sums, keys.numel(), n // a.samples, w, h)
            + a.context.stride(),
            {
                "X": x_size,
                "Y": y_size,
                "Z": z_size,
                "C": channels,
                "K": points,
                "B": at_once,
                "CP": lanes,
            },
            warps=1,  # a program that waits for no other warp
            stages=1,
        ),
    ]
    if out is not sums:
        size = 2048
        program = Launch(
            _store, (blocks(sums.numel(), size),), (sums, out, sums.numel()), {"B": size}
        )
        listed.append(program)
    return listed


def place(a: LiftArguments, keys: Tensor, shares: Tensor, sums: Tensor | None) -> Launch:
    """The records of all points; ``sums``, if there are any, becomes zero."""
    n, bins, h, w = a.geometry.shape
    pixels, fill = 4, 4096
    sided = a.side_weight is not None and a.side_offset is not None
    weight, offset = (a.side_weight, a.side_offset) if sided else (a.geometry, a.geometry)
    placing = blocks(h * w, pixels) * n
    zeroing = 0 if sums is None else blocks(sums.numel(), fill)
    return Launch(
        _place,
        (placing + zeroing,),
        (
            a.geometry, weight, offset, a.rays.contiguous(), a.origin.contiguous(), a.us, a.vs,
            a.camera_mask, keys, shares, shares if sums is None else sums, keys.numel(),
            0 if sums is None else sums.numel(), placing, h, w,
            *a.geometry.stride(), *weight.stride(), *offset.stride(),
        ),
        {
            "FIRST": a.first_depth,
            "STEP": a.depth_step,
            "LOWER_X": a.lower[0], "LOWER_Y": a.lower[1], "LOWER_Z": a.lower[2],
            "PER_X": 1 / a.step[0], "PER_Y": 1 / a.step[1], "PER_Z": 1 / a.step[2],
            "X": a.size[0], "Y": a.size[1], "Z": a.size[2],
            "D": bins,
            "SIDED": sided,
            "INDEX_MAX": a.side_index_max,
            "P": pixels,
            "DP": power_of_2(bins),
            "FILL": fill,
        },
    )  # fmt: skip


@triton.jit
def _place(
    geometry, side_weight, side_offset, rays, origin, us, vs,
    camera_mask, keys, shares, sums, count,
    sum_count, placing, h, w,
    geometry_n, geometry_k, geometry_y, geometry_x,
    weight_n, weight_k, weight_y, weight_x,
    offset_n, offset_k, offset_y, offset_x,
    FIRST: tl.constexpr,  # metres
    STEP: tl.constexpr,
    LOWER_X: tl.constexpr, LOWER_Y: tl.constexpr, LOWER_Z: tl.constexpr,  # the lattice, metres
    PER_X: tl.constexpr, PER_Y: tl.constexpr, PER_Z: tl.constexpr,  # nodes a metre
    X: tl.constexpr, Y: tl.constexpr, Z: tl.constexpr,  # nodes
    D: tl.constexpr,  # depth bins
    SIDED: tl.constexpr,  # there are side copies
    INDEX_MAX: tl.constexpr,  # highest depth bin of a side copy
    P: tl.constexpr,  # pixels of a program
    DP: tl.constexpr,  # power of two, at least D
    FILL: tl.constexpr,  # sums that a program sets to zero
):  # fmt: skip
    K: tl.constexpr = D + 24 if SIDED else D
    program = tl.program_id(0)
    if program >= placing:
        zero = (program - placing).to(tl.int64) * FILL + tl.arange(0, FILL)
        tl.store(sums + zero, tl.zeros((FILL,), tl.float32), mask=zero < sum_count)
    else:
        n = program // tl.cdiv(h * w, P)
        pixel = program % tl.cdiv(h * w, P) * P + tl.arange(0, P)  # down the columns
        here = pixel < h * w
        seen = here & (tl.load(camera_mask + n) != 0)
        x, y = pixel // h, pixel % h
        n = n.to(tl.int64)
        u, v = tl.load(us + x, mask=here, other=0.0), tl.load(vs + y, mask=here, other=0.0)
        bins = tl.arange(0, DP)
        live = seen[:, None] & (bins < D)[None, :]
        own = geometry + n * geometry_n + y * geometry_y + x * geometry_x
        mass = tl.load(own[:, None] + (bins * geometry_k)[None, :], mask=live, other=0.0)
        depth = tl.full((1,), FIRST, tl.float64) + tl.full((1,), STEP, tl.float64) * bins
        at = (n * h * w + pixel) * K
        _record(
            keys, shares, count, at[:, None] + bins[None, :], here[:, None] & (bins < D)[None, :],
            seen[:, None], mass.to(tl.float32), u[:, None], v[:, None], depth[None, :],
            rays + n * 9, origin + n * 3,
            LOWER_X, LOWER_Y, LOWER_Z, PER_X, PER_Y, PER_Z, X, Y, Z,
        )  # fmt: skip
        if SIDED:
            # The first of equal ones, as torch's; NaN counts as the largest.
            order = tl.where(mass == mass, mass.to(tl.float32), float("inf"))
            peak = tl.argmax(tl.where((bins < D)[None, :], order, float("-inf")), 1)
            peak = peak.to(tl.int32)
            slot = tl.arange(0, 8)
            cell = slot + (slot >= 4).to(tl.int32)  # of 3 x 3, without the centre
            moves = side_offset + n * offset_n + y * offset_y + x * offset_x
            moves = moves[:, None] + (2 * cell * offset_k)[None, :]
            du = tl.load(moves, mask=seen[:, None], other=0.0).to(tl.float64)
            dv = tl.load(moves + offset_k, mask=seen[:, None], other=0.0).to(tl.float64)
            part = side_weight + n * weight_n + y * weight_y + x * weight_x
            part = part[:, None] + (3 * cell * weight_k)[None, :]
            carried = tl.zeros((P, 8), tl.float32)
            for s in tl.static_range(3):
                wanted = peak + s - 1
                index = tl.minimum(tl.maximum(wanted, 0), INDEX_MAX)
                exists = seen & (wanted >= 0)
                value = tl.load(own + index * geometry_k, mask=exists, other=0.0).to(tl.float32)
                share = tl.load(part + s * weight_k, mask=exists[:, None], other=0.0)
                carried += value[:, None] * share.to(tl.float32)
                # A copy at the next one's very place is added to that one instead.
                alone = exists
                if s < 2:
                    alone = exists & (index != tl.minimum(tl.maximum(wanted + 1, 0), INDEX_MAX))
                depth = tl.full((P,), FIRST, tl.float64)
                depth += tl.full((P,), STEP, tl.float64) * index.to(tl.float64)
                _record(
                    keys, shares, count, at[:, None] + (D + 3 * slot + s)[None, :], here[:, None],
                    alone[:, None], carried, u[:, None] + du, v[:, None] + dv, depth[:, None],
                    rays + n * 9, origin + n * 3,
                    LOWER_X, LOWER_Y, LOWER_Z, PER_X, PER_Y, PER_Z, X, Y, Z,
                )  # fmt: skip
                carried = tl.where(alone[:, None], 0.0, carried)


@triton.jit
def _record(
    keys, shares, count, at, room, live, mass, u, v, depth, m, o,
    LOWER_X: tl.constexpr, LOWER_Y: tl.constexpr, LOWER_Z: tl.constexpr,
    PER_X: tl.constexpr, PER_Y: tl.constexpr, PER_Z: tl.constexpr,
    X: tl.constexpr, Y: tl.constexpr, Z: tl.constexpr,
):  # fmt: skip
    """Work out and write the records of some points."""
    x0, right, in_x = _axis(m, o, u, v, depth, LOWER_X, PER_X, X)
    y0, down, in_y = _axis(m + 3, o + 1, u, v, depth, LOWER_Y, PER_Y, Y)
    z0, up, in_z = _axis(m + 6, o + 2, u, v, depth, LOWER_Z, PER_Z, Z)
    inside = live & in_x & in_y & in_z
    # Lower nodes are counted from -1; a point that reaches no node has no key.
    key = ((y0 + 1) * (X + 1) + x0 + 1) * (Z + 1) + z0 + 1
    tl.store(keys + at, tl.where(inside, key, -1), mask=room)
    if Z == 1:  # one of the two nodes in z is there: its share belongs to the mass
        mass *= tl.where(z0 == 0, 1 - up, up)
    tl.store(shares + at, mass, mask=room)
    tl.store(shares + count + at, right, mask=room)
    tl.store(shares + 2 * count + at, down, mask=room)
    if Z > 1:
        tl.store(shares + 3 * count + at, up, mask=room)


@triton.jit
def _axis(
    m, o, u, v, depth, LOWER: tl.constexpr, PER_METRE: tl.constexpr, SIZE: tl.constexpr
):  # fmt: skip
    """Lower node, share of the upper one, and whether any of the two is in the lattice."""
    ray = tl.load(m) * u + tl.load(m + 1) * v + tl.load(m + 2)
    place = depth * ray + tl.load(o)
    place -= tl.full((1, 1), LOWER, tl.float64)
    place *= tl.full((1, 1), PER_METRE, tl.float64)
    inside = (place > -1) & (place < SIZE)  # False of NaN, which must not become an index
    place = tl.where(inside, place, 0.0)
    low = tl.floor(place)
    return low.to(tl.int32), (place - low).to(tl.float32), inside


@triton.jit
def _sum(
    keys,  # [N, w, h, K]
    shares,  # [4, N, w, h, K]: mass, shares of the upper node in x, y, z
    context,  # [N, C, h, w], by strides
    camera_mask,  # [N]
    sums,  # [B, Y, X, Z, C]
    count,
    cameras,  # of a sample
    w,
    h,
    context_n,
    context_c,
    context_y,
    context_x,
    X: tl.constexpr,
    Y: tl.constexpr,
    Z: tl.constexpr,
    C: tl.constexpr,
    K: tl.constexpr,  # points of a pixel
    B: tl.constexpr,  # of them a program takes, down one column of the image
    CP: tl.constexpr,  # power of two, at least C
):
    x, n = tl.program_id(1), tl.program_id(2)
    seen = tl.load(camera_mask + n).to(tl.int32)
    if seen != 0:
        sums += (n // cameras).to(tl.int64) * X * Y * Z * C
        point = tl.program_id(0) * B + tl.arange(0, B)
        there = point < K
        channel = tl.arange(0, CP)
        real = channel < C
        # Times 1, so that Triton does not see neighbours: it would give each lane four channels,
        # and there are no atomics of four. Lanes side by side touch a sector of memory once.
        lane = channel * seen
        row = context + n.to(tl.int64) * context_n + x * context_x + channel * context_c
        cell = tl.full((B,), -1, tl.int32)
        a00, a01, a10, a11 = _zeros(B, CP)
        b00, b01, b10, b11 = _zeros(B, CP)  # the upper nodes in z
        for y in range(h):
            at = ((n * w + x) * h + y) * K + point
            key = tl.load(keys + at, mask=there, other=-1)
            live = key >= 0
            # Of points outside too: no load then waits for another.
            mass = tl.load(shares + at, mask=there, other=0.0)
            right = tl.load(shares + count + at, mask=there, other=0.0)[:, None]
            down = tl.load(shares + 2 * count + at, mask=there, other=0.0)[:, None]
            feature = tl.load(row + y * context_y, mask=real, other=0.0).to(tl.float32)
            moved = live & (cell >= 0) & (key != cell)
            _add(sums, cell, moved, lane, a00, a01, a10, a11, 0, X, Y, Z, C)
            a00, a01, a10, a11 = _kept(moved, a00, a01, a10, a11)
            lower = tl.where(live[:, None], mass[:, None] * feature[None, :], 0.0)
            if Z > 1:
                _add(sums, cell, moved, lane, b00, b01, b10, b11, 1, X, Y, Z, C)
                b00, b01, b10, b11 = _kept(moved, b00, b01, b10, b11)
                up = tl.load(shares + 3 * count + at, mask=there, other=0.0)[:, None]
                upper = lower * up
                lower *= 1 - up
                b00 += (1 - down) * (1 - right) * upper
                b01 += (1 - down) * right * upper
                b10 += down * (1 - right) * upper
                b11 += down * right * upper
            a00 += (1 - down) * (1 - right) * lower
            a01 += (1 - down) * right * lower
            a10 += down * (1 - right) * lower
            a11 += down * right * lower
            cell = tl.where(live, key, cell)
        _add(sums, cell, cell >= 0, lane, a00, a01, a10, a11, 0, X, Y, Z, C)
        if Z > 1:
            _add(sums, cell, cell >= 0, lane, b00, b01, b10, b11, 1, X, Y, Z, C)


@triton.jit
def _zeros(B: tl.constexpr, CP: tl.constexpr):
    zero = tl.zeros((B, CP), tl.float32)
    return zero, zero, zero, zero


@triton.jit
def _kept(moved, a00, a01, a10, a11):
    """Sums that have gone to memory start again."""
    gone = moved[:, None]
    return (
        tl.where(gone, 0.0, a00),
        tl.where(gone, 0.0, a01),
        tl.where(gone, 0.0, a10),
        tl.where(gone, 0.0, a11),
    )


@triton.jit
def _add(
    sums, cell, there, channel, a00, a01, a10, a11, LEVEL: tl.constexpr,
    X: tl.constexpr, Y: tl.constexpr, Z: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """Sums to the four nodes of one level in z around each cell, where those are in the lattice."""
    z = cell % (Z + 1) - 1 + LEVEL
    if Z == 1:
        z = tl.zeros_like(cell)
    else:
        there = there & (z >= 0) & (z < Z)
    x, y = cell // (Z + 1) % (X + 1) - 1, cell // ((Z + 1) * (X + 1)) - 1
    place = sums + (((y * X + x) * Z + z) * C)[:, None] + channel[None, :]
    real = (channel < C)[None, :]
    x0, x1 = there & (x >= 0), there & (x + 1 < X)
    y0, y1 = y >= 0, y + 1 < Y
    tl.atomic_add(place, a00, mask=(x0 & y0)[:, None] & real, sem="relaxed")
    tl.atomic_add(place + Z * C, a01, mask=(x1 & y0)[:, None] & real, sem="relaxed")
    place += X * Z * C
    tl.atomic_add(place, a10, mask=(x0 & y1)[:, None] & real, sem="relaxed")
    tl.atomic_add(place + Z * C, a11, mask=(x1 & y1)[:, None] & real, sem="relaxed")


@triton.jit
def _store(sums, out, count, B: tl.constexpr):
    """To the data's type."""
    at = tl.program_id(0).to(tl.int64) * B + tl.arange(0, B)
    value = tl.load(sums + at, mask=at < count, other=0.0)
    tl.store(out + at, value.to(out.dtype.element_ty), mask=at < count)
