# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""sensor_msgs_py.point_cloud2, whichever is here: upstream's or ours."""

from __future__ import annotations

import time

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="no rclpy here: make ros, or source a ROS installation")
pytest.importorskip("sensor_msgs_py", reason="no sensor_msgs_py here: make ros")

from sensor_msgs.msg import PointCloud2, PointField
from sensor_msgs_py import point_cloud2
from std_msgs.msg import Header

from alocc_ros.arrays import POINT_DTYPE, point_fields

pytestmark = pytest.mark.ros

HEADER = Header(frame_id="base_link")
FIELDS = [
    PointField(name=n, offset=o, datatype=t, count=c) for n, o, t, c in point_fields(POINT_DTYPE)
]


def points(n: int) -> np.ndarray:
    out = np.zeros(n, POINT_DTYPE)
    for k, name in enumerate(POINT_DTYPE.names):
        out[name] = np.arange(n) + k
    return out


def test_the_points_of_our_clouds_there_and_back():
    cloud = point_cloud2.create_cloud(HEADER, FIELDS, points(100))
    assert (cloud.height, cloud.width, cloud.point_step, cloud.row_step) == (1, 100, 28, 2800)
    assert cloud.header.frame_id == "base_link" and len(cloud.data) == 2800
    back = point_cloud2.read_points(cloud)
    for name in POINT_DTYPE.names:
        np.testing.assert_array_equal(back[name], points(100)[name])


def test_chosen_fields_come_alone():
    cloud = point_cloud2.create_cloud(HEADER, FIELDS, points(10))
    assert point_cloud2.read_points(cloud, ["label", "vx"]).dtype.names == ("label", "vx")
    with pytest.raises(AssertionError):
        point_cloud2.read_points(cloud, ["colour"])


def test_xyz_clouds_from_rows_and_from_arrays_are_equal():
    rows = [(1.0, 2.0, 3.0), (4.0, 5.0, 6.0)]
    a = point_cloud2.create_cloud_xyz32(HEADER, rows)
    b = point_cloud2.create_cloud_xyz32(HEADER, np.array(rows, np.float32))
    assert a == b
    np.testing.assert_array_equal(point_cloud2.read_points_numpy(a), rows)
    assert point_cloud2.read_points_numpy(a).shape == (2, 3)


def test_nan_points_can_be_skipped_and_points_chosen_by_index():
    rows = np.array([[1, 2, 3], [np.nan, 0, 0], [4, 5, 6]], np.float32)
    cloud = point_cloud2.create_cloud_xyz32(HEADER, rows)
    assert len(point_cloud2.read_points(cloud)) == 3
    assert len(point_cloud2.read_points(cloud, skip_nans=True)) == 2
    np.testing.assert_array_equal(
        point_cloud2.read_points_numpy(cloud, uvs=np.array([2, 0])), rows[[2, 0]]
    )


def test_an_organized_cloud_keeps_its_rows():
    cloud = point_cloud2.create_cloud(HEADER, FIELDS, points(12).reshape(3, 4))
    assert sorted((cloud.height, cloud.width)) == [3, 4]  # releases differ in which is which
    assert point_cloud2.read_points(cloud, reshape_organized_cloud=True).shape == (3, 4)


def test_an_empty_cloud_is_a_cloud():
    cloud = point_cloud2.create_cloud_xyz32(HEADER, np.zeros((0, 3), np.float32))
    assert isinstance(cloud, PointCloud2) and cloud.width == 0
    assert point_cloud2.read_points(cloud).shape == (0,)


def test_points_that_are_not_of_the_fields_are_refused():
    with pytest.raises(AssertionError):
        point_cloud2.create_cloud(HEADER, FIELDS, np.zeros((5, 7), np.float32))
    with pytest.raises(AssertionError):
        point_cloud2.create_cloud(HEADER, FIELDS[:3], points(5))


def test_a_cloud_of_60_000_points_is_filled_in_milliseconds():
    many = points(60_000)
    point_cloud2.create_cloud(HEADER, FIELDS, many)
    start = time.process_time()
    point_cloud2.create_cloud(HEADER, FIELDS, many)
    assert time.process_time() - start < 0.015
