# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Writes the tables of outputs in docs/node.md and docs/run.md anew from ``alocc_ros/outputs.py``.

    python tools/output_tables.py

test/unit/test_docs.py fails while they differ.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from alocc_ros.outputs import OUTPUTS, RECORDING_NAMESPACE, Output

ROOT = Path(__file__).parents[1]
NODE_PAGE, RUN_PAGE = ROOT / "docs" / "node.md", ROOT / "docs" / "run.md"
PAGES = (NODE_PAGE, RUN_PAGE)
_BLOCK = re.compile(r"(<!-- outputs: .*? -->\n\n).*?(?=\n\n|\n?\Z)", re.S)


def table(outputs: Iterable[Output], namespace: str) -> str:
    """Markdown: topic, type and content of each."""
    lines = ["| topic | type | content |", "| --- | --- | --- |"]
    for output in outputs:
        kind = output.type.replace("/msg/", "/")
        lines.append(f"| `{output.topic(namespace)}` | {kind} | {output.description} |")
    return "\n".join(lines)


def renewed(page: Path) -> str:
    """The page with its table as the code has it."""
    if page == NODE_PAGE:
        made = table((o for o in OUTPUTS if o.node), "~")
    else:
        made = table((o for o in OUTPUTS if o.recording), RECORDING_NAMESPACE)
    return _BLOCK.sub(lambda found: found[1] + made, page.read_text(encoding="utf-8"))


if __name__ == "__main__":
    for path in PAGES:
        path.write_text(renewed(path), encoding="utf-8")
