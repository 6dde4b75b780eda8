# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""The one table of what is published of a result.

The topics of the node, the channels of a recording of ``alocc run`` and the tables in docs/node.md
and docs/run.md are made of ``OUTPUTS``; a new output is a row here and a builder.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from alocc_ros import arrays, costmap, free_space, messages
from alocc_ros.costmap import CostmapSettings
from alocc_ros.errors import PoseError
from alocc_ros.messages import GridInfo, Message
from alocc_ros.objects import encoding
from alocc_ros.objects.detection import detect_objects
from alocc_ros.objects.things import DetectedObject
from alocc_ros.objects.tracking import ObjectTracker
from alocc_ros.types import FrameSet, Occupancy

RECORDING_NAMESPACE = "/alocc"
PER_CAMERA = "<camera>"


@dataclass(frozen=True)
class Result:
    """One result and what its outputs depend on besides; arrays are made once, when first used.

    Attributes:
        frame: the network's input.
        occupancy: its output.
        model: name of the model record, for the outputs that name it.
        weights: where the numbers come from, as in ``messages.GridInfo``.
        obstacle_height: (lower, upper) m in the grid's frame, between which obstacles count.
        max_points: of the outputs that are thinned; 0: all.
        clear_markers: delete the markers of earlier results.
        drawing: how ``occupancy_grid`` is drawn.
        grid_frame: TF frame of ``occupancy_grid``; ``base``: that of the voxels.
        cloud_frame: TF frame of the point clouds; "": that of the voxels.
        locate: name_T_base [4, 4] at the result's stamp of a TF frame by name; may raise PoseError.
        tracker: of the objects; moved on when they are first asked for. None: they get no ids.
    """

    frame: FrameSet
    occupancy: Occupancy
    model: str = ""
    weights: str = ""
    obstacle_height: tuple[float, float] = arrays.OBSTACLE_HEIGHT
    max_points: int = 0
    clear_markers: bool = False
    drawing: CostmapSettings = field(default_factory=CostmapSettings)
    grid_frame: str = costmap.BASE
    cloud_frame: str = ""
    locate: Callable[[str], np.ndarray] | None = None
    tracker: ObjectTracker | None = None

    @property
    def stamp_and_frame(self) -> tuple[int, str]:
        """Stamp (ns) and TF frame of every message that is made of the voxels."""
        return self.occupancy.stamp, self.occupancy.frame_id

    def placed_in(self, name: str) -> tuple[str, np.ndarray | None]:
        """The TF frame that is meant, and where the voxels are in it [4, 4]; None: it is theirs.

        Raises:
            PoseError: it is not known where they are.
        """
        frame = self.frame
        if name in ("", costmap.BASE, self.occupancy.frame_id):
            return self.occupancy.frame_id, None
        if name == frame.base_frame:
            name_T_base = np.eye(4)
        elif name == frame.map_frame:
            name_T_base = frame.map_T_base
        elif self.locate is not None:
            name_T_base = self.locate(name)
        else:
            raise PoseError(f"where {frame.base_frame} is in {name} is not known")
        return name, name_T_base if frame.base_T_grid is None else name_T_base @ frame.base_T_grid

    @cached_property
    def points(self) -> np.ndarray:  # [n] arrays.POINT_DTYPE
        """Occupied voxels, every n-th if there are more than ``max_points``."""
        points = arrays.occupied_points(self.occupancy)
        if self.max_points == 0 or len(points) <= self.max_points:
            return points
        return points[np.arange(self.max_points) * len(points) // self.max_points]

    @cached_property
    def objects(self) -> list[DetectedObject]:
        """What stands and moves; what has just been missed comes last."""
        if self.tracker is None:
            return detect_objects(self.occupancy)
        return self.tracker.step(self.occupancy, self.frame.base_T_grid)

    @property
    def grid_info(self) -> GridInfo:
        """What labels and cells of the result mean."""
        occupancy = self.occupancy
        return GridInfo(
            grid=occupancy.grid,
            classes=occupancy.classes,
            model=self.model,
            weights=self.weights,
            random_weights=occupancy.random_weights,
            has_flow=occupancy.flow is not None,
        )


@dataclass(frozen=True)
class Output:
    """One topic.

    Attributes:
        name: under ``~/`` of the node and ``/alocc`` of a recording; absolute with a leading slash.
        type: of its messages.
        description: one line of documentation.
        build: makes the message of a result; None: a result gives several or none, and
            ``ros/outputs.py`` or ``bags/outputs.py`` makes them.
        node: the node publishes it.
        recording: ``alocc run`` writes it.
        latched: published once, and kept for those who subscribe later (transient local).
        kept: published for each result; the node keeps the last one, likewise.
        parameter: of the node, without which it is not published; "": it always is.
        for_viewing: only there to be looked at, so the node's ``max_rate_hz`` limits it.
        optional: the node leaves it out where the type is not installed.
    """

    name: str
    type: str
    description: str
    build: Callable[[Result], Message] | None
    node: bool = True
    recording: bool = True
    latched: bool = False
    kept: bool = False
    parameter: str = ""
    for_viewing: bool = False
    optional: bool = False

    @property
    def is_absolute(self) -> bool:
        """The topic has this name in every namespace."""
        return self.name.startswith("/")

    @property
    def per_camera(self) -> bool:
        """One topic for each camera, whose name takes the place of ``<camera>``."""
        return PER_CAMERA in self.name

    def topic(self, namespace: str) -> str:
        """The topic's name, with ``namespace`` before it unless it is absolute."""
        return self.name if self.is_absolute else f"{namespace}/{self.name}"


def _occupancy(result: Result) -> Message:
    return _cloud(result, result.points)


def _obstacles(result: Result) -> Message:
    points = arrays.obstacle_points(result.occupancy, result.obstacle_height)
    return _cloud(result, points.view(arrays.OBSTACLE_DTYPE).reshape(-1))


def _free_space(result: Result) -> Message:
    vehicle = costmap.footprint(result.drawing, result.frame)
    ends = free_space.ray_ends(result.frame, result.occupancy, result.obstacle_height, vehicle)
    return _cloud(result, ends.view(arrays.OBSTACLE_DTYPE).reshape(-1))


def _cloud(result: Result, points: np.ndarray) -> Message:
    name, name_T_grid = result.placed_in(result.cloud_frame)
    if name_T_grid is not None:
        points = arrays.moved_points(points, name_T_grid)
    return messages.point_cloud(points, result.occupancy.stamp, name)


def _occupancy_grid(result: Result) -> Message:
    name, name_T_grid = result.placed_in(result.grid_frame)
    drawn = costmap.draw(
        result.occupancy, result.frame, result.obstacle_height, result.drawing, name_T_grid
    )
    return messages.occupancy_grid(drawn.cells, drawn.grid, result.occupancy.stamp, name)


def _flow_markers(result: Result) -> Message:
    lines = arrays.flow_lines(result.occupancy)
    return messages.flow_markers(lines, *result.stamp_and_frame, clear=result.clear_markers)


def _voxels(result: Result) -> Message:
    return messages.semantic_grid(result.frame, result.occupancy)


def _status(result: Result) -> Message:
    return messages.frame_status_stamped(result.frame, result.occupancy)


def _markers(result: Result) -> Message:
    resolution = result.occupancy.grid.resolution
    return messages.cube_markers(
        result.points, resolution, *result.stamp_and_frame, clear=result.clear_markers
    )


def _objects(result: Result) -> Message:
    classes = result.occupancy.classes
    return encoding.detections(result.objects, classes, *result.stamp_and_frame)


def _object_markers(result: Result) -> Message:
    classes = result.occupancy.classes
    return encoding.object_markers(result.objects, classes, *result.stamp_and_frame)


def _autoware_objects(result: Result) -> Message:
    classes = result.occupancy.classes
    return encoding.autoware_objects(result.objects, classes, *result.stamp_and_frame)


def _diagnostics(result: Result) -> Message:
    frame, occupancy = result.frame, result.occupancy
    stamps = {camera: image.stamp for camera, image in frame.images.items()}
    spread = max(stamps.values()) - min(stamps.values()) if stamps else 0
    values = {
        "model": result.model,
        "weights": result.weights,
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
    level = messages.DIAGNOSTIC_WARN if problems else messages.DIAGNOSTIC_OK
    text = "; ".join(problems) or "ok"
    return messages.diagnostics(
        occupancy.stamp, frame.base_frame, level, "alocc: frame", text, values
    )


def _grid_info(result: Result) -> Message:
    return messages.grid_info(result.grid_info, *result.stamp_and_frame)


# In the order in which they are documented and recorded.
OUTPUTS = (
    Output(
        "occupancy",
        messages.POINT_CLOUD,
        "every occupied voxel: x y z rgb label vx vy (m, m/s; NaN for models without flow)",
        _occupancy,
        for_viewing=True,
    ),
    Output(
        "obstacles",
        messages.POINT_CLOUD,
        "x y z of voxels that a planner must not drive into, up to a height of 2.5 m",
        _obstacles,
    ),
    Output(
        "free_space",
        messages.POINT_CLOUD,
        "x y z of the ends of rays that meet no obstacle; for costmaps that clear along rays",
        _free_space,
        recording=False,
    ),
    Output(
        "occupancy_grid",
        messages.OCCUPANCY_GRID,
        "seen from above: 100 obstacle, 0 ground or the vehicle itself, -1 unknown; the node keeps "
        "the last one for late subscribers",
        _occupancy_grid,
        kept=True,
    ),
    Output(
        "flow_markers",
        messages.MARKER_ARRAY,
        "moving voxels, as lines to where they will be in 1 s; the hue is the direction",
        _flow_markers,
        for_viewing=True,
    ),
    Output(
        "objects",
        encoding.DETECTIONS,
        "vehicles, people, barriers as boxes with class and id; of the node only where vision_msgs "
        "is installed",
        _objects,
        optional=True,
    ),
    Output(
        "object_markers",
        messages.MARKER_ARRAY,
        "the same boxes, to look at: velocity as an arrow, class, id and speed as text",
        _object_markers,
        for_viewing=True,
    ),
    Output(
        "autoware_objects",
        encoding.AUTOWARE_OBJECTS,
        "the same as Autoware takes them, with velocities; only where its messages are installed",
        _autoware_objects,
        recording=False,
        optional=True,
    ),
    Output(
        "voxels",
        messages.SEMANTIC_GRID,
        "a label for every cell, and the flow of what can move",
        _voxels,
        recording=False,
    ),
    Output(
        "status",
        messages.FRAME_STATUS_STAMPED,
        "how far the outputs of that stamp can be trusted",
        _status,
        recording=False,
    ),
    Output(
        "markers",
        messages.MARKER_ARRAY,
        "occupied voxels as cubes; only with the parameter `markers`",
        _markers,
        recording=False,
        parameter="markers",
        for_viewing=True,
    ),
    Output(
        f"overlay/{PER_CAMERA}",
        messages.IMAGE,
        "the camera's image with the voxels drawn into it",
        None,
        recording=False,
        for_viewing=True,
    ),
    Output(
        "diagnostics",
        messages.DIAGNOSTIC_ARRAY,
        "stamps of the images, missing cameras, why the frame is degraded, why the memory was "
        "reset, weights",
        _diagnostics,
        node=False,
    ),
    Output(
        "grid_info",
        messages.GRID_INFO,
        "classes, geometry and model; latched",
        _grid_info,
        latched=True,
    ),
    Output(
        "/tf",
        messages.TF_MESSAGE,
        "the vehicle at each image's stamp; mounting of the cameras",
        None,
        node=False,
    ),
    Output(
        "/tf_static",
        messages.TF_MESSAGE,
        "mounting of the cameras; latched",
        None,
        node=False,
        latched=True,
    ),
    Output("/diagnostics", messages.DIAGNOSTIC_ARRAY, "see below", None, recording=False),
)


def find_output(name: str) -> Output:
    """The row of that name.

    Raises:
        KeyError: there is none.
    """
    return {output.name: output for output in OUTPUTS}[name]


def is_latched(topic: str) -> bool:
    """Whether ``topic``, under any namespace, is an output that is published once and kept."""
    return any(
        topic == output.name if output.is_absolute else topic.endswith(f"/{output.name}")
        for output in OUTPUTS
        if output.latched
    )
