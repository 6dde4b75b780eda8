# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Folded convolutions on a GPU: channels last, in the precision of the network, with bias, residual
and ReLU in the epilogue of cuDNN's or cuBLAS' kernel.

On a CPU the same operator computes in float32 and rounds its result, which is what storage in half
precision with accumulation in float32 does.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from alocc_ros.ops.conv import FoldedConv, channels_last
from alocc_ros.ops.library import kernel


class GpuConv(FoldedConv):
    """A folded convolution as one call of ``conv_epilogue``."""

    def __init__(self, conv: FoldedConv, bias: bool = True) -> None:
        super().__init__(conv.weight, conv.bias, conv.stride, conv.padding, conv.dilation)
        self._biased = bias

    def forward(self, x: Tensor, relu: bool = False, residual: Tensor | None = None) -> Tensor:
        where = (list(self.stride), list(self.padding), list(self.dilation))
        bias = self.bias if self._biased else None
        return conv_epilogue(x, self.weight, bias, residual, *where, relu)


def is_product(weight: Tensor, stride: list[int], padding: list[int]) -> bool:
    """Whether a convolution is a matrix product of channels, pixel by pixel."""
    return weight.shape[2:].numel() == 1 and set(stride) == {1} and set(padding) == {0}


def _rows(x: Tensor) -> Tensor:  # [N, C, ...] -> [N * ..., C]
    return x.movedim(1, -1).flatten(0, -2)  # a view where channels come last, or are a part of such


def _cuda(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    relu: bool,
) -> Tensor:
    """cuBLAS for products without a residual, cuDNN's fused kernels where there is a ReLU, cuDNN
    and one more kernel elsewhere.
    """
    if residual is None and is_product(weight, stride, padding) and (bias is not None or not relu):
        matrix = weight.flatten(1).T
        if bias is None:
            y = _rows(x) @ matrix
        else:
            product = torch._addmm_activation if relu else torch.addmm
            y = product(bias, _rows(x), matrix)
        return y.view(x.shape[0], *x.shape[2:], -1).movedim(-1, 1)
    x = x.contiguous(memory_format=channels_last(x))
    where = (stride, padding, dilation, 1)
    if relu and residual is not None:
        residual = residual.contiguous(memory_format=channels_last(x))
        return torch.cudnn_convolution_add_relu(x, weight, residual, 1.0, bias, *where)
    if relu:
        return torch.cudnn_convolution_relu(x, weight, bias, *where)
    function = F.conv2d if x.dim() == 4 else F.conv3d
    y = function(x, weight, bias, stride, padding, dilation)
    return y if residual is None else y.add_(residual)


def _emulated(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    relu: bool,
) -> Tensor:
    function = F.conv2d if x.dim() == 4 else F.conv3d
    wide = x.float().contiguous(memory_format=channels_last(x))
    y = function(
        wide, weight.float(), None if bias is None else bias.float(), stride, padding, dilation
    )
    if residual is not None:
        y = y + residual.float()
    y = torch.relu(y) if relu else y
    return y.to(x.dtype).contiguous(memory_format=channels_last(x))


def _fake(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    relu: bool,
) -> Tensor:
    sides = zip(x.shape[2:], weight.shape[2:], stride, padding, dilation, strict=True)
    size = [(s + 2 * p - d * (k - 1) - 1) // t + 1 for s, k, t, p, d in sides]
    return x.new_empty((x.shape[0], *size, weight.shape[0])).movedim(-1, 1)


def _launches(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    relu: bool,
) -> int:
    if relu or (residual is None and bias is not None and is_product(weight, stride, padding)):
        return 1
    return 1 + (bias is not None) + (residual is not None)


# relu(conv(x) + bias + residual); x [N, C, Y, X(, Z)], weight [C', C, k, k(, k)], both in the
# order of channels last and of one type, as residual [N, C', ...] and bias [C'] are
# -> [N, C', ...], channels last.
conv_epilogue = kernel(
    "conv_epilogue(Tensor x, Tensor weight, Tensor? bias, Tensor? residual, int[] stride, "
    "int[] padding, int[] dilation, bool relu) -> Tensor",
    _emulated,
    _fake,
    cuda=_cuda,
    launches=_launches,
)
