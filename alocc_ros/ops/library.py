# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Operators of the namespace ``alocc``, registered with torch's dispatcher.

Each operator has a general form in torch calls. It runs on every device (the meta device too), has
a gradient because its parts have one, and is what torch.compile, torch.export and the ONNX exporter
see. On a CPU a C kernel takes its place where nobody asks for a gradient, the data are float32
and a C compiler was found. Nothing else decides: no switch, no context, no question in the network.

Beside it most operators have a fused form, an operator of its own that nothing looks into: Triton
kernels on a GPU, in half precision too. A runner puts it in the place of the other
(``fused_form``); what it costs can be told without a GPU (``launches_of``).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from alocc_ros.ops import native

_library = torch.library.Library("alocc", "DEF")
_general: dict[Callable[..., Any], Callable[..., Any]] = {}
_fused: dict[Callable[..., Any], Callable[..., Any]] = {}
_rounded: dict[Callable[..., Any], Callable[..., Any]] = {}
_emulations: dict[Callable[..., Any], Callable[..., Any]] = {}
_launches: dict[Callable[..., Any], Callable[..., int]] = {}

_HALF = (torch.float16, torch.bfloat16)


def operator(
    signature: str,
    general: Callable[..., Any],
    cpu: Callable[..., Any],
    compiled: bool = True,
    wide: tuple[int, ...] = (),
) -> Callable[..., Any]:
    """Register an operator and return the callable.

    Args:
        signature: torch schema, e.g. ``"f(Tensor x) -> Tensor"``; the first argument is the data
            whose type decides.
        general: torch form, for all devices and for gradients.
        cpu: form for float32 data on a CPU, without gradients.
        compiled: whether ``cpu`` needs the C library.
        wide: numbers of the results that stay float32, whatever the data's type: sums that grow.
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

    _general[overload], _rounded[overload] = general, _rounding(general, overload._schema, wide)
    _library.impl(name, general, "CompositeImplicitAutograd")
    _library.impl(name, kernel, "CPU")
    _library.impl(name, autograd, "AutogradCPU")
    return overload


def general_form(overload: Callable[..., Any]) -> Callable[..., Any]:
    """The general form of an operator, for exporters that know torch's own operators only."""
    return _general[overload]


def fused(
    overload: Callable[..., Any], cuda: str, launches: int | Callable[..., int] = 1
) -> Callable[..., Any]:
    """Register the fused form of an operator: the same arguments, opaque, for inference.

    Data may be half precision; geometry stays float64, weights and biases are what the runner made
    of them. On a CPU it is ``rounded_form``: what half precision does to a network can be tried.

    Args:
        overload: the operator (``operator``).
        cuda: ``"module:function"`` for tensors on a GPU, imported when it is called first. Results
            have the general form's shapes and strides and, where those are floating point, the
            data's type.
        launches: kernels that one call starts, or a function of the arguments that tells.
    """
    emulated, schema = _rounded[overload], overload._schema
    name = f"{schema.name.partition('::')[2]}_fused"
    module, _, attribute = cuda.partition(":")

    def on_gpu(*args: Any) -> Any:
        return getattr(importlib.import_module(module), attribute)(*args)

    _library.define(
        str(schema).removeprefix("alocc::").replace(schema.name.partition("::")[2], name, 1),
        tags=(torch.Tag.pt2_compliant_tag,),
    )
    _library.impl(name, on_gpu, "CUDA")
    _library.impl(name, emulated, "CPU")
    torch.library.register_fake(f"alocc::{name}", emulated, lib=_library)
    form = getattr(torch.ops.alocc, name).default
    _fused[overload], _emulations[form] = form, emulated
    _launches[form] = launches if callable(launches) else lambda *_: launches
    return form


def fused_form(overload: Callable[..., Any]) -> Callable[..., Any]:
    """The fused form of an operator, or the operator itself where it has none."""
    return _fused.get(overload, overload)


def rounded_form(overload: Callable[..., Any]) -> Callable[..., Any]:
    """The general form for data in half precision: computed in float32, results rounded; made of
    torch's own operators, for all devices, compilers and exporters. A kernel without a general form
    is its own.
    """
    return _rounded.get(overload, overload)


def emulation_of(form: Callable[..., Any]) -> Callable[..., Any] | None:
    """What a fused form is to compute, on any device (``rounded_form``); None: not a fused form."""
    return _emulations.get(form)


def fused_forms() -> list[str]:
    """Names of what ``launches_of`` knows of."""
    return [form._schema.name.partition("::")[2] for form in _launches]


def launches_of(overload: Callable[..., Any], args: tuple[Any, ...]) -> int | None:
    """Kernels that a call of a fused form starts on a GPU; None: not a fused form."""
    return _launches[overload](*args) if overload in _launches else None


def _rounding(
    general: Callable[..., Any], schema: Any, wide: tuple[int, ...]
) -> Callable[..., Any]:
    """See ``rounded_form``."""
    written = [a.alias_info is not None and a.alias_info.is_write for a in schema.arguments]

    def rounded(*args: Any) -> Any:
        kind = args[0].dtype
        full = [_widened(a) for a in args]
        results = general(*full)
        for given, used, write in zip(args, full, written, strict=True):
            if write and given is not None and used is not given:
                given.copy_(used)
        if kind not in _HALF:
            return results
        if isinstance(results, tuple):
            return tuple(r if i in wide else _narrowed(r, kind) for i, r in enumerate(results))
        return results if wide else _narrowed(results, kind)

    return rounded


def _widened(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.float() if value.dtype in _HALF else value
    return [_widened(v) for v in value] if isinstance(value, list | tuple) else value


def _narrowed(value: Any, kind: torch.dtype) -> Any:
    if isinstance(value, Tensor):
        return value.to(kind) if value.dtype == torch.float32 else value
    return tuple(_narrowed(v, kind) for v in value) if isinstance(value, list | tuple) else value


def kernel(
    signature: str,
    cpu: Callable[..., Any],
    fake: Callable[..., Any],
    cuda: Callable[..., Any] | None = None,
    launches: Callable[..., int] | None = None,
) -> Callable[..., Any]:
    """Register a kernel that has no general form (its weights are packed for it alone).

    Args:
        signature: torch schema.
        cpu: the kernel.
        fake: makes an empty result of the right shape and strides.
        cuda: the same for a GPU.
        launches: kernels that one call starts there, from its arguments.
    """
    name = signature.partition("(")[0]
    _library.define(signature, tags=(torch.Tag.pt2_compliant_tag,))
    _library.impl(name, cpu, "CPU")
    if cuda is not None:
        _library.impl(name, cuda, "CUDA")
    torch.library.register_fake(f"alocc::{name}", fake, lib=_library)
    form = getattr(torch.ops.alocc, name).default
    if launches is not None:
        _launches[form] = launches
    return form


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    """Of arguments, those in lists too."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)
