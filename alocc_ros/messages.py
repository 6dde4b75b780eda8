# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Messages as plain values: a type name and its fields, whatever library sends or stores them.

Two encoders make bytes or objects of them: ``bags/cdr.py`` for recordings, ``ros/encoder.py`` for
live topics. Fields that are left out are zero, empty or False; quaternions are therefore always
written out. Stamps are integer nanoseconds, lengths metres.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import alocc_ros
from alocc_ros.arrays import FlowLines, movable_flow, point_fields
from alocc_ros.geometry import quaternion_xyzw
from alocc_ros.grid import VoxelGrid
from alocc_ros.labels import ClassList
from alocc_ros.types import Calibration, CameraImage, FrameSet, Occupancy
from alocc_ros.unpacking import status_flags
from alocc_ros.unpacking import unpack as unpack  # for users

CAMERA_INFO = "sensor_msgs/msg/CameraInfo"
COMPRESSED_IMAGE = "sensor_msgs/msg/CompressedImage"
DIAGNOSTIC_ARRAY = "diagnostic_msgs/msg/DiagnosticArray"
FRAME_STATUS = "alocc_ros/msg/FrameStatus"
FRAME_STATUS_STAMPED = "alocc_ros/msg/FrameStatusStamped"
GRID_GEOMETRY = "alocc_ros/msg/GridGeometry"
GRID_INFO = "alocc_ros/msg/GridInfo"
IMAGE = "sensor_msgs/msg/Image"
MARKER_ARRAY = "visualization_msgs/msg/MarkerArray"
OCCUPANCY_GRID = "nav_msgs/msg/OccupancyGrid"
POINT_CLOUD = "sensor_msgs/msg/PointCloud2"
SEMANTIC_CLASS = "alocc_ros/msg/SemanticClass"
SEMANTIC_GRID = "alocc_ros/msg/SemanticGrid"
TF_MESSAGE = "tf2_msgs/msg/TFMessage"
COLOUR = "std_msgs/msg/ColorRGBA"
POINT = "geometry_msgs/msg/Point"
VECTOR = "geometry_msgs/msg/Vector3"

# Constants of the message definitions.
DIAGNOSTIC_OK, DIAGNOSTIC_WARN = 0, 1  # diagnostic_msgs/DiagnosticStatus
LINE_LIST, CUBE_LIST, TEXT = 5, 6, 9  # visualization_msgs/Marker
ADD, DELETE, DELETE_ALL = 0, 2, 3

LINE_WIDTH = 0.12  # m
_CUBE_SIZE = 0.9975  # of the resolution: faces of neighbours do not flicker
SHA256 = "sha256:"  # before the digest in GridInfo.weights


@dataclass(frozen=True)
class Message:
    """A message, or a part of one.

    Attributes:
        type: such as ``sensor_msgs/msg/Image``.
        fields: by name: numbers, strings, one-dimensional arrays of the field's own element type,
            messages, ``Points``, ``Colours``, or lists of strings or messages. Those left out are
            zero.
    """

    type: str
    fields: Mapping[str, Any]

    def __getitem__(self, name: str) -> Any:
        """A field.

        Raises:
            KeyError: it was not given.
        """
        return self.fields[name]


@dataclass(frozen=True)
class Points:
    """A sequence of geometry_msgs/Point, of which there may be many: ``xyz`` [n, 3] m."""

    xyz: np.ndarray

    def __len__(self) -> int:
        return len(self.xyz)


@dataclass(frozen=True)
class Colours:
    """A sequence of opaque std_msgs/ColorRGBA, of which many are equal.

    Attributes:
        palette: [k, 3] R, G, B in [0, 1].
        index: [n] int, of each colour in the palette.
    """

    palette: np.ndarray
    index: np.ndarray

    def __len__(self) -> int:
        return len(self.index)


@dataclass(frozen=True)
class GridInfo:
    """What is the same for every grid of a model or a recording.

    Attributes:
        grid: where the cells lie.
        classes: what the labels mean.
        model: name of the model record.
        weights: ``sha256:...`` of the checkpoint, or in words where the numbers come from.
        random_weights: the network is not trained.
        has_flow: the model estimates flow.
    """

    grid: VoxelGrid
    classes: ClassList
    model: str
    weights: str
    random_weights: bool
    has_flow: bool


