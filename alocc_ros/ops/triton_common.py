# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""What the Triton kernels of all operators share.

An operator's ``triton.py`` has a function that makes a list of ``Launch`` of an operator's
arguments, without running anything, and ``run`` that runs it. So tests can compile, without a GPU,
exactly what a network of any size would start: ``signatures()`` of each ``triton.py`` lists that.
Nothing is tuned at run time: block sizes follow from shapes and types alone, nothing but memory is
asked of torch, and no result is looked at, so that a call can be captured in a CUDA graph.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

# Triton's names of the types of tensors and scalars.
_TYPES = {
    torch.float16: "fp16",
    torch.bfloat16: "bf16",
    torch.float32: "fp32",
    torch.float64: "fp64",
    torch.int64: "i64",
    torch.int32: "i32",
    torch.uint8: "u8",
    torch.int8: "i8",
    torch.bool: "i1",
}


class Launch(NamedTuple):
    """One start of a kernel, not yet started.

    Attributes:
        kernel: decorated with ``triton.jit``; parameters first, ``tl.constexpr`` ones after them.
        grid: number of programs, up to three axes.
        arguments: tensors and integers, in the kernel's order. A float would lose its double
            precision: make it a constant, and a constant double by ``tl.full((), X, tl.float64)``.
        constants: of the ``tl.constexpr`` parameters, by name.
        warps, stages: Triton's ``num_warps`` and ``num_stages``.
    """

    kernel: Any
    grid: tuple[int, ...]
    arguments: tuple[Any, ...]
    constants: dict[str, Any]
    warps: int = 4
    stages: int = 3

    def signature(self) -> tuple[dict[str, str], dict[tuple[int], list[list[Any]]]]:
        """What ``triton.compiler.ASTSource`` wants: types by name, and what is divisible by 16.

        Tensors may be on the meta device; they count as aligned, as torch's allocations are.
        """
        names = self.kernel.arg_names
        types: dict[str, str] = {}
        aligned = {}
        for place, (name, value) in enumerate(zip(names, self.arguments, strict=False)):
            if isinstance(value, Tensor):
                types[name] = f"*{_TYPES[value.dtype]}"
            else:  # as Triton itself does: a 1 is a constant
                types[name] = "constexpr" if value == 1 else "i32" if value < 2**31 else "i64"
            if isinstance(value, Tensor) or (value != 1 and value % 16 == 0):
                aligned[(place,)] = [["tt.divisibility", 16]]
        return types | dict.fromkeys(self.constants, "constexpr"), aligned

    def all_constants(self) -> dict[str, Any]:
        """With the arguments that are 1."""
        pairs = zip(self.kernel.arg_names, self.arguments, strict=False)
        ones = {n: 1 for n, v in pairs if not isinstance(v, Tensor) and v == 1}
        return ones | self.constants


def run(launches: Iterable[Launch]) -> None:
    """Start them one after the other on the current stream of their data's device."""
    for one in launches:
        data = next(a for a in one.arguments if isinstance(a, Tensor))
        with torch.cuda.device_of(data):  # which Triton does not ask for
            one.kernel[one.grid](
                *one.arguments, **one.constants, num_warps=one.warps, num_stages=one.stages
            )


def blocks(size: int, block: int) -> int:
    """How many blocks cover ``size``."""
    return -(-size // block)


def power_of_2(size: int, least: int = 1) -> int:
    """The smallest power of two that is no less than both."""
    return max(least, 1 << max(size - 1, 0).bit_length())


def channels_last(tensor: Tensor) -> Tensor:  # [N, C, h, w]
    """The same with channels innermost in memory; a copy only where they are not."""
    return tensor.contiguous(memory_format=torch.channels_last)


@triton.jit
def relu(x):
    """Of NaN it is NaN, unlike ``tl.maximum``'s."""
    return tl.where(x < 0, 0.0, x)


@triton.jit
def aligned(i, SIZE: tl.constexpr, FULL: tl.constexpr):
    """Lower node, upper node and the upper one's weight; ends lie on ends, as torch counts it."""
    STEP: tl.constexpr = (SIZE - 1) / max(FULL - 1, 1)
    place = i.to(tl.float32) * STEP
    low = tl.minimum(place.to(tl.int32), SIZE - 1)
    return low, tl.minimum(low + 1, SIZE - 1), place - low.to(tl.float32)


@triton.jit
def sigmoid(x):
    """In [0, 1]; of NaN it is NaN."""
    return 1 / (1 + tl.exp(-x))
