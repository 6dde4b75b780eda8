# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""What /diagnostics says of a camera."""

from __future__ import annotations

import dataclasses
import re
import threading

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS is not installed (make setup)")
pytest.importorskip("alocc_ros.msg", reason="alocc_ros/msg is not built (make setup)")

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus  # noqa: E402
from rclpy.node import Node  # noqa: E402
from sensor_msgs.msg import CompressedImage  # noqa: E402
from spinning import spin_until  # noqa: E402

from alocc_ros.ros.diagnostics import HARDWARE_ID, KEYS, Diagnostics, share_missing  # noqa: E402
from alocc_ros.ros.encoder import time  # noqa: E402
from alocc_ros.ros.inputs import Inputs  # noqa: E402
from alocc_ros.ros.parameters import NodeParameters  # noqa: E402
from alocc_ros.ros.status_monitor import statuses  # noqa: E402
from alocc_ros.ros.worker import STAGES, WorkerStatistics  # noqa: E402
from alocc_ros.stream.preset import load_preset  # noqa: E402
from alocc_ros.types import CameraImage  # noqa: E402

PERIOD = 83_333_333  # ns
NOTHING = WorkerStatistics(0, 0, 0, 0, {}, "", {}, [], {}, 0, False)


def gaps(came: np.ndarray, jitter: float = 0.0) -> list[int]:
    """Between the stamps of the images whose number is in ``came``."""
    random = np.random.default_rng(0)
    stamps = (np.flatnonzero(came) + random.uniform(-jitter, jitter, came.sum())) * PERIOD
    return np.diff(stamps).astype(int).tolist()


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 0.6])
@pytest.mark.parametrize("jitter", [0.0, 0.1])
def test_the_share_of_missing_images_is_found_whatever_it_is(share, jitter):
    came = np.random.default_rng(1).random(1000) >= share
    assert share_missing(gaps(came, jitter)) == pytest.approx(share, abs=0.03)


def test_a_pause_and_a_late_image_are_no_loss():
    steady = [PERIOD] * 40
    assert share_missing([*steady, 30 * PERIOD]) == 0.0
    assert share_missing([*steady, int(1.4 * PERIOD), int(0.6 * PERIOD)]) == 0.0
    assert share_missing([PERIOD, 3 * PERIOD] * 5) == 0.0  # too few to tell


def test_a_camera_whose_images_get_lost_is_named_with_the_remedy(node):
    preset, parameters = load_preset("nuscenes"), NodeParameters()
    inputs = Inputs(node, preset, parameters, {})
    for number in range(60):
        for name, camera in inputs.cameras.items():
            if name != "cam_back" or number % 3:
                camera.add_stamp(1_000_000_000 + number * PERIOD)
    statuses = Diagnostics("/alocc_node", 1.5, 0.0).statuses(
        cameras=inputs.cameras,
        rejections={},
        collector=inputs.collector.statistics,
        worker=NOTHING,
        problems=[],
        failures={},
        device_memory=0,
        runs={"backend": "eager", "precision": "fp32", "fallback": "no Triton"},
        now=1.0,
    )
    by_name = {status.name.removeprefix("/alocc_node: camera "): status for status in statuses}
    text = by_name["cam_back"].message
    assert "about 33 % of the images do not arrive" in text
    assert "config/fastdds_shm.xml" in text
    assert by_name["cam_back"].level == DiagnosticStatus.WARN
    assert {v.key: v.value for v in by_name["cam_back"].values}["missing_percent"] == "33"
    assert "do not arrive" not in by_name["cam_front"].message
    (network,) = [s for s in statuses if s.name == "/alocc_node: network"]
    told = {v.key: v.value for v in network.values}
    assert (told["backend"], told["fallback"]) == ("eager", "no Triton")
    inputs.close()


