# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from alocc_ros.errors import CalibrationError, ParameterError, PoseError, TemporalMemoryError
from alocc_ros.network.variants import ALOCC_TINY
from alocc_ros.planning import plan_frame
from alocc_ros.stream import keyframes as rules
from alocc_ros.stream.keyframes import (
    FrameDecision,
    KeyframePolicy,
    KeyframeSettings,
    PastFrame,
    map_T_camera,
)
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


def at(stamp: float) -> int:
    """ns of a stamp in seconds after the start."""
    return START + round(stamp * SECOND)


def key_frames(policy: KeyframePolicy, stamps: list[float]) -> list[float]:
    """Runs a drive through the policy; returns the stamps of the key frames."""
    out = []
    for stamp in stamps:
        taken = frame(stamp)
        if policy.plan(taken).is_keyframe:
            out.append(stamp)
        policy.update(taken)
    return out


def started(until: float = 1.0) -> KeyframePolicy:
    """After key frames at 0, 0.5, ... s."""
    policy = KeyframePolicy()
    key_frames(policy, [0.5 * k for k in range(int(until * 2) + 1)])
    return policy


# Spacing ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rate", "every"), [(2, 1), (4, 2), (5, 3), (8, 4), (10, 5), (12, 6), (20, 10), (30, 15)]
)
def test_key_frames_are_half_a_second_apart_at_any_rate(rate: int, every: int) -> None:
    stamps = [k / rate for k in range(10 * rate)]
    found = key_frames(KeyframePolicy(), stamps)
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
    found = key_frames(KeyframePolicy(), stamps)
    steps = np.diff(found)
    # A frame just short of the interval less half the shortest period; the next one, late.
    assert np.all(np.abs(steps - 0.5) < 0.5 / rate + 0.025)
    if rate in (2, 10, 12):
        assert found == stamps[:: rate // 2]


def test_one_lost_frame_does_not_bring_a_key_frame_forward() -> None:
    stamps = [k / 12 for k in range(36) if k not in (4, 18)]
    found = [round(s * 12) for s in key_frames(KeyframePolicy(), stamps)]
    assert found == [0, 6, 12, 19, 25, 31]


def test_every_real_key_frame_of_a_nuscenes_scene_is_one() -> None:
    """They are 0.4 to 0.6 s apart, which a tolerance of a tenth would not let pass."""
    path = SHARED / "data/scene0061_trajectory/ego_poses.json"
    if not path.exists():
        pytest.skip(f"no real trajectory: {path.name} is not here")
    frames = json.loads(path.read_text())["keyframes"]
    policy = KeyframePolicy()
    for number, entry in enumerate(frames):
        taken = dataclasses.replace(
            frame(0.0, np.array(entry["ego2global"])),
            stamp=entry["cam_front_timestamp_us"] * 1000,
        )
        decision = policy.plan(taken)
        assert decision.is_keyframe
        assert (decision.keyframe is None) == (number == 0)
        policy.update(taken)
    assert policy.resets == {rules.FIRST_FRAME: 1}


def test_frames_between_key_frames_use_the_last_one_and_leave_it_alone() -> None:
    policy = KeyframePolicy()
    for k in range(13):
        taken = frame(k / 12)
        decision = policy.plan(taken)
        if k:
            assert decision.keyframe.stamp == at((k - 1) // 6 * 0.5)
            assert decision.elapsed_ns == taken.stamp - decision.keyframe.stamp
            assert decision.reset == ""
        else:
            assert (decision.keyframe, decision.elapsed_ns) == (None, 0)
            assert decision.reset == rules.FIRST_FRAME
        policy.update(taken)
    assert policy.keyframe.stamp == at(1.0)


@pytest.mark.parametrize("rate", [2, 4, 5, 8, 10, 12, 20, 30])
def test_every_frame_is_compared_with_one_an_interval_ago(rate: int) -> None:
    """Exactly with the key frame before if it is one, and nearly so between key frames."""
    policy = KeyframePolicy()
    # Glances lie up to an eighth of a second and half a period apart; half of that is the error.
    nearest = (0.5 / 4 + 0.5 / rate) / 2 + 1e-6
    for k in range(5 * rate):
        taken = frame(k / rate)
        key = policy.keyframe
        decision = policy.plan(taken)
        if decision.is_keyframe:
            assert (decision.reference and decision.reference.stamp) == (key and key.stamp)
        elif k / rate >= 0.5:
            assert abs((taken.stamp - decision.reference.stamp) / SECOND - 0.5) <= nearest
        policy.update(taken)
        assert len(policy.references) <= 4 + 2
    policy.reset()
    assert policy.references == ()
    assert policy.plan(frame(60.0)).reference is None


def test_what_is_foreseen_is_what_is_decided_and_nothing_is_noted() -> None:
    watched, alone, taken = KeyframePolicy(), KeyframePolicy(), frame(0.0)
    for number in range(1, 30):
        for other in (frame(0.1 * number + 0.01), frame(0.0), frame(9.0)):
            watched.foresee(other)  # none of them comes
        foreseen, decided = watched.foresee(taken), watched.plan(taken)
        assert foreseen == decided
        expected = alone.plan(taken)
        for name in ("is_keyframe", "slot", "reset", "elapsed_ns"):
            assert getattr(decided, name) == getattr(expected, name)
        for policy in (watched, alone):
            policy.update(taken)
        taken = frame(0.1 * number + (0.03 if number % 7 == 0 else 0.0))
    assert watched.resets == alone.resets == {rules.FIRST_FRAME: 1}


def test_the_same_stamp_again_is_no_key_frame_and_resets_nothing() -> None:
    policy = started()
    again = frame(1.0, pose(500.0))
    decision = policy.plan(again)
    assert not decision.is_keyframe
    assert decision.keyframe.stamp == again.stamp
    assert decision.elapsed_ns == 0
    policy.update(again)
    assert policy.keyframe.map_T_base[0, 3] == 10.0  # as it was, not where the second one is
    assert policy.plan(frame(1.5)).is_keyframe
    assert policy.resets == {rules.FIRST_FRAME: 1}


def test_a_key_frame_knows_where_every_camera_was() -> None:
    policy = KeyframePolicy()
    taken = frame(0.0, without=("cam_back",), map_frame="world")
    policy.plan(taken)
    policy.update(taken)
    key = policy.keyframe
    assert key.map_T_camera.shape == (6, 4, 4)
    assert key.missing == {"cam_back"}
    assert key.frames == ("world", "base_link")
    for i, camera in enumerate(CAMERAS):
        base = taken.map_T_base_at.get(camera, taken.map_T_base)
        np.testing.assert_allclose(key.map_T_camera[i], base @ RIG[camera].base_T_camera)


# Slots of the stream's state -----------------------------------------------------------------

# Frames that are kept lie at least a sixth of an interval apart (a quarter, less half a period, and
# a period at least), key frames whenever they come: seven in an interval, one more before it, the
# key frame, and the frame that is being planned.
MOST_SLOTS = 10


def check_slot(policy: KeyframePolicy, decision: FrameDecision) -> None:
    """A frame writes neither where it looks nor where somebody may look later."""
    kept = [*policy.references] + [policy.keyframe] * (policy.keyframe is not None)
    assert decision.slot not in {past.slot for past in kept}
    if decision.keyframe is None:
        assert decision.reference is None and not kept
        return
    assert decision.keyframe is policy.keyframe
    assert any(decision.reference is past for past in kept)
    # What two different frames left lies in two different slots.
    assert len({past.slot for past in kept}) == len({past.stamp for past in kept})
    # Of a key frame that was run, everything that is looked at was.
    assert decision.reference.ran or not decision.keyframe.ran


@pytest.mark.parametrize("rate", [2, 4, 5, 10, 12, 20, 30, 60])
def test_slots_stay_few_over_thousands_of_frames(rate: int) -> None:
    policy, used = KeyframePolicy(), set()
    for k in range(2000):
        taken = frame(k / rate)
        decision = policy.plan(taken)
        check_slot(policy, decision)
        used.add(decision.slot)
        policy.update(taken)
    assert max(used) < MOST_SLOTS and len(used) == max(used) + 1
    assert policy.resets == {rules.FIRST_FRAME: 1}


# Bursts, pauses, the same stamp again, and a stamp that goes back now and then, in ms.
PERIODS = st.one_of(
    st.sampled_from([0, 0, 1, 33, 83, 100, 125, 250, 500, 700]),
    st.integers(0, 900),
    st.sampled_from([-50, 2500]),
)


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.tuples(PERIODS, st.sampled_from("uuuunf")), min_size=1, max_size=25),
    st.integers(1, 12),
)
def test_slots_stay_few_and_apart_whatever_comes(
    steps: list[tuple[int, str]], repeats: int
) -> None:
    """u: updated; n: updated without having been run; f: the network failed."""
    policy, ms = KeyframePolicy(), 0
    for step, what in steps * repeats:
        ms += step
        taken = frame(ms / 1000)
        decision = policy.plan(taken)
        check_slot(policy, decision)
        assert decision.slot < MOST_SLOTS
        if what != "f":
            policy.update(taken, ran=what == "u")


