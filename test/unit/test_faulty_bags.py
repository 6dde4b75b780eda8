# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Recordings with faults: a fault in one message changes only the sets that need that message."""

from __future__ import annotations

import copy
import dataclasses
import io
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mcap.writer import Writer as McapWriter
from test_bag_reader import SECOND, TF_TYPE, Event, bag_a, mcap_bytes, mounts, transforms

from alocc_ros.bags import sample
from alocc_ros.bags.frames import FrameSource
from alocc_ros.bags.reader import Bag
from alocc_ros.errors import AloccError, BagError, PoseError, StampError
from alocc_ros.geometry import inverse
from alocc_ros.stream.preset import load_preset
from alocc_ros.stream.skips import Skips
from alocc_ros.types import CAMERAS, FrameSet

PRESET = load_preset("nuscenes")
EVENTS = bag_a()
IMAGE = [i for i, event in enumerate(EVENTS) if "image" in event[0]]
INFO = [i for i, event in enumerate(EVENTS) if event[0].endswith("camera_info")]
TF = [i for i, event in enumerate(EVENTS) if event[0] == "/tf"]
TOPICS = sorted({event[0] for event in EVENTS})


class Read:
    """What came of a bag."""

    def __init__(self, path: Path, events: list[Event], *, strict: bool = False) -> None:
        path.write_bytes(mcap_bytes(events, chunk_size=4000))
        self.said: list[str] = []
        with Bag(path) as bag:
            source = FrameSource(bag, PRESET, skips=Skips(self.said.append, strict=strict))
            self.frames = list(source)
            self.skips, self.warnings = dict(source.skips.counts), source.warnings


def key(frame: FrameSet) -> tuple[object, ...]:
    """Everything of a frame set that the network sees."""
    return (
        frame.stamp,
        {c: (i.stamp, bytes(i.data), i.encoding) for c, i in frame.images.items()},
        frame.map_T_base.tobytes(),
        {c: pose.tobytes() for c, pose in frame.map_T_base_at.items()},
        {
            c: (k.width, k.height, k.intrinsics.tobytes(), k.base_T_camera.tobytes())
            for c, k in frame.calibration.items()
        },
    )


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> list[FrameSet]:
    read = Read(tmp_path_factory.mktemp("clean") / "bag.mcap", EVENTS)
    assert (read.skips, read.warnings, read.said) == ({}, [], [])
    assert len(read.frames) == 12 and not any(frame.missing for frame in read.frames)
    return read.frames


def changed(index: int, change: Callable[[object], object]) -> list[Event]:
    """The events with one message changed."""
    topic, kind, log_time, message = EVENTS[index]
    message = copy.deepcopy(message)
    change(message)
    return [*EVENTS[:index], (topic, kind, log_time, message), *EVENTS[index + 1 :]]


def zero_stamp(message: object) -> None:
    message.header.stamp.sec = message.header.stamp.nanosec = 0


def negative_stamp(message: object) -> None:
    message.header.stamp.sec = -5


def no_nanoseconds(message: object) -> None:
    message.header.stamp.nanosec = 4_000_000_000


def differ(one: list[FrameSet], other: list[FrameSet]) -> list[int]:
    """Stamps of the sets that are in one list only."""
    a, b = ({frame.stamp: key(frame) for frame in frames} for frames in (one, other))
    return sorted(stamp for stamp in a.keys() | b.keys() if a.get(stamp) != b.get(stamp))


# --- images ----------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [0, 1, 30, len(IMAGE) - 1])
@pytest.mark.parametrize("change", [zero_stamp, negative_stamp, no_nanoseconds])
def test_an_image_without_a_stamp_costs_that_image(tmp_path, clean, number, change):
    index = IMAGE[number]
    read = Read(tmp_path / "bag.mcap", changed(index, change))
    stamp = EVENTS[index][3].header.stamp
    true = stamp.sec * SECOND + stamp.nanosec
    wrong = differ(read.frames, clean)
    assert all(abs(true - stamp) < 0.06 * SECOND for stamp in wrong) and 1 <= len(wrong) <= 2
    assert read.skips == {f"{EVENTS[index][0]}: stamp is zero or negative": 1}
    assert len(read.said) == 1
    with pytest.raises(BagError, match="stamp is zero or negative"):
        Read(tmp_path / "bag.mcap", changed(index, change), strict=True)


