# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Operators of the namespace ``alocc``, registered with torch's dispatcher.

Each operator has a general form in torch calls. It runs on every device (the meta device too), has
a gradient because its parts have one, and is what torch.compile, torch.export and the ONNX exporter
see. On a CPU a C kernel takes its place where nobody asks for a gradient, the data are float32
and a C compiler was found. Nothing else decides: no switch, no context, no question in the network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from alocc_ros.ops import native

_library = torch.library.Library("alocc", "DEF")
_general: dict[Callable[..., Any], Callable[..., Any]] = {}


def operator(
    signature: str,
    general: Callable[..., Any],
    cpu: Callable[..., Any],
    compiled: bool = True,
) -> Callable[..., Any]:
    """Register an operator and return the callable.

    Args:
        signature: torch schema, e.g. ``"f(Tensor x) -> Tensor"``; the first argument is the data
            whose type decides.
        general: torch form, for all devices and for gradients.
        cpu: form for float32 data on a CPU, without gradients.
        compiled: whether ``cpu`` needs the C library.
    """
    name = signature.partition("(")[0]
    _library.define(signature, tags=(torch.Tag.pt2_compliant_tag,))
    overload = getattr(torch.ops.alocc, name).default

    def usable(data: Tensor) -> bool:
        # What is traced (for export or compilation) has no numbers that C could read.
        if data.dtype != torch.float32 or type(data) not in (Tensor, torch.nn.Parameter):
            return False
        return not compiled or native.library() is not None

    def autograd(*args: Any, **kwargs: Any) -> Any:
        wanted = torch.is_grad_enabled() and any(
            t.requires_grad for t in _tensors((*args, *kwargs.values()))
        )
        if wanted or not usable(args[0]):
            return general(*args, **kwargs)
        with torch._C._AutoDispatchBelowAutograd():
            return overload(*args, **kwargs)

    def kernel(*args: Any, **kwargs: Any) -> Any:  # reached without autograd in inference mode only
        return (cpu if usable(args[0]) else general)(*args, **kwargs)

    _general[overload] = general
    _library.impl(name, general, "CompositeImplicitAutograd")
    _library.impl(name, kernel, "CPU")
    _library.impl(name, autograd, "AutogradCPU")
    return overload


def general_form(overload: Callable[..., Any]) -> Callable[..., Any]:
    """The general form of an operator, for exporters that know torch's own operators only."""
    return _general[overload]


def kernel(signature: str, cpu: Callable[..., Any], fake: Callable[..., Any]) -> Callable[..., Any]:
    """Register a CPU kernel that has no general form (its weights are packed for it alone).

    Args:
        signature: torch schema.
        cpu: the kernel.
        fake: makes an empty result of the right shape and strides.
    """
    name = signature.partition("(")[0]
    _library.define(signature, tags=(torch.Tag.pt2_compliant_tag,))
    _library.impl(name, cpu, "CPU")
    torch.library.register_fake(f"alocc::{name}", fake, lib=_library)
    return getattr(torch.ops.alocc, name).default


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    """Of arguments, those in lists too."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)
