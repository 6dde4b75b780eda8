# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""The SROS 2 policy allows what the node does, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from xml.etree import ElementTree

import pytest

pytest.importorskip("rclpy", reason="ROS is not installed (make setup)")
pytest.importorskip("alocc_ros.msg", reason="alocc_ros/msg is not built (make setup)")

import rclpy  # noqa: E402

from alocc_ros.outputs import PER_CAMERA  # noqa: E402
from alocc_ros.resources import shared_folder  # noqa: E402
from alocc_ros.ros.node import AloccNode  # noqa: E402
from alocc_ros.ros.outputs import NODE_OUTPUTS  # noqa: E402
from alocc_ros.stream.preset import load_preset  # noqa: E402

NODE = "/alocc_node"


@pytest.fixture(scope="module")
def node() -> Iterator[AloccNode]:
    rclpy.init()
    made = AloccNode()
    yield made
    made.destroy_node()
    rclpy.shutdown()


def allowed(kind: str, what: str) -> set[str]:
    """Absolute names in the policy."""
    file = shared_folder("config") / "security" / "alocc_node_policy.xml"
    profile = ElementTree.parse(file).find(".//profile[@node='alocc_node']")
    (block,) = profile.findall(f"{kind}s[@{what}='ALLOW']")
    return {f"/{entry.text}" for entry in block.findall(kind)}


def test_the_policy_names_every_topic_that_is_published(node):
    cameras = load_preset("nuscenes").used_cameras
    expected = {
        f"{NODE}/{output.name.replace(PER_CAMERA, camera)}"
        for output in NODE_OUTPUTS
        for camera in cameras
    }
    for name, _ in node.get_publisher_names_and_types_by_node("alocc_node", "/"):
        expected.add(name)
    assert allowed("topic", "publish") == expected


def test_the_policy_names_every_topic_that_is_subscribed_to(node):
    expected = {"/clock", "/tf", "/tf_static"}  # the last two while it is active
    for camera in load_preset("nuscenes").used_cameras.values():
        expected |= {camera.image, camera.camera_info}
    for name, _ in node.get_subscriber_names_and_types_by_node("alocc_node", "/"):
        expected.add(name)
    # rclpy listens to its own parameter events for use_sim_time, in some releases.
    assert allowed("topic", "subscribe") - {"/parameter_events"} == expected - {"/parameter_events"}


def test_the_policy_names_every_service(node):
    found = {name for name, _ in node.get_service_names_and_types_by_node("alocc_node", "/")}
    # Type descriptions came with Jazzy.
    assert allowed("service", "reply") - {f"{NODE}/get_type_description"} == found - {
        f"{NODE}/get_type_description"
    }
