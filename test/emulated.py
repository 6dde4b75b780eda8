# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Kernels in Triton's interpreter against what emulates them on a CPU: the same operator's fused
form, which computes in float32 and rounds as storage in half precision does.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from interpreted import TOLERANCES, TYPES, count_launches
from operators import REORDERED
from torch import Tensor

from alocc_ros.ops.library import fused_form, launches_of

__all__ = ["TYPES", "assert_near", "both", "stored"]

# Nothing is resampled here, unless a test says so.
_TOLERANCES = TOLERANCES | {torch.float32: REORDERED}


def stored(value: Any, kind: torch.dtype) -> Any:
    """As a runner has it: activations and matrices of that type, biases float32, geometry float64.

    Every tensor is a new one.
    """
    if isinstance(value, Tensor):
        half = value.dtype == torch.float32 and value.dim() > 1
        return value.to(kind, copy=True) if half else value.clone()
    return [stored(v, kind) for v in value] if isinstance(value, list | tuple) else value


def both(
    overload: Callable[..., Any], module: ModuleType, arguments: tuple[Any, ...]
) -> tuple[Any, Any]:
    """Results of the kernel in ``module`` and of what emulates it: what is written to (in copies),
    then what is returned; of one thing, not a tuple.

    Also checks types, shapes and strides, and that as many kernels start as are said to.
    """
    name = overload._schema.name.partition("::")[2]
    form, results = fused_form(overload), []

    def kernel(*given: Any) -> None:
        results.append(_results(overload, given, getattr(module, name)(*given)))

    assert count_launches(kernel, _copies(overload, arguments)) == launches_of(form, arguments)
    given = _copies(overload, arguments)
    results.append(_results(overload, given, form(*given)))
    for own, emulated in zip(*results, strict=True):
        assert own.dtype == emulated.dtype and own.shape == emulated.shape
        assert own.stride() == emulated.stride() or own.numel() == 0
    return tuple(r[0] if len(r) == 1 else tuple(r) for r in results)


def _written(overload: Callable[..., Any]) -> list[int]:
    given = enumerate(overload._schema.arguments)
    return [i for i, a in given if a.alias_info and a.alias_info.is_write]


def _copies(overload: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    written = _written(overload)
    return tuple(a.clone() if i in written else a for i, a in enumerate(arguments))


def _results(overload: Callable[..., Any], given: tuple[Any, ...], made: Any) -> list[Tensor]:
    made = () if made is None else made if isinstance(made, tuple) else (made,)
    return [given[i] for i in _written(overload)] + list(made)


def assert_near(kernel: Tensor, emulated: Tensor, kind: torch.dtype, factor: float = 1.0) -> None:
    """NaN at the same places, the rest within the tolerance of what was stored."""
    assert torch.equal(kernel.isnan(), emulated.isnan())
    kernel, emulated = kernel.double().nan_to_num(), emulated.double().nan_to_num()
    scale = max(float(emulated.abs().max()), 1e-6)
    assert float((kernel - emulated).abs().max()) <= factor * _TOLERANCES[kind] * scale
