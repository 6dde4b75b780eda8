# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""The tables of the data set, and what rows of all tables have in common."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from alocc_ros.datasets.nuscenes import LIDAR
from alocc_ros.datasets.splits import SPLITS_FILE
from alocc_ros.files import whole_file
from alocc_ros.synthetic import rig
from alocc_ros.synthetic.nuscenes.folder import rows_file
from alocc_ros.synthetic.nuscenes.spec import DatasetSpec, rig_change
from alocc_ros.synthetic.nuscenes.vocabulary import ATTRIBUTES, CATEGORIES, VISIBILITY_LEVELS
from alocc_ros.types import CAMERAS

Row = dict[str, Any]


def token(*parts: object) -> str:
    """The token of what these parts name."""
    return hashlib.md5("/".join(map(str, parts)).encode(), usedforsecurity=False).hexdigest()


def pose_row(a_T_b: np.ndarray) -> Row:
    """Columns of a pose [4, 4]."""
    x, y, z, w = Rotation.from_matrix(a_T_b[:3, :3]).as_quat(canonical=True)
    return {"rotation": [float(v) for v in (w, x, y, z)], "translation": a_T_b[:3, 3].tolist()}


def chain(tokens: Sequence[str]) -> list[tuple[str, str]]:
    """The previous and the next one of each, empty at the ends."""
    return list(zip(["", *tokens[:-1]], [*tokens[1:], ""], strict=True))


def write_tables(root: Path, spec: DatasetSpec) -> None:
    """The tables, out of the rows of all scenes."""
    folder = root / spec.version
    tables: dict[str, list[Row]] = {
        "category": [
            {"token": token("category", n), "name": n, "description": "", "index": i}
            for i, n in enumerate(CATEGORIES)
        ],
        "attribute": [
            {"token": token("attribute", n), "name": n, "description": ""} for n in ATTRIBUTES
        ],
        "visibility": [
            {"token": str(i + 1), "level": f"v{n}", "description": f"visible part: {n} %"}
            for i, n in enumerate(VISIBILITY_LEVELS)
        ],
        "sensor": [],
        "calibrated_sensor": [],
    }
    for channel in [*(c.upper() for c in CAMERAS), LIDAR]:
        tables["sensor"].append(
            {
                "token": token("sensor", channel),
                "channel": channel,
                "modality": "lidar" if channel == LIDAR else "camera",
            }
        )
    for number in range(spec.scenes if spec.vary_rig else 1):
        for channel, base_T_sensor, intrinsics in _sensors(spec, number):
            tables["calibrated_sensor"].append(
                {
                    "token": calibration_token(spec, number, channel),
                    "sensor_token": token("sensor", channel),
                    **pose_row(base_T_sensor),
                    "camera_intrinsic": intrinsics,
                }
            )
    for number in range(spec.scenes):
        rows = json.loads(rows_file(root, number).read_text(encoding="utf-8"))
        for table, entries in rows.items():
            tables.setdefault(table, []).extend(entries)
    for table, entries in tables.items():
        with whole_file(folder / f"{table}.json") as scratch:
            scratch.write_text(json.dumps(entries, separators=(",", ":")), encoding="utf-8")
    with whole_file(folder / SPLITS_FILE) as scratch:
        scratch.write_text(json.dumps(spec.splits(), indent=1), encoding="utf-8")


def calibration_token(spec: DatasetSpec, number: int, channel: str) -> str:
    """Token of how a sensor is mounted in a scene; in all of them alike but for ``vary_rig``."""
    return token("calibrated_sensor", channel, *([number] if spec.vary_rig else []))


def _sensors(spec: DatasetSpec, number: int) -> list[tuple[str, np.ndarray, list]]:
    """Channel, mounting and intrinsics of each sensor in a scene."""
    cameras = rig.cameras(*spec.size, rig_change(spec, number))
    found = [(c.upper(), k.base_T_camera, k.intrinsics.tolist()) for c, k in cameras.items()]
    return [*found, (LIDAR, rig.lidar().base_T_lidar, [])]
