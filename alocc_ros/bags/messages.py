# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Standard ROS 2 messages filled from our values, ready to be serialised into a bag.

The types are those of ``rosbags``, so no ROS installation is needed. Only types whose layout is
the same in every ROS 2 release since Humble are used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rosbags.typesys import Stores, get_typestore

from alocc_ros.arrays import FlowLines, point_fields
from alocc_ros.geometry import quaternion_xyzw
from alocc_ros.grid import VoxelGrid
from alocc_ros.types import Calibration, CameraImage

TYPESTORE = get_typestore(Stores.ROS2_HUMBLE)

OK, WARN = 0, 1  # diagnostic_msgs/DiagnosticStatus


def _new(type_name: str, /, **values: Any) -> Any:
    return TYPESTORE.types[type_name](**values)


def header(stamp: int, frame: str) -> Any:
    """A std_msgs/Header; ``stamp`` in ns."""
    seconds, nanoseconds = divmod(stamp, 1_000_000_000)
    time = _new("builtin_interfaces/msg/Time", sec=seconds, nanosec=nanoseconds)
    return _new("std_msgs/msg/Header", stamp=time, frame_id=frame)


def transforms(stamp: int, entries: Sequence[tuple[str, str, np.ndarray]]) -> Any:
    """A tf2_msgs/TFMessage of (parent frame, child frame, parent_T_child) at one stamp."""
    message = []
    for parent, child, parent_T_child in entries:
        x, y, z, w = (float(v) for v in quaternion_xyzw(parent_T_child))
        transform = _new(
            "geometry_msgs/msg/Transform",
            translation=_vector("geometry_msgs/msg/Vector3", parent_T_child[:3, 3]),
            rotation=_new("geometry_msgs/msg/Quaternion", x=x, y=y, z=z, w=w),
        )
        message.append(
            _new(
                "geometry_msgs/msg/TransformStamped",
                header=header(stamp, parent),
                child_frame_id=child,
                transform=transform,
            )
        )
    return _new("tf2_msgs/msg/TFMessage", transforms=message)


def image(source: CameraImage, frame: str) -> tuple[str, Any]:
    """(type, message) of an image as it came: sensor_msgs CompressedImage or Image."""
    data = np.frombuffer(source.data, dtype=np.uint8)
    if source.height:
        values = {
            "height": source.height,
            "width": source.width,
            "encoding": source.encoding,
            "is_bigendian": 0,
            "step": source.step,
        }
        name = "sensor_msgs/msg/Image"
    else:
        name, values = "sensor_msgs/msg/CompressedImage", {"format": _compression(data)}
    return name, _new(name, header=header(source.stamp, frame), data=data, **values)


def _compression(data: np.ndarray) -> str:
    return "png" if data[:4].tobytes() == b"\x89PNG" else "jpeg"


def camera_info(calibration: Calibration, stamp: int, frame: str) -> Any:
    """A sensor_msgs/CameraInfo: R is the identity and P is [K|0]."""
    k = calibration.intrinsics
    return _new(
        "sensor_msgs/msg/CameraInfo",
        header=header(stamp, frame),
        height=calibration.height,
        width=calibration.width,
        distortion_model=calibration.distortion_model or "plumb_bob",
        d=np.array(calibration.distortion or (0.0,) * 5),
        k=k.ravel(),
        r=np.eye(3).ravel(),
        p=np.hstack([k, np.zeros((3, 1))]).ravel(),
        binning_x=0,
        binning_y=0,
        roi=_new(
            "sensor_msgs/msg/RegionOfInterest",
            x_offset=0,
            y_offset=0,
            height=0,
            width=0,
            do_rectify=False,
        ),
    )


def point_cloud(points: np.ndarray, stamp: int, frame: str) -> Any:
    """A sensor_msgs/PointCloud2 of structured ``points`` [n]; the dtype is the layout."""
    return _new(
        "sensor_msgs/msg/PointCloud2",
        header=header(stamp, frame),
        height=1,
        width=len(points),
        fields=[
            _new("sensor_msgs/msg/PointField", name=n, offset=o, datatype=t, count=c)
            for n, o, t, c in point_fields(points.dtype)
        ],
        is_bigendian=False,
        point_step=points.dtype.itemsize,
        row_step=points.dtype.itemsize * len(points),
        data=points.view(np.uint8),
        is_dense=True,
    )