def test_a_topic_without_any_stamp_is_refused_with_the_way_out(tmp_path):
    events = copy.deepcopy(EVENTS)
    for topic, _, _, message in events:
        if topic == "/CAM_BACK/image_rect_compressed":
            zero_stamp(message)
    with pytest.raises(StampError, match=r"all images on /CAM_BACK/.* `stamp_source: receive`"):
        Read(tmp_path / "bag.mcap", events)


# --- transforms and calibration --------------------------------------------------------------


def broken_transform(how: str) -> Callable[[object], None]:
    def change(message: object) -> None:
        for entry in message.transforms:
            if how == "NaN":
                entry.transform.translation.y = float("nan")
            elif how == "zero quaternion":
                rotation = entry.transform.rotation
                rotation.x = rotation.y = rotation.z = rotation.w = 0.0
            elif how == "zero stamp":
                entry.header.stamp.sec = entry.header.stamp.nanosec = 0
            else:
                entry.child_frame_id = entry.header.frame_id

    return change


@pytest.mark.parametrize("how", ["NaN", "zero quaternion", "zero stamp", "in itself"])
def test_one_broken_transform_is_left_out(tmp_path, clean, how):
    extra = copy.deepcopy(EVENTS[TF[1]])
    broken_transform(how)(extra[3])
    read = Read(tmp_path / "bag.mcap", [*EVENTS, extra])
    assert differ(read.frames, clean) == []
    assert all(kind.startswith("/tf: transform of ") for kind in read.skips)
    assert len(read.said) == len(read.skips) > 1
    assert sum(read.skips.values()) == len(extra[3].transforms)
    with pytest.raises(BagError, match=r"/tf: transform of"):
        Read(tmp_path / "bag.mcap", [*EVENTS, extra], strict=True)


def test_a_link_with_nothing_but_broken_transforms_is_refused(tmp_path):
    events = copy.deepcopy(EVENTS)
    for topic, _, _, message in events:
        if topic == "/tf":
            broken_transform("NaN")(message)
    with pytest.raises(PoseError, match="pose is not finite"):
        Read(tmp_path / "bag.mcap", events)


def test_one_impossible_camera_info_is_left_out(tmp_path, clean):
    def change(message: object) -> None:
        message.k = np.full(9, np.nan)

    for number in (0, 3, len(INFO) - 1):
        read = Read(tmp_path / "bag.mcap", changed(INFO[number], change))
        assert differ(read.frames, clean) == []
        assert list(read.skips) == [f"{EVENTS[INFO[number]][0]}: CameraInfo cannot be used"]


def localised(step: int, *, offset: int = 0, last: int | None = None) -> list[Event]:
    """odom -> base_link at 50 Hz; map -> odom, a constant drift, every ``step`` ms."""
    drift = np.eye(4)
    drift[:3, 3] = (5.0, -2.0, 0.0)
    events = [event for event in EVENTS if event[0] != "/tf"]
    mounted = transforms(sample.START, mounts())
    events.append(("/tf_static", TF_TYPE, sample.START, mounted))
    for ms in range(-100, 1200, 20):
        stamp = sample.START + ms * 1_000_000
        pose = inverse(drift) @ sample.ego_pose(stamp)
        events.append(("/tf", TF_TYPE, stamp, transforms(stamp, [("odom", "base_link", pose)])))
    for ms in range(-100, 1200 if last is None else last, step):
        stamp = sample.START + ms * 1_000_000
        link = transforms(stamp + offset, [("map", "odom", drift)])
        events.append(("/tf", TF_TYPE, stamp, link))
    return events


@pytest.mark.parametrize(
    "options",
    [(20,), (700,), (1250,), (2000,)],
    ids=["fast", "interpolated", "seldom", "once"],
)
def test_a_slow_localisation_is_held_between_its_transforms(tmp_path, options):
    read = Read(tmp_path / "bag.mcap", localised(*options))
    assert len(read.frames) == 12
    for frame in read.frames:
        assert not frame.missing
        np.testing.assert_allclose(frame.map_T_base, sample.ego_pose(frame.stamp), atol=1e-3)
    held = [warning for warning in read.warnings if "odom in map comes too seldom" in warning]
    assert len(held) == (options[0] > 20)