def test_two_publishers_of_one_camera_are_named(node, context, executor):
    inputs = Inputs(node, load_preset("nuscenes"), NodeParameters(), {})
    camera = inputs.cameras["cam_back"]
    second = Node("second_driver", context=context)
    for publishing in (node, second):
        publishing.create_publisher(CompressedImage, camera.image.name, 10)

    def doubled() -> str:
        inputs.scan()
        return camera.image.doubled

    assert spin_until(executor, lambda: "second_driver" in doubled())
    statuses = Diagnostics("/alocc_node", 1.5, 0.0).statuses(
        cameras=inputs.cameras,
        rejections={},
        collector=inputs.collector.statistics,
        worker=NOTHING,
        problems=[],
        failures={},
        device_memory=0,
        runs={},
        now=1.0,
    )
    by_name = {status.name.removeprefix("/alocc_node: camera "): status for status in statuses}
    assert (
        f"2 publish {camera.image.resolved}: /second_driver, /tester" in by_name["cam_back"].message
    )
    assert by_name["cam_back"].level >= DiagnosticStatus.WARN
    assert "publish" not in by_name["cam_front"].message.replace("publishes", "")
    inputs.close()
    second.destroy_node()


def test_gaps_are_told_from_the_messages_that_come(node, executor):
    inputs = Inputs(node, load_preset("nuscenes"), NodeParameters(), {})
    camera = inputs.cameras["cam_back"]
    publisher = node.create_publisher(CompressedImage, camera.image.name, 10)

    def arrives(number: int) -> bool:
        message = CompressedImage(format="jpeg")
        message.header.stamp = time(1_000_000_000 + number * PERIOD)
        before = camera.image.received
        publisher.publish(message)
        return spin_until(executor, lambda: camera.image.received > before, 60.0)

    def subscribed() -> bool:
        inputs.scan()
        return publisher.get_subscription_count() > 0

    assert spin_until(executor, subscribed, 60.0)
    assert all(arrives(number) for number in range(40) if number % 4)
    assert share_missing(list(camera.gaps)) == pytest.approx(0.25, abs=0.03)
    inputs.close()


def test_every_value_is_documented_and_every_documented_one_is_told(node):
    inputs = Inputs(node, load_preset("nuscenes"), NodeParameters(), {})
    for stamp in (0, 1):  # the first one is refused
        inputs.collector.add(CameraImage("cam_back", stamp, b"", "jpeg"), 1)
    worker = dataclasses.replace(
        NOTHING,
        processed=1,
        failed={"PoseError": 1},
        stages={name: [0.1] for name, _ in STAGES},
        latencies=[0.1],
        resets={"gap": 1},
        flow_overflow=1,
        early={"seen": 1},
    )
    statuses = Diagnostics("/alocc_node", 1.5, 0.0).statuses(
        cameras=inputs.cameras,
        rejections={},
        collector=inputs.collector.statistics,
        worker=worker,
        problems=[],
        failures={"/clock: ValueError": 1},
        device_memory=1,
        runs={"backend": "graph", "precision": "fp16", "fallback": "no memory"},
        now=1.0,
    )
    inputs.close()
    told = set()
    for status in statuses:
        part = status.name.removeprefix("/alocc_node: ").partition(" ")[0]
        for value in status.values:
            key = re.sub("_p(50|95)_ms$", "_pNN_ms", value.key)
            stage = key.removesuffix("_pNN_ms")
            key = "STAGE_pNN_ms" if stage in dict(STAGES) else key
            for kind, what in (
                *(("dropped", "REASON"), ("failed", "ERROR"), ("reset", "REASON")),
                ("early", "WHAT"),
            ):
                key = f"{kind}: {what}" if key.startswith(f"{kind}: ") else key
            told.add((part, key))
    assert told == {(part, key) for part, key, _ in KEYS}


def test_a_stamp_that_goes_back_begins_anew(node):
    inputs = Inputs(node, load_preset("nuscenes"), NodeParameters(), {})
    camera = inputs.cameras["cam_back"]
    for stamp in (100, 200, 400, 50, 150):
        camera.add_stamp(stamp)
    assert list(camera.gaps) == [100]
    inputs.close()


def test_the_doctor_waits_for_a_first_status_that_comes_late(node):
    """On a busy machine discovery alone takes longer than what it was asked to listen for."""
    publisher = node.create_publisher(DiagnosticArray, "/diagnostics", 10)
    status = DiagnosticStatus(name="/alocc_node: sets", hardware_id=HARDWARE_ID, message="here")
    ended = threading.Event()

    def publish() -> None:
        while not ended.wait(0.1):
            publisher.publish(DiagnosticArray(status=[status]))

    late = threading.Timer(1.0, publish)
    late.start()
    try:
        assert set(statuses(0.2, first_within=20.0)) == {"/alocc_node: sets"}
    finally:
        ended.set()
        late.join()
        node.destroy_publisher(publisher)
