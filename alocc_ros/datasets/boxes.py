# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Annotated boxes of key frames, for info files and recordings; occupancy does not need them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from alocc_ros.arrays import FlowLines
from alocc_ros.datasets.nuscenes import pose_matrices
from alocc_ros.datasets.tables import OnProgress, nothing, read_columns
from alocc_ros.errors import DataError
from alocc_ros.labels import OCC3D

# The ten classes of nuScenes' detection benchmark, in its order, and what belongs to them.
DETECTION_CLASSES = {
    "car": ("vehicle.car",),
    "truck": ("vehicle.truck",),
    "construction_vehicle": ("vehicle.construction",),
    "bus": ("vehicle.bus.bendy", "vehicle.bus.rigid"),
    "trailer": ("vehicle.trailer",),
    "barrier": ("movable_object.barrier",),
    "motorcycle": ("vehicle.motorcycle",),
    "bicycle": ("vehicle.bicycle",),
    "pedestrian": (
        "human.pedestrian.adult",
        "human.pedestrian.child",
        "human.pedestrian.police_officer",
        "human.pedestrian.construction_worker",
    ),
    "traffic_cone": ("movable_object.trafficcone",),
}
CLASS_OF_CATEGORY = {
    category: name for name, categories in DETECTION_CLASSES.items() for category in categories
}
_TABLE = "sample_annotation"
_MOST_APART = 1.5  # s between two annotations that tell a velocity; as the development kit


@dataclass(frozen=True)
class Box:
    """A thing that somebody drew a box around.

    Attributes:
        category: such as ``vehicle.car``.
        instance: token of the thing, the same in all key frames.
        map_T_box: [4, 4] its middle; x along its length, y along its width.
        size: length, width, height, metres.
        velocity: [3] m/s in the map, nan if not known.
        lidar_points, radar_points: how many points are inside.
    """

    category: str
    instance: str
    map_T_box: np.ndarray
    size: tuple[float, float, float]
    velocity: np.ndarray
    lidar_points: int
    radar_points: int


class _Row(NamedTuple):
    """What is kept of an annotation."""

    token: str
    sample_token: str
    instance_token: str
    translation: list[float]
    size: list[float]  # width, length, height
    rotation: list[float]
    prev: str
    next: str
    num_lidar_pts: int
    num_radar_pts: int


_CORNERS = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)])
# Pairs of corners that differ in one coordinate.
_EDGES = [(a, b) for a in range(8) for b in range(a) if (a ^ b) in (1, 2, 4)]


def box_lines(boxes: Sequence[Box]) -> FlowLines:
    """The edges of boxes in the map, coloured as the voxels of their classes."""
    edges = np.empty((len(boxes), len(_EDGES), 2, 3))
    colours = np.empty((len(boxes), len(_EDGES), 3), np.float32)
    for place, box in enumerate(boxes):
        corners = _CORNERS * box.size @ box.map_T_box[:3, :3].T + box.map_T_box[:3, 3]
        edges[place] = corners[_EDGES]
        name = CLASS_OF_CATEGORY.get(box.category, "others")
        colours[place] = OCC3D.colours[OCC3D.names.index(name)] / 255
    return FlowLines(edges.reshape(-1, 2, 3), colours.reshape(-1, 3))


def read_boxes(
    folder: Path, stamps: dict[str, int], on_progress: OnProgress = nothing
) -> dict[str, list[Box]]:
    """By sample token: the boxes of key frames.

    Args:
        folder: of the tables; without annotations in it (the test split) there are no boxes.
        stamps: by token, ns: of the samples that are wanted, and of their neighbours in the scene,
            which tell how fast things move.
        on_progress: is told how far it is.

    Raises:
        DataError: a table is damaged, or contradicts another one.
    """
    boxes: dict[str, list[Box]] = {token: [] for token in stamps}
    if not (folder / f"{_TABLE}.json").is_file():
        return boxes
    categories = dict(read_columns(folder, "category", ("token", "name")))
    category_of = {
        instance: categories.get(category)
        for instance, category in read_columns(folder, "instance", ("token", "category_token"))
    }
    rows = (_Row(*row) for row in read_columns(folder, _TABLE, _Row._fields, on_progress))
    found = {row.token: row for row in rows if row.sample_token in stamps}
    table = f"{folder}/{_TABLE}.json"
    places, turns = ([getattr(r, n) for r in found.values()] for n in ("translation", "rotation"))
    poses = pose_matrices(places, turns, table)
    for row, map_T_box in zip(found.values(), poses, strict=True):
        where = f"{table}: the row {row.token}"
        category = category_of.get(row.instance_token)
        if category is None:
            raise DataError(f"{where} is of an instance or a category that is in no table")
        try:
            width, length, height = (float(v) for v in row.size)
        except (TypeError, ValueError) as error:
            raise DataError(f"{where} has no usable size: {error}") from error
        boxes[row.sample_token].append(
            Box(
                category,
                row.instance_token,
                map_T_box,
                (length, width, height),
                _velocity(row, found, stamps),
                row.num_lidar_pts,
                row.num_radar_pts,
            )
        )
    return boxes


def _velocity(row: _Row, rows: dict[str, _Row], stamps: dict[str, int]) -> np.ndarray:  # [3]
    """From the box before to the box after, or from or to this one where there is only one."""
    first, last = rows.get(row.prev, row), rows.get(row.next, row)
    seconds = (stamps[last.sample_token] - stamps[first.sample_token]) / 1e9
    most = _MOST_APART * (2 if row is not first and row is not last else 1)
    if not 0 < seconds <= most:
        return np.full(3, np.nan)
    return np.subtract(last.translation, first.translation, dtype=np.float64) / seconds
