# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from alocc_ros.errors import ParameterError, PoseError
from alocc_ros.geometry import inverse, rotation_angle
from alocc_ros.stream.pose_limits import PoseLimits
from alocc_ros.stream.trajectory import Trajectory
from alocc_ros.stream.transforms import TransformTree

MS = 1_000_000
SECOND = 1_000_000_000
START = 1_532_402_927 * SECOND
SHARED = Path(__file__).parents[3] / "shared"


def pose(x: float = 0.0, y: float = 0.0, yaw: float = 0.0, roll: float = 0.0) -> np.ndarray:
    out = np.eye(4)
    out[:3, :3] = Rotation.from_euler("zyx", [yaw, 0.0, roll]).as_matrix()
    out[:3, 3] = x, y, 0.5
    return out


def drive(seconds: float) -> np.ndarray:
    """A constant turn: 10 m/s along x in the map, 0.3 rad/s, some roll."""
    return pose(10.0 * seconds, -2.0 * seconds, 0.3 * seconds, 0.02)


def driven(
    count: int = 10,
    step: int = 500 * MS,
    history_ns: int | None = 30 * SECOND,
    **limits: int,
) -> Trajectory:
    trajectory = Trajectory(history_ns=history_ns, limits=PoseLimits(**limits))
    for k in range(count):
        trajectory.add(START + k * step, drive(k * step / SECOND))
    return trajectory


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 9 * 500 * MS))
def test_poses_between_two_poses_lie_on_the_way(offset: int) -> None:
    found = driven().at(START + offset)
    np.testing.assert_allclose(found[:3, 3], drive(offset / SECOND)[:3, 3], atol=1e-6)
    assert rotation_angle(inverse(found) @ drive(offset / SECOND)) < 2e-3
    np.testing.assert_allclose(found[:3, :3] @ found[:3, :3].T, np.eye(3), atol=1e-12)


def test_a_known_stamp_gives_exactly_its_pose_and_no_view_of_it() -> None:
    trajectory = driven()
    found = trajectory.at(START + 500 * MS)
    np.testing.assert_array_equal(found, drive(0.5))
    found[:] = 0
    np.testing.assert_array_equal(trajectory.at(START + 500 * MS), drive(0.5))


def test_stamps_keep_their_nanoseconds() -> None:
    """A double holds stamps of 2018 to 256 ns only; ratios must come from integers."""
    trajectory = Trajectory()
    trajectory.add(START, pose(0.0))
    trajectory.add(START + 1000, pose(1.0))
    assert trajectory.at(START + 1)[0, 3] == pytest.approx(0.001, abs=1e-12)


@settings(deadline=None, max_examples=40)
@given(st.permutations(range(10)))
def test_the_order_in_which_poses_come_does_not_matter(order: list[int]) -> None:
    trajectory = Trajectory()
    for k in order:
        trajectory.add(START + k * 500 * MS, drive(k * 0.5))
    assert trajectory.covered == (START, START + 9 * 500 * MS)
    for offset in (0, 1, 700 * MS, 9 * 500 * MS):
        np.testing.assert_array_equal(trajectory.at(START + offset), driven().at(START + offset))


def test_a_second_pose_at_the_same_stamp_replaces_the_first() -> None:
    trajectory = driven()
    trajectory.add(START + 500 * MS, pose(77.0))
    assert len(trajectory) == 10
    assert trajectory.at(START + 500 * MS)[0, 3] == 77.0


def test_outside_the_covered_time_there_is_no_pose_and_the_error_says_how_far() -> None:
    trajectory = driven()
    with pytest.raises(
        PoseError, match=r"base_link in map at 1532402931\.750000000.*0\.250 s after"
    ):
        trajectory.at(START + 4750 * MS)
    with pytest.raises(PoseError, match=r"0\.001 s before the first; poses cover 1532402927\.0"):
        trajectory.at(START - MS)
    with pytest.raises(PoseError, match="none has come in yet"):
        Trajectory().at(START)


