# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""What the tests of Triton kernels share that run in Triton's interpreter, without a GPU."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from operators import REORDERED
from torch import Tensor

from alocc_ros.ops.library import fused_form, launches_of

TYPES = (torch.float32, torch.float16)
# Of the largest value. Half precision: a result's own rounding, 5e-4, and those of what is rounded
# between two products.
TOLERANCE = {torch.float32: REORDERED, torch.float16: 2e-3}


def stored(value: Any, kind: torch.dtype) -> Any:
    """As a runner has it: activations and matrices of that type, biases float32, geometry float64.

    Every tensor is a new one.
    """
    if isinstance(value, Tensor):
        half = value.dtype == torch.float32 and value.dim() > 1
        return value.to(kind, copy=True) if half else value.clone()
    return [stored(v, kind) for v in value] if isinstance(value, list | tuple) else value


def both(
    overload: Callable[..., Any],
    module: ModuleType,
    arguments: tuple[Any, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> tuple[Any, Any]:
    """Results of the kernel in ``module`` and of what emulates it; what is written to is written
    to in copies, which come before the results.

    Also checks that as many kernels were started as are said to be.
    """
    schema = overload._schema
    written = [i for i, a in enumerate(schema.arguments) if a.alias_info and a.alias_info.is_write]
    launches, run = [], module.run

    def counting(some: Any) -> None:
        some = list(some)
        launches.extend(some)
        run(some)

    monkeypatch.setattr(module, "run", counting)
    results = []
    name = schema.name.partition("::")[2]
    for form in (getattr(module, name), fused_form(overload)):
        given = tuple(a.clone() if i in written else a for i, a in enumerate(arguments))
        made = form(*given)
        made = () if made is None else made if isinstance(made, tuple) else (made,)
        results.append([given[i] for i in written] + list(made))
    assert len(launches) == launches_of(fused_form(overload), arguments)
    for kernel, emulated in zip(*results, strict=True):
        assert kernel.dtype == emulated.dtype and kernel.shape == emulated.shape
        assert kernel.stride() == emulated.stride() or kernel.numel() == 0
    return tuple(r[0] if len(r) == 1 else tuple(r) for r in results)


def assert_near(kernel: Tensor, emulated: Tensor, kind: torch.dtype, factor: float = 1.0) -> None:
    """NaN at the same places, the rest within the tolerance of what was stored."""
    assert torch.equal(kernel.isnan(), emulated.isnan())
    kernel, emulated = kernel.double().nan_to_num(), emulated.double().nan_to_num()
    scale = max(float(emulated.abs().max()), 1e-6)
    assert float((kernel - emulated).abs().max()) <= factor * TOLERANCE[kind] * scale