@pytest.mark.parametrize("rate", [2, 4, 12])
def test_a_frame_that_comes_again_and_again_takes_no_more_slots(rate: int) -> None:
    policy = KeyframePolicy()
    key_frames(policy, [k / rate for k in range(3 * rate)])
    for _ in range(50):
        again = frame(3.0 - 1 / rate)
        decision = policy.plan(again)
        check_slot(policy, decision)
        assert decision.slot < MOST_SLOTS
        policy.update(again)


def test_what_is_kept_says_where_it_is_and_whether_it_was_run() -> None:
    policy = KeyframePolicy()
    for k in range(30):
        taken = frame(k / 10)
        slot = policy.plan(taken).slot
        policy.update(taken, ran=k % 3 > 0)
        newest = policy.references[-1]
        assert isinstance(newest, PastFrame)
        if newest.stamp == taken.stamp:
            assert (newest.slot, newest.ran) == (slot, k % 3 > 0)
        if policy.keyframe.stamp == taken.stamp:
            assert policy.keyframe == newest


@pytest.mark.parametrize("rate", [2, 10, 12, 30])
def test_a_frame_that_was_not_run_is_never_looked_at(rate: int) -> None:
    """Of an interrupted job the first frames are only counted (bags/job.py)."""
    policy = KeyframePolicy()
    ages = torch.zeros(1, ALOCC_TINY.history)
    ran: dict[int, int] = {}  # slot to the stamp of the last frame that was run and wrote there
    for k in range(6 * rate):
        taken = frame(k / rate)
        runs = k % rate > rate // 3 or k % (2 * rate) == 0
        decision = policy.plan(taken)
        plan = plan_frame(taken, decision, ALOCC_TINY, ages)
        if not plan.first:
            assert decision.keyframe.ran and decision.reference.ran
            assert plan.reference == decision.reference.slot
            assert ran[plan.reference] == decision.reference.stamp
        else:
            assert decision.keyframe is None or not decision.keyframe.ran
        assert plan.slot == decision.slot and plan.keyframe == decision.is_keyframe
        if runs:
            ran[plan.slot] = taken.stamp
        policy.update(taken, ran=runs)


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
def test_a_past_that_does_not_fit_is_thrown_away_for_a_counted_reason(
    next_frame: FrameSet, reason: str
) -> None:
    policy = started()
    decision = policy.plan(next_frame)
    assert decision == FrameDecision(None, None, True, slot=0, reset=reason, elapsed_ns=0)
    assert policy.resets == {rules.FIRST_FRAME: 1, reason: 1}
    policy.update(next_frame)
    assert policy.keyframe.stamp == next_frame.stamp


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
def test_what_stays_within_the_bounds_keeps_the_past(next_frame: FrameSet) -> None:
    policy = started()
    assert policy.plan(next_frame).keyframe is not None
    assert policy.resets == {rules.FIRST_FRAME: 1}


