# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Finding TensorRT or TensorRT-RTX in this installation, and saying why not. Needs no torch."""

from __future__ import annotations

import ctypes
import importlib
import re
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

from alocc_ros.errors import DeviceError

# In order of preference: TensorRT tunes on the GPU itself.
TOOLKITS = ("tensorrt", "tensorrt_rtx")
# Users of FB-BEV, a neighbour of these networks, report wrong results from 8.6, right ones from
# 10.3; before 10 there are no strongly typed networks.
SMALLEST = {"tensorrt": (10, 3), "tensorrt_rtx": (1, 4)}
INSTALL = (
    "pip install alocc_ros[tensorrt], or pip install --no-deps tensorrt-rtx-cu13-libs "
    "tensorrt-rtx-cu13-bindings"
)
_RTX_LIBRARIES = ("libtensorrt_rtx.so.1", "libtensorrt_onnxparser_rtx.so.1")


def import_toolkit(names: Sequence[str] = TOOLKITS) -> tuple[str, ModuleType]:
    """The first of these that can be imported and is new enough: its name, and the module.

    Raises:
        DeviceError: there is none; the message says why, and what to install.
    """
    reasons = []
    for name in names:
        try:
            module = _import(name)
        except Exception as error:  # of libraries that are missing or do not fit: any kind
            reasons.append(f"{name}: {' '.join(str(error).split())[:120]}")
            continue
        smallest = SMALLEST[name]
        if _numbers(module.__version__) >= smallest:
            return name, module
        wanted = ".".join(map(str, smallest))
        reasons.append(f"{name} {module.__version__} is here, {wanted} or newer is needed")
    raise DeviceError(f"no TensorRT can be used ({'; '.join(reasons)}): {INSTALL}")


def _import(name: str) -> ModuleType:
    if name != "tensorrt_rtx":
        return importlib.import_module(name)
    # The bindings alone do not look for the libraries that lie in a package beside them.
    libraries = find_spec("tensorrt_rtx_libs")
    for folder in () if libraries is None else libraries.submodule_search_locations or ():
        for library in _RTX_LIBRARIES:
            if (path := Path(folder) / library).is_file():
                ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
    whole = find_spec("tensorrt_rtx") is not None
    return importlib.import_module("tensorrt_rtx" if whole else "tensorrt_rtx_bindings")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(n) for n in re.findall(r"\d+", version)[:2])
