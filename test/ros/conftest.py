# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""ROS for tests: a domain, a context and a node of their own."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

_DOMAINS = itertools.count(os.getpid() * 13)
HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of this folder need ROS; over DDS they get a second try, which pytest reports.

    Three processes in their own time on a machine that may be busy: one of them can be held up
    for long enough that the node, rightly, leaves a camera set out.
    """
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.ros)
            item.add_marker(pytest.mark.flaky(reruns=1))


def quieten(patch: pytest.MonkeyPatch, logs: Path) -> None:
    """Logs into a scratch folder; nothing of this machine's network is listened to."""
    patch.setenv("ROS_LOG_DIR", str(logs))
    patch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    for name in ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE"):
        patch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def quiet_ros(monkeypatch, tmp_path_factory):
    quieten(monkeypatch, tmp_path_factory.mktemp("ros_log"))


@pytest.fixture
def domain(monkeypatch) -> int:
    """A ROS domain that no other test of this run uses, for children too."""
    number = 1 + next(_DOMAINS) % 100  # above 101 its ports may be in use
    monkeypatch.setenv("ROS_DOMAIN_ID", str(number))
    return number


@pytest.fixture
def context(domain) -> Iterator:
    import rclpy

    context = rclpy.Context()
    rclpy.init(context=context, domain_id=domain, args=[])
    yield context
    context.try_shutdown()


@pytest.fixture
def node(context) -> Iterator:
    from rclpy.node import Node

    node = Node("tester", context=context)
    yield node
    node.destroy_node()


@pytest.fixture
def executor(context, node) -> Iterator:
    from rclpy.executors import SingleThreadedExecutor

    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    yield executor
    executor.shutdown()


@pytest.fixture
def stage() -> Iterator:
    """A listener to the voxels of a node that the test starts."""
    from live import Stage

    made = Stage("voxels")
    yield made
    made.close()