def occupancy_grid(cells: np.ndarray, grid: VoxelGrid, stamp: int, frame: str) -> Any:
    """A nav_msgs/OccupancyGrid of ``cells`` [Y, X] int8; the map moves with the vehicle."""
    rows, columns = cells.shape
    identity = _new("geometry_msgs/msg/Quaternion", x=0.0, y=0.0, z=0.0, w=1.0)
    corner = _vector("geometry_msgs/msg/Point", (*grid.lower[:2], 0.0))
    return _new(
        "nav_msgs/msg/OccupancyGrid",
        header=header(stamp, frame),
        info=_new(
            "nav_msgs/msg/MapMetaData",
            map_load_time=header(stamp, "").stamp,
            resolution=grid.resolution,
            width=columns,
            height=rows,
            origin=_new("geometry_msgs/msg/Pose", position=corner, orientation=identity),
        ),
        data=cells.reshape(-1),
    )


_LINE_LIST, _ADD, _DELETE, _DELETE_ALL = 5, 0, 2, 3
LINE_WIDTH = 0.12  # m


def flow_markers(lines: FlowLines, stamp: int, frame: str, *, clear: bool) -> Any:
    """A visualization_msgs/MarkerArray with one LINE_LIST; ``clear`` first deletes all.

    RViz complains about a line list without points, so nothing that moves is a DELETE.
    """
    points = [_vector("geometry_msgs/msg/Point", p) for p in lines.ends.reshape(-1, 3).tolist()]
    colours = [
        _new("std_msgs/msg/ColorRGBA", r=r, g=g, b=b, a=1.0)
        for r, g, b in np.repeat(lines.colours, 2, axis=0).tolist()
    ]
    lines_marker = _marker(_ADD if points else _DELETE, stamp, frame, points, colours)
    markers = [_marker(_DELETE_ALL, stamp, frame)] if clear else []
    return _new("visualization_msgs/msg/MarkerArray", markers=[*markers, lines_marker])


def _marker(
    action: int, stamp: int, frame: str, points: Sequence[Any] = (), colours: Sequence[Any] = ()
) -> Any:
    no_time = _new("builtin_interfaces/msg/Time", sec=0, nanosec=0)
    return _new(
        "visualization_msgs/msg/Marker",
        header=header(stamp, frame),
        ns="flow",
        id=0,
        type=_LINE_LIST,
        action=action,
        pose=_new(
            "geometry_msgs/msg/Pose",
            position=_vector("geometry_msgs/msg/Point", (0.0, 0.0, 0.0)),
            orientation=_new("geometry_msgs/msg/Quaternion", x=0.0, y=0.0, z=0.0, w=1.0),
        ),
        scale=_vector("geometry_msgs/msg/Vector3", (LINE_WIDTH, 0.0, 0.0)),
        color=_new("std_msgs/msg/ColorRGBA", r=1.0, g=1.0, b=1.0, a=1.0),
        lifetime=_new("builtin_interfaces/msg/Duration", sec=0, nanosec=0),
        frame_locked=False,
        points=points,
        colors=colours,
        texture_resource="",
        texture=_new(
            "sensor_msgs/msg/CompressedImage",
            header=_new("std_msgs/msg/Header", stamp=no_time, frame_id=""),
            format="",
            data=np.zeros(0, np.uint8),
        ),
        uv_coordinates=[],
        text="",
        mesh_resource="",
        mesh_file=_new("visualization_msgs/msg/MeshFile", filename="", data=np.zeros(0, np.uint8)),
        mesh_use_embedded_materials=False,
    )


def diagnostics(
    stamp: int, frame: str, level: int, name: str, text: str, values: Mapping[str, str]
) -> Any:
    """A diagnostic_msgs/DiagnosticArray with one status."""
    status = _new(
        "diagnostic_msgs/msg/DiagnosticStatus",
        level=level,
        name=name,
        message=text,
        hardware_id="",
        values=[_new("diagnostic_msgs/msg/KeyValue", key=k, value=v) for k, v in values.items()],
    )
    return _new("diagnostic_msgs/msg/DiagnosticArray", header=header(stamp, frame), status=[status])


def string(text: str) -> Any:
    """A std_msgs/String."""
    return _new("std_msgs/msg/String", data=text)


def _vector(name: str, xyz: Sequence[float]) -> Any:
    x, y, z = (float(v) for v in xyz)
    return _new(name, x=x, y=y, z=z)
