# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""The files of a recording are the truth; what stands beside them, or in their index, is advice."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
import yaml
import zstandard
from mcap.writer import Writer as McapWriter
from rosbags.interfaces import (
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag2 import StoragePlugin, Writer
from test_bag_reader import EXPECTED, START, children, mcap_bytes, string_events, write_folder

from alocc_ros.bags import cdr
from alocc_ros.bags.reader import Bag
from alocc_ros.errors import BagError

FAR = QosTime(9223372036, 854775807)
AS_RECORDED = Qos(
    QosHistory.UNKNOWN,
    0,
    QosReliability.RELIABLE,
    QosDurability.VOLATILE,
    FAR,
    FAR,
    QosLiveliness.AUTOMATIC,
    FAR,
    False,
)
LATCHED = """- history: 3
  depth: 0
  reliability: 1
  durability: 1
  deadline: {sec: 9223372036, nsec: 854775807}
  lifespan: {sec: 9223372036, nsec: 854775807}
  liveliness: 1
  liveliness_lease_duration: {sec: 9223372036, nsec: 854775807}
  avoid_ros_namespace_conventions: false"""


def edited(bag: Path, **entries: object) -> Path:
    """The bag with other entries in its metadata.yaml."""
    metadata = bag / "metadata.yaml"
    content = yaml.safe_load(metadata.read_text())
    content["rosbag2_bagfile_information"].update(entries)
    metadata.write_text(yaml.safe_dump(content))
    return bag


def split_folder(path: Path, parts: list[list], listed: list[int]) -> Path:
    """A bag of several MCAP files, in another order in its metadata.yaml."""
    write_folder(path, string_events(1))
    (path / f"{path.name}.mcap").unlink()
    for number, events in enumerate(parts):
        (path / f"drive_{number}.mcap").write_bytes(mcap_bytes(events))
    return edited(path, relative_file_paths=[f"drive_{n}.mcap" for n in listed], files=[])


# --- metadata.yaml ---------------------------------------------------------------------------


@pytest.mark.parametrize("storage", list(StoragePlugin))
@pytest.mark.parametrize("in_file", [[], [AS_RECORDED]], ids=["file without", "file with"])
@pytest.mark.parametrize("in_metadata", ["", LATCHED], ids=["emptied", "latched"])
def test_another_qos_in_the_metadata_loses_no_message(tmp_path, storage, in_file, in_metadata):
    path, events = tmp_path / "bag", string_events()
    with Writer(path, version=8, storage_plugin=storage) as writer:
        connection = writer.add_connection(
            "/tf", events[0][1], typestore=cdr.TYPESTORE, offered_qos_profiles=in_file
        )
        for _, kind, log_time, message in events:
            writer.write(connection, log_time, cdr.TYPESTORE.serialize_cdr(message, kind))
    content = yaml.safe_load((path / "metadata.yaml").read_text())
    for topic in content["rosbag2_bagfile_information"]["topics_with_message_count"]:
        topic["topic_metadata"]["offered_qos_profiles"] = in_metadata
    (path / "metadata.yaml").write_text(yaml.safe_dump(content))
    assert children(path) == EXPECTED


@pytest.mark.parametrize(
    "entries",
    [
        {"storage_identifier": ""},
        {"storage_identifier": "my_storage"},
        {"version": 99},
        {"topics_with_message_count": []},
        {"message_count": 0, "duration": None},
        {"compression_format": "fancy", "compression_mode": "FILE"},
    ],
    ids=lambda entries: next(iter(entries)),
)
def test_what_else_the_metadata_says_does_not_matter(tmp_path, entries):
    assert children(edited(write_folder(tmp_path / "bag", string_events()), **entries)) == EXPECTED


def test_metadata_that_cannot_be_read_is_said(tmp_path):
    path = write_folder(tmp_path / "bag", string_events())
    (path / "metadata.yaml").write_text("rosbag2_bagfile_information: [")
    assert children(path) == EXPECTED
    with Bag(path) as bag:
        assert bag.warning.startswith("metadata.yaml cannot be read (")
        assert "\n" not in bag.warning


@pytest.mark.parametrize("listed", [[0, 1, 10, 2, 3, 4, 5, 6, 7, 8, 9], list(range(10, -1, -1))])
def test_split_files_are_merged_by_time_whatever_the_list_says(tmp_path, listed):
    events = string_events(22)
    path = split_folder(tmp_path / "bag", [events[2 * n : 2 * n + 2] for n in range(11)], listed)
    assert children(path) == [f"child_{n}" for n in range(22)]


def test_files_that_overlap_in_time_are_merged(tmp_path):
    events = string_events()
    assert children(split_folder(tmp_path / "bag", [events[::2], events[1::2]], [0, 1])) == EXPECTED


def test_a_file_that_the_list_forgets_is_read_if_it_is_of_the_same_series(tmp_path):
    events = string_events()
    path = split_folder(tmp_path / "bag", [events[:10], events[10:]], [0])
    (path / "other.mcap").write_bytes(mcap_bytes(string_events(3)))
    assert children(path) == EXPECTED


def test_a_listed_file_that_is_gone_and_an_empty_last_one_are_said(tmp_path):
    path = split_folder(tmp_path / "bag", [string_events()], [0, 1])
    (path / "drive_2.mcap").write_bytes(b"")
    assert children(path) == EXPECTED
    with Bag(path) as bag:
        assert "metadata.yaml lists drive_1.mcap, which is not there" in bag.warning
        assert "drive_2.mcap is no MCAP file" in bag.warning


# --- packed files ----------------------------------------------------------------------------


@pytest.mark.parametrize("storage", list(StoragePlugin))
@pytest.mark.parametrize("alone", [True, False], ids=["file", "folder"])
def test_a_file_that_was_packed_by_hand_is_read(tmp_path, storage, alone):
    path = write_folder(tmp_path / "bag", string_events(), storage)
    (file,) = (p for p in path.iterdir() if p.name != "metadata.yaml")
    packed = file.with_name(file.name + ".zstd")
    packed.write_bytes(zstandard.ZstdCompressor().compress(file.read_bytes()))
    file.unlink()
    assert children(packed if alone else path) == EXPECTED


def test_a_packed_file_that_is_damaged_is_named_with_what_to_run(tmp_path):
    file = tmp_path / "x.mcap.zstd"
    file.write_bytes(b"garbage" * 10)
    with pytest.raises(BagError, match=r"x\.mcap\.zstd cannot be unpacked .*zstd -d"):
        Bag(file)


def test_unpacked_files_leave_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    packed = tmp_path / "x.mcap.zstd"
    packed.write_bytes(zstandard.ZstdCompressor().compress(mcap_bytes(string_events())))
    assert children(packed) == EXPECTED
    packed.write_bytes(b"garbage")
    with pytest.raises(BagError):
        Bag(packed)
    assert list((tmp_path / "scratch").iterdir()) == []


def test_a_pipe_is_refused_with_what_to_run(tmp_path):
    os.mkfifo(tmp_path / "pipe.mcap")
    with pytest.raises(BagError, match=r"is a pipe .* cat .*pipe\.mcap > recording\.mcap"):
        Bag(tmp_path / "pipe.mcap")


# --- ROS 1 in MCAP ---------------------------------------------------------------------------


@pytest.mark.parametrize("cut", [None, -200], ids=["whole", "cut off"])
@pytest.mark.parametrize("name", ["tf2_msgs/TFMessage", "tf/tfMessage"])
def test_ros1_messages_in_an_mcap_are_read(tmp_path, name, cut):
    buffer = io.BytesIO()
    writer = McapWriter(buffer, chunk_size=500)
    writer.start("ros1")
    schema = writer.register_schema(name, "ros1msg", b"# not read")
    channel = writer.register_channel("/tf", "ros1", schema)
    for _, kind, log_time, message in string_events():
        data = bytes(cdr.TYPESTORE.cdr_to_ros1(cdr.TYPESTORE.serialize_cdr(message, kind), kind))
        writer.add_message(channel, log_time, data, log_time)
    writer.finish()
    path = tmp_path / "x.mcap"
    path.write_bytes(buffer.getvalue()[:cut])
    assert children(path) == EXPECTED


# --- MCAP indexes ----------------------------------------------------------------------------


def test_every_flip_in_a_summary_is_noticed(tmp_path):
    whole = mcap_bytes(string_events())
    start = int.from_bytes(whole[-28:-20], "little")
    path = tmp_path / "bag.mcap"
    rng = np.random.default_rng(0)
    for place in rng.choice(np.arange(start, len(whole) - 8), 60, replace=False):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        with Bag(path) as bag:
            assert [
                bag.decode(record).transforms[0].child_frame_id for record in bag.messages(["/tf"])
            ] == EXPECTED, place
            assert "bag.mcap" in bag.warning and "damaged" in bag.warning, place


@pytest.mark.parametrize("missing", ["message indexes", "one chunk index"])
def test_an_index_that_does_not_tell_of_everything_is_not_trusted(tmp_path, missing):
    from mcap.writer import IndexType

    options = {"enable_crcs": False}
    if missing == "message indexes":
        options["index_types"] = IndexType.CHUNK
    whole = bytearray(mcap_bytes(string_events(), **options))
    if missing == "one chunk index":
        start = int.from_bytes(whole[-28:-20], "little")
        place = start
        while whole[place] != 8:  # the first chunk index becomes a record that nobody knows
            place += 9 + int.from_bytes(whole[place + 1 : place + 9], "little")
        whole[place] = 0x7F
    path = tmp_path / "bag.mcap"
    path.write_bytes(whole)
    assert children(path) == EXPECTED


def test_messages_without_chunks_need_not_be_in_order(tmp_path):
    path = tmp_path / "bag.mcap"
    path.write_bytes(mcap_bytes(string_events()[::-1], use_chunking=False))
    assert children(path) == EXPECTED


@pytest.mark.parametrize("profile", ["ros2", ""], ids=["indexed", "scanned"])
def test_a_log_time_before_1970_comes_first(tmp_path, profile):
    first, *others = string_events()
    path = tmp_path / "bag.mcap"
    path.write_bytes(mcap_bytes([*others, (*first[:2], 2**64 - 1000, first[3])], profile=profile))
    assert children(path) == EXPECTED
    with Bag(path) as bag:
        assert [record.log_time for record in bag.messages(["/tf"])][:2] == [
            -1000,
            START + 100_000_000,
        ]
