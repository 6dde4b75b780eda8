# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Writes the tables of docs/models.md and README.md anew from models/*.yaml.

    python tools/models_table.py

test/unit/test_docs.py fails while they differ.
"""

from __future__ import annotations

import re
from pathlib import Path

from alocc_ros.records import ModelRecord, load_records

ROOT = Path(__file__).parents[1]
FIVE = ("alocc_2d_mini", "alocc_2d", "alocc_3d", "alocc_flow_2d", "alocc_flow_3d")
_PUBLISHED = ("mIoU", "mIoU_D", "IoU", "RayIoU", "occ_score", "mAVE", "FPS", "memory_MB")
_BLOCK = r"(<!-- models: .*? -->\n\n).*?(\n\n)"


def score(record: ModelRecord, metric: str) -> str:
    """The first published value of a metric, or a dash."""
    values = [s.value for s in record.scores if s.metric == metric]
    return f"{values[0]:g}" if values else "-"


def table(rows: list[tuple[str, ...]]) -> str:
    """Markdown; the first row is the heading."""
    rows = [rows[0], ("---",) * len(rows[0]), *rows[1:]]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def full() -> str:
    """Every record whose weights its authors published."""
    heading = ("model", "network", "input", "classes", "frame", "history", "trained on voxels",
               "mIoU", "mIoU_D", "IoU", "RayIoU", "Occ score", "mAVE, m/s", "FPS",
               "memory, MB")  # fmt: skip
    rows = [heading]
    for r in load_records().values():
        if r.repository is None:
            continue
        height, width = r.input_size
        rows.append(
            (
                f"`{r.name}`",
                f"`{r.variant}`" + (" + LiDAR depth" if r.lidar_depth else ""),
                f"{width}x{height}",
                r.classes.name,
                r.frame,
                _history(r),
                {
                    "camera_visible": "a camera sees",
                    "ray_visible": "a ray meets",
                    "visible": "a camera sees or a ray meets",
                }.get(r.supervision, r.supervision),
                *(score(r, metric) for metric in _PUBLISHED),
            )
        )
    return table(rows)


def _history(record: ModelRecord) -> str:
    if not record.history:
        return "none"
    interval = f"{record.history_interval:g} s"
    return f"recurrent, {interval}" if record.recurrent else f"{record.history} x {interval}"


def short() -> str:
    """The five of the paper."""
    rows = [("model", "gives", "mIoU", "RayIoU", "Occ score", "mAVE, m/s", "FPS on an RTX 4090")]
    for name in FIVE:
        r = load_records()[name]
        gives = "18 classes (Occ3D)" if r.classes.name == "occ3d" else "17 classes (OpenOcc), flow"
        scores = (score(r, m) for m in ("mIoU", "RayIoU", "occ_score", "mAVE", "FPS"))
        rows.append((f"`{name}`", gives, *scores))
    return table(rows)


def renewed(path: Path) -> str:
    """The page with its table as the records have it."""
    text = path.read_text(encoding="utf-8")
    made = full() if path.name == "models.md" else short()
    return re.sub(_BLOCK, lambda m: m[1] + made + m[2], text, count=1, flags=re.S)


PAGES = (ROOT / "docs" / "models.md", ROOT / "README.md")

if __name__ == "__main__":
    for page in PAGES:
        page.write_text(renewed(page), encoding="utf-8")
