# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""``alocc demo``, all of it: the street is drawn, the node runs, and what it says is scored."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="ROS is not installed (make setup)")
pytest.importorskip("alocc_ros.msg", reason="alocc_ros/msg is not built (make setup)")

import numpy as np  # noqa: E402
from PIL import Image  # noqa: E402
from rosbags.highlevel import AnyReader  # noqa: E402
from spinning import ROOT  # noqa: E402

from alocc_ros import messages  # noqa: E402
from alocc_ros.bags.reader import Bag  # noqa: E402
from alocc_ros.bags.results import recorded_grids  # noqa: E402
from alocc_ros.bags.writer import Recorder  # noqa: E402
from alocc_ros.cli.main import main, parser_for  # noqa: E402
from alocc_ros.evaluation.scoring import find_scoring  # noqa: E402
from alocc_ros.records import find, resolve  # noqa: E402
from alocc_ros.ros.demo import pages  # noqa: E402
from alocc_ros.ros.demo.scores import score  # noqa: E402
from alocc_ros.ros.demo.street import Street  # noqa: E402
from alocc_ros.ros.launch_arguments import DEMO  # noqa: E402
from alocc_ros.types import FrameSet, Occupancy  # noqa: E402

SECONDS, SIZE = 1.0, (48, 132)
SMALL = ("--seconds", str(SECONDS), "--size", "48x132", "--seed", "5", "--random-weights")
PATIENCE = 600.0  # s, on a machine that is busy


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory) -> Street:
    made = Street(tmp_path_factory.mktemp("demo"), 5, SECONDS, SIZE)
    assert made.make()
    return made


