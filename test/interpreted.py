# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""What the tests of Triton kernels share, which Triton's interpreter runs on a CPU.

Importing this skips a module where the interpreter is not asked for: it must be asked for before
Triton is imported, and compiled kernels cannot be had in the same process.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
import torch
from operators import RESAMPLED
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

pytest.importorskip("triton", reason="triton is not installed")
if os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("these run with TRITON_INTERPRET=1", allow_module_level=True)

from triton.runtime import interpreter  # noqa: E402

TYPES = [torch.float32, torch.float16]
# Of results in the data's type: fp16 has 11 bits, and tensor cores take rounded numbers too.
TOLERANCES = {torch.float32: RESAMPLED, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}


def stored(value: Any, data: torch.dtype) -> Any:
    """Float32 tensors (in tuples too) in the data's type."""
    if isinstance(value, Tensor):
        return value.to(data) if value.dtype == torch.float32 else value
    return type(value)(*(stored(v, data) for v in value)) if _named(value) else _each(value, data)


def wide(value: Any) -> Any:
    """The same numbers as float32, which the reference computes in."""
    if isinstance(value, Tensor):
        return value.float() if value.dtype in (torch.float16, torch.bfloat16) else value
    if _named(value):
        return type(value)(*map(wide, value))
    return tuple(map(wide, value)) if isinstance(value, tuple) else value


def count_launches(operator: Callable[..., Any], arguments: tuple[Any, ...]) -> int:
    """Kernels that a call would start on a GPU: Triton's, and torch's own of whatever else it does
    besides making room and views.
    """
    with _Launches() as counted, pytest.MonkeyPatch.context() as patch:
        run = interpreter.GridExecutor.__call__

        def started(self: Any, *arguments: Any, **options: Any) -> None:
            counted.number += 1
            with _disable_current_modes():  # the interpreter's own copies
                run(self, *arguments, **options)

        patch.setattr(interpreter.GridExecutor, "__call__", started)
        operator(*arguments)
    return counted.number


class _Launches(TorchDispatchMode):
    number = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        if not function.is_view and not name.startswith(("empty", "new_empty")):
            self.number += 1
        return function(*args, **(kwargs or {}))


def _named(value: Any) -> bool:
    return isinstance(value, tuple) and hasattr(value, "_fields")


def _each(value: Any, data: torch.dtype) -> Any:
    return tuple(stored(v, data) for v in value) if isinstance(value, tuple) else value