_NO_POINTS = np.zeros((0, 3))
_NO_COLOURS = Colours(_NO_POINTS, np.zeros(0, int))


def new_message(type_name: str, /, **fields: Any) -> Message:
    """A message of the fields that are given; the others are what the type has by default."""
    return Message(type_name, fields)


# --- parts -----------------------------------------------------------------------------------


def time(stamp: int) -> Message:
    """A builtin_interfaces/Time; ``stamp`` in ns."""
    seconds, nanoseconds = divmod(stamp, 1_000_000_000)
    return new_message("builtin_interfaces/msg/Time", sec=seconds, nanosec=nanoseconds)


def header(stamp: int, frame: str) -> Message:
    """A std_msgs/Header; ``stamp`` in ns, ``frame`` the TF name."""
    return new_message("std_msgs/msg/Header", stamp=time(stamp), frame_id=frame)


def vector(type_name: str, xyz: Sequence[float] | np.ndarray) -> Message:
    """A message of x, y and z, such as ``VECTOR`` and ``POINT``."""
    x, y, z = (float(v) for v in xyz)
    return new_message(type_name, x=x, y=y, z=z)


def quaternion(xyzw: Sequence[float] | np.ndarray) -> Message:
    """A geometry_msgs/Quaternion."""
    x, y, z, w = (float(v) for v in xyzw)
    return new_message("geometry_msgs/msg/Quaternion", x=x, y=y, z=z, w=w)


def pose_at(xyz: Sequence[float]) -> Message:
    """At ``xyz`` m, not turned."""
    no_turn = quaternion((0.0, 0.0, 0.0, 1.0))
    return new_message("geometry_msgs/msg/Pose", position=vector(POINT, xyz), orientation=no_turn)


def colour_of(rgb: Sequence[float] | np.ndarray, alpha: float = 1.0) -> Message:
    """A std_msgs/ColorRGBA of values from 0 to 1."""
    r, g, b = (float(v) for v in rgb)
    return new_message(COLOUR, r=r, g=g, b=b, a=alpha)


# --- poses and cameras -----------------------------------------------------------------------


def transforms(stamp: int, entries: Sequence[tuple[str, str, np.ndarray]]) -> Message:
    """A tf2_msgs/TFMessage of (parent frame, child frame, parent_T_child [4, 4]) at one stamp."""
    links = [
        new_message(
            "geometry_msgs/msg/TransformStamped",
            header=header(stamp, parent),
            child_frame_id=child,
            transform=new_message(
                "geometry_msgs/msg/Transform",
                translation=vector(VECTOR, parent_T_child[:3, 3]),
                rotation=quaternion(quaternion_xyzw(parent_T_child)),
            ),
        )
        for parent, child, parent_T_child in entries
    ]
    return new_message(TF_MESSAGE, transforms=links)


def image(source: CameraImage, frame: str) -> Message:
    """An image as it came: sensor_msgs/CompressedImage, or Image if ``source`` is raw."""
    data = np.frombuffer(source.data, dtype=np.uint8)
    head = header(source.stamp, frame)
    if not source.height:
        # A mosaic in a gray picture is known by its format only.
        kept = source.encoding.removeprefix("compressed").strip()
        kind = kept if "bayer" in kept.lower() else _compression(data)
        return new_message(COMPRESSED_IMAGE, header=head, format=kind, data=data)
    return new_message(
        IMAGE,
        header=head,
        height=source.height,
        width=source.width,
        encoding=source.encoding,
        is_bigendian=int(source.big_endian),
        step=source.step,
        data=data,
    )


def rgb_image(pixels: np.ndarray, stamp: int, frame: str) -> Message:  # [h, w, 3] uint8
    """A sensor_msgs/Image with the encoding ``rgb8``."""
    height, width = pixels.shape[:2]
    data = np.ascontiguousarray(pixels).reshape(-1)
    return image(CameraImage("", stamp, data, "rgb8", height, width, 3 * width), frame)


def _compression(data: np.ndarray) -> str:
    return "png" if data[:4].tobytes() == b"\x89PNG" else "jpeg"


