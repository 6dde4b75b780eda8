# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tiny_model
import torch
import yaml
from PIL import Image
from rosbags.highlevel import AnyReader

from alocc_ros import messages
from alocc_ros.bags import cdr, job
from alocc_ros.bags.reader import Bag
from alocc_ros.bags.sample import rig, write_sample
from alocc_ros.bags.writer import Recorder, whole_frames
from alocc_ros.cli.main import main
from alocc_ros.network.checkpoint import save_safetensors
from alocc_ros.network.model import Alocc
from alocc_ros.records import sha256
from alocc_ros.types import CAMERAS

FRAMES = 12
TINY = ("--model", "tiny", "--random-weights")
REPOSITORY = Path(__file__).parents[2]

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("tiny")]


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three seconds at 4 Hz: every second frame is a key frame."""
    path = tmp_path_factory.mktemp("bag") / "sample.mcap"
    write_sample(path, seconds=3.0, rate=FRAMES / 3, width=176, height=99)
    return path


@pytest.fixture(scope="module")
def undisturbed(bag: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "out.mcap"
    assert alocc_run(bag, out) == 0
    return out


def alocc_run(bag: Path, out: Path, *more: str, model: tuple[str, ...] = TINY) -> int:
    return main(["run", str(bag), "-o", str(out), *model, *more])


def contents(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


# --- the whole way ---------------------------------------------------------------------------


def test_a_bag_becomes_a_recording_and_a_summary(bag, tmp_path, capsys):
    assert alocc_run(bag, tmp_path / "out.mcap") == 0
    assert contents(tmp_path) == ["out.mcap"]
    said = capsys.readouterr()
    assert f"frames   {FRAMES} ({FRAMES} complete, 0 partial)" in said.out
    assert "1 x first frame" in said.out
    assert "RANDOM WEIGHTS (seed 0)" in said.out
    assert "p95" in said.out
    with AnyReader([tmp_path / "out.mcap"]) as reader:
        counts = {t: i.msgcount for t, i in reader.topics.items()}
    assert counts["/alocc/occupancy"] == FRAMES
    assert counts["/tf"] == 6 * FRAMES
    assert "/CAM_FRONT/image_rect_compressed" not in counts


def test_npz_pictures_and_images_come_on_request(bag, tmp_path):
    npz, overlay = tmp_path / "npz", tmp_path / "deep" / "overlay"
    assert (
        alocc_run(
            bag,
            tmp_path / "out.mcap",
            *("--max-frames", "2", "--with-images"),
            *("--npz", str(npz), "--overlay", str(overlay)),
        )
        == 0
    )
    names = ["000000_1600000000008000000", "000001_1600000000258000000"]
    assert contents(npz) == [f"{n}.npz" for n in names]
    assert contents(overlay) == [f"{n}.png" for n in names]
    with np.load(npz / f"{names[0]}.npz") as first, AnyReader([tmp_path / "out.mcap"]) as reader:
        assert first["labels"].shape == tiny_model.GRID.shape
        assert bool(first["random_weights"])
        (cloud, *_) = (
            reader.deserialize(data, connection.msgtype)
            for connection, _, data in reader.messages()
            if connection.topic == "/alocc/occupancy"
        )
        assert cloud.width == int((first["labels"] != 17).sum())
        assert reader.topics["/CAM_BACK/image_rect_compressed"].msgcount == 2
    assert Image.open(overlay / f"{names[0]}.png").width > 1440


def test_a_checkpoint_is_used_and_its_hash_is_in_the_output(bag, tmp_path, undisturbed):
    torch.manual_seed(0)
    weights = tmp_path / "mine.safetensors"
    save_safetensors(weights, Alocc(tiny_model.VARIANT).state_dict())
    out = tmp_path / "out.mcap"
    assert alocc_run(bag, out, model=("--model", str(weights), "--variant", "tiny")) == 0
    with AnyReader([out]) as trained, AnyReader([undisturbed]) as random:
        infos = [t.deserialize(*first(t, "/alocc/grid_info")) for t in (trained, random)]
        clouds = [t.deserialize(*first(t, "/alocc/occupancy")).data for t in (trained, random)]
    assert [info.weights_sha256 for info in infos] == [sha256(weights), ""]
    assert [info.random_weights for info in infos] == [False, True]
    np.testing.assert_array_equal(*clouds)


def first(reader: AnyReader, topic: str) -> tuple[bytes, str]:
    return next((d, c.msgtype) for c, _, d in reader.messages() if c.topic == topic)


def test_the_seed_decides_the_random_weights(bag, tmp_path, undisturbed):
    for seed in ("0", "1"):
        assert alocc_run(bag, tmp_path / f"{seed}.mcap", "--seed", seed) == 0
    assert (tmp_path / "0.mcap").read_bytes() == undisturbed.read_bytes()
    assert (tmp_path / "1.mcap").read_bytes() != undisturbed.read_bytes()


def test_a_custom_yaml_is_as_good_as_a_preset(bag, tmp_path, undisturbed):
    config = tmp_path / "mine.yaml"
    shutil.copy(REPOSITORY / "config" / "presets" / "nuscenes.yaml", config)
    assert alocc_run(bag, tmp_path / "out.mcap", "--config", str(config)) == 0
    assert (tmp_path / "out.mcap").read_bytes() == undisturbed.read_bytes()


# --- stopping and going on -------------------------------------------------------------------


def stopped_after(number: int) -> Callable[[], bool]:
    """Says stop when it is asked for the ``number``-th time."""
    asked = 0

    def stopping() -> bool:
        nonlocal asked
        asked += 1
        return asked >= number

    return stopping


@pytest.fixture
def stop(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """``stop(n)``: the next runs end after their n-th frame, as after Ctrl-C."""
    process = job.process

    def stop(number: int) -> None:
        stopping = stopped_after(number)
        monkeypatch.setattr(
            job, "process", lambda j, source, p, tell, _: process(j, source, p, tell, stopping)
        )

    return stop


@pytest.mark.parametrize("after", [1, 2, 5, 9, 11])
def test_a_run_that_was_stopped_resumes_to_the_same_bytes(
    bag, tmp_path, undisturbed, stop, capsys, after
):
    out = tmp_path / "out.mcap"
    stop(after)
    assert alocc_run(bag, out) == 130
    assert contents(tmp_path) == ["out.mcap.partial", "out.mcap.partial.json"]
    assert "run the same command again to go on" in capsys.readouterr().out
    stop(1000)
    assert alocc_run(bag, out) == 0
    assert f"{after} of them from the run before" in capsys.readouterr().out
    assert out.read_bytes() == undisturbed.read_bytes()
    assert contents(tmp_path) == ["out.mcap"]


@pytest.mark.parametrize("name", ["flow", "recurrent"])
def test_a_higher_rate_resumes_to_the_same_bytes_too(tmp_path, stop, name):
    """Flow's frames between key frames glance back to others of their kind; what a recurrent
    network remembers began with the first frame.
    """
    bag, model = tmp_path / "fast.mcap", ("--model", name, "--random-weights")
    write_sample(bag, seconds=2.4, rate=10, width=176, height=99)
    assert alocc_run(bag, tmp_path / "whole.mcap", model=model) == 0
    out = tmp_path / "out.mcap"
    for after in (13, 4, 5):
        stop(after)
        assert alocc_run(bag, out, model=model) == 130
    stop(1000)
    assert alocc_run(bag, out, model=model) == 0
    assert out.read_bytes() == (tmp_path / "whole.mcap").read_bytes()


def test_without_remembering_the_resumed_output_would_differ(
    bag, tmp_path, undisturbed, stop, monkeypatch
):
    monkeypatch.setattr(job, "frames_to_remember", lambda *_: frozenset())
    stop(9)
    assert alocc_run(bag, tmp_path / "out.mcap") == 130
    stop(1000)
    assert alocc_run(bag, tmp_path / "out.mcap") == 0
    assert (tmp_path / "out.mcap").read_bytes() != undisturbed.read_bytes()


def test_only_the_key_frames_that_are_remembered_run_again(bag, tmp_path, stop, monkeypatch):
    from alocc_ros.pipeline import Pipeline

    steps = []
    step = Pipeline.step
    monkeypatch.setattr(
        Pipeline, "step", lambda self, frame: steps.append(frame.stamp) or step(self, frame)
    )
    stop(11)
    alocc_run(bag, tmp_path / "out.mcap")
    steps.clear()
    stop(1000)
    alocc_run(bag, tmp_path / "out.mcap")
    # History 3: five key frames (0.5 s apart, of frames 0.25 s apart); of the others the one that
    # the last frame glances back to, and what that one itself was compared with.
    remembered = {2, 4, 6, 8, 10} | {9} | {7}
    assert len(steps) == len(remembered) + 1
    np.testing.assert_allclose(np.diff(steps) / 1e9, [0.5] * 2 + [0.25] * 5, atol=1e-6)


def test_a_partial_of_other_options_is_refused_unless_restarted(bag, tmp_path, stop, capsys):
    out = tmp_path / "out.mcap"
    stop(3)
    assert alocc_run(bag, out) == 130
    capsys.readouterr()
    stop(1000)
    before = (tmp_path / "out.mcap.partial").read_bytes()
    assert alocc_run(bag, out, "--seed", "5") == 2
    assert "made with another weights" in capsys.readouterr().err
    assert (tmp_path / "out.mcap.partial").read_bytes() == before
    assert alocc_run(bag, out, "--seed", "5", "--restart") == 0
    assert "from the run before" not in capsys.readouterr().out


def test_a_partial_that_nobody_explains_is_refused(bag, tmp_path, capsys):
    (tmp_path / "out.mcap.partial").write_bytes(b"?")
    assert alocc_run(bag, tmp_path / "out.mcap") == 2
    assert "--restart" in capsys.readouterr().err
    assert contents(tmp_path) == ["out.mcap.partial"]


class Command:
    """``alocc run`` with the tiny model as a process of its own."""

    def __init__(self, bag: Path, out: Path) -> None:
        script = Path(tiny_model.__file__)
        paths = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
        self.out = out
        self.process = subprocess.Popen(
            [sys.executable, script, "run", bag, "-o", out, *TINY],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": paths},
            # A shell's background jobs ignore SIGINT, and so would their children.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )

    def wait_for_frames(self, number: int) -> None:
        partial = self.out.with_name("out.mcap.partial")
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self.process.poll() is None:
            if partial.exists() and len(list(whole_frames(partial))) >= number:
                return
            time.sleep(0.01)
        pytest.fail(f"no {number} frames: {self.process.communicate()}")


@pytest.fixture(scope="module")
def long_bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bag") / "long.mcap"
    write_sample(path, seconds=8.0, rate=4.0, width=88, height=50)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl-C", "kill -9"])
def test_a_command_that_was_killed_resumes_to_the_same_bytes(long_bag, tmp_path, number):
    out = tmp_path / "out.mcap"
    command = Command(long_bag, out)
    command.wait_for_frames(6)
    command.process.send_signal(number)
    said = command.process.communicate(timeout=30)
    assert not out.exists()
    if number == signal.SIGINT:
        assert command.process.returncode == 130
        assert "run the same command again" in said[0]
        # What is there is a whole recording in itself, with an index.
        shutil.copy(tmp_path / "out.mcap.partial", tmp_path / "copy.mcap")
        with AnyReader([tmp_path / "copy.mcap"]) as reader:
            assert reader.topics["/alocc/occupancy"].msgcount >= 6
        (tmp_path / "copy.mcap").unlink()
        assert "Traceback" not in said[1]
    again = Command(long_bag, out)
    said = again.process.communicate(timeout=120)
    assert again.process.returncode == 0, said
    assert "from the run before" in said[0]
    assert contents(tmp_path) == ["out.mcap"]
    assert alocc_run(long_bag, tmp_path / "alone.mcap") == 0
    assert out.read_bytes() == (tmp_path / "alone.mcap").read_bytes()


# --- bad input -------------------------------------------------------------------------------


def changed_sample(
    bag: Path, path: Path, change: Callable[[str, int, object], object | None]
) -> Path:
    """The sample with each message changed, or left out (None)."""
    recorder = Recorder(path, {})
    with Bag(bag) as source:
        for record in source.messages(source.types):
            message = change(record.topic, record.log_time, source.decode(record))
            if message is not None:
                data = bytes(cdr.TYPESTORE.serialize_cdr(message, record.type))
                recorder.write_bytes(record.topic, record.type, record.log_time, data)
    recorder.end_frame()
    recorder.finish()
    return path


def other_size(topic: str, log_time: int, message: object) -> object:
    if topic == "/CAM_BACK/image_rect_compressed":
        buffer = io.BytesIO()
        Image.new("RGB", (100, 50)).save(buffer, "JPEG")
        message.data = np.frombuffer(buffer.getvalue(), np.uint8)
    return message


def no_image(topic: str, log_time: int, message: object) -> object:
    if topic == "/CAM_BACK/image_rect_compressed":
        message.data = np.frombuffer(b"this is text", np.uint8)
    return message


def zero_stamps(topic: str, log_time: int, message: object) -> object:
    if "image" in topic:
        message.header = cdr.instance(messages.header(0, message.header.frame_id))
    return message


def nan_pose(topic: str, log_time: int, message: object) -> object:
    if topic == "/tf":
        message.transforms[0].transform.translation.x = float("nan")
    return message


def no_back_camera(topic: str, log_time: int, message: object) -> object | None:
    return None if topic == "/CAM_BACK/image_rect_compressed" else message


def poses_of_another_time(topic: str, log_time: int, message: object) -> object:
    if topic == "/tf":
        for transform in message.transforms:
            transform.header.stamp.sec -= 1000
    return message


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (other_size, "cam_back: the image has 100x50 pixels, its calibration is for 176x99"),
        (no_image, "cam_back: 12 bytes that are no JPEG or PNG"),
        (zero_stamps, "stamp zero"),
        (nan_pose, "base_link in map: pose is not finite"),
        (no_back_camera, "no images on /CAM_BACK/image_rect_compressed"),
        (poses_of_another_time, "not one frame could be made of the bag (12 x no ego pose"),
    ],
)
def test_bad_messages_give_one_line_and_leave_nothing(bag, tmp_path, capsys, change, says):
    broken = changed_sample(bag, tmp_path / "broken.mcap", change)
    assert alocc_run(broken, tmp_path / "out.mcap") == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.startswith("alocc: error: ")
    assert error.count("\n") == 1
    assert contents(tmp_path) == ["broken.mcap"]


def damaged_from(second: int) -> Callable[[str, int, object], object]:
    """From so many seconds on, the images of one camera are none."""

    def change(topic: str, log_time: int, message: object) -> object:
        late = log_time > 1_600_000_000_000_000_000 + second * 1_000_000_000
        return no_image(topic, log_time, message) if late else message

    return change


def test_damaged_images_cost_their_camera_and_are_counted(bag, tmp_path, capsys, undisturbed):
    broken = changed_sample(bag, tmp_path / "broken.mcap", damaged_from(1))
    assert alocc_run(broken, tmp_path / "out.mcap") == 0
    said = capsys.readouterr()
    assert f"frames   {FRAMES} (4 complete, 8 partial)" in said.out
    assert "missing  8 x cam_back\n" in said.out
    assert "skipped  8 x cam_back: image cannot be decoded\n" in said.out
    assert said.err.count("cam_back: image cannot be decoded (12 bytes that are no JPEG") == 1
    whole, without = (list(whole_frames(p)) for p in (undisturbed, tmp_path / "out.mcap"))
    assert whole[:4] == without[:4] and whole[4] != without[4]


def test_strict_stops_at_a_damaged_image_and_keeps_what_was_done(bag, tmp_path, capsys):
    broken = changed_sample(bag, tmp_path / "broken.mcap", damaged_from(1))
    assert alocc_run(broken, tmp_path / "out.mcap", "--strict") == 2
    error = capsys.readouterr().err
    assert "cam_back: image cannot be decoded" in error
    assert "frames before it are in" in error
    assert error.count("\n") == 1


def test_a_set_without_any_good_image_is_left_out_and_resuming_agrees(bag, tmp_path, capsys, stop):
    def dark(topic: str, log_time: int, message: object) -> object:
        if "image" in topic and 0.9 < (log_time - 1_600_000_000_000_000_000) / 1e9 < 1.2:
            message.data = message.data[: len(message.data) // 2]
        return message

    broken = changed_sample(bag, tmp_path / "broken.mcap", dark)
    assert alocc_run(broken, tmp_path / "whole.mcap") == 0
    assert f"frames   {FRAMES - 1} ({FRAMES - 1} complete, 0 partial)" in capsys.readouterr().out
    stop(7)
    assert alocc_run(broken, tmp_path / "out.mcap") == 130
    stop(1000)
    assert alocc_run(broken, tmp_path / "out.mcap") == 0
    assert (tmp_path / "out.mcap").read_bytes() == (tmp_path / "whole.mcap").read_bytes()


def test_a_vehicle_with_four_cameras_is_complete_and_not_degraded(bag, tmp_path, capsys):
    text = (REPOSITORY / "config" / "presets" / "nuscenes.yaml").read_text()
    preset = yaml.safe_load(text)
    preset["cameras"] |= {"cam_back_left": "none", "cam_back_right": "none"}
    (tmp_path / "four.yaml").write_text(yaml.safe_dump(preset))
    config = ("--config", str(tmp_path / "four.yaml"), "--npz", str(tmp_path / "npz"))
    assert alocc_run(bag, tmp_path / "out.mcap", *config, "--max-frames", "2") == 0
    said = capsys.readouterr().out
    assert "frames   2 (2 complete, 0 partial)" in said
    assert "cameras  4 of 6, without cam_back_left, cam_back_right" in said
    for file in (tmp_path / "npz").iterdir():
        assert str(np.load(file)["degraded"]) == ""


def test_cameras_that_drop_images_are_counted_by_camera(bag, tmp_path, capsys):
    images = iter(range(10_000))

    def drop(topic: str, log_time: int, message: object) -> object | None:
        return None if "image" in topic and next(images) in (3, 16) else message

    broken = changed_sample(bag, tmp_path / "broken.mcap", drop)
    assert alocc_run(broken, tmp_path / "out.mcap") == 0
    said = capsys.readouterr().out
    assert f"frames   {FRAMES} ({FRAMES - 2} complete, 2 partial)" in said
    missing = next(line for line in said.splitlines() if line.startswith("missing"))
    assert missing.count("1 x cam_") == 2


def test_a_cut_off_bag_is_done_up_to_the_cut_with_a_warning(bag, tmp_path, capsys):
    cut = tmp_path / "cut.mcap"
    cut.write_bytes(bag.read_bytes()[: bag.stat().st_size // 2])
    assert alocc_run(cut, tmp_path / "out.mcap") == 0
    said = capsys.readouterr()
    assert "alocc: warning: cut.mcap is cut off or damaged at byte" in said.err
    assert 3 < len(list(whole_frames(tmp_path / "out.mcap"))) < FRAMES


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--model", "tiny"], "tiny has no published weights"),
        (["--model", "alocc_2d_mini"], "--random-weights"),
        (["--model", "alocc_2d_min", "--random-weights"], "did you mean"),
        (["--model", "nowhere.pth"], "nowhere.pth"),
        ([*TINY, "--preset", "nuscene"], "did you mean 'nuscenes'"),
        ([*TINY, "--config", "nowhere.yaml"], "nowhere.yaml"),
        ([*TINY, "--config", "nuscenes"], "ends in .yaml"),
        ([*TINY, "--calibration", "nowhere.yaml"], "nowhere.yaml"),
        ([*TINY, "--device", "tpu"], "tpu"),
        ([*TINY, "--grid-frame", "lidar"], "unknown lidar"),
    ],
    ids=lambda v: None if isinstance(v, str) else " ".join(v),
)
def test_wrong_options_give_one_line_and_leave_nothing(
    bag, tmp_path, capsys, monkeypatch, arguments, says
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    assert main(["run", str(bag), "-o", str(tmp_path / "out.mcap"), *arguments]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1
    assert contents(tmp_path) == []


def test_an_output_that_cannot_be_is_named(bag, tmp_path, capsys):
    assert alocc_run(bag, tmp_path / "nowhere" / "out.mcap") == 2
    assert "there is no folder" in capsys.readouterr().err
    (tmp_path / "file").write_text("not a folder")
    assert alocc_run(bag, tmp_path / "out.mcap", "--npz", str(tmp_path / "file")) == 2
    assert "cannot write" in capsys.readouterr().err
    (tmp_path / "file").unlink()
    assert alocc_run(bag, tmp_path / "out.bag") == 2
    assert ".mcap" in capsys.readouterr().err
    assert alocc_run(tmp_path / "nowhere.mcap", tmp_path / "out.mcap") == 2
    assert "there is no bag" in capsys.readouterr().err
    assert contents(tmp_path) == []


def test_the_sample_has_the_geometry_that_it_says():
    """What is drawn at a place is where that place projects."""
    from alocc_ros.bags.sample import START, Box, draw, ego_pose
    from alocc_ros.geometry import inverse, project

    post = Box((12.0, 1.0), (0.6, 0.6, 2.0), (255, 0, 0))
    camera = rig(320, 180)["cam_front"]
    picture = draw(camera, START, [post]).astype(int)
    red = (picture[..., 0] > 100) & (picture[..., 1] < 60)
    rows, columns = np.nonzero(red)
    camera_T_map = inverse(ego_pose(START) @ camera.base_T_camera)
    (expected,), _ = project(np.array([[12.0, 1.0, 1.0]]), camera_T_map, camera.intrinsics)
    np.testing.assert_allclose([columns.mean(), rows.mean()], expected, atol=2.0)
    assert set(rig()) == set(CAMERAS)
