# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""The C kernels: built once per machine with the system's compiler, called without the GIL.

``ops/*/*.c`` need nothing but a C11 compiler: no Python or torch headers, no OpenMP. The
library lies in the user's cache under a name made of the sources, the flags, the compiler and
the processor, so a changed source or another machine builds its own. Each kernel works on a
range of rows; ``parallel`` deals the ranges to threads.

Set ``ALOCC_NATIVE=0`` to do without (the torch forms take over, several times slower).
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from alocc_ros.errors import AloccError
from alocc_ros.resources import cache_folder

if TYPE_CHECKING:  # the metrics use kernels without torch
    import numpy as np
    from torch import Tensor

log = logging.getLogger(__name__)

# How numbers are handed to C (ctypes would guess int and refuse float).
i32, i64, f32, f64 = ctypes.c_int, ctypes.c_int64, ctypes.c_float, ctypes.c_double

_SOURCES = sorted(Path(__file__).parent.glob("*/*.c"))
_HEADERS = sorted(Path(__file__).parent.glob("*.h"))
# No -ffast-math: NaN must stay NaN, and zero tests must stay exact. Contraction to FMA and
# dropping errno and traps are harmless, and without them the inner loops do not vectorise.
_FLAGS = ("-O3", "-std=c11", "-shared", "-fPIC", "-ffp-contract=fast", "-fno-math-errno")
_FLAGS += ("-fno-trapping-math",)
_FLAGS_HERE = ("-march=native",)


class NativeBuildError(RuntimeError):
    """The compiler was found but did not produce a library; holds its words."""


@lru_cache(maxsize=1)
def library() -> ctypes.CDLL | None:
    """The kernels, or None where they are switched off or no C compiler is installed."""
    if os.environ.get("ALOCC_NATIVE", "1") == "0":
        return None
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        log.warning("no C compiler found: CPU kernels run in plain torch (slower). Install gcc.")
        return None
    command = shlex.split(compiler)  # "ccache gcc" is a compiler too
    try:
        try:
            return ctypes.CDLL(str(_build(command, cache_folder())))
        except (OSError, AloccError):  # no place to keep it, or none to run it from
            with tempfile.TemporaryDirectory(prefix="alocc-kernels-") as folder:
                return ctypes.CDLL(str(_build(command, Path(folder))))
    except (NativeBuildError, OSError) as error:
        log.warning("CPU kernels run in plain torch (slower): %s", error)
        return None


def pointer(tensor: Tensor) -> ctypes.c_void_p:
    """Address of a contiguous tensor's first element; the caller keeps the tensor alive."""
    assert tensor.is_contiguous(), "C kernels take contiguous tensors"
    return ctypes.c_void_p(tensor.data_ptr())


def address(array: np.ndarray) -> ctypes.c_void_p:
    """The same of a numpy array."""
    assert array.flags.c_contiguous, "C kernels take contiguous arrays"
    return ctypes.c_void_p(array.ctypes.data)


def parallel(function: Callable[[int, int], object], rows: int, grain: int = 1) -> None:
    """Call ``function(begin, end)`` over ``range(rows)`` on as many threads as torch uses.

    Several ranges a thread, so that uneven rows even out; ``grain`` rows at least in each.
    Kernels release the GIL (ctypes does), so Python threads are enough.
    """
    threads = _threads()
    pieces = max(1, min(threads * 4 if threads > 1 else 1, rows // max(grain, 1)))
    edges = [rows * i // pieces for i in range(pieces + 1)]
    ranges = list(zip(edges[:-1], edges[1:], strict=True))
    if pieces == 1:
        function(0, rows)
        return
    list(_pool(threads).map(lambda r: function(*r), ranges))


def _threads() -> int:
    if (torch := sys.modules.get("torch")) is not None:
        return torch.get_num_threads()
    return len(os.sched_getaffinity(0))


@lru_cache(maxsize=8)
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="alocc-kernel")


# A forked child has none of its parent's threads and must not wait for them.
os.register_at_fork(after_in_child=_pool.cache_clear)


def _build(compiler: list[str], folder: Path) -> Path:
    """The library in ``folder``, built unless it is there."""
    version = subprocess.run([*compiler, "--version"], capture_output=True, text=True).stdout
    key = hashlib.sha256(
        "\0".join([*compiler[1:], *_FLAGS, *_FLAGS_HERE, version, _processor()]).encode()
        + b"".join(p.read_bytes() for p in _HEADERS + _SOURCES)
    ).hexdigest()[:20]
    target = folder / f"kernels-{key}.so"
    if target.exists():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    # Built beside and renamed: two processes that start together both end with a whole file.
    handle, scratch = tempfile.mkstemp(suffix=".so", dir=folder)
    os.close(handle)
    try:
        for flags in ((*_FLAGS, *_FLAGS_HERE), _FLAGS):  # some compilers know no -march=native
            command = [*compiler, *flags, "-o", scratch, *map(str, _SOURCES), "-lm"]
            result = subprocess.run(command, capture_output=True, text=True)
            if result.returncode == 0:
                os.replace(scratch, target)
                return target
        complaint = " ".join(result.stderr.split())[:500] or f"exit code {result.returncode}"
        raise NativeBuildError(f"{' '.join(compiler)} does not compile: {complaint}")
    finally:
        Path(scratch).unlink(missing_ok=True)


def _processor() -> str:
    """What -march=native depends on: a cache shared by unlike machines must not mix them."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine() + platform.processor()
    return "\n".join(
        sorted({ln for ln in lines if ln.startswith(("flags", "Features", "model name"))})
    )