def camera_info(calibration: Calibration, stamp: int, frame: str) -> Message:
    """A sensor_msgs/CameraInfo: R is the identity and P is [K|0]."""
    k = calibration.intrinsics
    return new_message(
        CAMERA_INFO,
        header=header(stamp, frame),
        height=calibration.height,
        width=calibration.width,
        distortion_model=calibration.distortion_model or "plumb_bob",
        d=np.array(calibration.distortion or (0.0,) * 5),
        k=k.ravel(),
        r=np.eye(3).ravel(),
        p=np.hstack([k, np.zeros((3, 1))]).ravel(),
    )


# --- voxels, as standard messages ------------------------------------------------------------


def point_cloud(points: np.ndarray, stamp: int, frame: str) -> Message:
    """A sensor_msgs/PointCloud2 of structured ``points`` [n]; the dtype is the layout."""
    return new_message(
        POINT_CLOUD,
        header=header(stamp, frame),
        height=1,
        width=len(points),
        fields=[
            new_message("sensor_msgs/msg/PointField", name=n, offset=o, datatype=t, count=c)
            for n, o, t, c in point_fields(points.dtype)
        ],
        point_step=points.dtype.itemsize,
        row_step=points.dtype.itemsize * len(points),
        data=points.view(np.uint8),
        is_dense=True,
    )


def occupancy_grid(cells: np.ndarray, grid: VoxelGrid, stamp: int, frame: str) -> Message:
    """A nav_msgs/OccupancyGrid of ``cells`` [Y, X] int8, on the plane at the grid's lower z."""
    rows, columns = cells.shape
    metadata = new_message(
        "nav_msgs/msg/MapMetaData",
        map_load_time=time(stamp),
        resolution=grid.resolution,
        width=columns,
        height=rows,
        origin=pose_at(grid.lower),
    )
    head = header(stamp, frame)
    return new_message(OCCUPANCY_GRID, header=head, info=metadata, data=cells.reshape(-1))


def flow_markers(lines: FlowLines, stamp: int, frame: str, *, clear: bool) -> Message:
    """A visualization_msgs/MarkerArray with one LINE_LIST.

    RViz warns of a line list without points, so nothing that moves is a DELETE.

    Args:
        lines: what is drawn.
        stamp: ns.
        frame: TF name of the frame that the lines are in.
        clear: delete all that was drawn before.
    """
    width = (LINE_WIDTH, 0.0, 0.0)
    ends = lines.ends.reshape(-1, 3)
    colours = Colours(lines.colours, np.repeat(np.arange(len(lines)), 2))
    marker = list_marker("flow", LINE_LIST, width, stamp, frame, ends, colours)
    before = list_marker("flow", LINE_LIST, width, stamp, frame, action=DELETE_ALL)
    return new_message(MARKER_ARRAY, markers=[before, marker] if clear else [marker])


def cube_markers(
    points: np.ndarray, resolution: float, stamp: int, frame: str, *, clear: bool
) -> Message:
    """A visualization_msgs/MarkerArray with one CUBE_LIST.

    Args:
        points: [n] ``arrays.POINT_DTYPE``.
        resolution: m, edge of a voxel.
        stamp: ns.
        frame: TF name of the frame that the points are in.
        clear: delete all that was drawn before.
    """
    rgb, index = np.unique(points["rgb"].view("<u4"), return_inverse=True)
    palette = np.stack([(rgb >> shift) & 255 for shift in (16, 8, 0)], axis=1) / 255.0
    centres = np.stack([points[axis] for axis in "xyz"], axis=1)
    size = (resolution * _CUBE_SIZE,) * 3
    marker = list_marker(
        "occupancy", CUBE_LIST, size, stamp, frame, centres, Colours(palette, index)
    )
    before = no_markers(stamp, frame)["markers"] if clear else []
    return new_message(MARKER_ARRAY, markers=[*before, marker])


def no_markers(stamp: int, frame: str) -> Message:
    """A visualization_msgs/MarkerArray that deletes all that was drawn."""
    marker = new_message(
        "visualization_msgs/msg/Marker",
        header=header(stamp, frame),
        action=DELETE_ALL,
        pose=pose_at((0.0, 0.0, 0.0)),
    )
    return new_message(MARKER_ARRAY, markers=[marker])