def test_extrapolation_is_bounded_and_only_on_request() -> None:
    trajectory = driven(max_extrapolation_ns=100 * MS)
    for offset in (4600 * MS, -100 * MS):
        found = trajectory.at(START + offset)
        np.testing.assert_allclose(found[:3, 3], drive(offset / SECOND)[:3, 3], atol=1e-6)
        assert rotation_angle(inverse(found) @ drive(offset / SECOND)) < 2e-3
    with pytest.raises(PoseError, match=r"0\.101 s after the last.*limited to 0\.100 s"):
        trajectory.at(START + 4601 * MS)
    single = driven(1, max_extrapolation_ns=100 * MS)
    with pytest.raises(PoseError):
        single.at(START + 1)


def test_poses_too_far_apart_say_nothing_about_the_time_between() -> None:
    trajectory = driven(2, step=1001 * MS, max_extrapolation_ns=SECOND)
    with pytest.raises(PoseError, match=r"1\.001 s apart, more than 1\.000 s"):
        trajectory.at(START + 500 * MS)
    with pytest.raises(PoseError, match="apart"):
        trajectory.at(START + 1100 * MS)
    trajectory.at(START + 1001 * MS)


TURNED = np.array([[1.0, -1.0, 0, 0], [1.0, 1.0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.full((4, 4), np.nan), "NaN or inf"),
        (np.diag([2.0, 2.0, 2.0, 1.0]), "not a rigid transform"),
        (np.diag([1.0, 1.0, -1.0, 1.0]), "not a rigid transform"),
        (np.diag([1e200, 1.0, 1.0, 1.0]), "not a rigid transform"),
        (1e200 * TURNED, "not a rigid transform"),  # inf - inf is NaN, which is not too large
        (np.eye(3), "4x4"),
    ],
)
def test_what_is_no_pose_is_refused_and_changes_nothing(bad: np.ndarray, message: str) -> None:
    trajectory = driven()
    with pytest.raises(PoseError, match=rf"base_link in map at 1532402950.*{message}"):
        trajectory.add(START + 23 * SECOND, bad)
    assert trajectory.covered == driven().covered


def test_a_zero_stamp_is_refused() -> None:
    with pytest.raises(PoseError, match="zero or negative"):
        Trajectory().add(0, np.eye(4))


def test_poses_of_other_frames_are_refused_until_cleared() -> None:
    trajectory = driven()
    with pytest.raises(PoseError, match="base_link in odom, but .* base_link in map"):
        trajectory.add(START, np.eye(4), "odom", "base_link")
    trajectory.clear()
    trajectory.add(START, np.eye(4), "odom", "base_link")
    assert (trajectory.parent, trajectory.child) == ("odom", "base_link")


def test_the_history_is_bounded_and_keeps_what_it_promises() -> None:
    trajectory = Trajectory(history_ns=2 * SECOND)
    longest = 0
    for k in range(2000):
        trajectory.add(START + k * 20 * MS, drive(k * 0.02))
        longest = max(longest, len(trajectory))
        trajectory.at(START + max(0, k * 20 * MS - 2 * SECOND))
    assert longest <= 210
    assert len(driven(1000, history_ns=None)) == 1000


def test_a_pose_older_than_the_history_begins_it_anew() -> None:
    trajectory = driven(40, history_ns=5 * SECOND)
    for k in range(3):
        trajectory.add(START + k * 500 * MS, drive(k * 0.5))
    assert trajectory.covered == (START, START + SECOND)


def test_adding_at_the_end_does_not_get_slower_with_the_history() -> None:
    """Twenty thousand poses in a moment; a list searched or copied each time takes minutes."""
    trajectory = Trajectory(history_ns=50 * SECOND)
    eye = np.eye(4)
    begin = time.process_time()
    for k in range(20_000):
        trajectory.add(START + k * 5 * MS, eye)
    assert time.process_time() - begin < 5.0


def test_bounds_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ParameterError, match="history_ns"):
        Trajectory(history_ns=0)
    for limits in ({"max_gap_ns": 0}, {"max_extrapolation_ns": -1}):
        with pytest.raises(ParameterError, match=next(iter(limits))):
            PoseLimits(**limits)


def test_real_key_frame_poses_give_the_real_pose_between_them() -> None:
    """The ego position at the LiDAR's stamp, 35 ms after each camera key frame, is on record."""
    path = SHARED / "data/scene0061_trajectory/ego_poses.json"
    if not path.exists():
        pytest.skip(f"no real trajectory: {path.name} is not here")
    frames = json.loads(path.read_text())["keyframes"]
    trajectory = Trajectory(history_ns=None)
    for frame in frames:
        trajectory.add(frame["cam_front_timestamp_us"] * 1000, np.array(frame["ego2global"]))
    away = [
        np.linalg.norm(
            trajectory.at(frame["lidar_top_timestamp_us"] * 1000)[:3, 3]
            - frame["ego_translation_at_lidar"]
        )
        for frame in frames[:-1]
    ]
    assert np.median(away) < 0.02
    assert max(away) < 0.1


