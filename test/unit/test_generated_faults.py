# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Two thousand recordings with generated faults: no traceback, no silent difference.

Compared are frame sets, byte for byte: images, stamps, poses, calibrations are all that a network
gets, and its answer is a function of them and of the frame sets before. Some of the recordings go
through a network as well, which shows that nothing else reaches it.
"""

from __future__ import annotations

import copy
import dataclasses
import io
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from mcap.writer import Writer as McapWriter
from small_networks import network_of, small
from test_bag_reader import CYCLE, SECOND, bag_a
from test_faulty_bags import key

from alocc_ros import records
from alocc_ros.bags import cdr, sample
from alocc_ros.bags.frames import FrameSource
from alocc_ros.bags.reader import Bag
from alocc_ros.errors import BagError, ImageError
from alocc_ros.pipeline import Pipeline
from alocc_ros.stream.decoding import decode
from alocc_ros.stream.preprocessing import without_damaged
from alocc_ros.stream.preset import load_preset
from alocc_ros.stream.skips import Skips
from alocc_ros.types import FrameSet

BAGS, CHUNKS = 2000, 8
NETWORK_EVERY = 100  # of the bags go through a network
PRESET = load_preset("nuscenes")
NEAR = 60_000_000  # ns; images of a set are closer together
# topic, type, log time, message: five frames.
EVENTS = [e for e in bag_a() if e[0] == "/tf" or e[2] < sample.START + 5 * CYCLE]
IMAGES = [i for i, event in enumerate(EVENTS) if "image" in event[0]]
INFOS = [i for i, event in enumerate(EVENTS) if event[0].endswith("camera_info")]
TF = [i for i, event in enumerate(EVENTS) if event[0] == "/tf"]
KINDS = {event[0]: event[1] for event in EVENTS}
DEFINITIONS = {kind: cdr.definition(kind).encode() for kind in set(KINDS.values())}


@dataclasses.dataclass
class Faulty:
    """A recording that is being spoiled.

    Attributes:
        messages: (topic, log time, CDR); None: dropped.
        touched: true stamps (ns) of the images that are not what they were.
        unusable: how many messages no reader can use.
        files: how many files the recording has.
        metadata: of a folder: what is done to metadata.yaml.
        faults: what was done, in words.
    """

    messages: list[tuple[str, int, bytes] | None]
    touched: list[int] = dataclasses.field(default_factory=list)
    unusable: int = 0
    files: int = 1
    metadata: str = ""
    faults: list[str] = dataclasses.field(default_factory=list)

    def write(self, folder: Path) -> Path:
        """The recording, as one file or as a folder."""
        messages = [m for m in self.messages if m is not None]
        if self.files == 1 and not self.metadata:
            return _write_file(folder / "bag.mcap", messages)
        bag = folder / "bag"
        bag.mkdir()
        messages.sort(key=lambda m: m[1])
        size = -(-len(messages) // self.files)
        parts = [messages[i : i + size] for i in range(0, len(messages), size)]
        names = [_write_file(bag / f"bag_{i}.mcap", part).name for i, part in enumerate(parts)]
        _write_metadata(bag / "metadata.yaml", names, self.metadata)
        return bag


def _write_file(path: Path, messages: list[tuple[str, int, bytes]]) -> Path:
    buffer, channels = io.BytesIO(), {}
    writer = McapWriter(buffer, chunk_size=8000)
    writer.start("ros2")
    for topic, log_time, data in messages:
        if topic not in channels:
            kind = KINDS[topic]
            schema = writer.register_schema(kind, "ros2msg", DEFINITIONS[kind])
            channels[topic] = writer.register_channel(topic, "cdr", schema)
        writer.add_message(channels[topic], log_time, data, log_time)
    writer.finish()
    path.write_bytes(buffer.getvalue())
    return path


def _write_metadata(path: Path, names: list[str], what: str) -> None:
    listed = {"reversed": names[::-1], "one is not listed": names[:-1] or names}.get(what, names)
    if what == "lists a file that is gone":
        listed = [*names, "bag_99.mcap"]
    topics = [
        {
            "topic_metadata": {
                "name": topic,
                "type": kind,
                "serialization_format": "cdr",
                "offered_qos_profiles": "- durability: 7" if what == "other QoS" else "",
            },
            "message_count": 1 if what == "other counts" else 12,
        }
        for topic, kind in KINDS.items()
    ]
    information = {
        "version": 99 if what == "a later version" else 5,
        "storage_identifier": "" if what == "no storage" else "mcap",
        "relative_file_paths": listed,
        "duration": {"nanoseconds": 1},
        "starting_time": {"nanoseconds_since_epoch": 0},
        "message_count": 1,
        "topics_with_message_count": [] if what == "no topics" else topics,
        "compression_format": "",
        "compression_mode": "",
    }
    text = "rosbag2_bagfile_information: [" if what == "cut" else ""
    if what != "there is none":
        path.write_text(text or yaml.safe_dump({"rosbag2_bagfile_information": information}))


METADATA = (
    *("reversed", "one is not listed", "lists a file that is gone", "other QoS", "other counts"),
    *("a later version", "no storage", "no topics", "cut", "there is none"),
)


# --- faults: each changes the recording and says which images it costs ---------------------------


def _stamp(index: int) -> int:
    stamp = EVENTS[index][3].header.stamp
    return stamp.sec * SECOND + stamp.nanosec


def _changed(index: int, change: Callable[[object], object]) -> tuple[str, int, bytes]:
    topic, kind, log_time, message = EVENTS[index]
    message = copy.deepcopy(message)
    change(message)
    return topic, log_time, bytes(cdr.TYPESTORE.serialize_cdr(message, kind))


def _set(path: str, value: object) -> Callable[[object], object]:
    *places, last = path.split(".")

    def change(message: object) -> None:
        for place in places:
            message = message[int(place)] if place.isdigit() else getattr(message, place)
        setattr(message, last, value)

    return change


def drop_image(bag: Faulty, random: np.random.Generator) -> None:
    index = int(random.choice(IMAGES))
    bag.messages[index] = None
    bag.touched.append(_stamp(index))


def stamp_of_an_image(bag: Faulty, random: np.random.Generator) -> None:
    index = int(random.choice(IMAGES))
    change = [
        lambda m: (_set("header.stamp.sec", 0)(m), _set("header.stamp.nanosec", 0)(m)),
        _set("header.stamp.sec", -7),
        _set("header.stamp.nanosec", 3_999_999_999),
        lambda m: _set("header.stamp.sec", m.header.stamp.sec + 1_000_000)(m),
        lambda m: _set("header.stamp.sec", m.header.stamp.sec - 1_000_000)(m),
    ][int(random.integers(5))]
    bag.messages[index] = _changed(index, change)
    bag.touched.append(_stamp(index))


def cut_image(bag: Faulty, random: np.random.Generator) -> None:
    index = int(random.choice(IMAGES))
    data = EVENTS[index][3].data
    length = int(random.integers(0, len(data)))
    bag.messages[index] = _changed(index, _set("data", data[:length]))
    bag.touched.append(_stamp(index))


def no_picture(bag: Faulty, random: np.random.Generator) -> None:
    index = int(random.choice(IMAGES))
    noise = random.integers(0, 256, int(random.integers(1, 400)), dtype=np.uint8)
    bag.messages[index] = _changed(index, _set("data", noise))
    bag.touched.append(_stamp(index))


def other_size(bag: Faulty, random: np.random.Generator) -> None:
    index = int(random.choice(IMAGES))
    picture = np.frombuffer(sample.jpeg(np.zeros((30, 50, 3), np.uint8)), np.uint8)
    bag.messages[index] = _changed(index, _set("data", picture))
    bag.touched.append(_stamp(index))


def cut_message(bag: Faulty, random: np.random.Generator) -> None:
    index = int(random.choice([*IMAGES, *INFOS]))
    topic, log_time, data = bag.messages[index] or _changed(index, lambda m: None)
    bag.messages[index] = topic, log_time, data[: int(random.integers(0, 20))]
    bag.touched += [_stamp(index)] if index in IMAGES else []


def bad_camera_info(bag: Faulty, random: np.random.Generator) -> None:
    index = int(random.choice(INFOS))
    k = np.array(EVENTS[index][3].k)
    k[int(random.choice([0, 2, 4, 5]))] = random.choice([np.nan, np.inf, 1e300, -1e300])
    bag.messages[index] = _changed(index, _set("k", k))


def bad_transform(bag: Faulty, random: np.random.Generator) -> None:
    """One more, beside those that are right."""
    index = int(random.choice(TF))
    place, value = [
        ("translation.x", float("nan")),
        ("rotation.w", float("nan")),
        ("rotation.x", float("inf")),
    ][int(random.integers(3))]
    change = _set(f"transforms.0.transform.{place}", value)
    topic, log_time, data = _changed(index, change)
    bag.messages.append((topic, log_time + int(random.integers(-(10**7), 10**7)), data))


def twice(bag: Faulty, random: np.random.Generator) -> None:
    """Loop-back of a recorder: the same message again, soon after."""
    index = int(random.integers(len(EVENTS)))
    if (message := bag.messages[index]) is not None and message[0] != "/tf":
        topic, log_time, data = message
        bag.messages.append((topic, log_time + int(random.integers(0, 10**7)), data))


def late(bag: Faulty, random: np.random.Generator) -> None:
    index = int(random.choice(IMAGES))
    if (message := bag.messages[index]) is not None:
        topic, log_time, data = message
        shift = int(random.integers(-(10**8), 10**8))
        bag.messages[index] = topic, log_time + shift, data


def log_time_of_another_age(bag: Faulty, random: np.random.Generator) -> None:
    """Such an image may come too late for its set, which then says that it lacks it."""
    index = int(random.integers(len(EVENTS)))
    if (message := bag.messages[index]) is not None:
        bag.touched += [_stamp(index)] if index in IMAGES else []
        bag.messages[index] = message[0], int(random.choice([0, 1, 2**62])), message[2]


def written_by_topic(bag: Faulty, random: np.random.Generator) -> None:
    """A converter: one topic after the other, log times in the order of writing."""
    order = sorted(range(len(bag.messages)), key=lambda i: (bag.messages[i] or ("",))[0])
    for serial, index in enumerate(order):
        if (message := bag.messages[index]) is not None:
            time = sample.START + serial * 10_000_000
            bag.messages[index] = message[0], time, message[2]


def split(bag: Faulty, random: np.random.Generator) -> None:
    bag.files = int(random.integers(1, 13))
    bag.metadata = str(random.choice(METADATA))


FAULTS = (
    *(drop_image, stamp_of_an_image, cut_image, no_picture, other_size, cut_message),
    *(bad_camera_info, bad_transform, twice, late, log_time_of_another_age, split),
)


def spoiled(number: int) -> Faulty:
    """The faulty recording of this number; the same one every time."""
    random = np.random.default_rng(number)
    bag = Faulty(list(CLEAN))
    for _ in range(int(random.integers(1, 4))):
        fault = FAULTS[int(random.integers(len(FAULTS)))]
        fault(bag, random)
        bag.faults.append(fault.__name__)
    if random.random() < 0.1 and "log_time_of_another_age" not in bag.faults:
        written_by_topic(bag, random)
        bag.faults.append("written_by_topic")
    return bag


CLEAN = [_changed(i, lambda m: None) for i in range(len(EVENTS))]


# --- what must hold ------------------------------------------------------------------------------


@dataclasses.dataclass
class Outcome:
    """What came of a recording."""

    frames: list[FrameSet]
    skips: dict[str, int]
    said: list[str]


def read(path: Path) -> Outcome:
    said: list[str] = []
    with Bag(path) as bag:
        source = FrameSource(bag, PRESET, skips=Skips(said.append))
        frames = list(source)
        return Outcome(frames, dict(source.skips.counts), [*said, *source.warnings])


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    found = read(Faulty(list(CLEAN)).write(tmp_path_factory.mktemp("clean")))
    assert len(found.frames) == 5 and not found.skips and not found.said
    return found


def say_nothing_is_lost(found: Outcome, clean: Outcome, bag: Faulty) -> None:
    """Every difference belongs to a fault, and the frame set itself or the count tells of it."""
    wanted = {frame.stamp: frame for frame in clean.frames}
    there = {frame.stamp: frame for frame in found.frames}
    for stamp in wanted.keys() | there.keys():
        one, other = wanted.get(stamp), there.get(stamp)
        if one is not None and other is not None and key(one) == key(other):
            continue
        assert any(abs(stamp - touched) < NEAR for touched in bag.touched), (stamp, bag.faults)
        if one is None or other is None:
            continue  # the anchor's own image was touched: the set is another one, or gone
        assert one.map_T_base.tobytes() == other.map_T_base.tobytes()
        for camera, image in one.images.items():
            if camera not in other.images:
                assert other.missing[camera]
            elif bytes(other.images[camera].data) != bytes(image.data):
                try:
                    pixels = decode(other.images[camera])
                except ImageError as error:
                    assert camera in str(error)
                else:  # what was cut were no pixels; or the size tells, when it is used
                    assert pixels.shape != (one.calibration[camera].height,
                        one.calibration[camera].width, 3) or np.array_equal(
                        pixels, decode(image))  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_two_thousand_faulty_recordings(tmp_path, clean, chunk):
    for number in range(chunk, BAGS, CHUNKS):
        bag, folder = spoiled(number), tmp_path / "one"
        folder.mkdir()
        try:
            found = read(bag.write(folder))
        except Exception as error:  # whatever it is, the number tells which recording it was
            pytest.fail(f"recording {number} ({', '.join(bag.faults)}): {error!r}")
        try:
            say_nothing_is_lost(found, clean, bag)
        except AssertionError as error:
            pytest.fail(f"recording {number}: {error}")
        shutil.rmtree(folder)


def test_voxels_follow_from_the_frame_sets(tmp_path, clean):
    """Equal frame sets after equal ones give equal voxels, whatever the recording was like."""
    variant = small("alocc_flow_2d")
    network = network_of(variant)
    record = dataclasses.replace(records.find("alocc_flow_2d"), grid=variant.grid)

    def voxels(frames: list[FrameSet]) -> list[np.ndarray]:
        pipeline, found = Pipeline(network, record), []
        for frame in frames:
            try:
                occupancy = pipeline.step(frame)
            except ImageError:
                occupancy = pipeline.step(without_damaged(frame))
            found.append(occupancy.labels)
        return found

    wanted = voxels(clean.frames)
    assert all(len(np.unique(labels)) > 2 for labels in wanted)
    keys = [key(frame) for frame in clean.frames]
    compared = 0
    for number in range(0, BAGS, NETWORK_EVERY):
        (tmp_path / str(number)).mkdir()
        frames = read(spoiled(number).write(tmp_path / str(number))).frames
        alike = next(
            (i for i, (f, k) in enumerate(zip(frames, keys, strict=False)) if key(f) != k),
            min(len(frames), len(keys)),
        )
        for labels, clean_labels in zip(voxels(frames[:alike]), wanted, strict=False):
            np.testing.assert_array_equal(labels, clean_labels)
            compared += 1
    assert compared > 30


def test_strict_makes_an_error_of_what_is_skipped(tmp_path):
    """One of each kind of single bad message."""
    for fault in (stamp_of_an_image, bad_camera_info, bad_transform, cut_message):
        folder = tmp_path / fault.__name__
        folder.mkdir()
        for seed in range(20):  # some stamps are another time's, not impossible
            bag = Faulty(list(CLEAN))
            fault(bag, np.random.default_rng(seed))
            path = bag.write(folder)
            if found := read(path).skips:
                break
        assert found, fault
        with Bag(path) as opened, pytest.raises(BagError, match="without --strict"):
            list(FrameSource(opened, PRESET, skips=Skips(strict=True)))
