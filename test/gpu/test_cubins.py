# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Every Triton kernel compiles for every kind of GPU that we name, and fits; no GPU is needed.

Registers are compared with ``registers.json``; ``python test/gpu/test_cubins.py --update`` writes
that anew, and the table of docs/gpu.md with it. Numbers belong to one version of Triton: with
another only the limits are looked at.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import io
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest

import alocc_ros.ops

triton = pytest.importorskip("triton", reason="triton is not installed")
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("the interpreter compiles nothing", allow_module_level=True)

from triton import knobs  # noqa: E402
from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402

TABLE = Path(__file__).with_name("registers.json")
PAGE = Path(__file__).parents[2] / "docs/gpu.md"
MARKS = ("<!-- registers -->\n", "<!-- end -->\n")  # around the table in the page
# Shared memory that one block may take, bytes: Orin, Ada, Hopper, Blackwell (consumer).
SHARED = {87: 163 << 10, 89: 99 << 10, 90: 227 << 10, 120: 99 << 10}


@functools.cache
def kernels() -> dict[str, Any]:
    """Of all operators, by name, what ``signatures()`` of each ``triton*.py`` lists."""
    listed: dict[str, Any] = {}
    for path in sorted(Path(alocc_ros.ops.__path__[0]).glob("*/triton*.py")):
        module = importlib.import_module(f"alocc_ros.ops.{path.parent.name}.{path.stem}")
        for name, launch in module.signatures().items():
            assert name not in listed, f"two kernels are called {name!r}"
            listed[name] = launch
    return listed


def fit(launch: Any, target: int, folder: Path) -> dict[str, int]:
    """Compile; what ptxas and Triton say of it."""
    types, aligned = launch.signature()
    source = ASTSource(launch.kernel, types, launch.all_constants(), aligned)
    options = {"num_warps": launch.warps, "num_stages": launch.stages}
    told = io.StringIO()
    with knobs.nvidia.scope(), knobs.cache.scope(), contextlib.redirect_stdout(told):
        knobs.nvidia.dump_ptxas_log = True
        knobs.cache.dir = str(folder)  # what was compiled before tells nothing
        built = triton.compile(source, target=GPUTarget("cuda", target, 32), options=options)
    log = told.getvalue()
    assert len(built.asm["cubin"]) > 0
    return {
        "registers": int(re.search(r"Used (\d+) registers", log)[1]),
        "spilled": sum(map(int, re.findall(r"(\d+) bytes spill", log))),
        "shared": built.metadata.shared,
    }


@pytest.fixture(scope="module")
def table() -> dict[str, Any]:
    return json.loads(TABLE.read_text())


@pytest.mark.parametrize("target", SHARED)
@pytest.mark.parametrize("name", kernels())
def test_it_compiles_and_fits(name, target, table, tmp_path):
    needs = fit(kernels()[name], target, tmp_path)
    assert needs["spilled"] == 0
    assert needs["shared"] <= SHARED[target]
    if triton.__version__ == table["triton"]:
        assert [needs["registers"], needs["shared"]] == table["kernels"][name][f"sm_{target}"]


def test_the_table_has_no_kernel_that_is_gone(table):
    assert set(table["kernels"]) == set(kernels())


def test_the_page_shows_the_table(table):
    _, shown, _ = parts(PAGE.read_text(encoding="utf-8"))
    assert shown == rows(table)


def parts(page: str) -> tuple[str, str, str]:
    """Before the table, the table, behind it."""
    before, _, rest = page.partition(MARKS[0])
    shown, _, behind = rest.partition(MARKS[1])
    return before + MARKS[0], shown, MARKS[1] + behind


def rows(table: dict[str, Any]) -> str:
    """As Markdown."""
    lines = [
        f"| kernel (Triton {table['triton']}) | " + " | ".join(f"sm_{t}" for t in SHARED) + " |",
        "|---|" + "---|" * len(SHARED),
    ]
    for name, found in table["kernels"].items():
        cells = (f"{registers}, {shared / 1024:.1f}" for registers, shared in found.values())
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def update(folder: Path) -> None:
    found: dict[str, Any] = {}
    for name, launch in kernels().items():
        needs = {t: fit(launch, t, folder / f"{name} {t}") for t in SHARED}
        found[name] = {f"sm_{t}": [n["registers"], n["shared"]] for t, n in needs.items()}
        print(name, found[name], [n["spilled"] for n in needs.values()], flush=True)
    listed = ",\n".join(f"    {json.dumps(n)}: {json.dumps(v)}" for n, v in sorted(found.items()))
    TABLE.write_text(
        f'{{\n  "triton": "{triton.__version__}",\n'
        '  "columns": ["registers", "shared memory, bytes"],\n'
        f'  "kernels": {{\n{listed}\n  }}\n}}\n'
    )
    before, _, behind = parts(PAGE.read_text(encoding="utf-8"))
    shown = rows(json.loads(TABLE.read_text()))
    PAGE.write_text(before + shown + behind, encoding="utf-8")


if __name__ == "__main__":
    import tempfile

    if sys.argv[1:] != ["--update"]:
        sys.exit("usage: test_cubins.py --update")
    with tempfile.TemporaryDirectory() as scratch:
        update(Path(scratch))
