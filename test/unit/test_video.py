# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Video on camera topics: the frame sets of a bag of packets are those of a bag of raw images."""

from __future__ import annotations

import copy
import sys
from fractions import Fraction
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from test_bag_reader import Event, bag_a, mcap_bytes

from alocc_ros.bags import cdr
from alocc_ros.bags.frames import FrameSource
from alocc_ros.bags.reader import Bag
from alocc_ros.errors import BagError, ImageError
from alocc_ros.messages import COMPRESSED_IMAGE
from alocc_ros.stream.access_units import AccessUnits, sniffed
from alocc_ros.stream.decoding import decode
from alocc_ros.stream.preset import load_preset
from alocc_ros.stream.skips import BAD_PACKET, BAD_STAMP, NO_KEY_FRAME, Skips
from alocc_ros.stream.video import COMPRESSED_VIDEO, FFMPEG_PACKET, VideoStreams
from alocc_ros.types import CameraImage, FrameSet

av = pytest.importorskip("av")

PRESET = load_preset("nuscenes")
TYPES = cdr.TYPESTORE.types
CAMERA, TOPIC = "cam_back", "/CAM_BACK/image_rect_compressed"
WIDTH, HEIGHT, NUMBER = 64, 48, 12
MS = 1_000_000
KEY_EVERY = 6
H264 = {"preset": "ultrafast", "crf": "8", "g": str(KEY_EVERY), "bf": "0"}
H265 = {
    "preset": "ultrafast",
    "x265-params": f"log-level=none:crf=6:bframes=0:keyint={KEY_EVERY}:min-keyint={KEY_EVERY}"
    ":scenecut=0:repeat-headers=1",
}
ENCODERS = {"h264": ("libx264", H264), "hevc": ("libx265", H265)}
TOLERANCE = 3.0  # mean difference of 255; a picture of another instant is off by more


