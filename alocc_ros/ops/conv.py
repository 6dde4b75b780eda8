# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Convolution + BatchNorm + residual + ReLU as one step."""

from __future__ import annotations

from collections.abc import Callable, Hashable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alocc_ros.ops import winograd
from alocc_ros.ops.derived import derived
from alocc_ros.ops.mode import fast

_mkldnn = torch.ops.mkldnn
_HAS_FUSED = torch.backends.mkldnn.is_available() and hasattr(_mkldnn, "_convolution_pointwise")


def conv_bn_twin(
    x: Tensor,  # [B, C, ...]
    conv: nn.Module,
    bn: nn.Module | None = None,
    relu: bool = False,
    residual: Tensor | None = None,
) -> Tensor:  # [B, C', ...]
    """What it means: ``relu(bn(conv(x)) + residual)``."""
    y = conv(x)
    if bn is not None:
        y = bn(y)
    if residual is not None:
        y = y + residual
    return F.relu(y) if relu else y


def conv_bn(
    x: Tensor,  # [B, C, H, W] or [B, C, Y, X, Z]
    conv: nn.Module,
    bn: nn.Module | None = None,
    relu: bool = False,
    residual: Tensor | None = None,
) -> Tensor:  # [B, C', ...], channels last
    """The same with BatchNorm folded into the weights and the rest fused into the convolution.

    ``residual`` must have the shape of the result. Without gradients and outside training the
    result is in channels-last memory order.
    """
    if not fast() or (bn is not None and bn.training):
        return conv_bn_twin(x, conv, bn, relu, residual)
    x = x.contiguous(memory_format=_channels_last(x))
    if residual is not None:
        residual = residual.contiguous(memory_format=_channels_last(x))
    if winograd.suits(x, conv):
        packed, bias = _prepared(conv, bn, "winograd", winograd.pack)
        return winograd.convolve(x, packed, bias, relu, residual)
    if _HAS_FUSED and x.device.type == "cpu" and x.dtype == torch.float32:
        return _fused_cpu(x, conv, bn, relu, residual)
    weight, bias = folded(conv, bn)
    function = F.conv2d if weight.dim() == 4 else F.conv3d
    y = function(x, weight, bias, conv.stride, conv.padding, conv.dilation)
    if residual is not None:
        y += residual
    return y.relu_() if relu else y


def folded(conv: nn.Module, bn: nn.Module | None) -> tuple[Tensor, Tensor | None]:
    """Weight and bias of ``bn(conv(.))`` as one convolution, channels last; cached."""
    return derived(conv, _sources(conv, bn), "folded", lambda: _fold(conv, bn))


def _sources(conv: nn.Module, bn: nn.Module | None) -> tuple[Tensor | None, ...]:
    norm = () if bn is None else (bn.weight, bn.bias, bn.running_mean, bn.running_var)
    return (conv.weight, conv.bias, *norm)


def _fold(conv: nn.Module, bn: nn.Module | None) -> tuple[Tensor, Tensor | None]:
    weight, bias = conv.weight.detach(), None if conv.bias is None else conv.bias.detach()
    if bn is not None:
        # In double precision: the only rounding is the last one.
        scale = bn.weight.double() / torch.sqrt(bn.running_var.double() + bn.eps)
        offset = -bn.running_mean.double() if bias is None else bias.double() - bn.running_mean
        shape = (-1,) + (1,) * (weight.dim() - 1)
        bias = (bn.bias.double() + offset * scale).to(weight.dtype).detach()
        weight = (weight.double() * scale.view(shape)).to(weight.dtype).detach()
    return weight.contiguous(memory_format=_channels_last(weight)), bias


def _channels_last(x: Tensor) -> torch.memory_format:
    return torch.channels_last if x.dim() == 4 else torch.channels_last_3d


def _prepared(
    conv: nn.Module, bn: nn.Module | None, form: Hashable, prepare: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """Folded weights in the form that a kernel wants, and the bias; only that form is kept."""

    def make() -> tuple[Tensor, Tensor]:
        weight, bias = _fold(conv, bn)
        return prepare(weight), weight.new_zeros(len(weight)) if bias is None else bias

    return derived(conv, _sources(conv, bn), form, make)


def _fused_cpu(
    x: Tensor,
    conv: nn.Module,
    bn: nn.Module | None,
    relu: bool,
    residual: Tensor | None,
) -> Tensor:
    """oneDNN convolution with residual and ReLU as post-operations on prepacked weights."""
    where = (list(conv.padding), list(conv.stride), list(conv.dilation), 1)
    size = list(x.shape)
    pack, bias = _prepared(
        conv, bn, x.shape, lambda w: _mkldnn._reorder_convolution_weight(w, *where, size)
    )
    if residual is None:
        return _mkldnn._convolution_pointwise(
            x, pack, bias, *where, "relu" if relu else "none", [], ""
        )
    return _mkldnn._convolution_pointwise.binary(
        x, residual, pack, bias, *where, "add", None, "relu" if relu else None, [], ""
    )
