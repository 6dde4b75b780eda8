# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""What ``alocc run`` puts into a recording for one frame: topics, types, contents.

Everything is stamped with the anchor camera's stamp and logged at it, in the grid's frame; the
same input gives the same bytes. Nothing that depends on the machine (times, rates) is in here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alocc_ros import arrays
from alocc_ros.bags import messages
from alocc_ros.files import whole_file
from alocc_ros.types import FrameSet, Occupancy

OCCUPANCY = "/alocc/occupancy"
OBSTACLES = "/alocc/obstacles"
OCCUPANCY_GRID = "/alocc/occupancy_grid"
FLOW_MARKERS = "/alocc/flow_markers"
GRID_INFO = "/alocc/grid_info"
DIAGNOSTICS = "/alocc/diagnostics"
TF, TF_STATIC = "/tf", "/tf_static"

# topic, type, log time (ns), message
Output = tuple[str, str, int, Any]


@dataclass(frozen=True)
class Provenance:
    """Where a frame's numbers come from.

    Attributes:
        model: name of the model record.
        weights: ``sha256:...`` of the checkpoint, or how the weights were made up.
        camera_frames: TF name of each camera's optical frame.
        image_topics: where copies of the input images go; empty: they are not copied.
        base_T_grid: [4, 4], where the grid's frame is on the vehicle, if it is not the base.
    """

    model: str
    weights: str
    camera_frames: Mapping[str, str]
    image_topics: Mapping[str, str]
    base_T_grid: np.ndarray | None = None


def frame_outputs(
    frame: FrameSet, occupancy: Occupancy, provenance: Provenance, *, first: bool
) -> Iterator[Output]:
    """Every message of one frame; ``first`` adds what is said once in a recording."""
    stamp, grid_frame = occupancy.stamp, occupancy.frame_id
    extrinsics = [
        (frame.base_frame, tf_frame, frame.calibration[camera].base_T_camera)
        for camera, tf_frame in provenance.camera_frames.items()
        if tf_frame
    ]
    if provenance.base_T_grid is not None:
        extrinsics.append((frame.base_frame, grid_frame, provenance.base_T_grid))
    if first:
        # Players need not latch these: the extrinsics come again with every frame.
        static = messages.transforms(stamp, extrinsics)
        yield TF_STATIC, "tf2_msgs/msg/TFMessage", stamp, static
        info = messages.string(grid_info(occupancy, provenance))
        yield GRID_INFO, "std_msgs/msg/String", stamp, info
    yield from _ego_motion(frame, extrinsics)
    yield from _input_images(frame, provenance)

    points = arrays.occupied_points(occupancy)
    cloud = "sensor_msgs/msg/PointCloud2"
    yield OCCUPANCY, cloud, stamp, messages.point_cloud(points, stamp, grid_frame)
    obstacles = arrays.obstacle_points(occupancy).view(arrays.OBSTACLE_DTYPE).reshape(-1)
    yield OBSTACLES, cloud, stamp, messages.point_cloud(obstacles, stamp, grid_frame)
    cells = arrays.occupancy_grid(occupancy)
    grid = messages.occupancy_grid(cells, occupancy.grid, stamp, grid_frame)
    yield OCCUPANCY_GRID, "nav_msgs/msg/OccupancyGrid", stamp, grid
    markers = messages.flow_markers(
        arrays.flow_lines(occupancy), stamp, grid_frame, clear=bool(occupancy.reset)
    )
    yield FLOW_MARKERS, "visualization_msgs/msg/MarkerArray", stamp, markers
    status = _diagnostics(frame, occupancy, provenance)
    yield DIAGNOSTICS, "diagnostic_msgs/msg/DiagnosticArray", stamp, status


def grid_info(occupancy: Occupancy, provenance: Provenance) -> str:
    """JSON: the lattice and what the labels mean."""
    classes = occupancy.classes
    return json.dumps(
        {
            "model": provenance.model,
            "weights": provenance.weights,
            "random_weights": occupancy.random_weights,
            "frame_id": occupancy.frame_id,
            "lower_m": occupancy.grid.lower,
            "shape_xyz": occupancy.grid.shape,
            "resolution_m": occupancy.grid.resolution,
            "benchmark": classes.name,
            "free_label": classes.free,
            "classes": [
                {
                    "label": label,
                    "name": name,
                    "rgb": classes.colours[label].tolist(),
                    "obstacle": bool(classes.is_obstacle[label]),
                    "ground": bool(classes.is_ground[label]),
                    "has_flow": occupancy.flow is not None and label in classes.flow,
                }
                for label, name in enumerate(classes.names)
            ],
        }
    )


