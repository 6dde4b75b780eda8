# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""What the doctor says of compilers and engines, of what they have built, and of what would run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec


@dataclass(frozen=True)
class Finding:
    """One line of the table.

    Attributes:
        subject: what was looked at.
        found: what is there, or what is wrong.
        needed_by: who cannot do without: ``run`` (the node then neither), ``node``, or nobody.
        ok: False if it is missing or broken.
        remedy: what to do about it, a command where there is one.
    """

    subject: str
    found: str
    needed_by: str = ""
    ok: bool = True
    remedy: str = ""


# What runs networks faster or elsewhere; nothing needs them. Each is imported in a process of its
# own: libraries of a GPU that do not fit together may end it.
_ACCELERATORS = {
    "Triton": ("triton", "triton", "comes with the CUDA build of torch"),
    "TensorRT": ("tensorrt", "tensorrt", "pip install alocc_ros[tensorrt]"),
    "TensorRT-RTX": (
        "tensorrt_rtx_bindings",
        "tensorrt_rtx",
        "pip install --no-deps tensorrt-rtx-cu13-libs tensorrt-rtx-cu13-bindings",
    ),
    "onnxruntime": (
        "onnxruntime",
        "onnxruntime",
        "for int8: pip install alocc_ros[int8]",
    ),
}
_HOME = "set XDG_CACHE_HOME"
_PATIENCE = 120.0  # seconds
_IMPORTS = """
import importlib, json, sys
for name in sys.argv[1:]:
    try:
        if name.startswith("tensorrt"):
            from alocc_ros.runtime.toolkit import import_toolkit
            module = import_toolkit([name])[1]
        else:
            module = importlib.import_module(name)
        found = [True, module.__version__]
    except Exception as error:
        found = [False, " ".join(str(error).split())[:150]]
    print(json.dumps([name, *found]), flush=True)
"""


def accelerators() -> Iterator[Finding]:
    """One after the other in one process; one more for those behind what ended it."""
    there = [name for module, name, _ in _ACCELERATORS.values() if _is_here(module)]
    told: dict[str, tuple[bool, str]] = {}
    while asked := [name for name in there if name not in told]:
        for name, works, words in _imports(asked):
            told[name] = works, words
        told.setdefault(asked[0], (False, "the process that imported it ended"))
    for subject, (_, name, remedy) in _ACCELERATORS.items():
        if name not in told:
            yield Finding(subject, f"not installed; nothing needs it ({remedy})", ok=False)
        else:
            works, words = told[name]
            yield Finding(subject, words if works else f"cannot be used: {words}", ok=works)


def _imports(names: list[str]) -> list[tuple[str, bool, str]]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    command = [sys.executable, "-c", _IMPORTS, *names]
    child = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        shown, _ = child.communicate(timeout=_PATIENCE)
    except subprocess.TimeoutExpired:
        child.kill()
        shown, _ = child.communicate()
    return [tuple(json.loads(line)) for line in shown.splitlines() if line.startswith("[")]


def cache() -> Finding:
    """Where what is built is kept, and how much that is."""
    try:
        from alocc_ros.runtime.cache import RANGES, Cache
    except Exception as error:  # as torch does where it is broken
        return Finding("cache", f"not looked for: {_words(error)}", ok=False)
    kept = Cache()
    if kept.folder is None:
        return Finding("cache", "this user has no home folder", ok=False, remedy=_HOME)
    try:
        entries = kept.entries()
    except OSError as error:
        return Finding("cache", f"{kept.folder}: {_words(error)}", ok=False, remedy=_HOME)
    size, seen = sum(entry.nbytes for entry in entries) / 1e6, len(kept.entries(RANGES))
    told = f"{kept.folder}: {len(entries) - seen} engines and graphs, {size:.1f} MB"
    return Finding("cache", f"{told}; calibrations for int8: {seen}" if seen else told)


def backend() -> Finding:
    """What runs where nobody asks for something else, and why it is not the fastest."""
    try:
        import torch

        from alocc_ros.runtime.device import resolve_device
        from alocc_ros.runtime.runner import why_no_graph
    except Exception as error:  # likewise
        return Finding("backend", f"not looked for: {_words(error)}", ok=False)
    device = resolve_device("auto")
    reason = why_no_graph(device)
    if not reason:
        return Finding("backend", f"auto runs graph on {torch.cuda.get_device_name(device)}")
    return Finding("backend", f"auto runs eager on {device.type} (graph: {reason})")


def _is_here(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _words(error: Exception) -> str:
    return " ".join(str(error).split())[:150] or type(error).__name__