def test_transforms_dated_into_the_future_do_for_a_slow_link(tmp_path):
    read = Read(tmp_path / "bag.mcap", localised(100, offset=50_000_000))
    assert len(read.frames) == 12 and not any(frame.missing for frame in read.frames)


def test_a_slow_link_is_held_as_long_as_the_preset_says(tmp_path):
    preset = dataclasses.replace(PRESET, pose_hold_s=0.5)
    path = tmp_path / "bag.mcap"
    path.write_bytes(mcap_bytes(localised(200, last=150)))
    with Bag(path) as bag:
        source = FrameSource(bag, preset)
        stamps = [frame.stamp for frame in source]
    assert 0.5 * SECOND < max(stamps) - sample.START < 0.6 * SECOND
    assert "odom in map" in source.no_pose and "pose_hold_s in the preset" in source.no_pose


def test_transforms_in_a_namespace_are_named_and_can_be_read(tmp_path, clean):
    events = [(t.replace("/tf", "/ego/tf"), k, at, m) for t, k, at, m in EVENTS]
    says = r"transforms on /ego/tf as well: tf_topics: \[/ego/tf\] in a preset of your own"
    with pytest.raises(AloccError, match=says):
        Read(tmp_path / "bag.mcap", events)
    preset = dataclasses.replace(PRESET, tf_topics=("ego/tf",))
    with Bag(tmp_path / "bag.mcap") as bag:
        assert differ(list(FrameSource(bag, preset)), clean) == []


@pytest.mark.parametrize("instead", [True, False], ids=["in place of images", "elsewhere"])
def test_video_is_named_with_what_to_do(tmp_path, monkeypatch, instead):
    monkeypatch.setitem(sys.modules, "av", None)  # as if it were not installed
    buffer = io.BytesIO()
    writer = McapWriter(buffer)
    writer.start("ros2")
    kind = "ffmpeg_image_transport_msgs/msg/FFMPEGPacket"
    schema = writer.register_schema(kind, "ros2msg", b"")
    for camera, topics in PRESET.used_cameras.items():
        channel = writer.register_channel(
            topics.image if instead else f"/{camera}/ffmpeg", "cdr", schema
        )
        writer.add_message(channel, 1, b"\x00\x01\x00\x00", 1)
    writer.finish()
    (tmp_path / "bag.mcap").write_bytes(buffer.getvalue())
    with (
        Bag(tmp_path / "bag.mcap") as bag,
        pytest.raises(BagError, match="FFMPEGPacket.*republish"),
    ):
        FrameSource(bag, PRESET)


# --- order -----------------------------------------------------------------------------------


def by_topic(gap: int) -> list[Event]:
    """As a converter writes it: one topic after the other, logged at the time of conversion."""
    ordered = sorted(EVENTS, key=lambda event: (event[0], event[2]))
    now = 1_780_000_000 * SECOND
    return [
        (topic, kind, now + n * gap, message) for n, (topic, kind, _, message) in enumerate(ordered)
    ]


@pytest.mark.parametrize("gap", [0, 1, 1_000_000, 100_000_000, SECOND])
def test_topics_written_one_after_the_other_give_the_same_sets(tmp_path, clean, gap):
    read = Read(tmp_path / "bag.mcap", by_topic(gap))
    assert differ(read.frames, clean) == []
    assert read.warnings == []


@pytest.mark.parametrize(
    "log_time",
    [
        lambda t: 0,
        lambda t: t // 1000,
        lambda t: t // SECOND,
        lambda t: 2**63 - 1 - SECOND * 100 + (t - sample.START),
        lambda t: t + int(0.1 * SECOND * np.sin(t)),
    ],
    ids=["zero", "microseconds", "seconds", "far future", "jitter"],
)
def test_odd_log_times_change_nothing(tmp_path, clean, log_time):
    events = [(topic, kind, log_time(t), message) for topic, kind, t, message in EVENTS]
    read = Read(tmp_path / "bag.mcap", events)
    assert differ(read.frames, clean) == []