def test_a_bag_that_loops_with_growing_stamps_is_a_teleport() -> None:
    """The player stamps with the wall clock; only the pose tells that the scene began anew."""
    policy = KeyframePolicy()
    for k in range(40):
        taken = frame(0.1 * k, pose(0.8 * (k % 20)))
        policy.plan(taken)
        policy.update(taken)
    assert policy.resets == {rules.FIRST_FRAME: 1, rules.TELEPORT: 1}


def test_a_reset_on_request_is_told_to_the_next_frame_only() -> None:
    policy = started()
    policy.reset()
    taken = frame(1.5)
    assert policy.plan(taken).reset == rules.MANUAL
    policy.update(taken)
    assert policy.plan(frame(2.0)).reset == ""
    assert policy.resets[rules.MANUAL] == 1
    with pytest.raises(ParameterError, match="'because' is no reason"):
        policy.reset("because")


# When the network fails ---------------------------------------------------------------------


def test_a_frame_without_update_leaves_the_key_frame_as_it_was() -> None:
    policy = started()
    assert policy.plan(frame(1.5)).is_keyframe
    taken = frame(1.6)
    decision = policy.plan(taken)
    assert decision.keyframe.stamp == at(1.0)
    assert decision.is_keyframe
    policy.update(taken)
    assert policy.keyframe.stamp == taken.stamp


