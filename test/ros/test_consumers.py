# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Subscribers as Nav2, STVL, octomap_server, Autoware and foxglove_bridge have them, over DDS."""

from __future__ import annotations

import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS is not installed (make setup)")
pytest.importorskip("alocc_ros.msg", reason="alocc_ros/msg is not built (make setup)")

from geometry_msgs.msg import Twist  # noqa: E402
from live import Stage, ns  # noqa: E402
from nav_msgs.msg import OccupancyGrid  # noqa: E402
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy  # noqa: E402
from sensor_msgs.msg import PointCloud2  # noqa: E402

from alocc_ros.bags.sample import write_sample  # noqa: E402
from alocc_ros.msg import FrameStatus, FrameStatusStamped  # noqa: E402

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.system
FRAMES = 8
BEST_EFFORT, RELIABLE = ReliabilityPolicy.BEST_EFFORT, ReliabilityPolicy.RELIABLE
# nav2_costmap_2d/plugins/static_layer.cpp
STATIC_LAYER = QoSProfile(
    depth=1, reliability=RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL
)
GRIDS = {
    "static layer": STATIC_LAYER,
    "static layer, volatile": QoSProfile(depth=10),
    "autoware": QoSProfile(depth=1),
    # It takes over what publishers offer.
    "foxglove_bridge": STATIC_LAYER,
}
CLOUDS = {
    # plugins/obstacle_layer.cpp, spatio_temporal_voxel_layer.cpp
    "obstacle layer, STVL": QoSProfile(depth=50, reliability=BEST_EFFORT),
    # octomap_server.cpp; autoware_probabilistic_occupancy_grid_map
    "octomap_server": QoSProfile(depth=5, reliability=BEST_EFFORT),
    "foxglove_bridge": QoSProfile(depth=10, reliability=RELIABLE),
}


def listen(stage: Stage, kind: type, topic: str, qos: QoSProfile) -> list[Any]:
    found: list[Any] = []
    stage.do(
        lambda: stage.node.create_subscription(kind, f"/alocc_node/{topic}", found.append, qos)
    )
    return found


def test_every_consumer_gets_every_message_and_who_comes_late_the_last_grid(
    stage: Stage, tmp_path: Path
):
    bag = tmp_path / "sample.mcap"
    write_sample(bag, seconds=2.0, rate=FRAMES / 2, width=176, height=99)
    stage.start_node("-p", "use_sim_time:=true", "-p", "grid_output_frame:=map")
    clouds = {
        (who, topic): listen(stage, PointCloud2, topic, qos)
        for who, qos in CLOUDS.items()
        for topic in ("occupancy", "obstacles", "free_space")
    }
    stage.play(bag, "--rate", "0.5")
    stage.until(
        lambda: all(len(found) == FRAMES for found in clouds.values()),
        f"messages are missing: { {key: len(found) for key, found in clouds.items()} }",
    )
    for (_, topic), found in clouds.items():
        assert [ns(m.header.stamp) for m in found] == stage.stamps("voxels")
        for message in found:
            fields = [(f.name, f.offset, f.datatype) for f in message.fields]
            assert fields[:3] == [("x", 0, 7), ("y", 4, 7), ("z", 8, 7)]
            assert (message.header.frame_id, message.height) == ("base_link", 1)
            assert message.point_step == (28 if topic == "occupancy" else 12)
            assert len(message.data) == message.row_step == message.width * message.point_step

    # Nobody has had a grid made so far.
    late = listen(stage, OccupancyGrid, "occupancy_grid", STATIC_LAYER)
    stage.until(lambda: late, "who comes late gets nothing", timeout=20.0)
    assert ns(late[0].header.stamp) == stage.stamps("voxels")[-1]
    # What is kept is there at once for those who come later still.
    begin = time.monotonic()
    later = listen(stage, OccupancyGrid, "occupancy_grid", STATIC_LAYER)
    stage.until(lambda: later, "what was kept is not there", timeout=20.0)
    assert time.monotonic() - begin < 10.0 and later[0] == late[0]

    grids = {who: listen(stage, OccupancyGrid, "occupancy_grid", q) for who, q in GRIDS.items()}
    stage.until(lambda: grids["static layer"], "what was kept is not there")
    for found in grids.values():
        found.clear()
    stage.messages["voxels"].clear()
    stage.play(bag, "--rate", "0.5")
    stage.until(lambda: all(len(found) == FRAMES for found in grids.values()), "grids are missing")
    for found in grids.values():
        assert [ns(m.header.stamp) for m in found] == stage.stamps("voxels")
        for message in found:
            info = message.info
            assert (message.header.frame_id, info.origin.orientation.w) == ("map", 1.0)
            assert info.resolution == pytest.approx(0.8)
            assert len(message.data) == info.width * info.height
            assert {*np.unique(message.data)} <= {-1, 0, 100}
            for place in (info.origin.position.x, info.origin.position.y):
                assert place / 0.8 == pytest.approx(round(place / 0.8), abs=1e-6)
    assert len({(m.info.width, m.info.height) for m in grids["autoware"]}) == 1


def test_the_gate_stops_the_robot_unless_the_newest_result_is_young_and_whole(stage: Stage):
    seen: dict[str, list[float]] = defaultdict(list)
    node = stage.node

    def set_up() -> tuple[Any, Any]:
        node.create_subscription(Twist, "cmd_vel", lambda m: seen["all"].append(m.linear.x), 10)
        return (
            node.create_publisher(FrameStatusStamped, "/alocc_node/status", 1),
            node.create_publisher(Twist, "cmd_vel_in", 1),
        )

    status, wish = stage.do(set_up)
    stage.start(str(ROOT / "examples" / "stop_on_degraded.py"), "--ros-args", "-p", "oldest:=3.0")

    def say(flags: int | None) -> None:
        if flags is not None:
            message = FrameStatusStamped(status=FrameStatus(flags=flags))
            message.header.stamp = node.get_clock().now().to_msg()
            status.publish(message)
        command = Twist()
        command.linear.x = 2.0
        wish.publish(command)

    def ends_in(flags: int | None, speed: float) -> None:
        """Saying the same again and again, only that speed comes in the end."""
        end = time.monotonic() + 60.0
        while time.monotonic() < end:
            seen["all"].clear()
            for _ in range(10):
                say(flags)
                time.sleep(0.05)
            if len(seen["all"]) > 5 and set(seen["all"][3:]) == {speed}:
                return
        raise AssertionError(f"flags {flags}: {seen['all']}")

    ends_in(None, 0.0)  # no status yet
    ends_in(0, 2.0)
    ends_in(FrameStatus.DEGRADED, 0.0)
    ends_in(8, 2.0)  # a short memory is no reason for it
    ends_in(FrameStatus.RESET | FrameStatus.RANDOM_WEIGHTS, 0.0)
    ends_in(0, 2.0)
    ends_in(None, 0.0)  # the node is gone
