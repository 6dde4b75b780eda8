# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import contextlib
import dataclasses
import io
import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from mcap.writer import CompressionType
from mcap.writer import Writer as McapWriter
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer

from alocc_ros import messages
from alocc_ros.bags import cdr, sample
from alocc_ros.bags.frames import FrameSource
from alocc_ros.bags.reader import Bag
from alocc_ros.errors import AloccError, BagError, CalibrationError, PoseError, StampError
from alocc_ros.geometry import inverse
from alocc_ros.stream.preset import Preset, load_preset
from alocc_ros.types import CAMERAS, CameraImage, FrameSet

SECOND = 1_000_000_000
START = 1_600_000_000 * SECOND

# (topic, type, log time, message)
Event = tuple[str, str, int, object]


def transforms(stamp: int, entries: list[tuple[str, str, np.ndarray]]) -> object:
    return cdr.instance(messages.transforms(stamp, entries))


def string_events(count: int = 20, topic: str = "/tf") -> list[Event]:
    """Distinguishable small messages of a type that the reader knows."""
    kind = "tf2_msgs/msg/TFMessage"
    return [
        (
            topic,
            kind,
            START + i * SECOND // 10,
            transforms(START + i, [("map", f"child_{i}", np.eye(4))]),
        )
        for i in range(count)
    ]


def write_folder(
    path: Path,
    events: list[Event],
    storage: StoragePlugin = StoragePlugin.MCAP,
    compression: CompressionMode = CompressionMode.NONE,
) -> Path:
    writer = Writer(path, version=8, storage_plugin=storage)
    if compression is not CompressionMode.NONE:
        writer.set_compression(compression, CompressionFormat.ZSTD)
    with writer:
        connections = {}
        for topic, kind, log_time, message in events:
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, kind, typestore=cdr.TYPESTORE)
            data = cdr.TYPESTORE.serialize_cdr(message, kind)
            writer.write(connections[topic], log_time, data)
    return path


def mcap_bytes(events: list[Event], profile: str = "ros2", **options: object) -> bytes:
    """An MCAP as a recorder writes it, in small chunks."""
    buffer = io.BytesIO()
    writer = McapWriter(
        buffer, **({"chunk_size": 500, "compression": CompressionType.ZSTD} | options)
    )
    writer.start(profile)
    channels = {}
    for topic, kind, log_time, message in events:
        if topic not in channels:
            schema = writer.register_schema(kind, "ros2msg", cdr.definition(kind).encode())
            channels[topic] = writer.register_channel(topic, "cdr", schema)
        data = bytes(cdr.TYPESTORE.serialize_cdr(message, kind))
        writer.add_message(channels[topic], log_time, data, log_time)
    writer.finish()
    return buffer.getvalue()


def children(path: Path, topic: str = "/tf") -> list[str]:
    """What ``string_events`` wrote, as the reader gives it back."""
    with Bag(path) as bag:
        return [bag.decode(record).transforms[0].child_frame_id for record in bag.messages([topic])]


EXPECTED = [f"child_{i}" for i in range(20)]


@pytest.mark.parametrize("storage", list(StoragePlugin))
@pytest.mark.parametrize("compression", [CompressionMode.NONE, CompressionMode.MESSAGE])
def test_folders_of_both_storages_are_read_in_order(tmp_path, storage, compression):
    path = write_folder(tmp_path / "bag", string_events(), storage, compression)
    assert children(path) == EXPECTED


def test_the_log_beside_a_database_is_read_as_well(tmp_path):
    """As a recorder leaves it that was killed, or whose folder was copied while it ran."""
    folder = write_folder(tmp_path / "bag", string_events(), StoragePlugin.SQLITE3)
    (file,) = folder.glob("*.db3")
    database = sqlite3.connect(file)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA wal_autocheckpoint=0")
    ((last,),) = database.execute("SELECT MAX(id) FROM messages")
    database.execute(
        "INSERT INTO messages(topic_id, timestamp, data) "
        "SELECT topic_id, timestamp + 1, data FROM messages WHERE id = ?",
        (last,),
    )
    database.commit()
    copy = tmp_path / "copy"
    copy.mkdir()
    for part in folder.iterdir():
        if not part.name.endswith("-shm"):
            (copy / part.name).write_bytes(part.read_bytes())
    database.close()
    before = {p.name: p.read_bytes() for p in copy.iterdir()}
    assert children(copy) == [*EXPECTED, EXPECTED[-1]]
    with Bag(copy) as bag:
        assert "-wal is there as well" in bag.warning
    assert {p.name: p.read_bytes() for p in copy.iterdir()} == before


