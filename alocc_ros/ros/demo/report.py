# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""What the demo found, for people and for programs."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alocc_ros.files import whole_file
from alocc_ros.ros.demo.drive import DriveResult
from alocc_ros.ros.demo.scores import Scored


@dataclass(frozen=True)
class Row:
    """One number: its name, its value, and what it is about."""

    name: str
    value: str
    meaning: str = ""


def score_rows(scored: Scored) -> list[Row]:
    """The scores of all results."""
    voxels, rays = scored.results["voxels"], scored.results.get("rays")
    rows = [
        Row("mIoU", _percent(voxels.miou), "classes of the voxels that a camera sees"),
        Row("IoU", _percent(voxels.iou), "occupied or free, the same voxels"),
    ]
    if rays is None:
        return rows
    rows.append(Row("RayIoU", _percent(rays.rayiou), "the first thing along each ray"))
    if rays.flow is not None:
        rows += [
            Row("mAVE_TP", _speed(rays.flow.mave_tp), "velocity, where a ray finds what moves"),
            Row("mAVE", _speed(rays.flow.mave), "velocity, of all voxels that can move"),
            Row("Occ score", _percent(rays.occ_score), "0.9 RayIoU and 0.1 velocity"),
        ]
    return rows


def time_rows(drive: DriveResult) -> list[Row]:
    """How many results there were, and how late."""
    outcomes, seconds = drive.outcomes, [*drive.latencies.values()]
    rate = len(seconds) / drive.seconds
    rows = [
        Row("camera sets", str(drive.sets), f"of six images, in {drive.seconds:.1f} s"),
        Row("results", str(outcomes["processed"]), f"{rate:.1f} a second"),
        Row("superseded", str(outcomes["superseded"]), "left out for a newer one"),
    ]
    if lost := outcomes["failed"] + outcomes["ignored"]:
        rows.append(Row("failed", str(lost), "see the node's log"))
    if seconds:
        median, late = np.percentile(seconds, (50, 95))
        rows.append(Row("latency", f"{median:.2f} s", f"image to result, median; p95 {late:.2f} s"))
    return rows


def save(path: Path, scored: Scored, drive: DriveResult) -> None:
    """All of it as JSON.

    Raises:
        OutputError: it cannot be written.
    """
    latencies = [*drive.latencies.values()]
    content: dict[str, Any] = {
        "model": scored.model,
        "random weights": scored.random_weights,
        "scores": {name: result.as_dict() for name, result in scored.results.items()},
        "results": len(scored.stamps),
        "seconds": drive.seconds,
        "camera sets": drive.sets,
        "fates": drive.outcomes,
        "latency s": dict(zip(("p50", "p95"), np.percentile(latencies, (50, 95)), strict=True))
        if latencies
        else {},
        "environment": drive.environment,
    }
    with whole_file(path) as scratch:
        scratch.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f} %"


def _speed(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f} m/s"
