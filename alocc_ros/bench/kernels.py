# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Every fused operator that a network calls, with the arguments that it calls it with, against what
it is to compute; and how long both take.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from alocc_ros.bench.scene import example_frame
from alocc_ros.network.model import Alocc
from alocc_ros.network.variants import Variant
from alocc_ros.ops.library import emulation_of
from alocc_ros.runtime.precision import inference
from alocc_ros.runtime.prepare import pack_for_gpu, prepare
from alocc_ros.runtime.runner import EagerRunner

# A result is rounded to the data's type, and sums are made in another order: a few units in the
# last place of the largest value.
TOLERANCE = {torch.float16: 4e-3, torch.bfloat16: 3e-2, torch.float32: 1e-4}
# Share of numbers that may be off by more, where a place to look at rounds to the other side.
_STRAYS = 1e-4
_FRAMES, _TIMED = 2, 10


@dataclass
class KernelCheck:
    """One fused operator in one network.

    Attributes:
        operator, variant: names.
        calls: how often it was called.
        error: largest difference, relative to the largest value.
        strays: share of numbers beyond the tolerance.
        passed: whether these are few enough.
        kernel_us, plain_us: median time of the last call, and of what it stands for.
    """

    operator: str
    variant: str
    calls: int = 0
    error: float = 0.0
    strays: float = 0.0
    passed: bool = True
    kernel_us: float = 0.0
    plain_us: float = 0.0


def check_kernels(
    variant: Variant, device: torch.device, dtype: torch.dtype = torch.float16
) -> list[KernelCheck]:
    """Two frames of a network with random weights, every fused operator looked at."""
    torch.manual_seed(0)
    core = pack_for_gpu(prepare(Alocc(variant).eval().to(device)), dtype)
    runner, checks = EagerRunner(core, "graph", "fp32"), {}
    state = runner.new_state()
    for t in range(_FRAMES):
        frame = example_frame(variant, seed=t)
        plan = frame.plan(state.ages if t else None, slot=t % 2)
        with _Checking(variant.name, checks, dtype):
            runner.step(frame.images.to(device), plan, state)
    return list(checks.values())


class _Checking(TorchDispatchMode):
    def __init__(self, variant: str, checks: dict[str, KernelCheck], dtype: torch.dtype) -> None:
        super().__init__()
        self._variant, self._checks, self._dtype = variant, checks, dtype

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        plain = emulation_of(func)
        if plain is None:
            return func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        check = self._checks.setdefault(name, KernelCheck(name, self._variant))
        check.calls += 1
        with inference():
            copies = tree_map(_copy, args)
            expected = plain(*copies)
            result = func(*args, **(kwargs or {}))
            # What is written in place is a result as well.
            written = [a for a, s in zip(args, func._schema.arguments, strict=True) if _writes(s)]
            wanted = [c for c, s in zip(copies, func._schema.arguments, strict=True) if _writes(s)]
            for ours, theirs in zip(
                tree_leaves((result, written)), tree_leaves((expected, wanted)), strict=True
            ):
                if isinstance(ours, Tensor):
                    compare(check, ours, theirs, self._dtype)
            check.kernel_us = _microseconds(lambda: func(*tree_map(_copy, args)))
            check.plain_us = _microseconds(lambda: plain(*tree_map(_copy, args)))
        return result


def compare(check: KernelCheck, ours: Tensor, theirs: Tensor, dtype: torch.dtype) -> None:
    """Takes note of how far a result of data of that type is from what it is to be."""
    if ours.is_floating_point():
        scale = float(theirs.float().abs().nan_to_num().max()) or 1.0
        off = (ours.float() - theirs.float()).abs() / scale
        error = float(off.nan_to_num().max())
        beyond = (off > TOLERANCE[dtype]) | (ours.isnan() != theirs.isnan())
    else:
        error, beyond = 0.0, ours != theirs
    strays = float(beyond.float().mean())
    check.error, check.strays = max(check.error, error), max(check.strays, strays)
    check.passed = check.passed and strays <= _STRAYS


def _writes(argument: Any) -> bool:
    return argument.alias_info is not None and argument.alias_info.is_write


def _copy(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value


def _microseconds(function: Callable[[], object]) -> float:
    """Median; the copies of the arguments, which both sides make, are within."""
    times = []
    for _ in range(_TIMED):
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        began = time.perf_counter()
        function()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return 1e6 * statistics.median(times)
