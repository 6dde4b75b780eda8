# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""sensor_msgs/PointCloud2 from and to numpy."""

from __future__ import annotations

import array
import sys
from collections import namedtuple
from collections.abc import Iterable

import numpy as np
from numpy.lib.recfunctions import structured_to_unstructured, unstructured_to_structured
from sensor_msgs.msg import PointCloud2, PointField
from std_msgs.msg import Header

_DATATYPES = {
    PointField.INT8: np.dtype(np.int8),
    PointField.UINT8: np.dtype(np.uint8),
    PointField.INT16: np.dtype(np.int16),
    PointField.UINT16: np.dtype(np.uint16),
    PointField.INT32: np.dtype(np.int32),
    PointField.UINT32: np.dtype(np.uint32),
    PointField.FLOAT32: np.dtype(np.float32),
    PointField.FLOAT64: np.dtype(np.float64),
}


def dtype_from_fields(fields: Iterable[PointField], point_step: int | None = None) -> np.dtype:
    """The structured dtype of a point; a field of count n > 1 becomes name_0 to name_(n-1)."""
    names, formats, offsets = [], [], []
    for i, field in enumerate(fields):
        datatype = _DATATYPES[field.datatype]
        name = field.name or f"unnamed_field_{i}"
        if field.count < 1:
            raise AssertionError(f"field {name!r} has a count of {field.count}")
        for k in range(field.count):
            names.append(name if field.count == 1 else f"{name}_{k}")
            formats.append(datatype)
            offsets.append(field.offset + k * datatype.itemsize)
    assert len(set(names)) == len(names), f"duplicate field names: {names}"
    layout = {"names": names, "formats": formats, "offsets": offsets}
    if point_step is not None:
        layout["itemsize"] = point_step
    return np.dtype(layout)


def read_points(
    cloud: PointCloud2,
    field_names: list[str] | None = None,
    skip_nans: bool = False,
    uvs: Iterable[int] | np.ndarray | None = None,
    reshape_organized_cloud: bool = False,
) -> np.ndarray:
    """The points as a structured array [n], or [height, width] if asked for."""
    assert isinstance(cloud, PointCloud2), "cloud is not a sensor_msgs.msg.PointCloud2"
    dtype = dtype_from_fields(cloud.fields, cloud.point_step)
    if cloud.is_bigendian != (sys.byteorder == "big"):
        dtype = dtype.newbyteorder()
    points = np.ndarray((cloud.width * cloud.height,), dtype, buffer=cloud.data)
    if field_names is not None:
        missing = [name for name in field_names if name not in (dtype.names or ())]
        assert not missing, f"the cloud has no field {missing}; it has {dtype.names}"
        points = points[list(field_names)]
    if skip_nans and not cloud.is_dense:
        whole = np.ones(len(points), dtype=bool)
        for name in points.dtype.names or ():
            whole &= ~np.isnan(points[name])
        points = points[whole]
    if uvs is not None:
        points = points[uvs if isinstance(uvs, np.ndarray) else np.fromiter(uvs, int)]
    if reshape_organized_cloud and cloud.height > 1:
        points = points.reshape(cloud.height, cloud.width)
    return points


def read_points_numpy(
    cloud: PointCloud2,
    field_names: list[str] | None = None,
    skip_nans: bool = False,
    uvs: Iterable[int] | np.ndarray | None = None,
    reshape_organized_cloud: bool = False,
) -> np.ndarray:
    """The points as a plain array [n, fields]; all fields that are read have one datatype."""
    chosen = [f for f in cloud.fields if field_names is None or f.name in field_names]
    assert len({f.datatype for f in chosen}) == 1, "the fields have different datatypes"
    points = read_points(cloud, field_names, skip_nans, uvs, reshape_organized_cloud)
    return structured_to_unstructured(points)


def read_points_list(
    cloud: PointCloud2,
    field_names: list[str] | None = None,
    skip_nans: bool = False,
    uvs: Iterable[int] | np.ndarray | None = None,
) -> list[tuple]:
    """The points as named tuples; slow."""
    points = read_points(cloud, field_names, skip_nans, uvs)
    point = namedtuple("Point", points.dtype.names or ())
    return [point._make(p) for p in points.tolist()]


def create_cloud(
    header: Header,
    fields: Iterable[PointField],
    points: Iterable,
    step: int | None = None,
) -> PointCloud2:
    """A cloud of ``points``: a structured array, a plain one [n, fields], or rows of numbers.

    Two dimensions of points make an organized cloud.
    """
    fields = list(fields)
    dtype = dtype_from_fields(fields, step)
    if not isinstance(points, np.ndarray):
        points = np.array([tuple(p) for p in points], dtype=dtype)
    elif points.dtype.names is None:
        assert len({f.datatype for f in fields}) == 1, (
            "a plain array needs fields of one datatype; pass a structured array"
        )
        points = unstructured_to_structured(points, dtype=dtype)
    else:
        assert points.dtype == dtype, f"the fields say {dtype}, the points are {points.dtype}"
    assert points.ndim in (1, 2), f"points with {points.ndim} dimensions"
    height, width = points.shape if points.ndim == 2 else (1, len(points))
    cloud = PointCloud2(
        header=header,
        height=height,
        width=width,
        fields=fields,
        is_bigendian=sys.byteorder == "big",
        point_step=dtype.itemsize,
        row_step=dtype.itemsize * width,
        is_dense=False,
    )
    # Anything but an array.array is converted byte by byte.
    data = array.array("B")
    data.frombytes(np.ascontiguousarray(points).view(np.uint8).data if points.size else b"")
    cloud.data = data
    return cloud


def create_cloud_xyz32(header: Header, points: Iterable, step: int | None = None) -> PointCloud2:
    """A cloud of x, y, z float32."""
    fields = [
        PointField(name=name, offset=4 * i, datatype=PointField.FLOAT32, count=1)
        for i, name in enumerate("xyz")
    ]
    return create_cloud(header, fields, points, step)
