# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""message_filters, whichever is here: upstream's or ours."""

from __future__ import annotations

import pytest

pytest.importorskip("rclpy", reason="no rclpy here: make ros, or source a ROS installation")
pytest.importorskip("message_filters", reason="no message_filters here: make ros")

from message_filters import (
    ApproximateTimeSynchronizer,
    Cache,
    SimpleFilter,
    Subscriber,
    TimeSynchronizer,
)
from rclpy.qos import qos_profile_sensor_data
from rclpy.time import Time
from sensor_msgs.msg import CameraInfo
from spinning import child, spin_until
from std_msgs.msg import Header, String

pytestmark = pytest.mark.ros


def message(seconds: float, name: str = "") -> CameraInfo:
    stamp = Time(nanoseconds=round(seconds * 1e9)).to_msg()
    return CameraInfo(header=Header(stamp=stamp, frame_id=name))


def names(messages) -> list[str]:
    return [m.header.frame_id for m in messages]


def test_a_filter_hands_on_its_output_and_what_the_caller_added():
    source, got = SimpleFilter(), []
    source.registerCallback(lambda *a: got.append(a))
    source.registerCallback(lambda *a: got.append(a), "extra", 7)
    source.signalMessage("one", "two")
    assert got == [("one", "two"), ("one", "two", "extra", 7)]


def test_equal_stamps_are_matched_in_order_and_only_once():
    a, b, got = SimpleFilter(), SimpleFilter(), []
    TimeSynchronizer([a, b], 10).registerCallback(lambda *m: got.append(names(m)))
    for seconds in (1, 2, 3):
        a.signalMessage(message(seconds, f"a{seconds}"))
    b.signalMessage(message(2, "b2"))
    b.signalMessage(message(2.5, "b2.5"))
    b.signalMessage(message(3, "b3"))
    assert got == [["a2", "b2"], ["a3", "b3"]]


def test_near_stamps_are_matched_if_closer_than_the_slop():
    a, b, got = SimpleFilter(), SimpleFilter(), []
    sync = ApproximateTimeSynchronizer([a, b], 10, slop=0.05)
    sync.registerCallback(lambda *m: got.append(names(m)))
    a.signalMessage(message(1.00, "a"))
    b.signalMessage(message(1.10, "far"))
    b.signalMessage(message(0.96, "near"))
    assert got == [["a", "near"]]


def test_a_full_queue_drops_its_lowest_stamp():
    a, b, got = SimpleFilter(), SimpleFilter(), []
    TimeSynchronizer([a, b], 2).registerCallback(lambda *m: got.append(names(m)))
    for seconds in (1, 2, 3):
        a.signalMessage(message(seconds, f"a{seconds}"))
    for seconds in (1, 2, 3):
        b.signalMessage(message(seconds, f"b{seconds}"))
    assert got == [["a2", "b2"], ["a3", "b3"]]


def test_messages_without_a_stamp_are_dropped_unless_allowed():
    a, b, got = SimpleFilter(), SimpleFilter(), []
    for allowed in (False, True):
        sync = ApproximateTimeSynchronizer([a, b], 10, 5.0, allow_headerless=allowed)
        sync.registerCallback(lambda *m, allowed=allowed: got.append(allowed))
    a.signalMessage(String())
    b.signalMessage(String())
    assert got == [True]


def test_six_cameras_of_nuscenes_within_50_ms_and_none_within_30():
    """The phases of a real car; the numbers are upstream's own results."""
    phases = (0.0, 7.6, 15.5, 23.0, 32.7, 42.6)  # ms
    for slop, expected in ((0.03, 0), (0.05, 60)):
        cameras, got = [SimpleFilter() for _ in phases], []
        sync = ApproximateTimeSynchronizer(cameras, 10, slop)
        sync.registerCallback(lambda *m, got=got: got.append(names(m)))
        for cycle in range(60):
            for camera, phase in zip(cameras, phases, strict=True):
                camera.signalMessage(message(100 + cycle / 12 + phase / 1000, str(cycle)))
        assert got == [[str(k)] * 6 for k in range(expected)]


def test_a_cache_answers_by_time():
    source, got = SimpleFilter(), []
    cache = Cache(source, cache_size=3)
    cache.registerCallback(got.append)
    for seconds in (1, 2, 3, 4):
        source.signalMessage(message(seconds, str(seconds)))

    def at(seconds: float) -> Time:
        return Time.from_msg(message(seconds).header.stamp)

    assert names(got) == ["1", "2", "3", "4"]
    assert names(cache.getInterval(at(1.5), at(3))) == ["2", "3"]
    assert cache.getElemBeforeTime(at(3.9)).header.frame_id == "3"
    assert cache.getElemAfterTime(at(2.1)).header.frame_id == "3"
    assert cache.getElemBeforeTime(at(1.9)) is None
    assert cache.getLast().header.frame_id == "4"
    assert cache.getOldestTime() == at(2)


SENDER = """
import rclpy, time
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import CameraInfo
rclpy.init()
node = rclpy.create_node("sender")
left = node.create_publisher(CameraInfo, "left", qos_profile_sensor_data)
right = node.create_publisher(CameraInfo, "right", qos_profile_sensor_data)
for k in range(1200):
    m = CameraInfo()
    m.header.stamp.sec = k
    left.publish(m)
    m.header.stamp.nanosec = 1000000
    right.publish(m)
    time.sleep(0.05)
"""


def test_subscribers_match_messages_of_another_process(domain, node, executor):
    got = []
    left = Subscriber(node, CameraInfo, "left", qos_profile=qos_profile_sensor_data)
    right = Subscriber(node, CameraInfo, "right", qos_profile=qos_profile_sensor_data)
    sync = ApproximateTimeSynchronizer([left, right], 5, 0.01)
    sync.registerCallback(lambda *pair: got.append(pair))
    assert left.getTopic() == "left"
    with child(SENDER):
        assert spin_until(executor, lambda: len(got) >= 3)
    for a, b in got:
        assert (a.header.stamp.sec, a.header.stamp.nanosec) == (b.header.stamp.sec, 0)
        assert b.header.stamp.nanosec == 1_000_000