# TransformTree ------------------------------------------------------------------------------


def tree() -> TransformTree:
    out = TransformTree()
    out.add_static("base_link", "camera_mount", pose(1.0, 0.2, 0.1))
    out.add_static("camera_mount", "cam_front", pose(0.1, 0.0, -0.3, 1.0))
    for k in range(10):
        out.add(START + k * 500 * MS, "map", "odom", pose(100.0))
        out.add(START + k * 500 * MS, "odom", "base_link", drive(k * 0.5))
    return out


def test_chains_of_fixed_and_moving_links_are_composed() -> None:
    stamp = START + 1250 * MS
    base_T_camera = pose(1.0, 0.2, 0.1) @ pose(0.1, 0.0, -0.3, 1.0)
    map_T_base = pose(100.0) @ driven().at(stamp)
    found = tree().lookup("map", "cam_front", stamp)
    np.testing.assert_allclose(found, map_T_base @ base_T_camera, atol=1e-12)
    back = tree().lookup("cam_front", "map", stamp)
    np.testing.assert_allclose(back @ found, np.eye(4), atol=1e-12)
    np.testing.assert_array_equal(tree().lookup("map", "map", stamp), np.eye(4))


def test_the_newest_mount_is_had_without_a_stamp() -> None:
    rig = TransformTree()
    rig.add(START, "base_link", "CAM_FRONT", pose(1.0))
    np.testing.assert_array_equal(rig.lookup("base_link", "CAM_FRONT", None), pose(1.0))
    with pytest.raises(PoseError, match="CAM_FRONT in base_link"):
        rig.lookup("base_link", "CAM_FRONT", START + MS)


def test_a_missing_link_is_named() -> None:
    with pytest.raises(
        PoseError,
        match="no transform from lidar to base_link: unknown lidar; frames known: base_link, cam_",
    ):
        tree().lookup("base_link", "lidar", START)
    with pytest.raises(PoseError, match="no transform has come in yet"):
        TransformTree().lookup("map", "base_link", START)
    islands = tree()
    islands.add_static("vehicle", "cam_back", pose())
    with pytest.raises(PoseError, match="no transform from cam_back to map: map is linked to base"):
        islands.lookup("map", "cam_back", START)


def test_a_link_that_comes_later_is_found() -> None:
    rig = tree()
    with pytest.raises(PoseError):
        rig.lookup("map", "cam_back", START)
    rig.add_static("base_link", "cam_back", pose(-1.0))
    assert rig.lookup("base_link", "cam_back", START)[0, 3] == -1.0


def test_a_frame_with_two_parents_does_not_stop_the_bag() -> None:
    rig = tree()
    rig.add(START, "map", "base_link", pose(5.0))
    np.testing.assert_array_equal(rig.lookup("map", "base_link", START), pose(5.0))
    np.testing.assert_array_equal(rig.lookup("odom", "base_link", START), drive(0.0))


def test_after_a_time_jump_only_fixed_links_are_left() -> None:
    rig = tree()
    rig.clear()
    assert rig.frames == ("base_link", "cam_front", "camera_mount")
    rig.lookup("base_link", "cam_front", START)
    with pytest.raises(PoseError, match="unknown map"):
        rig.lookup("map", "base_link", START)
    rig.add(START, "odom", "base_link", pose(3.0))
    assert rig.lookup("odom", "base_link", START)[0, 3] == 3.0


def test_a_bad_transform_leaves_the_tree_as_it_was() -> None:
    rig = tree()
    frames = rig.frames
    with pytest.raises(PoseError, match="x in map"):
        rig.add(START, "map", "x", np.zeros((4, 4)))
    with pytest.raises(PoseError, match="static transform of x in map"):
        rig.add_static("map", "x", np.zeros((4, 4)))
    with pytest.raises(PoseError, match="'map' in itself"):
        rig.add_static("map", "map", np.eye(4))
    assert rig.frames == frames