def list_marker(
    namespace: str,
    shape: int,
    scale: tuple[float, float, float],  # m
    stamp: int,
    frame: str,
    points: np.ndarray = _NO_POINTS,  # [n, 3] m
    colours: Colours = _NO_COLOURS,
    action: int | None = None,
) -> Message:
    """A list of equal shapes; by default ADD, or DELETE if there are none."""
    if action is None:
        action = ADD if len(points) else DELETE
    return new_message(
        "visualization_msgs/msg/Marker",
        header=header(stamp, frame),
        ns=namespace,
        type=shape,
        action=action,
        pose=pose_at((0.0, 0.0, 0.0)),
        scale=vector(VECTOR, scale),
        color=colour_of((1.0, 1.0, 1.0)),
        points=Points(points),
        colors=colours,
    )


def diagnostics(
    stamp: int, frame: str, level: int, name: str, text: str, values: Mapping[str, str]
) -> Message:
    """A diagnostic_msgs/DiagnosticArray with one status."""
    status = new_message(
        "diagnostic_msgs/msg/DiagnosticStatus",
        level=level,
        name=name,
        message=text,
        values=[
            new_message("diagnostic_msgs/msg/KeyValue", key=k, value=v) for k, v in values.items()
        ],
    )
    return new_message(DIAGNOSTIC_ARRAY, header=header(stamp, frame), status=[status])


# --- voxels, as messages of this package (msg/) ----------------------------------------------


def frame_status(frame: FrameSet, occupancy: Occupancy) -> Message:
    """An alocc_ros/FrameStatus: how far the result can be trusted."""
    return new_message(
        FRAME_STATUS,
        flags=status_flags(occupancy),
        degraded=occupancy.degraded,
        reset=occupancy.reset,
        missing_cameras=sorted(frame.missing),
    )


def frame_status_stamped(frame: FrameSet, occupancy: Occupancy) -> Message:
    """An alocc_ros/FrameStatusStamped."""
    head = header(occupancy.stamp, occupancy.frame_id)
    return new_message(FRAME_STATUS_STAMPED, header=head, status=frame_status(frame, occupancy))


def grid_geometry(grid: VoxelGrid) -> Message:
    """An alocc_ros/GridGeometry: where the cells lie."""
    return new_message(
        GRID_GEOMETRY,
        origin=vector(POINT, grid.lower),
        resolution=float(grid.resolution),
        size_x=grid.shape[0],
        size_y=grid.shape[1],
        size_z=grid.shape[2],
    )


def semantic_grid(frame: FrameSet, occupancy: Occupancy) -> Message:
    """An alocc_ros/SemanticGrid: all labels, and the flow of what can move."""
    cells, flow = movable_flow(occupancy)
    confidence = np.zeros(0, np.uint8)
    if occupancy.confidence is not None:
        confidence = np.rint(occupancy.confidence * 255).astype(np.uint8).reshape(-1)
    return new_message(
        SEMANTIC_GRID,
        header=header(occupancy.stamp, occupancy.frame_id),
        status=frame_status(frame, occupancy),
        geometry=grid_geometry(occupancy.grid),
        has_flow=occupancy.flow is not None,
        flow_cells=cells,
        flow=flow.reshape(-1),
        confidence=confidence,
        labels=occupancy.labels.reshape(-1),
    )


def grid_info(info: GridInfo, stamp: int, frame: str) -> Message:
    """An alocc_ros/GridInfo; ``frame`` is that of the grids."""
    classes = info.classes
    return new_message(
        GRID_INFO,
        header=header(stamp, frame),
        geometry=grid_geometry(info.grid),
        classes=[
            new_message(
                SEMANTIC_CLASS,
                name=name,
                colour=colour_of(classes.colours[label] / 255.0, float(label != classes.free)),
                is_free=label == classes.free,
                is_ground=bool(classes.is_ground[label]),
                is_obstacle=bool(classes.is_obstacle[label]),
                can_move=label in classes.flow,
            )
            for label, name in enumerate(classes.names)
        ],
        class_list=classes.name,
        has_flow=info.has_flow,
        model=info.model,
        weights_sha256=weights_sha256(info.weights),
        random_weights=info.random_weights,
        version=alocc_ros.__version__,
    )


def weights_sha256(weights: str) -> str:
    """The hexadecimal digest in ``GridInfo.weights``; "" if it names no file."""
    return weights.removeprefix(SHA256) if weights.startswith(SHA256) else ""
