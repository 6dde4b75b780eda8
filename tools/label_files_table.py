# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Writes docs/data.md's table of label files anew: what each model needs for each benchmark.

    python tools/label_files_table.py

test/unit/test_docs.py fails while they differ.
"""

from __future__ import annotations

import re
from pathlib import Path

from alocc_ros.datasets.formats import LabelFormat, format_of
from alocc_ros.datasets.truth import label_folders, training_masks
from alocc_ros.evaluation.scoring import SCORINGS, fitting
from alocc_ros.records import load_records

PAGE = Path(__file__).parents[1] / "docs" / "data.md"
_BLOCK = r"(<!-- label files: .*? -->\n\n).*?(?=\n\n|\n?\Z)"


def _folders(labels: LabelFormat, **masks: bool) -> str:
    return ", ".join(f"`{folder}/`" for folder in label_folders(labels, **masks))


def table() -> str:
    """Markdown; models that need the same files share a row."""
    rows: dict[tuple[str, str], list[str]] = {}
    for record in load_records().values():
        training = _folders(format_of(record), **training_masks(record.supervision))
        scored = "; ".join(
            f"`{s.name}`: {_folders(s.labels, camera_mask=s.masked)}"
            for s in (SCORINGS[name] for name in fitting(record))
        )
        rows.setdefault((training, scored), []).append(f"`{record.name}`")
    lines = ["| model | `alocc train` | `alocc evaluate --benchmark` |", "|---|---|---|"]
    lines += [f"| {', '.join(names)} | {' | '.join(row)} |" for row, names in rows.items()]
    return "\n".join(lines)


def renewed(page: Path) -> str:
    """The page with the table of now."""
    text = page.read_text(encoding="utf-8")
    return re.sub(_BLOCK, lambda match: match[1] + table(), text, flags=re.S)


if __name__ == "__main__":
    PAGE.write_text(renewed(PAGE), encoding="utf-8")