def pictures(number: int = NUMBER) -> list[np.ndarray]:
    """Smooth, and moving so fast that each differs from the next by more than the tolerance."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return [
        np.stack([128 + 100 * np.sin(x / 9 + t), 2 * y + 5 * t, 2 * x + 0 * y], -1).astype(np.uint8)
        for t in range(number)
    ]


@cache
def packets(codec: str, *options: tuple[str, str]) -> tuple[tuple[int, bytes], ...]:
    """(number of the picture, bytes), in order of decoding."""
    name, usual = ENCODERS[codec]
    try:
        context = av.CodecContext.create(name, "w")
    except ValueError:
        pytest.skip(f"this PyAV has no {name}")
    context.width, context.height, context.pix_fmt = WIDTH, HEIGHT, "yuv420p"
    context.time_base, context.thread_count = Fraction(1, 10), 1
    context.options = usual | dict(options)
    out = []
    for number, pixels in enumerate(pictures()):
        frame = av.VideoFrame.from_ndarray(pixels, "rgb24")
        frame.pts = number
        out += context.encode(frame)
    return tuple((packet.pts, bytes(packet)) for packet in [*out, *context.encode(None)])


class Decoded:
    """What comes of packets of one camera, and that it is right."""

    def __init__(self, stream: list[tuple[int, bytes]], encoding: str = "compressed h264") -> None:
        self.skips: list[str] = []
        streams = VideoStreams(lambda camera, reason, detail: self.skips.append(reason))
        images = []
        for number, data in stream:
            images += streams.add(CameraImage(CAMERA, (100 + 83 * number) * MS, data, encoding))
        images += streams.flush()
        self.numbers = [(image.stamp // MS - 100) // 83 for image in images]
        for number, image in zip(self.numbers, images, strict=True):
            off = np.abs(decode(image).astype(int) - pictures()[number]).mean()
            assert off < TOLERANCE, f"picture {number} is off by {off:.1f}"


# --- streams ---------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", ENCODERS)
@pytest.mark.parametrize("named", [True, False])
def test_each_packet_gives_its_picture_at_once(codec, named):
    streams = VideoStreams(lambda *why: pytest.fail(str(why)))
    for number, data in packets(codec):
        sent = CameraImage(CAMERA, number + 1, data, f"compressed {codec if named else ''}".strip())
        (image,) = streams.add(sent)
        assert (image.stamp, image.encoding) == (number + 1, "rgb8")
        assert np.abs(decode(image).astype(int) - pictures()[number]).mean() < TOLERANCE
    assert streams.flush() == []


def test_reordered_pictures_keep_their_own_stamps():
    stream = packets("h264", ("bf", "2"), ("preset", "medium"), ("g", "12"))
    order = [number for number, _ in stream]
    assert order != sorted(order)
    got = Decoded(list(stream))
    assert (got.numbers, got.skips) == (sorted(order), [])


@pytest.mark.parametrize("codec", ENCODERS)
def test_decoding_begins_at_a_key_frame(codec):
    got = Decoded(list(packets(codec)[2:]), f"compressed {codec}")
    assert got.numbers == list(range(KEY_EVERY, NUMBER))
    assert got.skips == [NO_KEY_FRAME] * (KEY_EVERY - 2)


@pytest.mark.parametrize("lost", [1, 2, 4])
@pytest.mark.parametrize("codec", ENCODERS)
def test_after_a_lost_packet_nothing_is_shown_until_the_next_key_frame(codec, lost):
    stream = list(packets(codec))
    del stream[lost]
    got = Decoded(stream, f"compressed {codec}")
    assert got.numbers == [*range(lost), *range(KEY_EVERY, NUMBER)]
    assert len(got.skips) == KEY_EVERY - lost - 1


def test_after_a_lost_key_frame_nothing_is_shown_of_its_group():
    stream = list(packets("h264"))
    del stream[KEY_EVERY]
    assert Decoded(stream).numbers == list(range(KEY_EVERY))


@pytest.mark.parametrize(
    "damage", [lambda d: d[: len(d) // 2], lambda d: b"", lambda d: b"\0" * 40]
)
def test_a_broken_packet_is_counted_and_its_group_is_not_shown(damage):
    stream = list(packets("h264"))
    stream[2] = (2, damage(stream[2][1]) or b"\1")
    got = Decoded(stream)
    assert got.numbers == [0, 1, *range(KEY_EVERY, NUMBER)]
    assert got.skips == [BAD_PACKET] + [NO_KEY_FRAME] * (KEY_EVERY - 3)


def test_a_seek_begins_anew():
    stream = list(packets("h264"))
    later = [(number + 40, data) for number, data in stream[1:3]]
    got = VideoStreams(lambda *why: found.append(why[1]))
    found: list[str] = []
    images = []
    for number, data in stream[:4] + later:
        images += got.add(CameraImage(CAMERA, (100 + 83 * number) * MS, data, "compressed h264"))
    assert len(images) == 4 and found == [NO_KEY_FRAME] * 2


def test_parameters_in_a_message_of_their_own_are_kept():
    stream = list(packets("h264"))
    number, data = stream[0]
    at = data.index(b"\0\0\1\x65")  # the IDR picture
    assert Decoded([(0, data[:at]), (number, data[at:]), *stream[1:]]).numbers == list(
        range(NUMBER)
    )


def test_enormous_pictures_are_refused(monkeypatch):
    monkeypatch.setattr("alocc_ros.stream.video.MAX_PIXELS", WIDTH * HEIGHT - 1)
    got = Decoded(list(packets("h264")[:KEY_EVERY]))
    assert got.numbers == [] and got.skips == [BAD_PACKET] + [NO_KEY_FRAME] * (KEY_EVERY - 1)


@pytest.mark.parametrize("codec", ENCODERS)
def test_whatever_a_packet_holds_the_stream_goes_on(codec):
    random = np.random.default_rng(0)
    stream = packets(codec)
    for _ in range(40):
        said: list[str] = []
        streams = VideoStreams(lambda camera, reason, detail, said=said: said.append(reason))
        got = []
        for number, data in stream:
            broken = np.frombuffer(data, np.uint8).copy()
            if number < KEY_EVERY:
                at = random.integers(0, len(broken), 6)
                broken[at] = random.integers(0, 256, 6)
                broken = broken[: random.integers(1, len(broken) + 1)]
            sent = CameraImage(CAMERA, number + 1, broken.tobytes(), f"compressed {codec}")
            got += streams.add(sent)
        got += streams.flush()
        # Packets of parameters alone are what is neither shown nor counted.
        assert len(got) + len(said) <= NUMBER
        assert [image.stamp for image in got[KEY_EVERY - NUMBER :]] == list(range(7, NUMBER + 1))
        for image in got[KEY_EVERY - NUMBER :]:
            off = np.abs(decode(image).astype(int) - pictures()[image.stamp - 1]).mean()
            assert off < TOLERANCE


def test_other_codecs_are_refused_by_name():
    said = []
    streams = VideoStreams(lambda *why: said.append(why))
    assert streams.add(CameraImage(CAMERA, 1, b"\x12\0\x0a", "compressed av1")) == []
    assert said[0][1] == BAD_PACKET and "av1 is not decoded" in said[0][2]


def test_codecs_are_known_by_their_first_unit():
    for codec in ENCODERS:
        assert {sniffed(data[:8]) for _, data in packets(codec)} == {codec}
    assert sniffed(b"\xff\xd8\xff\xe0") == sniffed(b"") == sniffed(b"\0\0\1") == ""


def test_frames_of_every_profile_are_counted():
    for profile in ("baseline", "main", "high"):
        units = AccessUnits("h264")
        options = [("preset", "fast"), ("profile", profile), ("bf", "0"), ("g", "100")]
        found = [units.look(data) for _, data in packets("h264", *options)]
        assert [unit.is_key for unit in found] == [True] + [False] * (NUMBER - 1)
        assert not any(unit.is_after_gap for unit in found)


# --- bags ------------------------------------------------------------------------------------


def message(kind: str, raw: object, data: bytes) -> object:
    head, array = raw.header, np.frombuffer(data, np.uint8)
    if kind == COMPRESSED_IMAGE:
        return TYPES[kind](header=head, format="h264", data=array)
    if kind == COMPRESSED_VIDEO:
        return TYPES[kind](timestamp=head.stamp, frame_id=head.frame_id, data=array, format="h264")
    assert kind == FFMPEG_PACKET
    fields = {"width": WIDTH, "height": HEIGHT, "pts": 0, "flags": 0, "is_bigendian": False}
    return TYPES[kind](header=head, encoding="libx264", data=array, **fields)


def events(kind: str = "", drop: tuple[int, ...] = (), cut: tuple[int, ...] = ()) -> list[Event]:
    """``bag_a`` with other images: raw ones, or video of type ``kind``."""
    out, seen = [], dict[str, int]()
    for topic, old_kind, log_time, old in bag_a():
        if "image" not in topic:
            new = copy.deepcopy(old)
            if topic.endswith("camera_info"):
                new.width, new.height = WIDTH, HEIGHT
            out.append((topic, old_kind, log_time, new))
            continue
        number = seen[topic] = seen.get(topic, -1) + 1
        if not kind:
            raw = TYPES["sensor_msgs/msg/Image"](
                header=old.header,
                height=HEIGHT,
                width=WIDTH,
                encoding="rgb8",
                is_bigendian=0,
                step=3 * WIDTH,
                data=pictures()[number].reshape(-1),
            )
            out.append((topic, "sensor_msgs/msg/Image", log_time, raw))
            continue
        if topic == TOPIC and number in drop:
            continue
        data = packets("h264")[number][1]
        data = data[: len(data) // 2] if topic == TOPIC and number in cut else data
        out.append((topic, kind, log_time, message(kind, old, data)))
    return out


def read(path: Path, bag: list[Event]) -> tuple[list[FrameSet], Skips]:
    path.write_bytes(mcap_bytes(bag, chunk_size=20_000))
    with Bag(path) as opened:
        source = FrameSource(opened, PRESET)
        return list(source), source.skips


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> list[FrameSet]:
    frames, _ = read(tmp_path_factory.mktemp("raw") / "bag.mcap", events())
    assert len(frames) == NUMBER
    return frames


def assert_same(got: list[FrameSet], expected: list[FrameSet], without: set[int] = frozenset()):
    """Equal sets, but for ``CAMERA`` in those of the numbers ``without``."""
    assert [frame.stamp for frame in got] == [frame.stamp for frame in expected]
    for number, (a, b) in enumerate(zip(got, expected, strict=True)):
        gone = {CAMERA} if number in without else set()
        assert a.images.keys() == b.images.keys() - gone
        np.testing.assert_array_equal(a.map_T_base, b.map_T_base)
        for camera, image in a.images.items():
            assert image.stamp == b.images[camera].stamp
            off = np.abs(decode(image).astype(int) - decode(b.images[camera])).mean()
            assert off < TOLERANCE


@pytest.mark.parametrize("kind", [COMPRESSED_IMAGE, COMPRESSED_VIDEO, FFMPEG_PACKET])
def test_a_bag_of_video_gives_the_sets_of_a_bag_of_raw_images(tmp_path, raw, kind):
    frames, skips = read(tmp_path / "bag.mcap", events(kind))
    assert_same(frames, raw)
    assert not skips.counts


@pytest.mark.parametrize(
    ("options", "without", "counts"),
    [
        ({"drop": (0, 1)}, set(range(6)), {NO_KEY_FRAME: 4}),
        ({"cut": (2,)}, {2, 3, 4, 5}, {BAD_PACKET: 1, NO_KEY_FRAME: 3}),
        ({"drop": (8,)}, {8, 9, 10, 11}, {NO_KEY_FRAME: 3}),
    ],
    ids=["cut at the start", "broken", "lost"],
)
def test_faults_in_the_video_of_a_camera_cost_that_camera(tmp_path, raw, options, without, counts):
    frames, skips = read(tmp_path / "bag.mcap", events(COMPRESSED_VIDEO, **options))
    assert_same(frames, raw, without)
    assert skips.counts == {f"{TOPIC}: {reason}": n for reason, n in counts.items()}


def test_a_packet_without_a_stamp_costs_its_picture_alone(tmp_path, raw):
    bag = events(FFMPEG_PACKET)
    stamp = [event[3] for event in bag if event[0] == TOPIC][7].header.stamp
    stamp.sec = stamp.nanosec = 0
    frames, skips = read(tmp_path / "bag.mcap", bag)
    assert_same(frames, raw, {7})
    assert skips.counts == {f"{TOPIC}: {BAD_STAMP}": 1}


def test_a_camera_without_a_key_frame_is_refused_by_name(tmp_path):
    bag = events(COMPRESSED_VIDEO, drop=(0, 6))
    with pytest.raises(BagError, match=f"{TOPIC}: {NO_KEY_FRAME}"):
        read(tmp_path / "bag.mcap", bag)


@pytest.mark.parametrize("kind", [COMPRESSED_IMAGE, COMPRESSED_VIDEO, FFMPEG_PACKET])
def test_without_pyav_the_extra_is_named(tmp_path, monkeypatch, kind):
    monkeypatch.setitem(sys.modules, "av", None)  # as if it were not installed
    expected = ImageError if kind == COMPRESSED_IMAGE else BagError
    with pytest.raises(expected, match=r"pip install 'alocc_ros\[video\]'.*republish"):
        read(tmp_path / "bag.mcap", events(kind))
