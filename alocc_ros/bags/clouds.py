# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""LiDAR sweeps of a recording, as points in the LiDAR's frame."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from alocc_ros import messages
from alocc_ros.bags.reader import Bag
from alocc_ros.errors import BagError, MessageError, StampError
from alocc_ros.stream import conversions
from alocc_ros.stream.skips import BAD_STAMP, NO_SUCH_MESSAGE, Skips

_REASONS = {
    BagError: NO_SUCH_MESSAGE,
    StampError: BAD_STAMP,
    MessageError: "point cloud cannot be used",
}
# sensor_msgs/PointField: float32 and float64.
_FORMATS = {7: "f4", 8: "f8"}


@dataclass(frozen=True)
class Sweep:
    """One sweep.

    Attributes:
        stamp: ns.
        frame: TF name of the LiDAR.
        points: [n, 3] float64 m; may hold NaN.
    """

    stamp: int
    frame: str
    points: np.ndarray


def lidar_topic(bag: Bag, topic: str = "") -> str:
    """The topic of LiDAR sweeps: the one that is asked for, or the only one there is.

    Raises:
        BagError: there is none, or there are several.
    """
    clouds = [t for t, kind in sorted(bag.types.items()) if kind == messages.POINT_CLOUD]
    if topic:
        if topic not in clouds:
            raise BagError(f"bag {bag.path} has no {topic} of point clouds; {_there_are(clouds)}")
        return topic
    # What nodes of this package publish is made of images.
    named = {t.rpartition("/")[0] for t in bag.types if t.endswith("/grid_info")}
    others = [t for t in clouds if t.rpartition("/")[0] not in named]
    if len(others) != 1:
        advice = "name one with --lidar" if others else "a LiDAR is what it is scored against"
        raise BagError(f"bag {bag.path}: {_there_are(others)}; {advice}")
    return others[0]


def _there_are(topics: list[str]) -> str:
    return f"its point clouds are {', '.join(topics)}" if topics else "it has no point clouds"


def sweeps(bag: Bag, topic: str, skips: Skips) -> Iterator[Sweep]:
    """All sweeps in the order of recording; those that cannot be used are left out and counted.

    Raises:
        BagError: the bag is damaged.
    """
    for record in bag.messages([topic]):
        try:
            message = bag.decode(record)
            stamp = conversions.stamp_ns(message.header.stamp)
            points = cloud_points(message)
        except (BagError, StampError, MessageError) as error:
            skips.add(topic, _REASONS[type(error)], str(error))
            continue
        yield Sweep(stamp, conversions.frame_name(message.header.frame_id), points)


def cloud_points(message: Any) -> np.ndarray:  # [n, 3] float64 m
    """x, y, z of a sensor_msgs/PointCloud2 of any layout.

    Raises:
        MessageError: it has none, or its numbers do not fit its bytes.
    """
    order = ">" if message.is_bigendian else "<"
    step, width, height = (int(n) for n in (message.point_step, message.width, message.height))
    row_step = int(message.row_step) or step * width
    data = np.ascontiguousarray(message.data, np.uint8)
    if step < 1 or row_step < step * width or row_step * height > data.size:
        raise MessageError(
            f"a point cloud of {height} x {width} points of {step} bytes in rows of {row_step} "
            f"does not fit {data.size} bytes"
        )
    fields = {f.name: f for f in message.fields}
    columns = {}
    for axis in "xyz":
        field = fields.get(axis)
        kind = None if field is None else _FORMATS.get(int(field.datatype))
        if kind is None:
            raise MessageError(f"a point cloud without {axis} as float32 or float64")
        if int(field.offset) + np.dtype(kind).itemsize > step:
            raise MessageError(f"a point cloud whose {axis} lies outside its point")
        columns[axis] = (order + kind, int(field.offset))
    dtype = np.dtype(
        {
            "names": list(columns),
            "formats": [kind for kind, _ in columns.values()],
            "offsets": [offset for _, offset in columns.values()],
            "itemsize": step,
        }
    )
    rows = data[: row_step * height].reshape(height, row_step)[:, : step * width]
    points = np.ascontiguousarray(rows).reshape(-1).view(dtype)
    return np.stack([points[axis] for axis in "xyz"], axis=1).astype(np.float64)
