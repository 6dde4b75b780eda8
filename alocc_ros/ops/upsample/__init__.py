# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Encoder necks: upsample every level to full size, concatenate, convolve (docs/network.md
section 9).

A convolution of a concatenation is a sum over its parts, and a pointwise multiplication commutes
with interpolation, so the low levels are multiplied by their weights BEFORE they are upsampled,
where they have 4 to 512 times fewer cells.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn

from alocc_ros.ops.conv import FoldedConv, conv_bn
from alocc_ros.ops.library import fused, operator
from alocc_ros.ops.upsample import cpu
from alocc_ros.ops.upsample.reference import (
    concatenate_levels,
    upsample_add_reference,
    upsample_taps_reference,
)

__all__ = [
    "SplitConv",
    "merge_levels",
    "upsample_add_",
    "upsample_add_reference",
    "upsample_taps_",
    "upsample_taps_reference",
]


def _add(total: Tensor, levels: Sequence[Tensor]) -> None:
    total.copy_(upsample_add_reference(total, levels))


def _taps(total: Tensor, levels: Sequence[Tensor]) -> None:
    total.copy_(upsample_taps_reference(total, levels))


# total [B, Y, X, Z, C] becomes relu(total + upsampled levels); see upsample_add_reference.
upsample_add_ = operator(
    "upsample_add_(Tensor(a!) total, Tensor[] levels) -> ()", _add, cpu.upsample_add_
)
# total [B, Y, X, C] becomes relu(total + shifted upsampled taps); see upsample_taps_reference.
upsample_taps_ = operator(
    "upsample_taps_(Tensor(a!) total, Tensor[] levels) -> ()", _taps, cpu.upsample_taps_
)


def _launches(total: Tensor, levels: Sequence[Tensor]) -> int:
    return max(1, math.ceil(len(levels) / 3))  # three levels at a time


fused(upsample_add_, "alocc_ros.ops.upsample.triton:upsample_add_", launches=_launches)
fused(upsample_taps_, "alocc_ros.ops.upsample.triton:upsample_taps_", launches=_launches)


def merge_levels(
    levels: Sequence[Tensor],  # fine to coarse, [B, C_l, Y_l, X_l(, Z_l)]
    conv: nn.Module,  # 1x1x1 on voxels, 3x3 on bird's-eye maps
    bn: nn.Module,
) -> Tensor:  # [B, C, Y, X(, Z)]
    """relu(bn(conv(cat(upsampled levels))))."""
    if isinstance(conv, SplitConv):
        return conv(levels)
    return conv_bn(concatenate_levels(levels), conv, bn, relu=True)


class SplitConv(nn.Module):
    """``merge_levels`` with the multiplications done at each level's own resolution.

    Attributes:
        fine: the part of the finest level, with the bias.
        coarsest: the part of the last level, where that one has the bias (``move_bias``).
    """

    def __init__(self, folded: FoldedConv, widths: Sequence[int]) -> None:
        super().__init__()
        fine, *coarse = folded.weight.split(list(widths), dim=1)
        self.fine = folded.like(fine, folded.bias)
        pointwise = fine.shape[2:].numel() == 1
        self.operator = upsample_add_ if pointwise else upsample_taps_
        for i, w in enumerate(coarse):  # [C_l, taps * C]
            matrix = w.flatten(2).permute(1, 2, 0).flatten(1).contiguous()
            self.register_buffer(f"coarse{i}", matrix, persistent=False)
        self.coarsest: FoldedConv | None = None

    def move_bias(self) -> FoldedConv:
        """Let the coarsest level add the bias: its middle tap is never outside, and the weights of
        interpolation sum up to 1.

        Returns:
            The convolution whose bias is not to be added any more.
        """
        # All levels are kept as they are but the last one.
        name = max(name for name, _ in self.named_buffers(recurse=False))
        matrix, width = getattr(self, name), len(self.fine.bias)
        taps = matrix.shape[1] // width
        bias = matrix.new_zeros(taps, width)
        bias[taps // 2] = self.fine.bias
        axes = self.fine.weight.dim() - 2
        weight = matrix.T.reshape(*matrix.T.shape, *(1,) * axes)
        once, none = (1,) * axes, (0,) * axes
        self.coarsest = FoldedConv(weight, bias.flatten(), once, none, once)
        delattr(self, name)
        return self.fine

    def forward(self, levels: Sequence[Tensor]) -> Tensor:  # -> [B, C, Y, X(, Z)]
        total = self.fine(levels[0]).movedim(1, -1).contiguous()  # a view where channels come last
        plain = levels[1:] if self.coarsest is None else levels[1:-1]
        lows = [level.movedim(1, -1) @ getattr(self, f"coarse{i}") for i, level in enumerate(plain)]
        if self.coarsest is not None:
            lows.append(self.coarsest(levels[-1]).movedim(1, -1))
        self.operator(total, lows)
        return total.movedim(-1, 1)