def test_the_reason_for_an_empty_past_is_repeated_until_there_is_one_and_counted_once() -> None:
    policy = started()
    for stamp in (0.1, 0.2, 0.3):
        decision = policy.plan(frame(stamp))
        assert (decision.keyframe, decision.is_keyframe, decision.reset) == (
            None,
            True,
            rules.BACKWARD_STAMP,
        )
    assert policy.resets[rules.BACKWARD_STAMP] == 1


def test_a_failed_frame_can_be_tried_again() -> None:
    policy = started()
    taken = frame(1.5)
    assert policy.plan(taken).is_keyframe
    assert policy.plan(taken).is_keyframe
    policy.update(taken)
    assert policy.keyframe.stamp == taken.stamp


def test_update_needs_its_own_plan() -> None:
    policy = started()
    with pytest.raises(TemporalMemoryError, match="not the last one planned"):
        policy.update(frame(1.5))
    first = frame(1.5)
    policy.plan(first)
    policy.plan(frame(1.6))
    with pytest.raises(TemporalMemoryError):
        policy.update(first)
    second = frame(1.7)
    policy.plan(second)
    policy.update(second)
    with pytest.raises(TemporalMemoryError):
        policy.update(second)
    policy.plan(third := frame(1.8))
    policy.reset()
    with pytest.raises(TemporalMemoryError):
        policy.update(third)


def test_poses_that_are_none_and_cameras_without_calibration_are_refused() -> None:
    policy = started()
    with pytest.raises(PoseError, match="base_link in map: the pose holds NaN"):
        policy.plan(frame(1.5, np.full((4, 4), np.nan)))
    assert policy.plan(frame(1.5)).keyframe is not None
    with pytest.raises(CalibrationError, match="cam_up"):
        map_T_camera(frame(1.5), (*CAMERAS, "cam_up"))


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.tuples(st.integers(-200, 900), st.booleans(), st.floats(-30, 30)),
        max_size=60,
    )
)
def test_whatever_comes_the_past_is_one_that_fits(steps: list[tuple[int, bool, float]]) -> None:
    policy = KeyframePolicy()
    ms, x = 0, 0.0
    for step, fails, move in steps:
        ms, x = ms + step, x + move
        taken = frame(ms / 1000, pose(x))
        resets = policy.resets.total()
        decision = policy.plan(taken)
        assert (decision.keyframe is None) == bool(decision.reset)
        assert decision.is_keyframe or decision.keyframe is not None
        assert policy.resets.total() - resets in (0, 1)
        if decision.keyframe is not None:
            assert 0 <= decision.elapsed_ns <= policy.settings.max_gap_ns
            assert decision.keyframe.stamp + decision.elapsed_ns == taken.stamp
            interval, tolerance = policy.settings.interval_ns, policy.settings.tolerance
            assert decision.is_keyframe or decision.elapsed_ns < interval
            assert not decision.is_keyframe or decision.elapsed_ns >= (1 - tolerance) * interval
        if not fails:
            policy.update(taken)
            assert (policy.keyframe.stamp == taken.stamp) == (
                decision.is_keyframe or decision.elapsed_ns == 0
            )
    assert set(policy.resets) <= set(rules.RESET_REASONS)


@pytest.mark.parametrize(
    "settings_",
    [
        {"interval_ns": 0},
        {"references": 0},
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
        KeyframeSettings(**settings_)