def test_a_folder_with_compressed_files_is_read(tmp_path):
    path = write_folder(
        tmp_path / "bag", string_events(), StoragePlugin.SQLITE3, CompressionMode.FILE
    )
    assert children(path) == EXPECTED


@pytest.mark.parametrize("storage", list(StoragePlugin))
def test_a_single_file_and_a_folder_without_metadata_are_read(tmp_path, storage):
    path = write_folder(tmp_path / "bag", string_events(), storage)
    (path / "metadata.yaml").unlink()
    assert children(path) == EXPECTED
    (file,) = path.iterdir()
    assert children(file) == EXPECTED


def test_the_parts_of_a_split_recording_come_in_order(tmp_path):
    events = string_events()
    for part in range(10, -1, -1):
        (tmp_path / f"bag_{part}.mcap").write_bytes(
            mcap_bytes(events[part : part + 1] if part < 10 else events[10:])
        )
    assert children(tmp_path) == EXPECTED


def test_messages_come_by_log_time_even_if_they_were_written_in_another_order(tmp_path):
    events = string_events()
    shuffled = [events[i] for i in np.random.default_rng(0).permutation(len(events))]
    path = tmp_path / "bag.mcap"
    path.write_bytes(mcap_bytes(shuffled))
    assert children(path) == EXPECTED
    path.write_bytes(mcap_bytes(shuffled, profile=""))
    assert children(path) == EXPECTED


def test_only_the_topics_asked_for_are_given(tmp_path):
    path = write_folder(tmp_path / "bag", string_events() + string_events(3, "/tf_static"))
    assert children(path, "/tf_static") == EXPECTED[:3]
    assert children(path, "/nothing") == []


def test_topics_without_a_leading_slash_are_the_same_topics(tmp_path):
    path = tmp_path / "bag.mcap"
    path.write_bytes(mcap_bytes(string_events(3, "tf")))
    assert children(path) == EXPECTED[:3]


def test_types_nobody_can_parse_do_no_harm(tmp_path):
    buffer = io.BytesIO()
    writer = McapWriter(buffer)
    writer.start("ros2")
    schema = writer.register_schema("odd_msgs/msg/Odd", "ros2msg", b"this is no {definition}")
    channel = writer.register_channel("/odd", "cdr", schema)
    writer.add_message(channel, START, b"\x00\x01", START)
    (_, kind, log_time, message) = string_events(1)[0]
    schema = writer.register_schema(kind, "ros2msg", b"")
    channel = writer.register_channel("/tf", "cdr", schema)
    data = bytes(cdr.TYPESTORE.serialize_cdr(message, kind))
    writer.add_message(channel, log_time, data, log_time)
    writer.finish()
    path = tmp_path / "bag.mcap"
    path.write_bytes(buffer.getvalue())
    assert children(path) == EXPECTED[:1]


# --- recordings that were cut off ------------------------------------------------------------


