# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""message_filters, whichever is here: upstream's or ours."""

from __future__ import annotations

import pytest

pytest.importorskip("rclpy", reason="no rclpy here: make ros, or source a ROS installation")
pytest.importorskip("message_filters", reason="no message_filters here: make ros")

from message_filters import SimpleFilter, Subscriber
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import CameraInfo
from spinning import child, spin_until

pytestmark = pytest.mark.ros


def test_a_filter_hands_on_its_output_and_what_the_caller_added():
    source, got = SimpleFilter(), []
    source.registerCallback(lambda *a: got.append(a))
    source.registerCallback(lambda *a: got.append(a), "extra", 7)
    source.signalMessage("one", "two")
    assert got == [("one", "two"), ("one", "two", "extra", 7)]


SENDER = """
import rclpy, time
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import CameraInfo
rclpy.init()
node = rclpy.create_node("sender")
left = node.create_publisher(CameraInfo, "left", qos_profile_sensor_data)
for k in range(1200):
    m = CameraInfo()
    m.header.stamp.sec = k
    left.publish(m)
    time.sleep(0.05)
"""


def test_a_subscriber_hands_on_messages_of_another_process(domain, node, executor):
    got = []
    left = Subscriber(node, CameraInfo, "left", qos_profile=qos_profile_sensor_data)
    left.registerCallback(lambda m, who: got.append((m.header.stamp.sec, who)), "left")
    assert left.getTopic() == "left"
    with child(SENDER):
        assert spin_until(executor, lambda: len(got) >= 3)
    first = got[0][0]
    assert got[:3] == [(first + k, "left") for k in range(3)]
