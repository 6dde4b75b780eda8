# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Encoder necks: upsample every level to full size, concatenate, convolve (spec section 9).

A convolution of a concatenation is a sum over its parts, and a pointwise multiplication
commutes with interpolation, so the low levels are multiplied by their weights BEFORE they are
upsampled, where they have 4 to 512 times fewer cells.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alocc_ros.ops import native
from alocc_ros.ops.conv import conv_bn, conv_bn_twin, folded
from alocc_ros.ops.derived import derived, frozen_conv
from alocc_ros.ops.mode import fast


def merge_levels_twin(
    levels: Sequence[Tensor],  # fine to coarse, [B, C_l, Y_l, X_l(, Z_l)]
    conv: nn.Module,
    bn: nn.Module,
) -> Tensor:  # [B, C, Y, X(, Z)]
    """relu(bn(conv(cat(upsampled levels)))), corners aligned."""
    size = levels[0].shape[2:]
    mode = "bilinear" if len(size) == 2 else "trilinear"
    full = [F.interpolate(x, size, mode=mode, align_corners=True) for x in levels[1:]]
    return conv_bn_twin(torch.cat([levels[0], *full], 1), conv, bn, relu=True)


def merge_levels(
    levels: Sequence[Tensor],  # fine to coarse, [1, C_l, Y_l, X_l(, Z_l)]
    conv: nn.Module,  # 1x1x1 on voxels, 3x3 on bird's-eye maps
    bn: nn.Module,
) -> Tensor:  # [1, C, Y, X(, Z)]
    """The same with the multiplications done at each level's own resolution."""
    if not fast() or not (native.available(*levels) or conv.kernel_size == (1, 1, 1)):
        return merge_levels_twin(levels, conv, bn)
    widths = tuple(x.shape[1] for x in levels)
    sources = (conv.weight, conv.bias, bn.weight, bn.bias, bn.running_mean, bn.running_var)
    parts = derived(conv, sources, widths, lambda: _split(conv, bn, widths))
    if conv.kernel_size == (1, 1, 1):
        return _merge_pointwise(levels, *parts)
    return _merge_3x3(levels, *parts)


def _split(
    conv: nn.Module, bn: nn.Module, widths: tuple[int, ...]
) -> tuple[nn.Module, list[Tensor]]:
    """The folded convolution of the finest level, and each coarser level's weights as a matrix
    [C_l, taps * C].
    """
    weight, bias = folded(conv, bn)
    fine, *coarse = weight.split(widths, dim=1)
    matrices = [w.flatten(2).permute(1, 2, 0).flatten(1).contiguous() for w in coarse]
    return frozen_conv(conv, fine, bias), matrices


def _merge_pointwise(
    levels: Sequence[Tensor], fine: nn.Module, matrices: Sequence[Tensor]
) -> Tensor:
    total = conv_bn(levels[0], fine)[0].permute(1, 2, 3, 0)  # [Y, X, Z, C]
    lows = [
        level[0].permute(1, 2, 3, 0) @ matrix
        for level, matrix in zip(levels[1:], matrices, strict=True)
    ]
    y_size, x_size, z_size, channels = total.shape
    if not native.available(total):
        for low in lows:
            up = F.interpolate(
                low.permute(3, 0, 1, 2)[None], total.shape[:3], mode="trilinear", align_corners=True
            )
            total = total + up[0].permute(1, 2, 3, 0)
        return torch.relu(total).permute(3, 0, 1, 2)[None]
    addresses = (ctypes.c_void_p * len(lows))(*(m.data_ptr() for m in lows))
    sizes = torch.tensor([m.shape[:3] for m in lows], dtype=torch.int64)
    lib = native.library()
    native.parallel(
        lambda begin, end: lib.upsample_add(
            native.pointer(total),
            addresses,
            native.pointer(sizes),
            *map(native.i64, (len(lows), y_size, x_size, z_size, channels)),
            1,
            native.i64(begin),
            native.i64(end),
        ),
        y_size,
    )
    return total.permute(3, 0, 1, 2)[None]


def _merge_3x3(levels: Sequence[Tensor], fine: nn.Module, matrices: Sequence[Tensor]) -> Tensor:
    total = conv_bn(levels[0], fine)[0].permute(1, 2, 0)  # [Y, X, C]
    y_size, x_size, channels = total.shape
    lib = native.library()
    for level, matrix in zip(levels[1:], matrices, strict=True):
        # conv3x3(up(x)) at p = sum over taps k of up(W_k x) at p + k: nine small products.
        low = level[0].permute(1, 2, 0) @ matrix  # [h, w, 9 C]
        h, w, _ = low.shape
        native.parallel(
            lambda begin, end, low=low, h=h, w=w: lib.upsample_taps(
                native.pointer(total),
                native.pointer(low),
                *map(native.i64, (h, w, y_size, x_size, channels, begin, end)),
            ),
            y_size,
        )
    return total.relu_().permute(2, 0, 1)[None]