def save_npz(path: Path, occupancy: Occupancy) -> None:
    """One frame as a compressed NPZ, whole or not at all.

    Holds ``labels`` [X, Y, Z], ``flow`` [X, Y, Z, 2] if there is any, the lattice
    (``lower`` m, ``resolution`` m, ``frame_id``), ``stamp`` (ns), ``map_T_base`` [4, 4],
    ``class_names``, and why the frame is worse than it could be.
    """
    arrays_of = {
        "labels": occupancy.labels,
        "lower": np.array(occupancy.grid.lower),
        "resolution": np.array(occupancy.grid.resolution),
        "frame_id": np.array(occupancy.frame_id),
        "stamp": np.array(occupancy.stamp),
        "map_T_base": occupancy.map_T_base,
        "class_names": np.array(occupancy.classes.names),
        "degraded": np.array(occupancy.degraded),
        "reset": np.array(occupancy.reset),
        "random_weights": np.array(occupancy.random_weights),
    }
    if occupancy.flow is not None:
        arrays_of["flow"] = occupancy.flow
    if occupancy.confidence is not None:
        arrays_of["confidence"] = occupancy.confidence
    with whole_file(path) as scratch, scratch.open("wb") as stream:
        np.savez_compressed(stream, **arrays_of)


def _ego_motion(frame: FrameSet, extrinsics: list[tuple[str, str, np.ndarray]]) -> Iterator[Output]:
    """/tf at the frame's stamp and at each image's own."""
    poses = {image.stamp: frame.map_T_base_at[camera] for camera, image in frame.images.items()}
    poses[frame.stamp] = frame.map_T_base
    for stamp, map_T_base in sorted(poses.items(), key=lambda item: item[0]):
        entries = [(frame.map_frame, frame.base_frame, map_T_base)]
        if stamp == frame.stamp:
            entries += extrinsics
        yield TF, "tf2_msgs/msg/TFMessage", stamp, messages.transforms(stamp, entries)


def _input_images(frame: FrameSet, provenance: Provenance) -> Iterator[Output]:
    for camera, topic in provenance.image_topics.items():
        if camera not in frame.images:
            continue
        source, tf_frame = frame.images[camera], provenance.camera_frames[camera]
        kind, message = messages.image(source, tf_frame)
        yield topic, kind, source.stamp, message
        info = messages.camera_info(frame.calibration[camera], source.stamp, tf_frame)
        # Where image tools look for it: the topic's neighbour.
        info_topic = topic.rsplit("/", 1)[0] + "/camera_info"
        yield info_topic, "sensor_msgs/msg/CameraInfo", source.stamp, info


def _diagnostics(frame: FrameSet, occupancy: Occupancy, provenance: Provenance) -> Any:
    stamps = {camera: image.stamp for camera, image in frame.images.items()}
    spread = max(stamps.values()) - min(stamps.values()) if stamps else 0
    values = {
        "model": provenance.model,
        "weights": provenance.weights,
        "random_weights": str(occupancy.random_weights).lower(),
        "reset": occupancy.reset,
        "degraded": occupancy.degraded,
        "spread_ms": f"{spread / 1e6:.3f}",
    }
    values |= {f"stamp/{c}": f"{s // 10**9}.{s % 10**9:09d}" for c, s in stamps.items()}
    values |= {f"missing/{camera}": reason for camera, reason in frame.missing.items()}
    problems = []
    if occupancy.random_weights:
        problems.append("RANDOM WEIGHTS: the output means nothing")
    if occupancy.degraded:
        problems.append(occupancy.degraded)
    level = messages.WARN if problems else messages.OK
    text = "; ".join(problems) or "ok"
    return messages.diagnostics(
        occupancy.stamp, frame.base_frame, level, "alocc: frame", text, values
    )
