# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""The interfaces of this package and of tf2_msgs, as built by make ros or by colcon."""

from __future__ import annotations

import array
import time

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="no rclpy here: make ros, or source a ROS installation")
pytest.importorskip("alocc_ros.msg", reason="the messages are not built: make ros")

from geometry_msgs.msg import Point
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.serialization import deserialize_message, serialize_message
from spinning import ROOT, child, spin_until

from alocc_ros.grid import VoxelGrid
from alocc_ros.msg import FrameStatus, GridGeometry, GridInfo, SemanticClass, SemanticGrid

pytestmark = pytest.mark.ros

GRID = VoxelGrid(lower=(-1.0, -2.0, -3.0), shape=(3, 4, 5), resolution=0.5)


def semantic_grid(labels: np.ndarray, grid: VoxelGrid = GRID) -> SemanticGrid:
    x, y, z = grid.lower
    message = SemanticGrid()
    message.header.frame_id = "base_link"
    message.geometry = GridGeometry(
        origin=Point(x=x, y=y, z=z),
        resolution=grid.resolution,
        size_x=grid.shape[0],
        size_y=grid.shape[1],
        size_z=grid.shape[2],
    )
    message.labels = array.array("B", labels.tobytes())
    return message


def test_a_cell_lies_where_the_comment_says():
    """Read as a C++ planner would, by the formulas in GridGeometry.msg."""
    labels = np.arange(60, dtype=np.uint8).reshape(GRID.shape)
    message = semantic_grid(labels)
    g = message.geometry
    text = (ROOT / "msg/GridGeometry.msg").read_text()
    assert "cell = (x * size_y + y) * size_z + z" in text
    for x, y, z in [(0, 0, 0), (2, 1, 3), (2, 3, 4)]:
        assert message.labels[(x * g.size_y + y) * g.size_z + z] == labels[x, y, z]
        centre = [
            low + g.resolution * (i + 0.5)
            for low, i in zip((g.origin.x, g.origin.y, g.origin.z), (x, y, z), strict=True)
        ]
        np.testing.assert_allclose(GRID.centres(np.array([[x, y, z]]))[0], centre)


def test_the_labels_are_the_tail_of_the_serialised_message():
    labels = np.random.default_rng(0).integers(0, 18, 640_000).astype(np.uint8)
    message = semantic_grid(labels, VoxelGrid())
    message.status = FrameStatus(
        flags=FrameStatus.DEGRADED | FrameStatus.RESET,
        degraded="cam_back is missing",
        reset="the clock jumped back",
        missing_cameras=["cam_back"],
    )
    message.flow_cells = array.array("I", [7, 9])
    message.flow = array.array("f", [1.5, -2.0, 0.0, 3.25])
    data = serialize_message(message)
    # CDR rounds a message up to four bytes.
    assert data.rstrip(b"\0").endswith(labels.tobytes().rstrip(b"\0"))
    assert len(data) - len(labels) < 300
    back = deserialize_message(data, SemanticGrid)
    assert back == message
    assert back.status.flags == 3


def test_filling_and_serialising_a_grid_takes_milliseconds():
    labels = np.zeros(640_000, dtype=np.uint8)
    message = SemanticGrid()

    def once() -> float:
        start = time.process_time()
        fresh = SemanticGrid()
        fresh.labels.frombytes(memoryview(labels))
        serialize_message(fresh)
        return time.process_time() - start

    assert isinstance(message.labels, array.array), "numpy arrays would cost 40 ms each"
    assert min(once() for _ in range(5)) < 0.01


def test_grid_info_reaches_a_subscriber_that_comes_late(domain, node, executor):
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    publisher = """
import rclpy, sys, time
from rclpy.qos import DurabilityPolicy, QoSProfile
from alocc_ros.msg import GridInfo, SemanticClass
from std_msgs.msg import ColorRGBA
rclpy.init()
node = rclpy.create_node("early")
qos = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
publisher = node.create_publisher(GridInfo, "grid_info", qos)
message = GridInfo(model="tiny", random_weights=True)
message.classes = [SemanticClass(name="free", is_free=True, colour=ColorRGBA(r=1.0))]
publisher.publish(message)
print("published", flush=True)
time.sleep(60)
"""
    with child(publisher) as process:
        assert process.stdout.readline() == "published\n"
        got: list[GridInfo] = []
        node.create_subscription(GridInfo, "grid_info", got.append, latched)
        assert spin_until(executor, lambda: got)
    assert (got[0].model, got[0].random_weights) == ("tiny", True)
    assert isinstance(got[0].classes[0], SemanticClass) and got[0].classes[0].is_free


def test_tf2_msgs_has_what_upstream_tf2_ros_imports():
    tf2_msgs = pytest.importorskip("tf2_msgs")
    from tf2_msgs.action import LookupTransform
    from tf2_msgs.msg import TF2Error, TFMessage
    from tf2_msgs.srv import FrameGraph

    assert tf2_msgs and TFMessage().transforms == []
    assert FrameGraph.Response().frame_yaml == ""
    assert LookupTransform.Goal().target_frame == ""
    assert TF2Error.EXTRAPOLATION_ERROR == 3
