# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Parameters that are changed, and services that are called, while the node is at work."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="ROS is not installed (make setup)")
pytest.importorskip("alocc_ros.msg", reason="alocc_ros/msg is not built (make setup)")

from live import Stage  # noqa: E402
from rcl_interfaces.msg import SetParametersResult  # noqa: E402
from rcl_interfaces.srv import SetParameters  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
from std_srvs.srv import SetBool, Trigger  # noqa: E402

from alocc_ros.bags.sample import write_sample  # noqa: E402

pytestmark = [pytest.mark.system, pytest.mark.slow]
TOPICS = ("occupancy", "obstacles", "voxels", "markers")


@pytest.fixture
def stage(monkeypatch) -> Iterator[Stage]:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    made = Stage(*TOPICS)
    yield made
    made.close()


def set_parameter(stage: Stage, name: str, value: Any) -> SetParametersResult:
    message = Parameter(name, value=value).to_parameter_msg()
    return stage.call("set_parameters", SetParameters, parameters=[message]).results[0]


def test_a_node_at_work_takes_over_what_is_live(stage, tmp_path):
    bag = tmp_path / "sample.mcap"
    write_sample(bag, seconds=2.0, rate=4.0, width=176, height=99)
    stage.start_node("-p", "use_sim_time:=true")

    def takes(name: str, value: Any) -> None:
        result = set_parameter(stage, name, value)
        assert result.successful, result.reason
        for topic in TOPICS:
            stage.messages[topic].clear()

    def newest(topic: str) -> Any:
        return stage.messages[topic][-1]

    def comes(topic: str, holds: Any) -> None:
        stage.until(
            lambda: stage.messages[topic] and holds(newest(topic)),
            f"{topic} stays as it was",
            timeout=180.0,
        )

    player = stage.start("-m", "alocc_ros.cli.main", "play", str(bag), "--loop", "--rate", "0.7")
    comes("occupancy", lambda cloud: cloud.width > 5)
    comes("voxels", lambda voxels: not voxels.confidence)
    comes("obstacles", lambda cloud: cloud.width > 0)
    assert not stage.messages["markers"]
    takes("max_points", 5)
    takes("confidence", True)
    takes("obstacle_height", -10)
    takes("markers", True)
    comes("occupancy", lambda cloud: cloud.width == 5)
    comes("voxels", lambda voxels: len(voxels.confidence) == len(voxels.labels))
    comes("obstacles", lambda cloud: cloud.width == 0)
    comes("markers", lambda array: any(len(m.points) == 5 for m in array.markers))
    takes("markers", False)
    stage.until(
        lambda: not stage.node.count_publishers("/alocc_node/markers"), "markers are still offered"
    )
    takes("max_rate_hz", 0.001)
    stage.until(lambda: len(stage.messages["voxels"]) > 4, "nothing comes any more", timeout=180.0)
    # One that was on its way, and the first of the new period.
    assert len(stage.messages["occupancy"]) <= 2

    # Cameras that have gone are stale after a while, and how long that is can be changed too.
    takes("diagnostics_period", 0.1)
    player.send_signal(signal.SIGINT)
    assert player.wait(60.0) == 0

    def state(wanted: str) -> None:
        stage.until(
            lambda: stage.values("camera cam_front").get("state") == wanted, f"it is not {wanted}"
        )

    state("stale")
    takes("stale_after", 3600.0)
    state("active")
    for name, value, says in (
        ("device", "cpu", "device takes effect when the node is configured: clean the node up"),
        ("backend", "nonsense", "backend must be one of auto, "),
        ("max_rate_hz", "nonsense", "max_rate_hz must be a number, is 'nonsense'"),
        ("min_cameras", 7, "min_cameras must be 0 to 6, is 7"),
        ("max_point", 7, "nobody reads the parameter max_point (did you mean max_points?)"),
    ):
        result = set_parameter(stage, name, value)
        assert not result.successful and result.reason.startswith(says), result.reason
    for service, kind, fields, says in (
        ("reset", Trigger, {}, "the past is forgotten: the next set begins a sequence"),
        ("enable", SetBool, {"data": False}, "sets are ignored until the service is called with "),
        ("enable", SetBool, {"data": True}, "sets go to the network"),
    ):
        answer = stage.call(service, kind, **fields)
        assert answer.success and answer.message.startswith(says)
    status = stage.status("sets")
    assert (status.name, status.hardware_id) == ("/alocc_node: sets", "alocc_ros")


def test_services_of_a_node_that_is_not_active_say_what_to_do(stage):
    stage.start_node("-p", "auto_start:=false", until="")
    says = "the node is unconfigured, not active: ros2 lifecycle set /alocc_node configure"
    for service, kind in (("reset", Trigger), ("enable", SetBool)):
        answer = stage.call(service, kind)
        assert (answer.success, answer.message) == (False, says)
    assert set_parameter(stage, "decode", "fast").successful
