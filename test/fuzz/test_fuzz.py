# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Every reader of files and messages, fed with changed ones: an error of ours, soon, or a result.

``make fuzz SECONDS=600`` gives each reader its share of that time; without it each gets a second.
A finding is written to ``out/fuzz/`` with its reader's name; mended, it goes into
``corpus/``, which every run replays.
"""

from __future__ import annotations

import io
import os
import pickle
import random
import re
import resource
import shutil
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from rosbags.rosbag2 import StoragePlugin, Writer
from street_truth import frame_at, voxels_at

from alocc_ros import messages
from alocc_ros.arrays import OBSTACLE_DTYPE
from alocc_ros.bags import cdr
from alocc_ros.bags.clouds import cloud_points
from alocc_ros.bags.pose_files import read_poses, read_stamps
from alocc_ros.bags.reader import Bag
from alocc_ros.bags.results import read_npz as read_result
from alocc_ros.bags.sample import write_sample
from alocc_ros.datasets.infos import InfoFile
from alocc_ros.datasets.tables import read_table
from alocc_ros.errors import AloccError
from alocc_ros.grid import VoxelGrid
from alocc_ros.metrics.lidar_scores import LidarScores
from alocc_ros.network.checkpoint import read_state_dict
from alocc_ros.records import read_record
from alocc_ros.resources import shared_folder
from alocc_ros.stream.conversions import camera_image, transform
from alocc_ros.stream.decoding import decode
from alocc_ros.stream.preset import load_preset
from alocc_ros.stream.rig import intrinsics_from_camera_info, load_rig
from alocc_ros.stream.video import VideoStreams
from alocc_ros.types import CameraImage
from alocc_ros.unpacking import unpack

CORPUS = Path(__file__).parent / "corpus"  # past findings, READER-WHAT.SUFFIX
FINDINGS = Path(__file__).parents[2] / "out" / "fuzz"
SECONDS = float(os.environ.get("ALOCC_FUZZ_SECONDS", "0"))
LONGEST = 10.0  # s for one input
INTERESTING = (0, 1, 0x7F, 0x80, 0xFF)
TOKENS = (b"\xff" * 8, b"\0" * 8, b"\xff\xff\xff\x7f", b"../", b"[" * 64, b"&a *a", b"1e999")


def changed(data: bytes, chance: random.Random) -> bytes:
    """One to eight changes: bits, bytes, tokens, pieces cut, doubled or moved."""
    out = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 4, 8))):
        place = chance.randrange(len(out)) if out else 0
        length = chance.choice((1, 2, 4, 8, 64, 1000))
        match chance.randrange(7):
            case 0 if out:
                out[place] ^= 1 << chance.randrange(8)
            case 1 if out:
                out[place] = chance.choice(INTERESTING)
            case 2:
                token = chance.choice(TOKENS)
                out[place : place + len(token)] = token
            case 3:
                out[place:place] = chance.choice(TOKENS)
            case 4:
                del out[place : place + length]
            case 5:
                out[place:place] = out[place : place + length]
            case 6:
                del out[place:]
    return bytes(out)


def read_bag(path: Path) -> None:
    with Bag(path) as bag:
        for record in bag.messages(list(bag.types)):
            bag.decode(record)


def decode_image(path: Path) -> None:
    decode(CameraImage("cam_front", 1, path.read_bytes(), "jpeg"))


def decode_camera_info(path: Path) -> None:
    intrinsics_from_camera_info(_message(path, messages.CAMERA_INFO), True, "/camera_info")


def decode_compressed(path: Path) -> None:
    decode(camera_image(_message(path, messages.COMPRESSED_IMAGE), "cam_front", 1, "bgr8"))


def decode_raw(path: Path) -> None:
    decode(camera_image(_message(path, messages.IMAGE), "cam_front", 1, "bgr8"))


def decode_transforms(path: Path) -> None:
    for entry in _message(path, messages.TF_MESSAGE).transforms:
        transform(entry)


def decode_voxels(path: Path) -> None:
    voxels = unpack(_message(path, messages.SEMANTIC_GRID))
    assert voxels.labels.shape == voxels.grid.shape


def decode_cloud(path: Path) -> None:
    points = cloud_points(_message(path, messages.POINT_CLOUD))
    LidarScores().update(np.zeros((5, 5, 4), np.uint8), 1, _SMALL, points, np.zeros(3))


def decode_video(path: Path) -> None:
    packets = re.split(rb"(?=\x00\x00\x00\x01\x09)", path.read_bytes())  # access unit delimiters
    lost: list[str] = []
    streams = VideoStreams(lambda camera, reason, detail: lost.append(reason))
    for number, packet in enumerate(packets):
        streams.add(CameraImage("cam_front", number, np.frombuffer(packet, np.uint8), "h264"))
    streams.flush()


def _message(path: Path, kind: str) -> Any:
    record = SimpleNamespace(topic="/x", log_time=0, data=path.read_bytes(), type=kind)
    return Bag.decode(SimpleNamespace(path=path), record)


def _image(kind: str) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (24, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def _torch(zipped: bool) -> bytes:
    buffer = io.BytesIO()
    weights = {"a": torch.ones(3, 4), "b": torch.arange(9)}
    torch.save({"state_dict": weights}, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


def _npz() -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, labels=np.zeros((4, 4, 2), np.uint8), stamp=np.array(5))
    return buffer.getvalue()


def _infos() -> bytes:
    info = {"token": "t", "timestamp": 1, "gt_boxes": np.zeros((2, 7)), "names": np.array(["car"])}
    return pickle.dumps({"infos": [info], "metadata": {"version": "v"}}, 2)


def _bag(folder: Path) -> bytes:
    path = folder / "seed.mcap"
    write_sample(path, seconds=0.2, rate=5, width=32, height=18)
    return path.read_bytes()


def _database(folder: Path) -> bytes:
    """The same recording as an sqlite3 bag."""
    _bag(folder)
    writer = Writer(folder / "seed", version=8, storage_plugin=StoragePlugin.SQLITE3)
    with Bag(folder / "seed.mcap") as bag, writer:
        topics = {
            topic: writer.add_connection(topic, kind, typestore=cdr.TYPESTORE)
            for topic, kind in bag.types.items()
        }
        for record in bag.messages(list(bag.types)):
            writer.write(topics[record.topic], record.log_time, bytes(record.data))
    (file,) = (folder / "seed").glob("*.db3")
    data = file.read_bytes()
    shutil.rmtree(folder / "seed")
    return data


def _h264(_: Path) -> bytes:
    av = pytest.importorskip("av")
    context = av.CodecContext.create("libx264", "w")
    context.width, context.height, context.pix_fmt = 32, 16, "yuv420p"
    context.time_base = Fraction(1, 10)
    context.options = {"preset": "ultrafast", "tune": "zerolatency", "x264-params": "aud=1"}
    out = []
    for number in range(4):
        frame = av.VideoFrame.from_ndarray(np.full((16, 32, 3), 50 * number, np.uint8), "rgb24")
        frame.pts = number
        out += context.encode(frame)
    return b"".join(bytes(packet) for packet in [*out, *context.encode(None)])


def _voxels(_: Path) -> bytes:
    grid = VoxelGrid((8.0, -4.0, 0.0), (8, 12, 3), 0.8)
    frame = frame_at(width=32, height=18)
    return cdr.encode(messages.semantic_grid(frame, voxels_at(grid=grid)))


def _raw_image() -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 10, 3), dtype=np.uint8)
    return cdr.encode(messages.rgb_image(pixels, 1, "cam"))


def _cloud() -> bytes:
    points = np.ones(20, OBSTACLE_DTYPE)
    return cdr.encode(messages.point_cloud(points, 1, "lidar"))


def _sample_message(folder: Path, kind: str) -> bytes:
    path = folder / "seed.mcap"
    write_sample(path, seconds=0.2, rate=5, width=32, height=18)
    with Bag(path) as bag:
        return next(bytes(r.data) for r in bag.messages(list(bag.types)) if r.type == kind)


def _text(name: str) -> bytes:
    return (shared_folder("config") / name).read_bytes()


def _record() -> bytes:
    text = (shared_folder("models") / "alocc_2d_mini.yaml").read_bytes()
    return text.replace(b"alocc_2d_mini", b"input")  # a record's name is that of its file


_SMALL = VoxelGrid((0.0, 0.0, 0.0), (5, 5, 4), 1.0)
POSES = b"stamp,x,y,z,qx,qy,qz,qw\n1.5,0,1,2,0,0,0,1\n2.5,1,1e0,2,0,0,1,0\n"
STAMPS = b"file,stamp\na.jpg,1.5\nb.jpg,1600000000000000000\n"
RIG = b"cameras:\n  cam_front: {width: 64, height: 36, K: [1, 0, 1, 0, 1, 1, 0, 0, 1]}\n"

# Reader, suffix of its files, what is changed.
READERS: dict[str, tuple[Callable[[Path], object], str, Callable[[Path], bytes]]] = {
    "mcap": (read_bag, ".mcap", _bag),
    "db3": (read_bag, ".db3", _database),
    "jpeg": (decode_image, ".jpg", lambda _: _image("JPEG")),
    "png": (decode_image, ".png", lambda _: _image("PNG")),
    "camera_info": (
        *(decode_camera_info, ".cdr"),
        lambda folder: _sample_message(folder, messages.CAMERA_INFO),
    ),
    "compressed_image": (
        *(decode_compressed, ".cdr"),
        lambda folder: _sample_message(folder, messages.COMPRESSED_IMAGE),
    ),
    "raw_image": (*(decode_raw, ".cdr"), lambda _: _raw_image()),
    "transforms": (
        *(decode_transforms, ".cdr"),
        lambda folder: _sample_message(folder, messages.TF_MESSAGE),
    ),
    "voxels": (decode_voxels, ".cdr", _voxels),
    "point_cloud": (decode_cloud, ".cdr", lambda _: _cloud()),
    "h264": (decode_video, ".h264", _h264),
    "pth": (read_state_dict, ".pth", lambda _: _torch(True)),
    "old_pth": (read_state_dict, ".pth", lambda _: _torch(False)),
    "safetensors": (
        *(read_state_dict, ".safetensors"),
        lambda _: safetensors.torch.save({"a": torch.ones(3, 4)}),
    ),
    "npz": (read_result, ".npz", lambda _: _npz()),
    "infos": (lambda path: InfoFile(path, path.parent), ".pkl", lambda _: _infos()),
    "table": (
        *(lambda path: list(read_table(path)), ".json"),
        lambda _: b'[{"token": "a", "name": "b"}, {"token": "c"}]',
    ),
    "preset": (load_preset, ".yaml", lambda _: _text("presets/custom_example.yaml")),
    "rig": (lambda path: load_rig(path, True), ".yaml", lambda _: RIG),
    "record": (read_record, ".yaml", lambda _: _record()),
    "poses": (read_poses, ".csv", lambda _: POSES),
    "stamps": (
        read_stamps,
        ".csv",
        lambda _: b"file,stamp\na.jpg,1.5\nb.jpg,1600000000000000000\n",
    ),
}


@pytest.mark.parametrize("name", READERS)
def test_a_changed_input_is_an_error_of_ours_or_a_result(tmp_path: Path, name: str) -> None:
    read, suffix, seed_of = READERS[name]
    seed = seed_of(tmp_path)
    path = tmp_path / f"input{suffix}"
    start = int(time.time()) if SECONDS else 0
    chance = random.Random(start)
    end = time.monotonic() + (SECONDS / len(READERS) if SECONDS else 1.0)
    before, tried = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, 0
    population = [seed]
    while time.monotonic() < end:
        data = changed(chance.choice(population), chance)
        if tried % 50 == 0 and len(data) < 2 * len(seed) + 1000:  # changes upon changes
            population = [seed, *population[-20:], data]
        path.write_bytes(data)
        begin = time.monotonic()
        try:
            read(path)
        except AloccError:
            pass
        except BaseException:
            _keep(name, suffix, data)
            raise
        tried += 1
        if time.monotonic() - begin > LONGEST:
            _keep(name, suffix, data)
            pytest.fail(f"{name}: {time.monotonic() - begin:.1f} s for {len(data)} bytes")
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    if SECONDS:
        print(f"{name}: {tried} inputs, seed {start}, memory +{grown / 1024:.0f} MB")
    assert tried > 0
    assert grown < 512 * 1024, f"{name}: {grown / 1024:.0f} MB more"


@pytest.mark.parametrize("path", sorted(CORPUS.iterdir()), ids=lambda p: p.name)
def test_what_was_once_found_is_an_error_of_ours_and_soon(path: Path) -> None:
    read, suffix, _ = READERS[path.name.partition("-")[0]]
    assert path.suffix == suffix
    begin = time.monotonic()
    with pytest.raises(AloccError):
        read(path)
    assert time.monotonic() - begin < LONGEST


def _keep(name: str, suffix: str, data: bytes) -> None:
    FINDINGS.mkdir(parents=True, exist_ok=True)
    (FINDINGS / f"{name}-{int(time.time())}{suffix}").write_bytes(data)
