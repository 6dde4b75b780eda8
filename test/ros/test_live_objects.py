# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Objects over DDS: nothing is worked out for nobody, and ids mean one thing from the first on."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator

import pytest

rclpy = pytest.importorskip("rclpy", reason="ROS is not installed (make setup)")
pytest.importorskip("alocc_ros.msg", reason="alocc_ros/msg is not built (make setup)")

from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.lifecycle import LifecycleNode  # noqa: E402
from street_truth import frame_at, voxels_at  # noqa: E402
from visualization_msgs.msg import Marker, MarkerArray  # noqa: E402

from alocc_ros.bags.sample import START  # noqa: E402
from alocc_ros.grid import VoxelGrid  # noqa: E402
from alocc_ros.objects import tracking  # noqa: E402
from alocc_ros.ros.definitions import is_installed  # noqa: E402
from alocc_ros.ros.outputs import NODE_OUTPUTS, Outputs  # noqa: E402
from alocc_ros.ros.parameters import NodeParameters  # noqa: E402

pytestmark = pytest.mark.ros

GRID = VoxelGrid((0.0, -8.0, -1.0), (50, 40, 8), 0.4)
WAIT = 30.0  # s; a loaded machine


@pytest.fixture
def node() -> Iterator[LifecycleNode]:
    context = rclpy.Context()
    rclpy.init(args=[], context=context)
    made = LifecycleNode("alocc_node", context=context)
    yield made
    made.destroy_node()
    rclpy.shutdown(context=context)


def until(node: LifecycleNode, is_so: Callable[[], bool]) -> None:
    executor = SingleThreadedExecutor(context=node.context)
    executor.add_node(node)
    end = time.monotonic() + WAIT
    while not is_so():
        assert time.monotonic() < end
        executor.spin_once(timeout_sec=0.05)
    executor.remove_node(node)


def names(message: MarkerArray) -> list[str]:
    return sorted(
        m.text.split("  ")[0] for m in message.markers if m.type == Marker.TEXT_VIEW_FACING
    )


def test_objects_are_tracked_for_those_who_listen(node, monkeypatch):
    detected = []
    detect = tracking.detect_objects
    monkeypatch.setattr(
        tracking, "detect_objects", lambda result: detected.append(result.stamp) or detect(result)
    )
    outputs = Outputs(node, NodeParameters(model="flow"), ())
    node.trigger_configure()
    node.trigger_activate()
    results = []
    for number in range(5):
        stamp = START + number * 500_000_000
        results.append((frame_at(stamp, 32, 18), voxels_at(stamp, GRID)))
    outputs.publish(*results[0])
    assert not detected, "nobody listens"

    got: list[MarkerArray] = []
    listener = node.create_subscription(MarkerArray, "/alocc_node/object_markers", got.append, 10)
    until(node, lambda: outputs.has_subscribers("object_markers"))
    for number in (1, 2):
        outputs.publish(*results[number])
        until(node, lambda number=number: len(got) == number)
    assert len(detected) == 2
    assert names(got[0]) == names(got[1]) and names(got[0])[0] == "car 1"
    assert [m.action for m in got[0].markers[:2]] == [Marker.DELETEALL, Marker.ADD]

    # Somewhere else, while nobody looks: what comes later is not what was there.
    node.destroy_subscription(listener)
    until(node, lambda: not outputs.has_subscribers("object_markers"))
    frame, occupancy = results[3]
    outputs.publish(frame, dataclasses.replace(occupancy, reset="jump"))
    node.create_subscription(MarkerArray, "/alocc_node/object_markers", got.append, 10)
    until(node, lambda: outputs.has_subscribers("object_markers"))
    outputs.publish(*results[4])
    until(node, lambda: len(got) == 3)
    assert len(detected) == 3 and not {*names(got[2])} & {*names(got[0])}
    outputs.destroy()


def test_types_that_are_not_installed_are_left_out(node):
    outputs = Outputs(node, NodeParameters(model="flow"), ())
    topics = {name for name, _ in node.get_publisher_names_and_types_by_node("alocc_node", "/")}
    for output in NODE_OUTPUTS:
        if output.optional:
            assert (f"/alocc_node/{output.name}" in topics) == is_installed(output.type)
    assert "/alocc_node/object_markers" in topics
    outputs.destroy()
