# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""The faults of ``alocc soak``: the same for the same seed, and they do what they are called."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest

from alocc_ros.bags.reader import TF_TYPE, Bag, Record
from alocc_ros.bags.sample import write_sample
from alocc_ros.ros.soak import faults
from alocc_ros.ros.soak.faults import Changes, Fault, parse_command, stream, with_later_stamp

CAMERAS = ("cam_front", "cam_back")
TOPICS = {c: (f"/{c.upper()}/image_rect_compressed", f"/{c.upper()}/camera_info") for c in CAMERAS}


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> list[Record]:
    path = tmp_path_factory.mktemp("soak") / "sample.mcap"
    write_sample(path, seconds=0.5, rate=2, width=32, height=18)
    with Bag(path) as bag:
        return list(bag.messages(list(bag.types)))


def decoded(record: Record, data: bytes):
    return Bag.decode(Path("x"), Record(record.topic, record.type, record.log_time, data))


def changed(records: list[Record], kind: str, camera: str, amount: float) -> dict[Record, object]:
    """What goes out in place of each message that the fault changes."""
    changes = Changes(TOPICS, "base_link")
    fault = Fault(kind, camera, amount, 1.0, 1.0)
    changes.take(*parse_command(fault.command(True)))
    out = [(r, changes(r)) for r in records]
    changes.take(fault, False)
    assert [changes(r) for r in records] == [r.data for r in records]
    return [(r, data) for r, data in out if data != r.data]


def test_a_seed_tells_all_faults_and_each_kind_comes():
    first = list(islice(stream(3, CAMERAS), 60))
    assert first == list(islice(stream(3, CAMERAS), 60)) != list(islice(stream(4, CAMERAS), 60))
    assert [sum(f.kind == k for f in first) for k in faults.KINDS] == [10] * len(faults.KINDS)
    assert all((f.camera in CAMERAS) == (f.kind in (faults.DEATH, faults.STAMPS)) for f in first)


def test_a_dead_camera_sends_nothing_and_the_others_all(records):
    found = changed(records, faults.DEATH, "cam_back", 0.0)
    assert {r.topic for r, _ in found} == set(TOPICS["cam_back"])
    assert all(data is None for _, data in found)


@pytest.mark.parametrize("seconds", [-1000.0, 1.0, 100.0])
def test_a_jump_moves_the_stamps_of_one_camera(records, seconds):
    found = changed(records, faults.STAMPS, "cam_front", seconds)
    assert {r.topic for r, _ in found} == set(TOPICS["cam_front"])
    for record, data in found:
        before, after = (decoded(record, d).header for d in (record.data, data))
        assert after.stamp.sec == before.stamp.sec + seconds
        assert (after.stamp.nanosec, after.frame_id) == (before.stamp.nanosec, before.frame_id)


def test_a_stamp_stays_within_what_a_message_can_hold(records):
    record = next(r for r in records if r.type != TF_TYPE)
    for seconds, stamp in ((-1e12, (0, 0)), (1e12, (2**31 - 1, 999_999_999))):
        header = decoded(record, with_later_stamp(record.data, seconds)).header
        assert (header.stamp.sec, header.stamp.nanosec) == stamp


def test_a_teleport_moves_the_vehicle_and_not_its_cameras(records):
    found = changed(records, faults.TELEPORT, "", 500.0)
    assert {r.topic for r, _ in found} == {"/tf"}
    for record, data in found:
        for before, after in zip(
            *(decoded(record, d).transforms for d in (record.data, data)), strict=True
        ):
            moved = after.transform.translation.x - before.transform.translation.x
            assert moved == pytest.approx(500.0 * (before.child_frame_id == "base_link"))
