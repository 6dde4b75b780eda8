# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Stereo matching cost on a GPU: all depths of some pixels, and their softmax, in one program.

A warp reads all channels of one place at once; nothing but the result is written. Places: what
belongs to the pixel alone is worked out in float64, what changes with the depth in float32. That
moves a place by at most some 4e-5 pixels (float32 of coordinates up to the map's width, three
roundings), the size of what ``grid_sample`` loses itself by taking its places as float32 in
[-1, 1] (1e-5 pixels); in float64 the loop would take a consumer GPU, which has one float64 unit for
64 others, longer than all the rest of it.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from alocc_ros.ops.cost_volume.reference import (
    BEHIND,
    INVALID_PENALTY,
    CostVolumeArguments,
    validity_channel,
)
from alocc_ros.ops.triton_common import Launch, blocks, channels_last, power_of_2, run


def cost_volume(*arguments: Any) -> Tensor:
    """See ``cost_volume_reference``; features are read with channels innermost."""
    a = CostVolumeArguments(*arguments)
    n, _, h, w = a.current.shape
    out = a.current.new_empty(n, h, w, a.bins).permute(0, 3, 1, 2)
    run(_launches(a, out))
    return out


def signatures(data: torch.dtype = torch.float16) -> dict[str, Launch]:
    """By name, the kernels that the published networks start."""
    feature = torch.empty(6, 256, 64, 176, dtype=data, device="meta")
    exact = torch.empty(6, 3, 3, dtype=torch.float64, device="meta")
    arguments = CostVolumeArguments(feature, feature, exact, exact[..., 0], 1.0, 0.5, 88)
    out = torch.empty(6, 64, 176, 88, dtype=data, device="meta").permute(0, 3, 1, 2)
    return {"cost_volume": _launches(arguments, out)[0]}


def _launches(a: CostVolumeArguments, out: Tensor) -> list[Launch]:
    n, channels, h, w = a.current.shape
    pixels = 8 if a.current.element_size() == 2 else 4
    return [
        Launch(
            _cost,
            (blocks(h * w, pixels), n),
            (
                channels_last(a.current),
                channels_last(a.previous),
                a.homography.contiguous(),
                a.offset.contiguous(),
                out,
                h,
                w,
            ),
            {
                "FIRST": a.first_depth,
                "STEP": a.depth_step,
                "D": a.bins,
                "C": channels,
                "VALIDITY": validity_channel(channels),
                "BEHIND": BEHIND,
                "PENALTY": INVALID_PENALTY,
                "P": pixels,
                "CP": power_of_2(channels),
                "DP": power_of_2(a.bins),
            },
            stages=1,
        )
    ]


@triton.jit
def _cost(
    current,  # [n, h, w, C]
    previous,  # [n, h, w, C]
    homography,  # [n, 3, 3] float64
    offset,  # [n, 3] float64
    out,  # [n, h, w, D]
    h,
    w,
    FIRST: tl.constexpr,  # metres
    STEP: tl.constexpr,
    D: tl.constexpr,  # depth bins
    C: tl.constexpr,  # channels
    VALIDITY: tl.constexpr,  # the channel that says whether a sample is valid
    BEHIND: tl.constexpr,  # metres
    PENALTY: tl.constexpr,
    P: tl.constexpr,  # pixels of a program
    CP: tl.constexpr,  # powers of two, at least C and D
    DP: tl.constexpr,
):
    n = tl.program_id(1).to(tl.int64)
    pixel = tl.program_id(0) * P + tl.arange(0, P)
    here = pixel < h * w
    x, y = (pixel % w).to(tl.float64), (pixel // w).to(tl.float64)
    m = homography + n * 9
    ray_x = (tl.load(m) * x + tl.load(m + 1) * y + tl.load(m + 2)).to(tl.float32)
    ray_y = (tl.load(m + 3) * x + tl.load(m + 4) * y + tl.load(m + 5)).to(tl.float32)
    ray_z = (tl.load(m + 6) * x + tl.load(m + 7) * y + tl.load(m + 8)).to(tl.float32)
    offset_x = tl.load(offset + n * 3).to(tl.float32)
    offset_y = tl.load(offset + n * 3 + 1).to(tl.float32)
    offset_z = tl.load(offset + n * 3 + 2).to(tl.float32)

    channel = tl.arange(0, CP)
    exists = (channel < C)[None, :]
    current += n * h * w * C
    previous += n * h * w * C
    out += n * h * w * D
    row = current + pixel[:, None] * C + channel[None, :]
    feature = tl.load(row, mask=here[:, None] & exists, other=0.0)
    told = (channel == VALIDITY)[None, :]
    bins = tl.arange(0, DP)
    scores = tl.full((P, DP), float("-inf"), tl.float32)
    for k in range(D):
        depth = FIRST + STEP * k
        z = depth * ray_z + offset_z
        px, py = (depth * ray_x + offset_x) / z, (depth * ray_y + offset_y) / z
        # What is not inside (NaN too) must not become an index.
        inside = here & (z >= BEHIND) & (px > -1) & (px < w) & (py > -1) & (py < h)
        px, py = tl.where(inside, px, 0.0), tl.where(inside, py, 0.0)
        left, top = tl.floor(px), tl.floor(py)
        right_share, bottom_share = px - left, py - top
        left_share, top_share = 1 - right_share, 1 - bottom_share
        x0, y0 = left.to(tl.int32), top.to(tl.int32)
        has_left, has_right = inside & (x0 >= 0), inside & (x0 + 1 < w)
        has_top, has_bottom = y0 >= 0, y0 + 1 < h
        tap = previous + (y0 * w + x0) * C
        warped = _add_tap(tap, left_share * top_share, has_left & has_top, channel, exists)
        warped += _add_tap(tap + C, right_share * top_share, has_right & has_top, channel, exists)
        tap += w * C
        warped += _add_tap(tap, left_share * bottom_share, has_left & has_bottom, channel, exists)
        warped += _add_tap(
            tap + C, right_share * bottom_share, has_right & has_bottom, channel, exists
        )
        difference = tl.abs(feature.to(tl.float32) - warped)
        # The penalty is that of one channel: one sum over the channels for both.
        difference += tl.where(told & (warped == 0), PENALTY, 0.0)
        cost = tl.sum(difference, 1)
        scores = tl.where(bins[None, :] == k, -cost[:, None], scores)
    scores = tl.exp(scores - tl.max(scores, 1)[:, None])
    scores /= tl.sum(scores, 1)[:, None]
    place = out + pixel[:, None] * D + bins[None, :]
    tl.store(place, scores.to(out.dtype.element_ty), mask=here[:, None] & (bins < D)[None, :])


@triton.jit
def _add_tap(row, weight, inside, channel, exists):
    """A place's features, weighted; 0 where there is none."""
    value = tl.load(row[:, None] + channel[None, :], mask=inside[:, None] & exists, other=0.0)
    return weight[:, None] * value.to(tl.float32)
