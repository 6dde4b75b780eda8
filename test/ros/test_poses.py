# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Ego poses on TF, live, against the bag reader's: the same poses, and the same refusals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS is not installed (make setup)")

from geometry_msgs.msg import Quaternion, Transform, TransformStamped, Vector3  # noqa: E402
from scipy.spatial.transform import Rotation  # noqa: E402
from std_msgs.msg import Header  # noqa: E402
from tf2_msgs.msg import TFMessage  # noqa: E402
from tf2_ros import Buffer  # noqa: E402

from alocc_ros.bags.poses import RecordedPoses  # noqa: E402
from alocc_ros.errors import PoseError  # noqa: E402
from alocc_ros.geometry import quaternion_xyzw  # noqa: E402
from alocc_ros.ros.encoder import time  # noqa: E402
from alocc_ros.ros.poses import LivePoses  # noqa: E402
from alocc_ros.stream.assembler import FrameAssembler  # noqa: E402
from alocc_ros.stream.preset import load_preset  # noqa: E402
from alocc_ros.stream.rig import Intrinsics  # noqa: E402
from alocc_ros.stream.skips import Skips  # noqa: E402
from alocc_ros.types import CAMERAS, CameraImage, CameraSet  # noqa: E402

pytestmark = pytest.mark.ros
BEGIN = 1_600_000_000_000_000_000  # ns
MS = 1_000_000  # ns


class Both:
    """The same transforms for the node and for the bag reader."""

    def __init__(self, node, gap: float, beyond: float = 0.0) -> None:
        preset = replace(load_preset("nuscenes"), pose_gap_s=gap, pose_extrapolation_s=beyond)
        self.preset = preset
        self.live = LivePoses(node, preset, Buffer(node=node))
        self.recorded = RecordedPoses(preset)

    def add(self, stamp: int, parent: str, child: str, pose: np.ndarray) -> None:
        message = _message(stamp, parent, child, pose)
        self.recorded.add_transforms(message, static=not stamp)
        listener = self.live._listener
        (listener.callback if stamp else listener.static_callback)(message)

    def at(self, stamp: int) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Live and recorded; None where it is refused."""
        return (
            _or_none(lambda: self.live.map_T_base(stamp, deadline=0.0)),
            _or_none(lambda: self.recorded.map_T_base(stamp)),
        )


def _or_none(ask):
    try:
        return ask()
    except PoseError:
        return None


def _message(stamp: int, parent: str, child: str, pose: np.ndarray) -> TFMessage:
    x, y, z = pose[:3, 3].tolist()
    qx, qy, qz, qw = quaternion_xyzw(pose).tolist()
    link = TransformStamped(
        header=Header(stamp=time(stamp), frame_id=parent),
        child_frame_id=child,
        transform=Transform(
            translation=Vector3(x=x, y=y, z=z), rotation=Quaternion(x=qx, y=qy, z=qz, w=qw)
        ),
    )
    return TFMessage(transforms=[link])


def some_pose(random: np.random.Generator) -> np.ndarray:
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_rotvec(random.normal(size=3) * 0.1).as_matrix()
    pose[:3, 3] = random.normal(size=3)
    return pose


@pytest.mark.parametrize("seed", range(5))
def test_two_moving_links_with_gaps_are_used_and_refused_as_in_a_bag(node, seed):
    """A localisation that corrects an odometry, both with holes."""
    random = np.random.default_rng(seed)
    both = Both(node, gap=0.5)
    both.add(0, "world", "map", some_pose(random))
    for parent, child, period in (("map", "odom", 400), ("odom", "base_link", 100)):
        stamps = np.cumsum(random.choice([period, 6 * period], p=[0.95, 0.05], size=40))
        for ms in stamps[stamps < 8000]:
            both.add(BEGIN + int(ms) * MS, parent, child, some_pose(random))
    answers = [both.at(BEGIN + int(ms) * MS) for ms in random.integers(0, 8500, 200)]
    given = [pair for pair in answers if pair[0] is not None]
    assert 10 < len(given) < 190
    assert [live is None for live, _ in answers] == [recorded is None for _, recorded in answers]
    for live, recorded in given:
        np.testing.assert_allclose(live, recorded, atol=1e-9)


def test_beyond_both_ends_motion_goes_on_for_as_long_as_the_preset_says(node):
    random = np.random.default_rng(1)
    both = Both(node, gap=0.5, beyond=0.3)
    for ms in (0, 100, 200, 300):
        both.add(BEGIN + ms * MS, "map", "base_link", some_pose(random))
    for ms, is_there in ((-300, True), (-301, False), (-1, True), (600, True), (601, False)):
        live, recorded = both.at(BEGIN + ms * MS)
        assert (live is not None, recorded is not None) == (is_there, is_there), ms
        if is_there:
            np.testing.assert_allclose(live, recorded, atol=1e-9)


def test_beyond_the_end_each_of_two_moving_links_goes_on_as_in_a_bag(node):
    """One of them ends earlier, and between them is a link that does not move."""
    random = np.random.default_rng(2)
    both = Both(node, gap=0.5, beyond=0.3)
    both.add(0, "odom", "axle", some_pose(random))
    for ms in (0, 100, 200, 300):
        both.add(BEGIN + ms * MS, "map", "odom", some_pose(random))
        both.add(BEGIN + (ms + 150) * MS, "axle", "base_link", some_pose(random))
    for ms, is_there in ((-151, False), (-100, True), (400, True), (600, True), (601, False)):
        live, recorded = both.at(BEGIN + ms * MS)
        assert (live is not None, recorded is not None) == (is_there, is_there), ms
        if is_there:
            np.testing.assert_allclose(live, recorded, atol=1e-9)


class SameCamera:
    """A ``CameraSource`` of six equal cameras."""

    def intrinsics(self, camera: str, stamp: int, deadline: float) -> Intrinsics:
        return Intrinsics(176, 99, np.diag([100.0, 100.0, 1.0]))

    def frame(self, camera: str) -> str:
        return camera


def test_images_make_the_same_frame_set_as_in_a_bag(node):
    """The grid in the LiDAR's frame, one camera beyond the last pose and one without a mounting."""
    random = np.random.default_rng(3)
    both = Both(node, gap=0.5)
    for frame in ("LIDAR", *CAMERAS[:4], CAMERAS[5]):
        both.add(0, "base_link", frame, some_pose(random))
    for ms in (0, 100, 200, 300):
        both.add(BEGIN + ms * MS, "map", "base_link", some_pose(random))
    stamps = {c: BEGIN + (220 + 20 * number) * MS for number, c in enumerate(CAMERAS)}
    images = {c: CameraImage(c, stamp, b"", "jpeg") for c, stamp in stamps.items()}
    live, recorded = (
        FrameAssembler(both.preset, poses, SameCamera(), {}, grid_frame="LIDAR").assemble(
            CameraSet(stamps["cam_front"], images)
        )
        for poses in (both.live, both.recorded)
    )
    assert set(live.missing) == set(recorded.missing) == {CAMERAS[4], CAMERAS[5]}
    assert (live.map_frame, live.base_frame) == (recorded.map_frame, recorded.base_frame)
    assert live.images == recorded.images
    np.testing.assert_allclose(live.base_T_grid, recorded.base_T_grid, atol=1e-9)
    np.testing.assert_allclose(live.map_T_base, recorded.map_T_base, atol=1e-9)
    for camera in CAMERAS[:4]:
        np.testing.assert_allclose(
            live.map_T_base_at[camera], recorded.map_T_base_at[camera], atol=1e-9
        )
        np.testing.assert_allclose(
            live.calibration[camera].base_T_camera,
            recorded.calibration[camera].base_T_camera,
            atol=1e-9,
        )


