# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""tf2_ros, whichever is here: upstream's or ours. Every statement holds for both."""

from __future__ import annotations

import math
import threading
import time

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="no rclpy here: make ros, or source a ROS installation")
pytest.importorskip("tf2_ros", reason="no tf2_ros here: make ros")

from geometry_msgs.msg import TransformStamped
from hypothesis import given, settings
from hypothesis import strategies as st
from rclpy.duration import Duration
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.time import Time
from spinning import child, spin_until
from tf2_ros import (
    Buffer,
    ConnectivityException,
    ExtrapolationException,
    InvalidArgumentException,
    LookupException,
    TransformException,
    TransformListener,
)

from alocc_ros.geometry import interpolate, inverse, pose_matrix

pytestmark = pytest.mark.ros


def transform(parent, child_frame, seconds=0.0, xyz=(0.0, 0.0, 0.0), q=(0.0, 0.0, 0.0, 1.0)):
    message = TransformStamped()
    message.header.stamp = Time(nanoseconds=round(seconds * 1e9)).to_msg()
    message.header.frame_id, message.child_frame_id = parent, child_frame
    t, r = message.transform.translation, message.transform.rotation
    t.x, t.y, t.z = (float(v) for v in xyz)
    r.x, r.y, r.z, r.w = (float(v) for v in q)
    return message


def at(seconds: float) -> Time:
    return Time(nanoseconds=round(seconds * 1e9))


def matrix(message: TransformStamped) -> np.ndarray:
    t, r = message.transform.translation, message.transform.rotation
    return pose_matrix((t.x, t.y, t.z), (r.x, r.y, r.z, r.w))


def driving() -> Buffer:
    """map > base_link along x at 2 m/s from 10 s to 12 s, and a fixed camera on it."""
    buffer = Buffer()
    for k in range(21):
        buffer.set_transform(transform("map", "base_link", 10 + k / 10, (k / 5, 0, 0)), "test")
    mount = transform("base_link", "camera", 0.0, (1, 0, 2), (-0.5, 0.5, -0.5, 0.5))
    buffer.set_transform_static(mount, "test")
    return buffer


def test_a_lookup_maps_points_of_the_source_into_the_target():
    found = driving().lookup_transform("map", "camera", at(11.05))
    assert (found.header.frame_id, found.child_frame_id) == ("map", "camera")
    assert Time.from_msg(found.header.stamp).nanoseconds == 11_050_000_000
    # The camera looks forward: its z axis is the map's x axis.
    np.testing.assert_allclose(matrix(found) @ [0, 0, 5, 1], [2.1 + 1 + 5, 0, 2, 1], atol=1e-9)


def test_the_way_back_is_the_inverse():
    buffer = driving()
    there = matrix(buffer.lookup_transform("map", "camera", at(11.23)))
    back = matrix(buffer.lookup_transform("camera", "map", at(11.23)))
    np.testing.assert_allclose(back, inverse(there), atol=1e-9)


def test_nothing_is_extrapolated_and_the_error_says_which_way():
    buffer = driving()
    with pytest.raises(ExtrapolationException, match="future.*12.1.*latest.*12.0"):
        buffer.lookup_transform("map", "camera", at(12.1))
    with pytest.raises(ExtrapolationException, match="past.*9.9.*earliest.*10.0"):
        buffer.lookup_transform("map", "camera", at(9.9))
    assert not buffer.can_transform("map", "camera", at(12.1))


def test_a_single_transform_holds_at_its_own_time_only():
    buffer = Buffer()
    buffer.set_transform(transform("map", "base_link", 5.0, (1, 2, 3)), "test")
    assert buffer.lookup_transform("map", "base_link", at(5.0)).transform.translation.y == 2.0
    with pytest.raises(ExtrapolationException):
        buffer.lookup_transform("map", "base_link", at(5.001))


def test_time_zero_asks_for_the_newest_common_time():
    buffer = driving()
    buffer.set_transform(transform("base_link", "trailer", 11.4, (-5, 0, 0)), "test")
    buffer.set_transform(transform("base_link", "trailer", 11.6, (-5, 0, 0)), "test")
    found = buffer.lookup_transform("map", "trailer", Time())
    assert Time.from_msg(found.header.stamp).nanoseconds == 11_600_000_000
    assert found.transform.translation.x == pytest.approx(3.2 - 5)
    fixed = buffer.lookup_transform("base_link", "camera", Time())
    assert Time.from_msg(fixed.header.stamp).nanoseconds == 0


def test_each_thing_that_can_be_wrong_has_its_exception():
    buffer = driving()
    buffer.set_transform_static(transform("moon", "crater"), "test")
    with pytest.raises(LookupException, match="mars"):
        buffer.lookup_transform("mars", "camera", at(11))
    with pytest.raises(ConnectivityException):
        buffer.lookup_transform("moon", "camera", at(11))
    with pytest.raises(InvalidArgumentException):
        buffer.lookup_transform("", "camera", at(11))
    with pytest.raises(InvalidArgumentException):
        buffer.lookup_transform("/map", "camera", at(11))
    for kind in (LookupException, ConnectivityException, ExtrapolationException):
        assert issubclass(kind, TransformException)


@pytest.mark.parametrize(
    "bad",
    [
        transform("map", "map", 20.0),
        transform("", "base_link", 20.0),
        transform("map", "base_link", 20.0, (math.nan, 0, 0)),
        transform("map", "base_link", 20.0, q=(0, 0, 0, 0)),
    ],
)
def test_a_transform_that_is_none_is_not_taken(bad):
    buffer = driving()
    buffer.set_transform(bad, "test")
    found = buffer.lookup_transform("map", "base_link", Time())
    assert Time.from_msg(found.header.stamp).nanoseconds == 12_000_000_000


