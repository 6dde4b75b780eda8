# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Writes the table of docs/settings.md anew from the code.

    python tools/settings_table.py

test/unit/test_docs.py fails while they differ.
"""

from __future__ import annotations

import re
from pathlib import Path

from alocc_ros.training.settings import rows

PAGE = Path(__file__).parents[1] / "docs" / "settings.md"
_BLOCK = r"(<!-- settings: .*? -->\n\n).*?(?=\n\n|\n?\Z)"


def table() -> str:
    """Markdown; the first row is the heading."""
    lines = [
        "| name | default | unit | meaning | in the reference | may change at `--resume` |",
        "|---|---|---|---|---|---|",
    ]
    for name, default, s in rows():
        reference = f"`{s.reference}`" if s.reference else ""
        cells = (f"`{name}`", f"`{default}`", s.unit, s.meaning, reference, "yes" * s.free)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def renewed(page: Path) -> str:
    """The page with the table of now."""
    text = page.read_text(encoding="utf-8")
    return re.sub(_BLOCK, lambda match: match[1] + table(), text, flags=re.S)


if __name__ == "__main__":
    PAGE.write_text(renewed(PAGE), encoding="utf-8")
