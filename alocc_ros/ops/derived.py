# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Things made of a module's weights: folded, packed, split; kept until the weights change."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from torch import Tensor, nn

Made = TypeVar("Made")
Stamp = tuple[tuple[int, int], ...]

_held: WeakKeyDictionary[nn.Module, tuple[Stamp, dict[Hashable, Any]]] = WeakKeyDictionary()


def derived(
    owner: nn.Module, sources: tuple[Tensor | None, ...], form: Hashable, make: Callable[[], Made]
) -> Made:
    """What ``make`` makes of ``sources``, made once a form and again when a source changes.

    It lives as long as ``owner``; all forms of one owner have the same sources.
    """
    stamp = tuple((t.data_ptr(), t._version) for t in sources if t is not None)
    held = _held.get(owner)
    if held is None or held[0] != stamp:
        held = _held[owner] = (stamp, {})
    if form not in held[1]:
        held[1][form] = make()
    return held[1][form]


def frozen_conv(like: nn.Module, weight: Tensor, bias: Tensor | None) -> nn.Module:
    """A convolution with the geometry of ``like`` and other weights, without gradients."""
    kind = nn.Conv2d if weight.dim() == 4 else nn.Conv3d
    conv = kind(
        weight.shape[1],
        weight.shape[0],
        like.kernel_size,
        like.stride,
        like.padding,
        like.dilation,
        bias=bias is not None,
        device=like.weight.device,
        dtype=like.weight.dtype,
    ).requires_grad_(False)
    conv.weight.copy_(weight)
    if bias is not None:
        conv.bias.copy_(bias)
    return conv