def test_old_data_are_forgotten():
    buffer = Buffer(cache_time=Duration(seconds=1.0))
    for k in range(31):
        buffer.set_transform(transform("map", "base_link", 10 + k / 10), "test")
    buffer.set_transform(transform("map", "base_link", 10.05), "test")  # too late
    assert buffer.can_transform("map", "base_link", at(12.0))
    assert not buffer.can_transform("map", "base_link", at(11.8))


def test_clear_keeps_what_is_static():
    buffer = driving()
    buffer.clear()
    assert buffer.can_transform("base_link", "camera", at(11))
    with pytest.raises(TransformException):
        buffer.lookup_transform("map", "camera", at(11))
    buffer.set_transform(transform("map", "base_link", 1.0), "test")  # the second lap
    assert buffer.can_transform("map", "camera", at(1.0))


angles = st.floats(-3.0, 3.0)


@settings(deadline=None, max_examples=50)
@given(st.lists(angles, min_size=6, max_size=6), st.integers(0, 1_000_000_000))
def test_between_two_transforms_it_interpolates_as_the_bag_reader_does(values, offset):
    from scipy.spatial.transform import Rotation

    turns = [Rotation.from_rotvec(v) for v in (values[:3], values[3:])]
    ends = [
        pose_matrix(v, r.as_quat()) for v, r in zip((values[:3], values[3:]), turns, strict=True)
    ]
    if (turns[0].inv() * turns[1]).magnitude() > 3.1:
        return  # half a turn has two shortest arcs
    buffer = Buffer()
    for k in (0, 1):
        q = turns[k].as_quat()
        buffer.set_transform(transform("map", "base_link", 1 + k, ends[k][:3, 3], q), "test")
    found = buffer.lookup_transform("map", "base_link", Time(nanoseconds=1_000_000_000 + offset))
    np.testing.assert_allclose(matrix(found), interpolate(*ends, offset * 1e-9), atol=1e-6)


def test_a_lookup_waits_for_data_but_not_for_ever():
    buffer = driving()
    late = transform("map", "base_link", 13.0, (9, 0, 0))
    timer = threading.Timer(0.2, lambda: buffer.set_transform(late, "test"))
    timer.start()
    start = time.monotonic()
    found = buffer.lookup_transform("map", "base_link", at(13.0), Duration(seconds=5.0))
    assert found.transform.translation.x == 9.0
    assert time.monotonic() - start > 0.15
    start = time.monotonic()
    with pytest.raises(ExtrapolationException):
        buffer.lookup_transform("map", "base_link", at(14.0), Duration(seconds=0.2))
    assert time.monotonic() - start > 0.15


def test_a_lookup_costs_less_than_a_millisecond():
    buffer = driving()
    times = []
    for k in range(200):
        start = time.process_time()
        buffer.lookup_transform("map", "camera", at(10.01 + k / 101))
        times.append(time.process_time() - start)
    assert np.median(times) < 1e-3, f"{1e6 * np.median(times):.0f} us"


SENDER = """
import rclpy, time
from geometry_msgs.msg import TransformStamped
from rclpy.time import Time
from rclpy.qos import DurabilityPolicy, QoSProfile
from tf2_msgs.msg import TFMessage
rclpy.init()
node = rclpy.create_node("sender")
def transform(parent, child, seconds, x):
    m = TransformStamped(child_frame_id=child)
    m.header.frame_id = parent
    m.header.stamp = Time(nanoseconds=int(seconds * 1e9)).to_msg()
    m.transform.translation.x = x
    m.transform.rotation.w = 1.0
    return m
latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
fixed = node.create_publisher(TFMessage, "/tf_static", latched)
moving = node.create_publisher(TFMessage, "/tf", 100)
cameras = [transform("base_link", f"camera_{k}", 0, float(k)) for k in range(6)]
fixed.publish(TFMessage(transforms=cameras))
print("sent", flush=True)
for k in range(600):
    moving.publish(TFMessage(transforms=[transform("map", "base_link", 100 + k / 10, float(k))]))
    time.sleep(0.05)
"""


def test_a_listener_hears_another_process_even_what_was_sent_before(domain, node, executor):
    with child(SENDER) as process:
        assert process.stdout.readline() == "sent\n"
        buffer = Buffer(node=node)
        listener = TransformListener(buffer, node)
        assert spin_until(executor, lambda: buffer.can_transform("map", "camera_5", Time()))
    found = buffer.lookup_transform("base_link", "camera_5", Time())
    assert found.transform.translation.x == 5.0
    assert listener.buffer is buffer


def test_the_buffer_forgets_when_simulated_time_jumps_back(context):
    from rclpy.parameter import Parameter
    from rosgraph_msgs.msg import Clock

    node = Node("sim", context=context, parameter_overrides=[Parameter("use_sim_time", value=True)])
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    publisher = node.create_publisher(Clock, "/clock", 10)
    buffer = Buffer(node=node)
    buffer.set_transform_static(transform("base_link", "camera"), "test")

    def tick(seconds: float) -> bool:
        publisher.publish(Clock(clock=at(seconds).to_msg()))
        executor.spin_once(timeout_sec=0.05)
        return node.get_clock().now().nanoseconds == round(seconds * 1e9)

    assert spin_until(executor, lambda: tick(100.0))
    buffer.set_transform(transform("map", "base_link", 100.0), "test")
    assert buffer.can_transform("map", "camera", at(100.0))
    assert spin_until(executor, lambda: tick(50.0))
    assert not buffer.can_transform("map", "camera", at(100.0))
    assert buffer.can_transform("base_link", "camera", at(50.0))
    executor.shutdown()
    node.destroy_node()
