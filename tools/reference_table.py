# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Writes docs/from_the_reference.md's table of configs anew from models/*.yaml.

    python tools/reference_table.py

test/unit/test_docs.py fails while they differ.
"""

from __future__ import annotations

import re
from pathlib import Path

from alocc_ros.records import load_records

PAGE = Path(__file__).parents[1] / "docs" / "from_the_reference.md"
_BLOCK = r"(<!-- configs: .*? -->\n\n).*?(?=\n\n## )"


def table() -> str:
    """Markdown; a config has the name of its weights."""
    lines = ["| config of the reference | `--model` |", "|---|---|"]
    for record in load_records().values():
        if record.repository is not None and record.file is not None:
            lines.append(f"| `{Path(record.file).stem}.py` | `{record.name}` |")
    return "\n".join(lines)


def renewed(page: Path) -> str:
    """The page with the table of now."""
    text = page.read_text(encoding="utf-8")
    return re.sub(_BLOCK, lambda match: match[1] + table(), text, flags=re.S)


if __name__ == "__main__":
    PAGE.write_text(renewed(PAGE), encoding="utf-8")
