# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""A bag of ``alocc convert`` over real DDS: to anybody who listens, and to the node."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="ROS is not installed (make setup)")
pytest.importorskip("alocc_ros.msg", reason="alocc_ros/msg is not built (make setup)")

from live import ns  # noqa: E402
from nuscenes_tables import small_nuscenes  # noqa: E402
from rclpy.qos import DurabilityPolicy, QoSProfile  # noqa: E402
from sensor_msgs.msg import CompressedImage  # noqa: E402
from tf2_msgs.msg import TFMessage  # noqa: E402

from alocc_ros.cli.main import main  # noqa: E402
from alocc_ros.datasets.nuscenes import CameraSample, NuScenes  # noqa: E402
from alocc_ros.types import CAMERAS  # noqa: E402

pytestmark = pytest.mark.system
SCENE = "scene-0001"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_nuscenes(tmp_path_factory.mktemp("nuscenes"), (SCENE,))


@pytest.fixture(scope="module")
def bag(root: Path) -> Path:
    path = root / "bag.mcap"
    assert main(["convert", "nuscenes", str(root), "--scene", SCENE, "-o", str(path)]) == 0
    return path


def test_everybody_gets_the_files_and_the_poses(stage, root, bag):
    dataset = NuScenes(root)
    readings = dataset.readings(dataset.scenes)[SCENE]
    images: dict[str, list[CompressedImage]] = defaultdict(list)
    poses: list[TFMessage] = []
    static: list[TFMessage] = []
    for camera in CAMERAS:
        topic = f"/{camera.upper()}/image_rect_compressed"
        stage.node.create_subscription(CompressedImage, topic, images[camera].append, 50)
    stage.node.create_subscription(TFMessage, "/tf", poses.append, 100)
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    stage.node.create_subscription(TFMessage, "/tf_static", static.append, latched)
    stage.play(bag, "--rate", "0.5", "--wait", "60")
    expected = [r for r in readings if isinstance(r, CameraSample)]
    stage.until(
        lambda: sum(map(len, images.values())) == len(expected) and static, "images are missing"
    )
    for reading in expected:
        message = images[reading.camera].pop(0)
        assert ns(message.header.stamp) == reading.stamp
        assert bytes(message.data) == reading.path.read_bytes()
    stage.until(lambda: len(poses) == len({r.stamp for r in readings}), "poses are missing")
    assert {t.child_frame_id for t in static[0].transforms} >= {c.upper() for c in CAMERAS}


def test_the_node_takes_the_bag(stage, root, bag):
    stage.start_node("-p", "use_sim_time:=true", "-p", "preset:=nuscenes")
    stage.play(bag, "--rate", "0.5")
    dataset = NuScenes(root)
    readings = dataset.readings(dataset.scenes)[SCENE]
    anchors = [r.stamp for r in readings if isinstance(r, CameraSample) and r.camera == "cam_front"]
    stage.until(lambda: len(stage.messages["voxels"]) == len(anchors), "outputs are missing")
    assert stage.stamps("voxels") == anchors
