# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Precisions by name, and which of them a backend can do on a device."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import torch

from alocc_ros.errors import DeviceError

# "auto": fp16 where kernels of a GPU run (graph, tensorrt), fp32 elsewhere.
# "int8": the image network, on a CPU (runtime/int8.py) or in TensorRT; the rest: ``beside_int8``.
# "tf32": float32 whose products are rounded to TensorFloat-32, on GPUs that have it.
PRECISIONS = ("auto", "fp32", "tf32", "fp16", "bf16", "int8")
_DTYPES = {
    "fp32": torch.float32,
    "tf32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
    "int8": torch.float32,
}
_FAST = ("graph", "tensorrt", "emulated")


def check_precision(precision: str, backend: str, device: torch.device) -> str:
    """The precision that the name means for a backend on a device.

    Raises:
        DeviceError: there is no such precision, or not here.
    """
    if precision not in PRECISIONS:
        raise DeviceError(f"unknown precision {precision!r}; there are {', '.join(PRECISIONS)}")
    if precision == "auto":
        return "fp16" if backend in _FAST else "fp32"
    if precision == "fp32":
        return precision
    if backend == "reference":
        raise DeviceError(f"the reference backend runs in fp32, not in {precision}")
    if device.type == "cpu" and backend in ("eager", "compiled"):
        if precision in ("tf32", "fp16"):
            raise DeviceError(f"precision {precision} needs a GPU; a CPU does fp32, bf16 and int8")
        if precision == "bf16" and not _has_bf16():
            raise DeviceError(
                "precision bf16: this processor has no instructions for it (AVX512_BF16, AMX or "
                "Arm's BF16), so it would be slower than fp32; use fp32"
            )
    if precision == "int8" and backend != "tensorrt" and (device.type, backend) != ("cpu", "eager"):
        raise DeviceError(
            f"precision int8 is for eager on a CPU and for tensorrt, not for {backend} here"
        )
    return precision


def beside_int8(precision: str, backend: str) -> str:
    """The precision of what int8 leaves as it is; any other is that of the whole network."""
    if precision != "int8":
        return precision
    return "fp16" if backend == "tensorrt" else "fp32"


_BACKENDS = (torch.backends.cudnn, torch.backends.cuda.matmul)


def dtype_of(precision: str) -> torch.dtype:
    """The type of activations."""
    return _DTYPES[precision]


@contextlib.contextmanager
def inference(precision: str = "fp32") -> Iterator[None]:
    """No gradients, and float32 that is float32 unless TF32 was asked for.

    Threads that want the same may be within at the same time; who wants the other waits for them.
    """
    with _PRODUCTS.rounded(precision == "tf32"), torch.no_grad():
        yield


class _Products:
    """What float32 products are rounded to, which torch knows for the whole process only."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._within: Counter[int] = Counter()  # how often, by thread
        self._rounded = False

    @contextlib.contextmanager
    def rounded(self, rounded: bool) -> Iterator[None]:
        """Meanwhile they are rounded to TF32, or not at all."""
        thread = threading.get_ident()
        with self._changed:
            if thread in self._within and self._rounded != rounded:
                raise RuntimeError("one precision within another: whoever waited would wait on")
            self._changed.wait_for(lambda: self._rounded == rounded or not self._within)
            if not self._within:
                self._before = [backend.allow_tf32 for backend in _BACKENDS]
                self._allow([rounded] * len(_BACKENDS))
            self._within[thread] += 1
            self._rounded = rounded
        try:
            yield
        finally:
            with self._changed:
                self._within[thread] -= 1
                if not self._within[thread]:
                    del self._within[thread]
                if not self._within:
                    self._allow(self._before)
                    self._changed.notify_all()

    @staticmethod
    def _allow(values: list[bool]) -> None:
        for backend, value in zip(_BACKENDS, values, strict=True):
            backend.allow_tf32 = value


_PRODUCTS = _Products()


def _has_bf16() -> bool:
    """Whether this processor multiplies bfloat16."""
    try:
        flags = Path("/proc/cpuinfo").read_text().split()
    except OSError:
        return False
    return not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(flags)
