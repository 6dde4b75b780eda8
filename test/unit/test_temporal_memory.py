# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from alocc_ros.errors import CalibrationError, ParameterError, PoseError, TemporalMemoryError
from alocc_ros.stream import memory as rules
from alocc_ros.stream.keyframes import MemoryPolicy, TemporalMemory
from alocc_ros.types import CAMERAS, Calibration, CameraImage, FrameSet

MS = 1_000_000
SECOND = 1_000_000_000
START = 1_532_402_927 * SECOND
SHARED = Path(__file__).parents[3] / "shared"


def pose(x: float = 0.0, yaw: float = 0.0) -> np.ndarray:
    out = np.eye(4)
    out[:3, :3] = Rotation.from_euler("z", yaw).as_matrix()
    out[0, 3] = x
    return out


def calibration(camera: str, x: float = 0.0) -> Calibration:
    matrix = np.array([[1266.0, 0.0, 816.0], [0.0, 1266.0, 491.0], [0.0, 0.0, 1.0]])
    return Calibration(camera, 1600, 900, matrix, pose(1.5 + x, 0.3))


RIG = {camera: calibration(camera) for camera in CAMERAS}


def frame(
    stamp: float,  # s after the start
    map_T_base: np.ndarray | None = None,
    rig: Mapping[str, Calibration] = RIG,
    without: tuple[str, ...] = (),
    **frames: str,
) -> FrameSet:
    ns = START + round(stamp * SECOND)
    map_T_base = pose(10.0 * stamp) if map_T_base is None else map_T_base
    present = [c for c in CAMERAS if c not in without]
    return FrameSet(
        stamp=ns,
        images={c: CameraImage(c, ns, b"", "jpeg") for c in present},
        calibration=rig,
        map_T_base=map_T_base,
        map_T_base_at={c: map_T_base @ pose(0.01 * i) for i, c in enumerate(present)},
        **frames,
    )


def pushed(memory: TemporalMemory, stamps: list[float]) -> list[float]:
    """Runs a drive through the memory; returns the stamps at which it was pushed."""
    out = []
    for stamp in stamps:
        taken = frame(stamp)
        if memory.recall(taken).push:
            out.append(stamp)
        memory.commit(taken, f"memory of {stamp}")
    return out


def started(policy: MemoryPolicy | None = None, until: float = 1.0) -> TemporalMemory:
    """After key frames at 0, 0.5, ... s."""
    memory = TemporalMemory(policy)
    pushed(memory, [0.5 * k for k in range(int(until * 2) + 1)])
    return memory


# Spacing ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rate", "every"), [(2, 1), (4, 2), (5, 3), (8, 4), (10, 5), (12, 6), (20, 10), (30, 15)]
)
def test_key_frames_are_half_a_second_apart_at_any_rate(rate: int, every: int) -> None:
    stamps = [k / rate for k in range(10 * rate)]
    found = pushed(TemporalMemory(), stamps)
    if rate == 5:  # 0.4 s and 0.6 s are equally wrong
        assert set(np.round(np.diff(found), 6)) <= {0.4, 0.6}
    else:
        assert found == stamps[::every]