@contextlib.contextmanager
def started(out: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    program = subprocess.Popen(
        [sys.executable, "-m", "alocc_ros.cli.main", "demo", "-o", str(out), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    try:
        yield program
    finally:
        if program.poll() is None:
            program.terminate()
        program.communicate(timeout=PATIENCE)


def children(number: int) -> dict[int, str]:
    """Process ids and command lines of a process's children."""
    found = {}
    for child in Path(f"/proc/{number}/task/{number}/children").read_text().split():
        with contextlib.suppress(OSError):
            found[int(child)] = Path(f"/proc/{child}/cmdline").read_text().replace("\0", " ")
    return found


def is_alive(number: int) -> bool:
    return Path(f"/proc/{number}").exists()


@pytest.mark.slow
@pytest.mark.system
def test_a_street_goes_through_the_node_and_comes_back_scored(street, domain):
    out, drawn = street.folder, street.bag.stat()
    (out / "occupancy.mcap").write_bytes(b"of an earlier run")
    with started(out, *SMALL) as program:
        said, _ = program.communicate(timeout=PATIENCE)
    assert program.returncode == 0, said
    assert street.bag.stat().st_ino == drawn.st_ino and "is drawn" not in said

    with Bag(out / "occupancy.mcap") as bag:
        (recorded,) = [g for g in recorded_grids(bag) if g.name == "/alocc_node"]
        grids = [read() for _, read in recorded]
    assert grids and all(grid.random_weights for grid in grids)
    with AnyReader([out / "occupancy.mcap"]) as reader:
        assert {"/alocc_node/occupancy", "/tf", "/diagnostics"} <= set(reader.topics)
        times = [log_time for _, log_time, _ in reader.messages()]
    with Bag(street.bag) as bag:
        begin = next(bag.messages(["/tf"])).log_time
    assert begin <= min(times) <= max(times) < begin + PATIENCE * 1e9, "in the bag's own time"

    found = json.loads((out / "demo.json").read_text())
    assert found["random weights"] is True and found["results"] == len(grids)
    assert found["camera sets"] == sum(found["fates"].values()) == street.spec.cycles
    voxels, rays = found["scores"]["voxels"], found["scores"]["rays"]
    for value in (voxels["mIoU"], voxels["IoU"], rays["RayIoU"], rays["Occ score"]):
        assert math.isfinite(value) and 0.0 <= value <= 100.0
    assert 0.0 < found["latency s"]["p50"] <= found["latency s"]["p95"] < PATIENCE
    for name in ("mIoU", "IoU", "RayIoU", "mAVE", "Occ score", "latency", "superseded"):
        assert re.search(rf"│ {name} ", said), said
    assert f"{voxels['mIoU']:.2f} %" in said
    assert "RANDOM WEIGHTS" in said and "processor" in said

    with Image.open(out / "demo.png") as page:
        assert page.width == 1600 and page.height > 1000
        page.load()
    with Image.open(out / "demo.webp") as motion:
        assert motion.n_frames == len({grid.stamp for grid in grids}) or motion.n_frames == 12
    assert not list(out.rglob("*.partial"))


@pytest.mark.slow
@pytest.mark.system
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_an_interruption_leaves_no_half_file_and_no_process(street, domain, number):
    for name in ("occupancy.mcap", "demo.png"):
        (street.folder / name).unlink(missing_ok=True)
    with started(street.folder, *SMALL) as program:
        end = time.monotonic() + PATIENCE
        born: dict[int, str] = {}
        while not any("alocc_ros.ros.main" in line for line in born.values()):
            assert program.poll() is None, program.communicate()[0]
            assert time.monotonic() < end
            time.sleep(0.05)
            born |= children(program.pid)
        time.sleep(1.0)  # while it starts, or while it works
        program.send_signal(number)
        said, _ = program.communicate(timeout=PATIENCE)
    assert program.returncode == 130 and "Traceback" not in said, said
    assert not any(is_alive(child) for child in born)
    assert street.bag.is_file()
    assert not (street.folder / "occupancy.mcap").exists()
    assert not list(street.folder.rglob("*.partial"))


@pytest.mark.slow
@pytest.mark.system
def test_its_processes_do_not_outlive_one_that_is_killed(street, domain):
    with started(street.folder, *SMALL) as program:
        end = time.monotonic() + PATIENCE
        born: dict[int, str] = {}
        while not any("alocc_ros.ros.main" in line for line in born.values()):
            assert program.poll() is None and time.monotonic() < end
            time.sleep(0.05)
            born |= children(program.pid)
        program.kill()
    while any(is_alive(child) for child in born):
        assert time.monotonic() < end
        time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.system
def test_a_street_that_is_not_the_one_is_drawn_anew(street, tmp_path):
    other = Street(tmp_path, 5, SECONDS, SIZE)
    other.bag.parent.mkdir()
    other.bag.write_bytes(b"not a bag")
    assert other.make() is True
    assert other.bag.read_bytes() == street.bag.read_bytes()
    assert other.make() is False


@pytest.mark.slow
@pytest.mark.system
def test_the_truth_of_a_key_frame_is_that_of_the_bag_and_others_differ(street):
    with Bag(street.bag) as bag:
        (recorded,) = recorded_grids(bag)
        true = {stamp: read().labels for stamp, read in recorded}
    first, second, *_ = sorted(true)
    for stamp in (first, second, second - 7_600_000):  # an image of another camera, the same turn
        truth, origins = street.truth(stamp, "openocc")
        assert np.array_equal(truth.labels, true[first if stamp == first else second])
        assert 1 <= len(origins) <= 8 and 0.05 < truth.mask_camera.mean() < 0.9
    between, _ = street.truth(first + 250_000_000, "openocc")
    assert 0.9 < (between.labels == true[first]).mean() < 1.0


@pytest.mark.slow
@pytest.mark.system
def test_a_node_that_knows_the_truth_gets_full_marks_and_its_page_shows_it_twice(street, tmp_path):
    stamps = [1_767_225_600_007_600_000 + n * 250_000_000 for n in range(3)]
    recording = tmp_path / "occupancy.mcap"
    file = Recorder(recording, {})
    record = find("alocc_tiny")
    weights = f"{messages.SHA256}{'0' * 64}"
    info = messages.GridInfo(record.grid, record.classes, record.name, weights, False, record.flow)
    grid_info = messages.grid_info(info, stamps[0], "base_link")
    file.write("/alocc_node/grid_info", stamps[0], grid_info)
    for stamp in stamps:
        truth, _ = street.truth(stamp, "openocc")
        occupancy = Occupancy(
            labels=truth.labels,
            flow=truth.flow.astype(np.float16),
            grid=truth.grid,
            classes=truth.classes,
            stamp=stamp,
            frame_id="base_link",
            map_T_base=np.eye(4),
        )
        frame = FrameSet(stamp, {}, {}, np.eye(4), {})
        file.write("/alocc_node/voxels", stamp, messages.semantic_grid(frame, occupancy))
    file.end_frame()
    file.finish()

    scored = score(recording, street, find_scoring("openocc-mask"), 2, print)
    voxels, rays = scored.results["voxels"], scored.results["rays"]
    assert (voxels.frames, rays.frames) == (3, 3) and scored.stamps == tuple(stamps)
    assert (voxels.miou, voxels.iou, rays.rayiou) == (100.0, 100.0, 100.0)
    assert rays.flow.mave < 0.01 and rays.occ_score > 99.9
    assert not scored.random_weights and scored.model == "alocc_tiny"
    assert [pair.prediction.stamp for pair in scored.pairs] == [stamps[0], stamps[2]]

    picture, animation = tmp_path / "demo.png", tmp_path / "demo.webp"
    pages.draw(scored.pairs, street.bag, scored.model, picture, animation)
    with Image.open(picture) as page:
        pixels = np.asarray(page.convert("RGB")).astype(int)
    # The rows of voxels, without the captions in their corners.
    top, pitch = pixels.shape[0] - 24 - 54 - 12 - 2 * 400 - 12, 412
    said, true = (pixels[top + n * pitch + 40 : top + n * pitch + 400] for n in range(2))
    assert np.abs(said - true).mean() < 0.5 and said.std() > 10


def test_another_node_on_the_graph_is_refused(node, context, street, domain):
    import rclpy

    other = rclpy.create_node("alocc_node", context=context)
    with started(street.folder, *SMALL) as program:
        said, _ = program.communicate(timeout=PATIENCE)
    other.destroy_node()
    assert program.returncode == 2
    assert f"another /alocc_node is there, on ROS domain {domain}" in said
    assert "ROS_DOMAIN_ID=" in said


def test_weights_that_are_not_there_are_asked_for_before_anything_is_made(tmp_path, capsys):
    assert main(["demo", "-o", str(tmp_path / "out"), "--model", "nowhere.safetensors"]) == 2
    assert "nowhere.safetensors: no such file" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


def test_damaged_weights_are_told_before_anything_is_made(tmp_path, capsys):
    _, weights = resolve("alocc_tiny")
    damaged = tmp_path / "alocc_tiny.safetensors"
    damaged.write_bytes(weights.read_bytes()[:-1000])
    assert main(["demo", "-o", str(tmp_path / "demo"), "--model", str(damaged)]) == 2
    assert "alocc_tiny.safetensors is damaged" in capsys.readouterr().err
    assert not (tmp_path / "demo").exists()


def test_without_ros_it_says_how_to_get_it(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "rclpy", None)
    assert main(["demo", "-o", str(tmp_path / "out"), "--random-weights"]) == 2
    said = capsys.readouterr().err
    assert "rclpy cannot be imported" in said and "make ros" in said and "C++ compiler" in said
    assert not any(tmp_path.iterdir())


def test_without_a_screen_it_says_where_the_picture_is(capsys, monkeypatch):
    from alocc_ros.cli import demo

    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    demo._show(Path("occupancy.mcap"), Path("street.mcap"), Path("demo.png"))
    assert "there is no screen here: copy demo.png" in capsys.readouterr().out


def test_on_a_screen_without_rerun_the_picture_is_opened(tmp_path, monkeypatch):
    from alocc_ros.cli import demo

    opener = tmp_path / "xdg-open"
    opener.write_text('#!/bin/sh\necho "$@" > "$0.opened"\n')
    opener.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("DISPLAY", ":99")
    monkeypatch.setitem(sys.modules, "rerun", None)
    demo._show(Path("occupancy.mcap"), Path("street.mcap"), Path("demo.png"))
    assert (tmp_path / "xdg-open.opened").read_text() == "demo.png\n"


def test_the_launch_file_has_options_of_the_command_and_the_page_names_them():
    page = (ROOT / "docs" / "demo.md").read_text()
    defaults = vars(parser_for(["demo"]).parse_args(["demo"]))
    assert {"out", "seconds", "rviz"} <= {name for name, _, _ in DEMO}
    for name, default, _ in DEMO:
        assert f"`{name}:=" in page
        if name == "rviz":
            continue
        meant = defaults["output" if name == "out" else name]
        meant = "{}x{}".format(*meant) if name == "size" else str(meant)
        assert meant.lower() == default


def test_if_the_node_gives_nothing_it_is_told_what_the_node_said(capsys):
    from alocc_ros.cli.demo import _nothing
    from alocc_ros.ros.demo.drive import DriveResult

    said = "[ERROR] [alocc_node]: no ego pose"
    driven = DriveResult(None, {}, 3, {"processed": 0, "failed": 3}, 5.5, node_output=said)
    assert _nothing(driven) == 1
    assert said in capsys.readouterr().err
