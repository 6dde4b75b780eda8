# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Convolution + BatchNorm + residual + ReLU as one step.

A network in training has the modules of its state_dict; in a prepared one (``runtime/prepare.py``)
each convolution is a ``FoldedConv``, or one of its forms for a CPU (``cpu.py``).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alocc_ros.ops.conv.reference import conv_bn_reference

__all__ = ["FoldedConv", "conv_bn", "conv_bn_reference"]


class FoldedConv(nn.Module):
    """``bn(conv(x))`` as one convolution; residual and ReLU follow at once.

    Attributes:
        weight: [C', C, k, k(, k)], channels last.
        bias: [C'].
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor,
        stride: Sequence[int],
        padding: Sequence[int],
        dilation: Sequence[int],
    ) -> None:
        super().__init__()
        self.register_buffer(
            "weight", weight.contiguous(memory_format=channels_last(weight)), persistent=False
        )
        self.register_buffer("bias", bias, persistent=False)
        self.stride, self.padding, self.dilation = tuple(stride), tuple(padding), tuple(dilation)

    @classmethod
    @torch.no_grad()
    def of(cls, conv: nn.Module, bn: nn.Module | None = None) -> FoldedConv:
        """Fold a BatchNorm into its convolution, in double precision: one rounding, the last."""
        weight = conv.weight.detach()
        bias = weight.new_zeros(len(weight)) if conv.bias is None else conv.bias.detach().clone()
        if bn is not None:
            scale = bn.weight.double() / torch.sqrt(bn.running_var.double() + bn.eps)
            offset = bias.double() - bn.running_mean.double()
            bias = (bn.bias.double() + offset * scale).to(weight.dtype)
            shape = (-1,) + (1,) * (weight.dim() - 1)
            weight = (weight.double() * scale.view(shape)).to(weight.dtype)
        return cls(weight, bias, conv.stride, conv.padding, conv.dilation)

    def like(self, weight: Tensor, bias: Tensor) -> FoldedConv:
        """The same geometry with other weights."""
        return FoldedConv(weight, bias, self.stride, self.padding, self.dilation)

    def forward(
        self,
        x: Tensor,  # [B, C, ...]
        relu: bool = False,
        residual: Tensor | None = None,  # [B, C', ...]
    ) -> Tensor:  # [B, C', ...], channels last
        # The weight's memory order decides that of the result, whatever the input's.
        function = F.conv2d if x.dim() == 4 else F.conv3d
        y = function(x, self.weight, self.bias, self.stride, self.padding, self.dilation)
        if residual is not None:
            y = y + residual
        return torch.relu(y) if relu else y


def conv_bn(
    x: Tensor,  # [B, C, H, W] or [B, C, Y, X, Z]
    conv: nn.Module,
    bn: nn.Module | None = None,
    relu: bool = False,
    residual: Tensor | None = None,
) -> Tensor:  # [B, C', ...]
    """``relu(bn(conv(x)) + residual)``; where ``conv`` is folded, its BatchNorm is part of it."""
    if isinstance(conv, FoldedConv):
        return conv(x, relu, residual)
    return conv_bn_reference(x, conv, bn, relu, residual)


def channels_last(x: Tensor) -> torch.memory_format:
    """The channels-last memory order of an image or of a volume."""
    return torch.channels_last if x.dim() == 4 else torch.channels_last_3d