@settings(deadline=None, max_examples=40)
@given(
    st.sampled_from([2, 10, 12, 30]),
    st.lists(st.floats(-0.008, 0.008), min_size=40, max_size=40),
)
def test_jitter_of_eight_milliseconds_never_skips_to_another_frame(
    rate: int, jitter: list[float]
) -> None:
    stamps = [k / rate + jitter[k % 40] for k in range(4 * rate)]
    found = pushed(TemporalMemory(), stamps)
    steps = np.diff(found)
    assert np.all(np.abs(steps - 0.5) < 0.5 / rate + 0.017)
    if rate in (2, 10, 12):
        assert found == stamps[:: rate // 2]


def test_one_lost_frame_does_not_bring_a_key_frame_forward() -> None:
    stamps = [k / 12 for k in range(36) if k not in (4, 18)]
    found = [round(s * 12) for s in pushed(TemporalMemory(), stamps)]
    assert found == [0, 6, 12, 19, 25, 31]


def test_every_real_key_frame_of_a_nuscenes_scene_is_one() -> None:
    """They are 0.4 to 0.6 s apart, which a tolerance of a tenth would not let pass."""
    path = SHARED / "data/scene0061_trajectory/ego_poses.json"
    if not path.exists():
        pytest.skip(f"no real trajectory: {path.name} is not here")
    frames = json.loads(path.read_text())["keyframes"]
    memory = TemporalMemory()
    for number, entry in enumerate(frames):
        taken = dataclasses.replace(
            frame(0.0, np.array(entry["ego2global"])),
            stamp=entry["cam_front_timestamp_us"] * 1000,
        )
        recall = memory.recall(taken)
        assert recall.push
        assert (recall.keyframe is None) == (number == 0)
        memory.commit(taken, number)
    assert memory.resets == {rules.FIRST_FRAME: 1}


def test_frames_between_key_frames_use_the_memory_and_leave_it_alone() -> None:
    memory = TemporalMemory()
    for k in range(13):
        taken = frame(k / 12)
        recall = memory.recall(taken)
        if k:
            assert recall.keyframe.memory == f"memory of {(k - 1) // 6 * 6}"
            assert recall.elapsed_ns == taken.stamp - recall.keyframe.stamp
            assert recall.reset == ""
        else:
            assert (recall.keyframe, recall.elapsed_ns) == (None, 0)
            assert recall.reset == rules.FIRST_FRAME
        memory.commit(taken, f"memory of {k}")
    assert memory.keyframe.memory == "memory of 12"


@pytest.mark.parametrize("rate", [2, 4, 5, 8, 10, 12, 20, 30])
def test_every_frame_is_compared_with_one_an_interval_ago(rate: int) -> None:
    """Exactly with the key frame before if it is one, and nearly so between key frames."""
    memory = TemporalMemory()
    # Glances lie up to an eighth of a second and half a period apart; half of that is the error.
    nearest = (0.5 / 4 + 0.5 / rate) / 2 + 1e-6
    for k in range(5 * rate):
        taken = frame(k / rate)
        key = memory.keyframe
        recall = memory.recall(taken)
        if recall.push:
            assert (recall.glance and recall.glance.stamp) == (key and key.stamp)
        elif k / rate >= 0.5:
            assert abs((taken.stamp - recall.glance.stamp) / SECOND - 0.5) <= nearest
            assert recall.glance.memory == f"glance of {recall.glance.stamp}"
        memory.commit(taken, "memory", f"glance of {taken.stamp}")
        assert len(memory.glances) <= 4 + 2
    memory.reset()
    assert memory.glances == ()
    assert memory.recall(frame(60.0)).glance is None


def test_the_same_stamp_again_neither_pushes_nor_resets() -> None:
    memory = started()
    again = frame(1.0, pose(500.0))
    recall = memory.recall(again)
    assert not recall.push
    assert recall.keyframe.stamp == again.stamp
    assert recall.elapsed_ns == 0
    memory.commit(again, "other")
    assert memory.keyframe.memory == "memory of 1.0"
    assert memory.recall(frame(1.5)).push
    assert memory.resets == {rules.FIRST_FRAME: 1}


def test_a_key_frame_knows_where_every_camera_was() -> None:
    memory = TemporalMemory()
    taken = frame(0.0, without=("cam_back",), map_frame="world")
    memory.recall(taken)
    memory.commit(taken, "m")
    key = memory.keyframe
    assert key.map_T_camera.shape == (6, 4, 4)
    assert key.missing == {"cam_back"}
    assert key.frames == ("world", "base_link")
    for i, camera in enumerate(CAMERAS):
        base = taken.map_T_base_at.get(camera, taken.map_T_base)
        np.testing.assert_allclose(key.map_T_camera[i], base @ RIG[camera].base_T_camera)


# Resets -------------------------------------------------------------------------------------


def rig_with(**changes: object) -> dict[str, Calibration]:
    return RIG | {"cam_back": dataclasses.replace(RIG["cam_back"], **changes)}


def shifted_intrinsics(pixels: float) -> np.ndarray:
    matrix = RIG["cam_back"].intrinsics.copy()
    matrix[0, 2] += pixels
    return matrix


@pytest.mark.parametrize(
    ("next_frame", "reason"),
    [
        (frame(0.999), rules.BACKWARD_STAMP),
        (frame(-20.0), rules.BACKWARD_STAMP),
        (frame(3.001), rules.GAP),
        (frame(1.1, pose(10.0 + 8.1)), rules.TELEPORT),
        (frame(1.5, pose(10.0, yaw=1.9)), rules.TELEPORT),
        (frame(1.5, map_frame="odom"), rules.FRAMES),
        (frame(1.5, base_frame="chassis"), rules.FRAMES),
        (frame(1.5, rig=rig_with(width=800)), rules.CALIBRATION),
        (frame(1.5, rig=rig_with(intrinsics=shifted_intrinsics(0.2))), rules.CALIBRATION),
        (frame(1.5, rig=rig_with(base_T_camera=pose(1.51, 0.3))), rules.CALIBRATION),
        (frame(1.5, rig=rig_with(base_T_camera=pose(1.5, 0.302))), rules.CALIBRATION),
        (frame(1.5, rig=rig_with(distortion=(0.1, 0.0, 0.0, 0.0))), rules.CALIBRATION),
        (frame(1.5, rig=RIG | {"cam_up": calibration("cam_up")}), rules.CALIBRATION),
    ],
)
def test_a_memory_that_does_not_fit_is_thrown_away_for_a_counted_reason(
    next_frame: FrameSet, reason: str
) -> None:
    memory = started()
    recall = memory.recall(next_frame)
    assert recall == rules.Recall(None, None, push=True, reset=reason, elapsed_ns=0)
    assert memory.resets == {rules.FIRST_FRAME: 1, reason: 1}
    memory.commit(next_frame, "new")
    assert memory.keyframe.memory == "new"


@pytest.mark.parametrize(
    "next_frame",
    [
        frame(3.0),
        frame(1.1, pose(10.0 + 7.9)),
        frame(1.5, pose(10.0, yaw=1.7)),
        frame(1.5, rig=rig_with(intrinsics=shifted_intrinsics(0.05))),
        frame(1.5, rig=rig_with(base_T_camera=pose(1.504, 0.3005))),
        frame(1.5, rig={c: calibration(c) for c in CAMERAS}),
        frame(1.5, without=("cam_back", "cam_front")),
    ],
)
def test_what_stays_within_the_bounds_keeps_the_memory(next_frame: FrameSet) -> None:
    memory = started()
    assert memory.recall(next_frame).keyframe is not None
    assert memory.resets == {rules.FIRST_FRAME: 1}


def test_a_bag_that_loops_with_growing_stamps_is_a_teleport() -> None:
    """The player stamps with the wall clock; only the pose tells that the scene began anew."""
    memory = TemporalMemory()
    for k in range(40):
        taken = frame(0.1 * k, pose(0.8 * (k % 20)))
        memory.recall(taken)
        memory.commit(taken, k)
    assert memory.resets == {rules.FIRST_FRAME: 1, rules.TELEPORT: 1}


def test_a_reset_on_request_is_told_to_the_next_frame_only() -> None:
    memory = started()
    memory.reset()
    taken = frame(1.5)
    assert memory.recall(taken).reset == rules.MANUAL
    memory.commit(taken, "m")
    assert memory.recall(frame(2.0)).reset == ""
    assert memory.resets[rules.MANUAL] == 1
    with pytest.raises(ParameterError, match="'because' is no reason"):
        memory.reset("because")


# When the network fails ---------------------------------------------------------------------


def test_a_frame_without_commit_leaves_the_key_frame_as_it_was() -> None:
    memory = started()
    assert memory.recall(frame(1.5)).push
    taken = frame(1.6)
    recall = memory.recall(taken)
    assert recall.keyframe.memory == "memory of 1.0"
    assert recall.push
    memory.commit(taken, "late")
    assert memory.keyframe.stamp == taken.stamp


def test_the_reason_for_an_empty_memory_is_repeated_until_there_is_one_and_counted_once() -> None:
    memory = started()
    for stamp in (0.1, 0.2, 0.3):
        recall = memory.recall(frame(stamp))
        assert (recall.keyframe, recall.push, recall.reset) == (None, True, rules.BACKWARD_STAMP)
    assert memory.resets[rules.BACKWARD_STAMP] == 1


def test_a_failed_frame_can_be_tried_again() -> None:
    memory = started()
    taken = frame(1.5)
    assert memory.recall(taken).push
    assert memory.recall(taken).push
    memory.commit(taken, "m")
    assert memory.keyframe.memory == "m"


def test_commit_needs_its_own_recall() -> None:
    memory = started()
    with pytest.raises(TemporalMemoryError, match="not the last one recalled"):
        memory.commit(frame(1.5), "m")
    first = frame(1.5)
    memory.recall(first)
    memory.recall(frame(1.6))
    with pytest.raises(TemporalMemoryError):
        memory.commit(first, "m")
    second = frame(1.7)
    memory.recall(second)
    memory.commit(second, "m")
    with pytest.raises(TemporalMemoryError):
        memory.commit(second, "m")
    memory.recall(third := frame(1.8))
    memory.reset()
    with pytest.raises(TemporalMemoryError):
        memory.commit(third, "m")


def test_poses_that_are_none_and_cameras_without_calibration_are_refused() -> None:
    memory = started()
    with pytest.raises(PoseError, match="base_link in map: the pose holds NaN"):
        memory.recall(frame(1.5, np.full((4, 4), np.nan)))
    assert memory.recall(frame(1.5)).keyframe is not None
    with pytest.raises(CalibrationError, match="cam_up"):
        rules.map_T_camera(frame(1.5), (*CAMERAS, "cam_up"))


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.tuples(st.integers(-200, 900), st.booleans(), st.floats(-30, 30)),
        max_size=60,
    )
)
def test_whatever_comes_the_memory_is_one_that_fits(steps: list[tuple[int, bool, float]]) -> None:
    memory = TemporalMemory()
    ms, x = 0, 0.0
    for step, fails, move in steps:
        ms, x = ms + step, x + move
        taken = frame(ms / 1000, pose(x))
        resets = memory.resets.total()
        recall = memory.recall(taken)
        assert (recall.keyframe is None) == bool(recall.reset)
        assert recall.push or recall.keyframe is not None
        assert memory.resets.total() - resets in (0, 1)
        if recall.keyframe is not None:
            assert 0 <= recall.elapsed_ns <= memory.policy.max_gap_ns
            assert recall.push == (recall.keyframe.stamp + recall.elapsed_ns == taken.stamp) or (
                recall.elapsed_ns < memory.policy.interval_ns
            )
        if not fails:
            memory.commit(taken, ms)
            assert (memory.keyframe.stamp == taken.stamp) == (recall.push or recall.elapsed_ns == 0)
    assert set(memory.resets) <= set(rules.RESET_REASONS)


@pytest.mark.parametrize(
    "settings_",
    [
        {"interval_ns": 0},
        {"tolerance": 1.0},
        {"max_gap_ns": 1},
        {"max_speed": 0.0},
        {"max_turn_rate": float("nan")},
        {"position_margin": -1.0},
        {"mount_tolerance": float("nan")},
    ],
)
def test_settings_out_of_bounds_are_refused(settings_: dict) -> None:
    with pytest.raises(ParameterError, match=next(iter(settings_))):
        MemoryPolicy(**settings_)
