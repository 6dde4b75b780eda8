# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Intra-object lifting on a GPU: all bins of some pixels in one program, any layout."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from alocc_ros.ops.triton_common import Launch, blocks, channels_last, power_of_2, run


def intra_object(depth: Tensor, fill: Tensor) -> Tensor:
    """See ``intra_object_reference``."""
    out = torch.empty_like(depth)
    run(_launches(depth, fill, out))
    return out


def signatures(data: torch.dtype = torch.float16) -> dict[str, Launch]:
    """By name, the kernels that the published networks start."""
    depth, fill = (
        channels_last(torch.empty(6, k, 16, 44, dtype=data, device="meta")) for k in (88, 22)
    )
    return {"intra_object": _launches(depth, fill, depth)[0]}


def _launches(depth: Tensor, fill: Tensor, out: Tensor) -> list[Launch]:
    n, bins, h, w = depth.shape
    pixels = 8 if depth.stride(1) == 1 else 32
    return [
        Launch(
            _fill,
            (blocks(h * w, pixels), n),
            (depth, fill, out, h * w, w, *depth.stride(), *fill.stride(), *out.stride()),
            {"D": bins, "L": fill.shape[1], "P": pixels, "K": power_of_2(bins)},
        )
    ]


@triton.jit
def _fill(
    depth, fill, out, size, width,
    depth_n, depth_k, depth_y, depth_x,
    fill_n, fill_k, fill_y, fill_x,
    out_n, out_k, out_y, out_x,
    D: tl.constexpr,  # bins
    L: tl.constexpr,  # of them are filled behind a surface
    P: tl.constexpr,  # pixels of a program
    K: tl.constexpr,  # power of two, at least D
):  # fmt: skip
    n = tl.program_id(1).to(tl.int64)
    pixel = tl.program_id(0) * P + tl.arange(0, P)
    here = pixel < size
    y, x = pixel // width, pixel % width
    bins = tl.arange(0, K)
    depth += n * depth_n + y * depth_y + x * depth_x
    fill += n * fill_n + y * fill_y + x * fill_x
    out += n * out_n + y * out_y + x * out_x
    live = here[:, None] & (bins < D)[None, :]
    total = tl.load(depth[:, None] + (bins * depth_k)[None, :], mask=live, other=0.0)
    total = total.to(tl.float32)
    for behind in range(1, min(L, D - 1) + 1):
        # Again from memory, where the nearest cache has it, shifted by ``behind`` bins.
        shifted = bins - behind
        surface = tl.load(
            depth[:, None] + (shifted * depth_k)[None, :],
            mask=live & (shifted >= 0)[None, :],
            other=0.0,
        )
        share = tl.load(fill + (behind - 1) * fill_k, mask=here, other=0.0).to(tl.float32)
        # Bins that have none so far before them take nothing, not nothing times a share.
        add = surface.to(tl.float32) * share[:, None]
        total += tl.where((shifted >= 0)[None, :], add, 0.0)
    tl.store(out[:, None] + (bins * out_k)[None, :], total.to(out.dtype.element_ty), mask=live)
