# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Folded convolutions on a GPU: channels last, in the precision of the network, with bias, residual
and ReLU in the epilogue of cuDNN's or cuBLAS' kernel.

On a CPU the same operator computes in float32 and rounds its result, which is what storage in half
precision with accumulation in float32 does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

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

    @property
    def is_whole(self) -> bool:
        """Whether it adds its bias, where it has one; else somebody does that later."""
        return self._biased or not bool(self.bias.any())

    def forward(self, x: Tensor, relu: bool = False, residual: Tensor | None = None) -> Tensor:
        where = (list(self.stride), list(self.padding), list(self.dilation))
        bias = self.bias if self._biased else None
        return conv_epilogue(x, self.weight, bias, residual, *where, relu)


class ConvArguments(NamedTuple):
    """What every form of ``conv_epilogue`` takes."""

    x: Tensor  # [N, C, Y, X(, Z)]
    weight: Tensor  # [C', C, k, k(, k)], of the same type
    bias: Tensor | None  # [C']
    residual: Tensor | None  # [N, C', ...]
    stride: list[int]
    padding: list[int]
    dilation: list[int]
    relu: bool

    @property
    def is_product(self) -> bool:
        """Whether it is a matrix product of channels, pixel by pixel, and nothing behind it but
        what cuBLAS does in the same kernel.
        """
        pointwise = self.weight.shape[2:].numel() == 1 and set(self.stride) == {1}
        alone = self.residual is None and (self.bias is not None or not self.relu)
        return pointwise and set(self.padding) == {0} and alone


def _rows(x: Tensor) -> Tensor:  # [N, C, ...] -> [N * ..., C]
    return x.movedim(1, -1).flatten(0, -2)  # a view where channels come last, or are a part of such


def _cuda(*arguments: Any) -> Tensor:
    """cuBLAS for products, cuDNN's fused kernels where there is a ReLU, cuDNN and one more kernel
    elsewhere.
    """
    a = ConvArguments(*arguments)
    if a.is_product:
        matrix = a.weight.flatten(1).T
        if a.bias is None:
            y = _rows(a.x) @ matrix
        else:
            product = torch._addmm_activation if a.relu else torch.addmm
            y = product(a.bias, _rows(a.x), matrix)
        return y.view(a.x.shape[0], *a.x.shape[2:], -1).movedim(-1, 1)
    x = a.x.contiguous(memory_format=channels_last(a.x))
    where = (a.stride, a.padding, a.dilation, 1)
    if a.relu and a.residual is not None:
        residual = a.residual.contiguous(memory_format=channels_last(x))
        return torch.cudnn_convolution_add_relu(x, a.weight, residual, 1.0, a.bias, *where)
    if a.relu:
        return torch.cudnn_convolution_relu(x, a.weight, a.bias, *where)
    y = _convolution(x)(x, a.weight, a.bias, a.stride, a.padding, a.dilation)
    return y if a.residual is None else y.add_(a.residual)


def _emulated(*arguments: Any) -> Tensor:
    a = ConvArguments(*arguments)
    wide = a.x.float().contiguous(memory_format=channels_last(a.x))
    bias = None if a.bias is None else a.bias.float()
    y = _convolution(wide)(wide, a.weight.float(), bias, a.stride, a.padding, a.dilation)
    if a.residual is not None:
        y = y + a.residual.float()
    y = torch.relu(y) if a.relu else y
    return y.to(a.x.dtype).contiguous(memory_format=channels_last(a.x))


def _fake(*arguments: Any) -> Tensor:
    a = ConvArguments(*arguments)
    sides = zip(a.x.shape[2:], a.weight.shape[2:], a.stride, a.padding, a.dilation, strict=True)
    size = [(s + 2 * p - d * (k - 1) - 1) // t + 1 for s, k, t, p, d in sides]
    return a.x.new_empty((a.x.shape[0], *size, a.weight.shape[0])).movedim(-1, 1)


def _launches(*arguments: Any) -> int:
    a = ConvArguments(*arguments)
    if a.relu or a.is_product:
        return 1
    return 1 + (a.bias is not None) + (a.residual is not None)


def _convolution(x: Tensor) -> Callable[..., Tensor]:
    return F.conv2d if x.dim() == 4 else F.conv3d


# relu(conv(x) + bias + residual) of ConvArguments, all in the order of channels last
# -> [N, C', ...], channels last.
conv_epilogue = kernel(
    "conv_epilogue(Tensor x, Tensor weight, Tensor? bias, Tensor? residual, int[] stride, "
    "int[] padding, int[] dilation, bool relu) -> Tensor",
    _emulated,
    _fake,
    cuda=_cuda,
    launches=_launches,
)
