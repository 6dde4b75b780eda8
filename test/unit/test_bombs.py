# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Small files that would become large ones: refused before they do."""

from __future__ import annotations

import io
import sqlite3
import struct
import time
import zipfile
from pathlib import Path

import lz4.frame
import numpy as np
import pytest
import torch
import zstandard

from alocc_ros.bags import limits, storage
from alocc_ros.bags.reader import Bag
from alocc_ros.bags.results import read_npz as read_result
from alocc_ros.bags.sample import write_sample
from alocc_ros.datasets.files import read_npz
from alocc_ros.datasets.tables import read_table
from alocc_ros.errors import BagError, CheckpointError, DataError
from alocc_ros.network.checkpoint import read_state_dict

MB = 1 << 20


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("bag") / "sample.mcap"
    write_sample(path, seconds=0.5, rate=4, width=64, height=36)
    return path.read_bytes()


def chunk(data: bytes, compression: str, size: int) -> bytes:
    name = compression.encode()
    head = struct.pack("<QQQII", 1, 2, size, 0, len(name)) + name + struct.pack("<Q", len(data))
    return b"\x06" + struct.pack("<Q", len(head) + len(data)) + head + data


def untold(size: int) -> bytes:
    """A zstd frame that does not say how long its contents are."""
    packer = zstandard.ZstdCompressor(write_content_size=False).compressobj()
    return b"".join(packer.compress(bytes(MB)) for _ in range(size // MB)) + packer.flush()


def packed(size: int) -> bytes:
    return zstandard.ZstdCompressor().compress(bytes(size))


BOMBS = {
    "one frame": lambda: chunk(packed(512 * MB), "zstd", 1000),
    "a length untold": lambda: chunk(untold(512 * MB), "zstd", 1000),
    "many frames": lambda: chunk(packed(16 * MB) * 40, "zstd", 1000),
    "after an empty frame": lambda: chunk(
        struct.pack("<II", 0x184D2A50, 4) + b"none" + packed(512 * MB), "zstd", 1000
    ),
    "lz4": lambda: chunk(lz4.frame.compress(bytes(512 * MB), store_size=False), "lz4", 1000),
    "a length that lies": lambda: chunk(b"abc", "zstd", 1 << 40),
    "a length that is true": lambda: chunk(packed(512 * MB), "zstd", 512 * MB),
}


@pytest.mark.parametrize("kind", BOMBS)
@pytest.mark.parametrize("has_summary", [True, False], ids=["whole", "cut off"])
def test_a_chunk_that_would_become_too_long_is_refused_before_it_does(
    tmp_path, whole, kind, has_summary
):
    path = tmp_path / "bomb.mcap"
    path.write_bytes(whole[:8] + BOMBS[kind]() + (whole[8:] if has_summary else b""))
    begin = time.monotonic()
    with pytest.raises(BagError, match="would become .* MB or more out of .* MB; at most"):
        Bag(path)
    assert time.monotonic() - begin < 10


@pytest.mark.parametrize("compression", ["zstd", "lz4", ""])
def test_the_chunks_of_a_usual_recording_are_read(tmp_path, whole, compression):
    data = {"zstd": packed, "lz4": lambda n: lz4.frame.compress(bytes(n)), "": bytes}[compression](
        4 * MB
    )
    path = tmp_path / "usual.mcap"
    path.write_bytes(whole[:8] + chunk(data, compression, 4 * MB) + whole[8:])
    limits.check_mcap(path)


def test_a_hole_or_a_cut_anywhere_is_left_to_the_reader(tmp_path, whole):
    path = tmp_path / "damaged.mcap"
    random = np.random.default_rng(0)
    for _ in range(300):
        data = bytearray(whole[: random.integers(len(whole))])
        for place in random.integers(max(len(data), 1), size=3):
            data[place : place + 1] = bytes([random.integers(256)])
        path.write_bytes(data)
        try:
            limits.check_mcap(path)
        except BagError as error:  # a length that was changed
            assert "would become" in str(error)
    path.write_bytes(whole + bytes(10000))
    limits.check_mcap(path)


def zipped(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


@pytest.mark.parametrize(("read", "error"), [(read_npz, DataError), (read_result, BagError)])
def test_an_npz_that_would_become_too_long_is_refused(tmp_path, read, error):
    header = io.BytesIO()
    shape = {"descr": "|u1", "fortran_order": False, "shape": (700 * MB,)}
    np.lib.format.write_array_header_1_0(header, shape)
    path = zipped(tmp_path / "labels.npz", **{"labels.npy": header.getvalue() + bytes(700 * MB)})
    arguments = (path, ["semantics"]) if read is read_npz else (path,)
    with pytest.raises(error, match="it would become 734 MB; at most"):
        read(*arguments)


@pytest.mark.parametrize(("read", "error"), [(read_npz, DataError), (read_result, BagError)])
def test_an_archive_of_a_later_version_is_an_error(tmp_path, read, error):
    path = tmp_path / "labels.npz"
    np.savez(path, semantics=np.zeros(3))
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 6] = (
        127  # version needed, in the directory; found by make fuzz
    )
    path.write_bytes(data)
    with pytest.raises(error, match="zip file version 12.7"):
        read(*((path, ["semantics"]) if read is read_npz else (path,)))


def test_a_checkpoint_that_would_become_too_long_is_refused(tmp_path):
    path = tmp_path / "net.pth"
    torch.save({"a": torch.ones(3)}, path)
    with zipfile.ZipFile(path) as archive:
        members = {m.filename: archive.read(m) for m in archive.infolist()}
    name = next(n for n in members if n.endswith("data.pkl"))
    zipped(path, **{**members, name: members[name] + bytes(64 * MB)})
    with pytest.raises(CheckpointError, match="it is compressed, as torch never does"):
        read_state_dict(path)
    with zipfile.ZipFile(path, "w") as archive:
        for each, data in members.items():
            archive.writestr(each, data + bytes(64 * MB) if each == name else data)
    with pytest.raises(CheckpointError, match="beside its tensors"):
        read_state_dict(path)


def test_a_tensor_that_poses_as_a_large_one_is_refused(tmp_path):
    path = tmp_path / "net.pth"
    torch.save({"view_transformer.dx": torch.ones(1).expand(1 << 40)}, path)
    with pytest.raises(CheckpointError, match="not plain named tensors"):
        read_state_dict(path)


def test_a_table_that_is_nested_without_end_is_one_line(tmp_path):
    path = tmp_path / "scene.json"
    path.write_text("[" * 100_000)
    with pytest.raises(DataError, match="nested too deep"):
        list(read_table(path))


def test_a_file_or_message_that_becomes_far_longer_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "_MOST_MESSAGE", 1 << 20)
    packed = zstandard.ZstdCompressor().compress(bytes(1 << 26))
    file = tmp_path / "bomb.mcap.zstd"
    file.write_bytes(packed)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with pytest.raises(BagError, match="times as long"):
        storage.plain_file(file, scratch)
    assert list(scratch.iterdir()) == []
    assert storage.plain_message(packed, "std_msgs/msg/String", "cdr") == packed
    small = zstandard.ZstdCompressor().compress(bytes(100))
    assert storage.plain_message(small, "std_msgs/msg/String", "cdr") == bytes(100)


def database(folder: Path, messages_sql: str) -> Path:
    """An sqlite3 bag whose table of messages is something else."""
    path = folder / "bag.db3"
    with sqlite3.connect(path) as file:
        file.executescript(
            "CREATE TABLE topics(id INTEGER PRIMARY KEY, name TEXT, type TEXT, "
            "serialization_format TEXT, offered_qos_profiles TEXT);"
            "INSERT INTO topics VALUES (1, '/tf', 'tf2_msgs/msg/TFMessage', 'cdr', '');"
            + messages_sql
        )
    file.close()
    return path


COMPUTED = {
    "a view without an end": (
        "CREATE VIEW messages AS WITH RECURSIVE n(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n) "
        "SELECT id, 1 AS topic_id, id AS timestamp, zeroblob(100000000) AS data FROM n;"
    ),
    "a generated column": (
        "CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id INTEGER, timestamp INTEGER, "
        "data BLOB GENERATED ALWAYS AS (zeroblob(900000000)));"
        "INSERT INTO messages(topic_id, timestamp) VALUES (1, 5);"
    ),
}


@pytest.mark.parametrize("kind", COMPUTED)
def test_a_database_that_computes_its_messages_is_refused(tmp_path, kind):
    path = database(tmp_path, COMPUTED[kind])
    begin = time.monotonic()
    with pytest.raises(BagError, match="is computed, not recorded"):
        Bag(path)
    assert time.monotonic() - begin < 10


def test_a_name_that_is_no_text_does_not_hide_what_is_computed(tmp_path):
    path = database(tmp_path, "CREATE VIEW zzzz AS SELECT 1;" + next(iter(COMPUTED.values())))
    path.write_bytes(path.read_bytes().replace(b"zzzz", b"z\xff\xfez"))
    with pytest.raises(BagError, match="z\ufffd\ufffdz is computed, not recorded"):
        Bag(path)


def test_a_zstd_message_in_a_database_is_refused_before_it_becomes_long(tmp_path, monkeypatch):
    """By metadata.yaml too, which names the compression that the library would undo itself."""
    monkeypatch.setattr(storage, "_MOST_MESSAGE", 1 << 20)
    columns = "id INTEGER PRIMARY KEY, topic_id INTEGER, timestamp INTEGER, data BLOB"
    path = database(tmp_path, f"CREATE TABLE messages({columns});")
    with sqlite3.connect(path) as file:
        file.execute("INSERT INTO messages VALUES (1, 1, 5, ?)", (packed(64 * MB),))
    file.close()
    (tmp_path / "metadata.yaml").write_text(
        "rosbag2_bagfile_information: {version: 5, storage_identifier: sqlite3, "
        "relative_file_paths: [bag.db3], compression_format: zstd, compression_mode: MESSAGE}"
    )
    with Bag(tmp_path) as bag:
        (record,) = bag.messages(["/tf"])
        assert len(record.data) < MB
        with pytest.raises(BagError, match="is no tf2_msgs"):
            bag.decode(record)
