# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Whoever asks for it is told by the middleware that results stopped, or that the node is gone."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="ROS is not installed (make setup)")
pytest.importorskip("alocc_ros.msg", reason="alocc_ros/msg is not built (make setup)")

from live import Stage  # noqa: E402
from rclpy.qos import LivelinessPolicy, QoSProfile  # noqa: E402

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks

from alocc_ros.bags.sample import write_sample  # noqa: E402
from alocc_ros.msg import FrameStatusStamped  # noqa: E402
from alocc_ros.ros.outputs import HEARTBEAT  # noqa: E402

PROMISED = 2.0  # s, docs/node.md
pytestmark = pytest.mark.system


def test_a_planner_is_told_when_results_stop_and_when_the_node_is_killed(
    stage: Stage, tmp_path: Path
):
    bag = tmp_path / "sample.mcap"
    write_sample(bag, seconds=3.0, rate=4, width=176, height=99)
    received: list[float] = []
    late: list[float] = []
    alive: list[tuple[float, int]] = []
    qos = QoSProfile(
        depth=10,
        deadline=HEARTBEAT,
        liveliness=LivelinessPolicy.AUTOMATIC,
        liveliness_lease_duration=HEARTBEAT,
    )
    events = SubscriptionEventCallbacks(
        deadline=lambda event: late.append(time.monotonic()),
        liveliness=lambda event: alive.append((time.monotonic(), event.alive_count)),
    )
    stage.do(
        lambda: stage.node.create_subscription(
            FrameStatusStamped,
            "/alocc_node/status",
            lambda message: received.append(time.monotonic()),
            qos,
            event_callbacks=events,
        )
    )
    node = stage.start_node("-p", "use_sim_time:=true")
    stage.play(bag, "--rate", "0.5")
    stage.until(lambda: len(received) > 3, "no status came")

    stage.until(lambda: late and late[-1] > received[-1], "nobody says that results stopped")
    assert next(t for t in late if t > received[-1]) - received[-1] < PROMISED

    stage.until(lambda: alive and alive[-1][1] == 1, "the node was never alive")
    killed = time.monotonic()
    node.kill()
    node.wait()
    stage.until(lambda: alive[-1][1] == 0, "nobody says that the node is gone")
    assert alive[-1][0] - killed < PROMISED