@pytest.mark.parametrize("log_time", [0, 1, 2**63 + 5, 2**64 - 1000])
def test_one_message_logged_before_1970_changes_nothing(tmp_path, clean, log_time):
    for index in (IMAGE[0], IMAGE[31], TF[0], INFO[3]):
        topic, kind, _, message = EVENTS[index]
        events = [*EVENTS[:index], (topic, kind, log_time, message), *EVENTS[index + 1 :]]
        assert differ(Read(tmp_path / "bag.mcap", events).frames, clean) == []


def test_disorder_that_is_too_large_is_said_once_with_the_topic(tmp_path):
    def late(topic: str, t: int) -> int:
        # In step at first, then a second behind.
        slow = topic == "/CAM_BACK/image_rect_compressed" and t > sample.START + SECOND // 2
        return t + SECOND if slow else t

    events = [(topic, kind, late(topic, t), message) for topic, kind, t, message in EVENTS]
    read = Read(tmp_path / "bag.mcap", events)
    assert len(read.warnings) == 1
    assert "/CAM_BACK/image_rect_compressed" in read.warnings[0] and " s after" in read.warnings[0]


def test_a_bag_that_loops_gives_both_laps(tmp_path, clean):
    lap = [(topic, kind, t + 2 * SECOND, message) for topic, kind, t, message in EVENTS]
    read = Read(tmp_path / "bag.mcap", EVENTS + lap)
    assert [f.stamp for f in read.frames] == 2 * [f.stamp for f in clean]
    assert [key(f) for f in read.frames] == 2 * [key(f) for f in clean]


# --- any fault -------------------------------------------------------------------------------


class Bagful(list):
    """Events, too many to be printed."""

    def __repr__(self) -> str:
        return f"<{len(self)} events>"


@st.composite
def faults(draw: st.DrawFn) -> tuple[list[Event], list[int]]:
    """A bag with a few faults, and the true stamps of the images that they touch."""
    events, touched = list(EVENTS), []
    for _ in range(draw(st.integers(1, 3))):
        what = draw(
            st.sampled_from(
                ["drop", "zero stamp", "cut", "twice", "swap", "log time", "NaN", "bytes"]
            )
        )
        index = draw(st.sampled_from(TF if what == "NaN" else IMAGE))
        topic, kind, log_time, message = EVENTS[index]
        if kind.endswith("Image"):
            stamp = message.header.stamp.sec * SECOND + message.header.stamp.nanosec
            if what in ("drop", "zero stamp", "cut", "bytes"):
                touched.append(stamp)
        message = copy.deepcopy(message)
        if what == "drop":
            events[index] = None
        elif what == "zero stamp":
            zero_stamp(message)
            events[index] = (topic, kind, log_time, message)
        elif what == "cut":
            message.data = message.data[: draw(st.integers(0, len(message.data) - 1))]
            events[index] = (topic, kind, log_time, message)
        elif what == "bytes":
            message.data = message.data[:0]
            message.header.frame_id = "x" * draw(st.integers(0, 50))
            events[index] = (topic, kind, log_time, message)
        elif what == "twice":
            events.append((topic, kind, log_time + draw(st.integers(0, 10**7)), message))
        elif what == "swap":
            events[index] = (topic, kind, log_time + draw(st.integers(-(10**8), 10**8)), message)
        elif what == "log time":
            events[index] = (topic, kind, draw(st.sampled_from([0, 2**64 - 1])), message)
        else:
            broken_transform("NaN")(message)
            events.append((topic, kind, log_time, message))
    return Bagful(event for event in events if event is not None), touched


@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(fault=faults())
def test_a_fault_changes_only_the_sets_that_need_its_message(tmp_path, clean, fault):
    events, touched = fault
    try:
        read = Read(tmp_path / "bag.mcap", events)
    except AloccError as error:
        pytest.fail(f"refused: {error}")
    near = 0.06 * SECOND
    for stamp in differ(read.frames, clean):
        assert any(abs(stamp - image) < near for image in touched), (stamp, touched)
    assert {camera for frame in read.frames for camera in frame.images} == set(CAMERAS)


def test_the_topics_of_the_generated_bags_are_those_of_the_preset():
    assert {t.image for t in PRESET.used_cameras.values()} <= set(TOPICS)
