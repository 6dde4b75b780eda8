# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Our values as ROS messages.

Bytes go in through ``array.array.frombytes``: any other way costs rclpy a Python object for
each of them.
"""

from __future__ import annotations

import array
from collections.abc import Iterable

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Point
from nav_msgs.msg import OccupancyGrid
from sensor_msgs.msg import Image, PointCloud2, PointField
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import Marker, MarkerArray

import alocc_ros
from alocc_ros.arrays import FlowLines, point_fields
from alocc_ros.grid import VoxelGrid
from alocc_ros.msg import FrameStatus, GridGeometry, GridInfo, SemanticClass, SemanticGrid
from alocc_ros.records import ModelRecord
from alocc_ros.types import FrameSet, Occupancy

LINE_WIDTH = 0.12  # m
_CUBE = 0.9975  # of the resolution: faces of neighbours do not flicker


def time(stamp: int) -> Time:
    """``stamp`` in ns."""
    seconds, nanoseconds = divmod(stamp, 1_000_000_000)
    return Time(sec=seconds, nanosec=nanoseconds)


def header(occupancy: Occupancy) -> Header:
    """Of everything that was made of one set of images."""
    return Header(stamp=time(occupancy.stamp), frame_id=occupancy.frame_id)


def _packed(typecode: str, values: np.ndarray) -> array.array:
    packed = array.array(typecode)
    packed.frombytes(np.ascontiguousarray(values).view(np.uint8).data)
    return packed


def point_cloud(points: np.ndarray, head: Header) -> PointCloud2:
    """Structured ``points`` [n]; the dtype is the layout."""
    return PointCloud2(
        header=head,
        height=1,
        width=len(points),
        fields=[
            PointField(name=name, offset=offset, datatype=kind, count=count)
            for name, offset, kind, count in point_fields(points.dtype)
        ],
        is_bigendian=False,
        point_step=points.dtype.itemsize,
        row_step=points.dtype.itemsize * len(points),
        data=_packed("B", points),
        is_dense=True,
    )


def occupancy_grid(cells: np.ndarray, grid: VoxelGrid, head: Header) -> OccupancyGrid:
    """``cells`` [Y, X] int8; the map moves with the vehicle."""
    message = OccupancyGrid(header=head, data=_packed("b", cells.reshape(-1)))
    message.info.map_load_time = head.stamp
    message.info.resolution = grid.resolution
    message.info.height, message.info.width = cells.shape
    message.info.origin.position = Point(x=grid.lower[0], y=grid.lower[1], z=0.0)
    return message


def flow_markers(lines: FlowLines, head: Header, *, clear: bool) -> MarkerArray:
    """One LINE_LIST; ``clear`` deletes all markers before.

    RViz complains about a line list without points, so nothing that moves is a DELETE.
    """
    colours = [ColorRGBA(r=r, g=g, b=b, a=1.0) for r, g, b in lines.colours.tolist()]
    marker = Marker(
        header=head,
        ns="flow",
        type=Marker.LINE_LIST,
        action=Marker.ADD if colours else Marker.DELETE,
        points=[Point(x=x, y=y, z=z) for x, y, z in lines.ends.reshape(-1, 3).tolist()],
        colors=[colour for colour in colours for _ in range(2)],
    )
    marker.scale.x = LINE_WIDTH
    return _markers(marker, head, clear)


def cube_markers(
    points: np.ndarray, resolution: float, head: Header, *, clear: bool
) -> MarkerArray:
    """One CUBE_LIST of ``points`` [n] (``arrays.POINT_DTYPE``)."""
    rgb = points["rgb"].view("<u4")
    colours = np.stack([(rgb >> shift) & 255 for shift in (16, 8, 0)], axis=1) / 255.0
    centres = np.stack([points[axis] for axis in "xyz"], axis=1)
    marker = Marker(
        header=head,
        ns="occupancy",
        type=Marker.CUBE_LIST,
        action=Marker.ADD if len(points) else Marker.DELETE,
        points=[Point(x=x, y=y, z=z) for x, y, z in centres.tolist()],
        colors=[ColorRGBA(r=r, g=g, b=b, a=1.0) for r, g, b in colours.tolist()],
    )
    marker.scale.x = marker.scale.y = marker.scale.z = resolution * _CUBE
    return _markers(marker, head, clear)


def no_markers(head: Header) -> MarkerArray:
    """Deletes all that is there."""
    return MarkerArray(markers=[Marker(header=head, action=Marker.DELETEALL)])


def _markers(marker: Marker, head: Header, clear: bool) -> MarkerArray:
    before = no_markers(head).markers if clear else []
    return MarkerArray(markers=[*before, marker])


def image(pixels: np.ndarray, head: Header) -> Image:
    """``pixels`` [h, w, 3] uint8 RGB."""
    height, width = pixels.shape[:2]
    return Image(
        header=head,
        height=height,
        width=width,
        encoding="rgb8",
        step=3 * width,
        data=_packed("B", pixels),
    )


def frame_status(frame: FrameSet, occupancy: Occupancy) -> FrameStatus:
    """How far the result can be trusted."""
    flags = (
        FrameStatus.DEGRADED * bool(occupancy.degraded)
        | FrameStatus.RESET * bool(occupancy.reset)
        | FrameStatus.RANDOM_WEIGHTS * occupancy.random_weights
    )
    return FrameStatus(
        flags=flags,
        degraded=occupancy.degraded,
        reset=occupancy.reset,
        missing_cameras=sorted(frame.missing),
    )


def grid_geometry(grid: VoxelGrid) -> GridGeometry:
    """Where the cells lie."""
    x, y, z = (float(v) for v in grid.lower)
    message = GridGeometry(origin=Point(x=x, y=y, z=z), resolution=float(grid.resolution))
    message.size_x, message.size_y, message.size_z = grid.shape
    return message


def semantic_grid(occupancy: Occupancy, status: FrameStatus, head: Header) -> SemanticGrid:
    """All labels, and the flow of what can move."""
    message = SemanticGrid(
        header=head,
        status=status,
        geometry=grid_geometry(occupancy.grid),
        has_flow=occupancy.flow is not None,
        labels=_packed("B", occupancy.labels),
    )
    if occupancy.flow is not None:
        can_move = _mask(occupancy.classes.flow)
        cells = np.flatnonzero(can_move.take(occupancy.labels))
        flow = occupancy.flow.reshape(-1, 2).take(cells, axis=0)
        message.flow_cells = _packed("I", cells.astype("<u4"))
        message.flow = _packed("f", flow.astype("<f4"))
    if occupancy.confidence is not None:
        message.confidence = _packed("B", np.rint(occupancy.confidence * 255).astype(np.uint8))
    return message


def grid_info(record: ModelRecord, weights_sha256: str, frame: str, now: int) -> GridInfo:
    """What is the same for every grid; ``now`` in ns."""
    classes = record.classes
    return GridInfo(
        header=Header(stamp=time(now), frame_id=frame),
        geometry=grid_geometry(record.grid),
        classes=[
            SemanticClass(
                name=name,
                colour=_colour(classes.colours[label] / 255.0, label == classes.free),
                is_free=label == classes.free,
                is_ground=bool(classes.is_ground[label]),
                is_obstacle=bool(classes.is_obstacle[label]),
                can_move=label in classes.flow,
            )
            for label, name in enumerate(classes.names)
        ],
        class_list=classes.name,
        has_flow=record.flow,
        model=record.name,
        weights_sha256=weights_sha256,
        random_weights=not weights_sha256,
        version=alocc_ros.__version__,
    )


def _colour(rgb: Iterable[float], is_free: bool) -> ColorRGBA:
    r, g, b = (float(v) for v in rgb)
    return ColorRGBA(r=r, g=g, b=b, a=0.0 if is_free else 1.0)


def _mask(labels: Iterable[int]) -> np.ndarray:  # [256] bool
    mask = np.zeros(256, dtype=bool)
    mask[list(labels)] = True
    return mask