def test_a_recording_cut_off_in_the_middle_is_read_up_to_there(tmp_path):
    whole = mcap_bytes(string_events())
    path = tmp_path / "bag.mcap"
    path.write_bytes(whole[: len(whole) // 4])
    got = children(path)
    assert 3 < len(got) < 20
    assert got == EXPECTED[: len(got)]
    with Bag(path) as bag:
        assert "bag.mcap is cut off or damaged at byte" in bag.warning
        assert "\n" not in bag.warning


def test_a_recording_without_chunks_is_read_up_to_the_cut(tmp_path):
    whole = mcap_bytes(string_events(), use_chunking=False)
    path = tmp_path / "bag.mcap"
    path.write_bytes(whole[: len(whole) // 2])
    got = children(path)
    assert 3 < len(got) < 20
    assert got == EXPECTED[: len(got)]


def test_a_folder_whose_recorder_crashed_is_read(tmp_path):
    whole = mcap_bytes(string_events())
    (tmp_path / "rosbag_0.mcap").write_bytes(whole[: len(whole) // 4])
    assert 3 < len(children(tmp_path)) < 20


def test_a_whole_file_has_no_warning(tmp_path):
    for name, profile in (("a.mcap", "ros2"), ("b.mcap", "")):
        (tmp_path / name).write_bytes(mcap_bytes(string_events(), profile=profile))
        with Bag(tmp_path / name) as bag:
            assert bag.warning == ""


def test_a_recording_without_index_and_summary_is_whole(tmp_path):
    path = tmp_path / "bag.mcap"
    path.write_bytes(
        mcap_bytes(
            string_events(),
            repeat_channels=False,
            repeat_schemas=False,
            use_statistics=False,
            use_summary_offsets=False,
        )
    )
    assert children(path) == EXPECTED


def test_a_cut_off_sqlite3_file_is_an_error(tmp_path):
    folder = write_folder(tmp_path / "bag", string_events(400), StoragePlugin.SQLITE3)
    (file,) = folder.glob("*.db3")
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(BagError, match="bag.db3") as caught:
        children(file)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE topics SET name = CAST(name AS BLOB)",
        "UPDATE topics SET type = CAST(type AS BLOB)",
        "UPDATE topics SET serialization_format = CAST('cdr' AS BLOB)",
        "UPDATE messages SET timestamp = 'soon'",
        "UPDATE messages SET timestamp = 'soon' WHERE id = 7",
        "UPDATE messages SET data = 'text' WHERE id = 7",
        "UPDATE messages SET data = 5 WHERE id = 7",
    ],
)
def test_values_of_other_types_in_a_database_are_an_error(tmp_path, change):
    folder = write_folder(tmp_path / "bag", string_events(), StoragePlugin.SQLITE3)
    (file,) = folder.glob("*.db3")
    with contextlib.closing(sqlite3.connect(file)) as database:
        database.execute(change)
        database.commit()
    with pytest.raises(BagError, match="bag.db3"):
        children(file)


# --- what is no ROS 2 bag --------------------------------------------------------------------


def foxglove_mcap() -> bytes:
    buffer = io.BytesIO()
    writer = McapWriter(buffer)
    writer.start("", "nuscenes2mcap")
    schema = writer.register_schema("foxglove.CompressedImage", "protobuf", b"\x0a\x00")
    channel = writer.register_channel("/CAM_FRONT/image_rect_compressed", "protobuf", schema)
    writer.add_message(channel, START, b"\x0a\x00", START)
    writer.finish()
    return buffer.getvalue()


@pytest.mark.parametrize("cut", [None, -60])
def test_foxglove_protobuf_is_told_apart(tmp_path, cut):
    path = tmp_path / "NuScenes-v1.0-mini-scene-0061.mcap"
    path.write_bytes(foxglove_mcap()[:cut])
    with pytest.raises(BagError, match=r"Foxglove protobuf.*nuscenes_to_ros2bag"):
        Bag(path)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("x.bag", b"#ROSBAG V2.0\n", "rosbags-convert"),
        ("x.mcap", b"", "no MCAP"),
        ("x.mcap", b"garbage" * 100, "no MCAP"),
        ("x.mcap", b"\x89MCAP0\r\n", "no MCAP"),
        ("x.db3", b"SQLite format 3\x00" + bytes(200), "cannot be opened"),
        ("x.db3", b"garbage" * 100, "cannot be opened"),
        ("x.txt", b"hello", "a folder, a .mcap or a .db3 file"),
    ],
    ids=lambda v: v if isinstance(v, str) else None,
)
def test_a_file_that_is_no_bag_gives_one_line_that_names_it(tmp_path, name, content, says):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BagError, match=says) as caught:
        Bag(tmp_path / name)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("storage", list(StoragePlugin))
def test_an_empty_bag_is_an_error(tmp_path, storage):
    folder = write_folder(tmp_path / "bag", [], storage)
    for path in (folder, *folder.glob("*.mcap"), *folder.glob("*.db3")):
        with pytest.raises(BagError, match="empty|no messages"):
            Bag(path)


def test_a_missing_bag_and_an_empty_folder_are_named(tmp_path):
    with pytest.raises(BagError, match="there is no bag .*nowhere"):
        Bag(tmp_path / "nowhere")
    with pytest.raises(BagError, match=r"no \.mcap or \.db3"):
        Bag(tmp_path)


def test_the_identity_tells_recordings_apart_and_survives_a_move(tmp_path):
    folder = write_folder(tmp_path / "bag", string_events())
    with Bag(folder) as bag:
        identity = bag.identity()
    (tmp_path / "elsewhere").mkdir()
    moved = Path(shutil.move(folder, tmp_path / "elsewhere" / "bag"))
    with Bag(moved) as bag:
        assert bag.identity() == identity
    other = write_folder(tmp_path / "other", string_events(19))
    with Bag(other) as bag:
        assert bag.identity()["sha256_of_ends"] != identity["sha256_of_ends"]


# --- fuzzing ---------------------------------------------------------------------------------

mutations = st.lists(st.tuples(st.floats(0, 1), st.integers(1, 255)), max_size=4)


def read_everything(path: Path) -> None:
    with contextlib.suppress(AloccError), Bag(path) as bag:
        for record in bag.messages(["/tf", "/tf_static"]):
            bag.decode(record)


def mutate(data: bytes, end: float, flips: list[tuple[float, int]]) -> bytes:
    out = bytearray(data[: round(end * len(data))])
    for place, mask in flips:
        if out:
            out[min(int(place * len(out)), len(out) - 1)] ^= mask
    return bytes(out)


MCAP_SEEDS = [
    mcap_bytes(string_events(8)),
    mcap_bytes(string_events(8), compression=CompressionType.NONE),
    mcap_bytes(string_events(8), use_chunking=False),
    mcap_bytes(string_events(8), compression=CompressionType.LZ4, profile=""),
]


@settings(
    deadline=None, max_examples=250, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    seed=st.sampled_from(MCAP_SEEDS),
    end=st.just(1.0) | st.floats(0, 1),
    flips=mutations,
)
def test_a_damaged_mcap_gives_messages_or_one_of_our_errors(tmp_path, seed, end, flips):
    path = tmp_path / "fuzz.mcap"
    path.write_bytes(mutate(seed, end, flips))
    read_everything(path)


@settings(
    deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(end=st.just(1.0) | st.floats(0, 1), flips=mutations)
@example(end=1.0, flips=[(0.125, 128)])  # sqlite3's own words about it are no UTF-8
def test_a_damaged_sqlite3_file_gives_messages_or_one_of_our_errors(
    tmp_path, sqlite3_seed, end, flips
):
    path = tmp_path / "fuzz.db3"
    path.write_bytes(mutate(sqlite3_seed, end, flips))
    read_everything(path)


@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(end=st.just(1.0) | st.floats(0, 1), flips=mutations)
def test_damaged_metadata_gives_messages_or_one_of_our_errors(tmp_path, bag_folder, end, flips):
    folder = tmp_path / "bag"
    shutil.copytree(bag_folder, folder, dirs_exist_ok=True)
    metadata = folder / "metadata.yaml"
    metadata.write_bytes(mutate((bag_folder / "metadata.yaml").read_bytes(), end, flips))
    read_everything(folder)


@pytest.fixture(scope="module")
def bag_folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("seed") / "bag", string_events(8))


@pytest.fixture(scope="module")
def sqlite3_seed(tmp_path_factory):
    folder = write_folder(
        tmp_path_factory.mktemp("seed") / "bag", string_events(8), StoragePlugin.SQLITE3
    )
    (file,) = folder.glob("*.db3")
    return file.read_bytes()


# --- frame sets from the bags of bags.md -----------------------------------------------------

CAMERA_TRUTH = sample.rig(64, 36)
IMAGES = {
    camera: sample.jpeg(np.full((36, 64, 3), 30 * i + 40, np.uint8))
    for i, camera in enumerate(CAMERAS)
}
CYCLE = SECOND // 12  # nuScenes cameras run at 12 Hz
TF, STATIC = "/tf", "/tf_static"
TF_TYPE = "tf2_msgs/msg/TFMessage"


def sweeps(seconds: float = 1.0) -> list[tuple[str, int]]:
    """(camera, true stamp) of every image of a 12 Hz recording."""
    return [
        (camera, sample.START + i * CYCLE + sample.PHASES_MS[camera] * 1_000_000)
        for i in range(round(seconds * 12))
        for camera in sample.PHASES_MS
    ]


def ego(stamp: int, world: str = "map") -> tuple[str, str, np.ndarray]:
    return (world, "base_link", sample.ego_pose(stamp))


def mounts(name=str.upper) -> list[tuple[str, str, np.ndarray]]:
    return [("base_link", name(c), cal.base_T_camera) for c, cal in CAMERA_TRUTH.items()]


def compressed(camera: str, stamp: int, frame: str) -> tuple[str, object]:
    message = messages.image(CameraImage(camera, stamp, IMAGES[camera], "jpeg"), frame)
    return message.type, cdr.instance(message)


def raw(camera: str, stamp: int, frame: str, encoding: str) -> tuple[str, object]:
    pixels = np.full((36, 64, 3), CAMERAS.index(camera), np.uint8)
    source = CameraImage(camera, stamp, pixels.tobytes(), encoding, 36, 64, 64 * 3)
    message = messages.image(source, frame)
    return message.type, cdr.instance(message)


def info(camera: str, stamp: int, frame: str, **changes: object) -> tuple[str, object]:
    message = cdr.instance(messages.camera_info(CAMERA_TRUTH[camera], stamp, frame))
    return "sensor_msgs/msg/CameraInfo", dataclasses.replace(message, **changes)


def bag_a(name=str.upper) -> list[Event]:
    """nuscenes_to_ros2bag: TF at 2 Hz key frames with the next pose, odd R, empty D, no static."""
    events: list[Event] = []
    for camera, stamp in sweeps():
        key_frame = (stamp - sample.START) % (SECOND // 2) < CYCLE
        # Key frame images are logged at the LiDAR's time, sweeps at their own.
        logged = stamp - (stamp - sample.START) % CYCLE + 43_000_000 if key_frame else stamp
        topic = f"/{name(camera)}"
        odd_r = np.array([1.0, 0, 0, 1, 0, 0, 1, 0, 0])
        kind, message = info(
            camera, stamp, name(camera), r=odd_r, d=np.zeros(0), distortion_model=""
        )
        events.append((f"{topic}/camera_info", kind, logged, message))
        events.append(
            (
                f"{topic}/image_rect_compressed",
                *swap(compressed(camera, stamp, name(camera)), logged),
            )
        )
    for key in range(3):
        now, following = (sample.START + (key + i) * SECOND // 2 for i in (0, 1))
        for stamp in (now, following):
            message = transforms(stamp, [ego(stamp), *mounts(name)])
            events.append((TF, TF_TYPE, now + 43_000_000, message))
    return events


def swap(typed: tuple[str, object], logged: int) -> tuple[str, int, object]:
    return typed[0], logged, typed[1]


def bag_c(zero_stamps: bool = False) -> list[Event]:
    """nuscenes2bag: raw bgr8, no CameraInfo, TF by way of odom; D: no stamps and frames."""
    events: list[Event] = []
    for camera, stamp in sweeps():
        kind, message = raw(
            camera, 0 if zero_stamps else stamp, "" if zero_stamps else camera, "bgr8"
        )
        events.append((f"{camera}/raw", kind, stamp, message))
        poses = [
            ("map", "odom", np.eye(4)),
            ("odom", "base_link", sample.ego_pose(stamp)),
            *mounts(str),
        ]
        events.append((TF, TF_TYPE, stamp, transforms(stamp, poses)))
    return events


def bag_e() -> list[Event]:
    """With a URDF: raw, CameraInfo, Odometry, and no TF at all."""
    events: list[Event] = []
    for camera, stamp in sweeps():
        topic = f"/nuscenes/{camera}"
        events.append(
            (f"{topic}/image_raw", *swap(raw(camera, stamp, f"{camera}_link", "rgb8"), stamp))
        )
        events.append((f"{topic}/camera_info", *swap(info(camera, stamp, f"{camera}_link"), stamp)))
        events.append(odometry(stamp))
    return events


def odometry(stamp: int, child: str = "base_link") -> Event:
    types = cdr.TYPESTORE.types
    transform = transforms(stamp, [ego(stamp)]).transforms[0].transform
    position = types["geometry_msgs/msg/Point"](**vars_of(transform.translation))
    pose = types["geometry_msgs/msg/Pose"](position=position, orientation=transform.rotation)
    zero = types["geometry_msgs/msg/Vector3"](x=0.0, y=0.0, z=0.0)
    message = types["nav_msgs/msg/Odometry"](
        header=cdr.instance(messages.header(stamp, "map")),
        child_frame_id=child,
        pose=types["geometry_msgs/msg/PoseWithCovariance"](pose=pose, covariance=np.zeros(36)),
        twist=types["geometry_msgs/msg/TwistWithCovariance"](
            twist=types["geometry_msgs/msg/Twist"](linear=zero, angular=zero),
            covariance=np.zeros(36),
        ),
    )
    return "/nuscenes/odom", "nav_msgs/msg/Odometry", stamp, message


def vars_of(vector: object) -> dict[str, float]:
    return {axis: getattr(vector, axis) for axis in "xyz"}


def bag_f() -> list[Event]:
    """ros2_dataset_bridge: 8UC3, the world is called world."""
    events: list[Event] = []
    for camera, stamp in sweeps():
        topic = f"/nuscenes/{camera.upper()}"
        events.append((f"{topic}/image", *swap(raw(camera, stamp, camera.upper(), "8UC3"), stamp)))
        events.append((f"{topic}/camera_info", *swap(info(camera, stamp, camera.upper()), stamp)))
        poses = [ego(stamp, "world"), ("world", "odom", np.eye(4)), *mounts()]
        events.append((TF, TF_TYPE, stamp, transforms(stamp, poses)))
    return events


def bag_h() -> list[Event]:
    """Autoware: numbered cameras, latched extrinsics below a chain of frames."""
    numbers = {
        "cam_front": 0,
        "cam_back": 1,
        "cam_front_left": 2,
        "cam_back_left": 3,
        "cam_front_right": 4,
        "cam_back_right": 5,
    }
    half = np.eye(4)
    half[:3, 3] = (0.5, 0.0, 1.0)
    links = [("base_link", "sensor_kit", half)]
    links += [
        (
            "sensor_kit",
            f"camera{n}/camera_optical_link",
            inverse(half) @ CAMERA_TRUTH[c].base_T_camera,
        )
        for c, n in numbers.items()
    ]
    events: list[Event] = [(STATIC, TF_TYPE, START, transforms(START, links))]
    for camera, stamp in sweeps():
        topic, frame = f"/sensing/camera/camera{numbers[camera]}", "camera_link_of_the_driver"
        events.append(
            (f"{topic}/image_rect_color/compressed", *swap(compressed(camera, stamp, frame), stamp))
        )
        events.append((f"{topic}/camera_info", *swap(info(camera, stamp, frame), stamp)))
        events.append((TF, TF_TYPE, stamp, transforms(stamp, [ego(stamp)])))
    return events


def rig_file(folder: Path) -> Path:
    """The true calibration as one of our files."""
    entries = {
        camera: {
            "width": cal.width,
            "height": cal.height,
            "intrinsics": cal.intrinsics.tolist(),
            "base_T_camera": cal.base_T_camera.tolist(),
        }
        for camera, cal in CAMERA_TRUTH.items()
    }
    path = folder / "rig.yaml"
    path.write_text(yaml.safe_dump({"cameras": entries}))
    return path


def frames(
    folder: Path, events: list[Event], preset: Preset | str, calibration: Path | None = None
) -> list[FrameSet]:
    path = folder / "bag.mcap"
    path.write_bytes(mcap_bytes(sorted(events, key=lambda e: e[2]), chunk_size=20_000))
    if isinstance(preset, str):
        preset = load_preset(preset)
    with Bag(path) as bag:
        return list(FrameSource(bag, preset, calibration))


@pytest.mark.parametrize(
    ("events", "preset", "needs_file", "jpeg", "encoding"),
    [
        (bag_a(), "nuscenes", False, True, "compressed"),
        (bag_a(str.lower), "nuscenes_lower", False, True, "compressed"),
        (bag_c(), "nuscenes2bag", True, False, "bgr8"),
        (bag_c(zero_stamps=True), "nuscenes2bag_ros2", True, False, "bgr8"),
        (bag_e(), "nuscenes_urdf", True, False, "rgb8"),
        (bag_f(), "dataset_bridge", False, False, "bgr8"),
        (bag_h(), "autoware", False, True, "compressed"),
    ],
    ids=["A", "A lower case", "C", "D", "E", "F", "H"],
)
def test_every_known_kind_of_bag_gives_the_true_frames(
    tmp_path, events, preset, needs_file, jpeg, encoding
):
    calibration = rig_file(tmp_path) if needs_file else None
    got = frames(tmp_path, events, preset, calibration)
    assert [f.stamp for f in got] == [s for c, s in sweeps() if c == "cam_front"]
    for frame in got:
        assert set(frame.images) == set(CAMERAS)
        assert not frame.missing
        for camera, image in frame.images.items():
            cycle = (frame.stamp - sample.START) // CYCLE
            true_stamp = sample.START + cycle * CYCLE + sample.PHASES_MS[camera] * 1_000_000
            assert image.stamp == true_stamp
            assert image.encoding == encoding
            expected = IMAGES[camera] if jpeg else bytes([CAMERAS.index(camera)])
            assert bytes(image.data[: len(expected)]) == expected
            # Key frame poses of A are half a second apart: interpolated, not exact.
            np.testing.assert_allclose(
                frame.map_T_base_at[camera], sample.ego_pose(image.stamp), atol=5e-3
            )
            truth = CAMERA_TRUTH[camera]
            np.testing.assert_allclose(
                frame.calibration[camera].base_T_camera, truth.base_T_camera, atol=1e-9
            )
            np.testing.assert_array_equal(frame.calibration[camera].intrinsics, truth.intrinsics)
        np.testing.assert_allclose(frame.map_T_base, sample.ego_pose(frame.stamp), atol=5e-3)
    assert got[0].map_frame == ("world" if preset == "dataset_bridge" else "map")


def test_a_pose_that_was_recorded_after_the_image_is_found(tmp_path):
    late = [(t, k, logged + (SECOND if t == TF else 0), m) for t, k, logged, m in bag_a()]
    assert len(frames(tmp_path, late, "nuscenes")) == 12


def test_images_before_the_first_pose_are_left_out_and_counted(tmp_path):
    events = [e for e in bag_f() if e[0] != TF or e[2] > sample.START + SECOND // 2]
    path = tmp_path / "bag.mcap"
    path.write_bytes(mcap_bytes(events))
    with Bag(path) as bag:
        source = FrameSource(bag, load_preset("dataset_bridge"))
        # The seventh cycle's pose of the front left camera is not there yet, the others' are.
        (partial, *others) = list(source)
        assert list(partial.missing) == ["cam_front_left"]
        assert "before the first" in partial.missing["cam_front_left"]
        assert len(others) == 5
        assert source.drops == {"no ego pose": 6}
        assert len(list(source)) == 6, "a source can be iterated again"


def test_a_camera_that_stops_is_missing_and_the_frames_go_on(tmp_path):
    end = sample.START + SECOND // 2
    events = [e for e in bag_a() if "CAM_BACK/" not in e[0] or e[2] < end]
    got = frames(tmp_path, events, "nuscenes")
    assert len(got) == 12
    assert not got[4].missing
    assert all("cam_back" in f.missing for f in got[7:])


def test_a_vehicle_without_a_camera_needs_no_topic_for_it(tmp_path):
    events = [e for e in bag_a() if "CAM_BACK/" not in e[0]]
    preset = load_preset("nuscenes")
    preset = dataclasses.replace(preset, cameras={**preset.cameras, "cam_back": None})
    got = frames(tmp_path, events, preset)
    assert len(got) == 12
    assert got[0].missing == {} and "cam_back" not in got[0].fitted
    # The network has six places; the empty one has some geometry but never an image.
    assert set(got[0].calibration) == set(CAMERAS)
    assert "cam_back" not in got[0].images


def test_a_calibration_file_wins_over_camera_info(tmp_path):
    no = np.zeros(9)
    events = [
        (t, k, at, dataclasses.replace(m, k=no, p=np.zeros(12)) if "camera_info" in t else m)
        for t, k, at, m in bag_a()
    ]
    with pytest.raises(CalibrationError, match=r"/CAM_\w+/camera_info.*uncalibrated"):
        frames(tmp_path, events, "nuscenes")
    (first, *_) = frames(tmp_path, events, "nuscenes", rig_file(tmp_path))
    assert (
        first.calibration["cam_front"].intrinsics[0, 0]
        == CAMERA_TRUTH["cam_front"].intrinsics[0, 0]
    )


def test_a_calibration_that_changes_changes_the_frames_from_then_on(tmp_path):
    change = sample.START + SECOND // 2
    events = [
        (t, k, at, dataclasses.replace(m, k=m.k * [2, 1, 1, 1, 2, 1, 1, 1, 1]))
        if "camera_info" in t and at >= change
        else (t, k, at, m)
        for t, k, at, m in bag_f()
    ]
    got = frames(tmp_path, events, "dataset_bridge")
    focal = [f.calibration["cam_front"].intrinsics[0, 0] for f in got]
    truth = CAMERA_TRUTH["cam_front"].intrinsics[0, 0]
    assert focal == [truth] * 6 + [2 * truth] * 6


def without(events: list[Event], *words: str) -> list[Event]:
    return [e for e in events if not any(word in e[0] for word in words)]


def nan_ego_poses(events: list[Event], frame: str = "base_link") -> list[Event]:
    """All transforms of a frame are broken."""

    def entries(message: object) -> object:
        for entry in message.transforms:
            if entry.child_frame_id == frame:
                entry.transform.translation.x = np.nan
        return message

    return [(t, k, at, entries(m) if t == TF else m) for t, k, at, m in events]


@pytest.mark.parametrize(
    ("events", "preset", "error", "says"),
    [
        (
            bag_a(str.lower),
            "nuscenes",
            BagError,
            r"no images on /CAM_FRONT_LEFT.*there are images on /cam_back/image_rect.*"
            "preset nuscenes_lower fits",
        ),
        (without(bag_a(), "CAM_BACK/im"), "nuscenes", BagError, "no images on /CAM_BACK/image"),
        (string_events(), "nuscenes", BagError, "there are images on no topic"),
        (bag_c(), "nuscenes2bag", CalibrationError, "no intrinsics of cam_front_left.*--calib"),
        (bag_e(), "nuscenes_urdf", CalibrationError, "no extrinsics of cam_front_left.*--calib"),
        (without(bag_e(), "odom"), "nuscenes_urdf", BagError, "no odometry on /nuscenes/odom"),
        (bag_c(zero_stamps=True), "nuscenes2bag", CalibrationError, "no intrinsics"),
        (without(bag_a(), TF), "nuscenes", CalibrationError, "TF: no transform from CAM_FRONT"),
        (nan_ego_poses(bag_a()), "nuscenes", PoseError, "base_link in map: pose is not finite"),
        (
            [(t, k, at, m) for t, k, at, m in bag_f() if t != TF]
            + [(TF, TF_TYPE, START, transforms(START, mounts()))],
            "dataset_bridge",
            PoseError,
            "unknown world",
        ),
    ],
    ids=[
        "lower case",
        "one camera missing",
        "no images at all",
        "no CameraInfo",
        "no extrinsics",
        "no odometry",
        "no CameraInfo and no stamps",
        "no TF",
        "NaN pose",
        "no ego motion",
    ],
)
def test_what_a_bag_lacks_is_named_on_one_line(tmp_path, events, preset, error, says):
    with pytest.raises(error, match=says) as caught:
        frames(tmp_path, events, preset)
    assert "\n" not in str(caught.value)


def test_zero_stamps_are_named_with_the_way_out(tmp_path):
    with pytest.raises(StampError, match=r"/cam_front_left/raw have stamp zero.*receive"):
        frames(tmp_path, bag_c(zero_stamps=True), "nuscenes2bag", rig_file(tmp_path))


def test_a_broken_transform_that_nobody_needs_does_no_harm(tmp_path):
    trailer = transforms(sample.START, [("map", "trailer", np.eye(4))])
    events = [*bag_a(), (TF, TF_TYPE, sample.START, trailer)]
    assert len(frames(tmp_path, nan_ego_poses(events, "trailer"), "nuscenes")) == 12


def test_odometry_of_another_frame_is_refused(tmp_path):
    events = [*without(bag_e(), "odom"), odometry(sample.START, child="imu")]
    with pytest.raises(PoseError, match="motion of imu"):
        frames(tmp_path, events, "nuscenes_urdf", rig_file(tmp_path))