def test_one_pose_alone_has_no_motion_to_go_on_with(node):
    both = Both(node, gap=0.5, beyond=0.3)
    both.add(BEGIN, "map", "base_link", np.eye(4))
    assert both.at(BEGIN + 10 * MS) == (None, None)


def test_when_stamps_go_back_the_poses_of_before_are_forgotten(node):
    both = Both(node, gap=0.5)
    for ms in (5000, 5100, 0, 100):
        both.add(BEGIN + ms * MS, "map", "base_link", np.eye(4))
    assert both.at(BEGIN + 5050 * MS)[0] is None
    assert both.at(BEGIN + 50 * MS)[0] is not None


@pytest.mark.parametrize("step", [700, 1500, 5000])
def test_a_slow_link_is_held_as_in_a_bag(node, step):
    both = Both(node, gap=1.0)
    random = np.random.default_rng(0)
    for ms in range(0, 3000, 20):
        both.add(BEGIN + ms * MS, "odom", "base_link", some_pose(random))
    for ms in range(0, 3000, step):
        both.add(BEGIN + ms * MS, "map", "odom", some_pose(random))
    for ms in range(0, 2950, 97):
        live, recorded = both.at(BEGIN + ms * MS)
        assert live is not None and recorded is not None, ms
        np.testing.assert_allclose(live, recorded, atol=1e-6)


@pytest.mark.parametrize("broken", ["NaN", "zero quaternion", "zero stamp"])
def test_one_broken_transform_is_left_out_and_said_once(node, broken):
    said: list[str] = []
    poses = LivePoses(node, load_preset("nuscenes"), Buffer(node=node), Skips(said.append))
    for ms in range(0, 500, 20):
        message = _message(BEGIN + ms * MS, "map", "base_link", np.eye(4))
        bad = _message(BEGIN + ms * MS + 1, "map", "base_link", np.eye(4))
        (entry,) = bad.transforms
        if broken == "NaN":
            entry.transform.translation.x = float("nan")
        elif broken == "zero quaternion":
            entry.transform.rotation.w = 0.0
        else:
            entry.header.stamp = time(0)
        poses._listener.callback(message)
        poses._listener.callback(bad)
    np.testing.assert_allclose(poses.map_T_base(BEGIN + 110 * MS, 0.0), np.eye(4))
    assert poses._skips.counts == {"/tf: transform of base_link in map cannot be used": 25}
    assert len(said) == 1


def test_transforms_in_a_namespace_are_heard(node):
    preset = replace(load_preset("nuscenes"), tf_topics=("/ego/tf",), tf_static_topics=("/s", "/t"))
    poses = LivePoses(node, preset, Buffer(node=node))
    topics = {s.topic_name for s in node.subscriptions}
    assert {"/ego/tf", "/s", "/t"} <= topics and "/tf" not in topics
    poses.close()
    assert {"/ego/tf", "/s", "/t"}.isdisjoint(s.topic_name for s in node.subscriptions)


def test_transforms_on_other_topics_are_named(node):
    """As of a bag; here by the topics that somebody publishes."""
    publishers = [node.create_publisher(TFMessage, t, 10) for t in ("/car7/tf", "/car7/tf_static")]
    poses = LivePoses(node, load_preset("nuscenes"), Buffer(node=node))
    with pytest.raises(PoseError) as caught:
        poses.base_T("cam_front", 0.0)
    assert "tf_topics: [/car7/tf], tf_static_topics: [/car7/tf_static]" in str(caught.value)
    poses.close()
    for publisher in publishers:
        node.destroy_publisher(publisher)
