# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""``alocc view`` on what ``alocc run`` really writes, and on datasets."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tiny_model
from nuscenes_tables import small_nuscenes
from PIL import Image

from alocc_ros.bags.outputs import save_npz
from alocc_ros.bags.results import read_npz
from alocc_ros.bags.sample import write_sample
from alocc_ros.cli.main import main
from alocc_ros.datasets.convert import convert_scene
from alocc_ros.datasets.nuscenes import NuScenes
from alocc_ros.datasets.truth import truth_files
from alocc_ros.grid import VoxelGrid
from alocc_ros.labels import OPENOCC
from alocc_ros.types import Occupancy
from alocc_ros.viewer import layout
from alocc_ros.viewer.inputs import open_sources
from alocc_ros.viewer.source import ReadOptions, matched_frames, with_distinct_names

FRAMES = 3

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A bag, the results of a real run of it, with and without images, and NPZ files."""
    folder = tmp_path_factory.mktemp("made")
    write_sample(folder / "in.mcap", seconds=FRAMES / 2, rate=2.0, width=176, height=99)
    with tiny_model.known():
        for name, more in (("bare", ()), ("out", ("--with-images", "--npz", str(folder / "npz")))):
            output = ("-o", str(folder / f"{name}.mcap"), "--model", "tiny", "--random-weights")
            assert main(["run", str(folder / "in.mcap"), *output, *more]) == 0
    yield folder


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two scenes; the ground truth of OpenOcc for all of it."""
    root = small_nuscenes(tmp_path_factory.mktemp("nuscenes"), samples=2)
    labels = np.full((200, 200, 16), OPENOCC.free, np.uint8)
    labels[:, :, 2] = OPENOCC.names.index("driveable_surface")
    labels[120:130, 95:100, 3:6] = OPENOCC.names.index("car")
    flow = np.zeros((*labels.shape, 2), np.float16)
    for sample in NuScenes(root).samples:
        (path,) = truth_files(root, sample, "openocc")
        path.parent.mkdir(parents=True)
        np.savez_compressed(path, semantics=labels, flow=flow)
    return root


def view(*arguments: object) -> int:
    return main(["view", *map(str, arguments)])


def contents(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def height(path: Path) -> int:
    with Image.open(path) as page:
        assert page.width == layout.PAGE_WIDTH
        return page.height


# --- what can be looked at -------------------------------------------------------------------


def test_every_kind_of_input_becomes_a_page(made, dataset, tmp_path, capsys):
    inputs = {
        "bag": [made / "in.mcap"],
        "bare": [made / "bare.mcap"],
        "out": [made / "out.mcap"],
        "two": [made / "bare.mcap", made / "in.mcap"],
        "npz": [made / "npz"],
        "one": [next((made / "npz").iterdir())],
        "set": [dataset],
    }
    heights = {}
    for name, paths in inputs.items():
        assert view(*paths, "--png", tmp_path / f"{name}.png") == 0
        heights[name] = height(tmp_path / f"{name}.png")
    assert heights["bare"] == heights["npz"] == heights["one"]
    assert heights["out"] == heights["two"] == heights["set"]
    assert heights["out"] > heights["bag"] > heights["bare"]
    same = [(tmp_path / f"{n}.png").read_bytes() for n in ("out", "two")]
    assert same[0] == same[1]
    assert view(made / "out.mcap", "--plain-images", "--png", tmp_path / "plain.png") == 0
    plain, drawn, images = (
        np.asarray(Image.open(tmp_path / f"{n}.png"))[60:600] for n in ("plain", "out", "bag")
    )
    assert (plain == images).all() and (drawn != images).any()
    assert f"{tmp_path / 'set.png'}: 1 frame\n" in capsys.readouterr().out


def test_all_frames_one_frame_and_a_stamp(made, tmp_path):
    npz = made / "npz"
    names = [p.name.replace(".npz", ".png") for p in sorted(npz.iterdir())]
    assert len(names) == FRAMES
    assert view(npz, "--png", tmp_path / "all") == 0
    assert contents(tmp_path / "all") == names
    assert view(npz, "--png", tmp_path / "one", "--frame", 1) == 0
    assert contents(tmp_path / "one") == names[1:2]
    assert view(npz, "--png", tmp_path / "two", "--max-frames", 2) == 0
    assert contents(tmp_path / "two") == names[:2]
    whole = (tmp_path / "all" / names[2]).read_bytes()
    for number, stamp in enumerate(["1600000001.008", "1600000001010000000", "1600000000.950"]):
        assert view(npz, "--png", tmp_path / f"{number}.png", "--stamp", stamp) == 0
        assert (tmp_path / f"{number}.png").read_bytes() == whole


def test_a_split_is_all_of_its_scenes(dataset, tmp_path):
    for split, scene in (("val", "scene-0003"), ("train", "scene-0001")):
        assert view(dataset, "--split", split, "--png", tmp_path / split, "--plain-images") == 0
        stamps = [s.cameras["cam_front"].stamp for s in NuScenes(dataset).scene(scene).samples]
        names = [f"{n:06d}_{stamp}.png" for n, stamp in enumerate(stamps)]
        assert contents(tmp_path / split) == names


def test_predictions_stand_beside_ground_truth(made, dataset, tmp_path):
    alone = tmp_path / "alone.png"
    assert view(made / "bare.mcap", "--png", alone) == 0
    for number, truth in enumerate([made / "npz", made / "out.mcap"]):
        path = tmp_path / f"{number}.png"
        assert view(made / "bare.mcap", "--truth", truth, "--png", path) == 0
        assert height(path) > height(alone)
    # A prediction at the stamps of the second scene of the dataset.
    prediction = tmp_path / "prediction"
    prediction.mkdir()
    sample = NuScenes(dataset).scene("scene-0001").samples[1]
    stamp = sample.cameras["cam_front"].stamp
    labels = np.zeros((200, 200, 16), np.uint8)
    save_npz(
        prediction / "a.npz",
        Occupancy(labels, None, VoxelGrid(), OPENOCC, stamp, "base_link", sample.map_T_base),
    )
    both = tmp_path / "both.png"
    assert view(prediction, "--truth", dataset, "--png", both, "--scene", "scene-0001") == 0
    assert view(prediction, "--truth", dataset, "--png", tmp_path / "again.png") == 0
    assert (tmp_path / "again.png").read_bytes() == both.read_bytes()
    # As a second input it gives the images as well, and its ground truth still only once.
    images = tmp_path / "images.png"
    assert view(prediction, dataset, "--png", images) == 0
    assert height(images) > height(both)
    assert view(prediction, dataset, "--truth", dataset, "--png", tmp_path / "again.png") == 0
    assert (tmp_path / "again.png").read_bytes() == images.read_bytes()


def test_a_scene_looks_the_same_in_a_bag_as_in_its_folder(dataset, tmp_path):
    nuscenes = NuScenes(dataset)
    convert_scene(nuscenes, nuscenes.scene("scene-0001"), tmp_path / "scene.mcap", "openocc")
    pages = []
    for number, where in enumerate([tmp_path / "scene.mcap", (dataset, "--scene", "scene-0001")]):
        path = tmp_path / f"{number}.png"
        assert view(*(where if isinstance(where, tuple) else [where]), "--png", path) == 0
        pages.append(np.asarray(Image.open(path))[layout.HEADER_HEIGHT :])
    np.testing.assert_array_equal(*pages)


def test_two_runs_of_one_name_are_told_apart(made, tmp_path):
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        shutil.copy(made / "bare.mcap", tmp_path / name / "out.mcap")
    paths = [tmp_path / "first" / "out.mcap", tmp_path / "second" / "out.mcap"]
    with contextlib.ExitStack() as stack:
        opened = [s for p in paths for s in open_sources(p, ReadOptions(), stack)]
        assert [s.name for s in with_distinct_names(opened)] == [str(p) for p in paths]
        assert [s.name for s in with_distinct_names(opened[:1])] == ["prediction"]
        view = next(matched_frames(with_distinct_names(opened), lambda _: None)).load()
        assert [layer.name for layer in view.layers] == [str(p) for p in paths]


def test_truth_of_another_time_is_an_error_and_no_picture(made, dataset, tmp_path, capsys):
    late = tmp_path / "late"
    late.mkdir()
    shutil.copy(sorted((made / "npz").iterdir())[2], late)
    arguments = (made / "bare.mcap", "--truth", late)
    assert view(*arguments, "--png", tmp_path / "a.png") == 2
    assert "no ground truth of" in (said := capsys.readouterr().err) and said.count("\n") == 1
    assert contents(tmp_path) == ["late"]
    assert view(*arguments, "--png", tmp_path / "a.png", "--frame", 2) == 0
    assert view(*arguments, "--animation", tmp_path / "a.gif") == 0


def test_a_moving_picture_of_a_run(made, tmp_path):
    path = tmp_path / "deep" / "out.webp"
    assert view(made / "out.mcap", "--animation", path, "--width", 320, "--fps", 4) == 0
    with Image.open(path) as opened:
        assert (opened.width, opened.n_frames) == (320, FRAMES)
    assert contents(path.parent) == ["out.webp"]


# --- Rerun -----------------------------------------------------------------------------------


def test_a_rerun_recording_is_whole_and_holds_everything(made, tmp_path):
    pytest.importorskip("rerun")
    path = tmp_path / "out.rrd"
    assert view(made / "out.mcap", "--truth", made / "npz", "--save", path) == 0
    assert contents(tmp_path) == ["out.rrd"]
    assert rerun("verify", path)
    stats = rerun("stats", path)
    for entity in ("map/base/prediction/voxels", "map/base/ground_truth/voxels", "map/base"):
        assert f"/{entity}: " in stats
    for camera in ("cam_front", "cam_back_right"):
        assert f"/map/cameras/{camera}/image: " in stats


def rerun(command: str, path: Path) -> str:
    program = [sys.executable, "-m", "rerun", "rrd", command, str(path)]
    done = subprocess.run(program, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_a_recording_without_frames_is_taken_back(made, tmp_path):
    pytest.importorskip("rerun")
    assert view(made / "npz", "--save", tmp_path / "out.rrd", "--frame", 99) == 2
    assert contents(tmp_path) == []


def test_without_rerun_the_way_to_get_it_is_told(made, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "rerun", None)
    assert view(made / "npz", "--save", tmp_path / "out.rrd") == 2
    assert "pip install 'alocc_ros[viewer]'" in capsys.readouterr().err
    assert contents(tmp_path) == []


def test_without_a_screen_the_other_ways_are_told(made, capsys, monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert view(made / "npz") == 2
    assert "--png" in (said := capsys.readouterr().err) and "--save FILE.rrd" in said


# --- what cannot be looked at ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{made}/nowhere.mcap"], "there is no file or folder"),
        (["{tmp}"], "holds no bag (.mcap, .db3), no .npz files"),
        (["{tmp}/notes.txt"], "a ROS 2 bag is a folder, a .mcap or a .db3 file"),
        (["{made}/npz", "--frame", "9"], "there is no frame 9"),
        (["{made}/npz", "--stamp", "12"], "there is no frame within 0.1 s of 12000000000 ns"),
        (
            ["{made}/npz", "--truth", "{made}/in.mcap"],
            "no voxels with the classes of occ3d in it",
        ),
        (["{data}", "--scene", "scene-9"], "has no scene-9"),
        (["{data}", "--split", "vall"], "no split is called"),
        (["{data}", "--benchmark", "occ3d"], "2 files of occ3d are missing"),
        (["{data}", "--benchmark", "kitti"], "no benchmark is called 'kitti'"),
        (
            ["{made}/npz", "--truth", "{data}"],
            "no voxels with the classes of occ3d in it",
        ),
        (["{made}/npz", "--fps", "5"], "--width and --fps are of --animation"),
        (["{made}/in.mcap", "--config", "a.txt"], "expected a file that ends in .yaml"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(arguments, message, made, dataset, tmp_path, capsys):
    folder = tmp_path / "in"
    folder.mkdir()
    names = {"made": made, "tmp": folder, "data": dataset}
    if "{tmp}/notes.txt" in arguments:
        (folder / "notes.txt").write_text("no bag")
    arguments = [argument.format(**names) for argument in arguments]
    assert view(*arguments, "--png", tmp_path / "out" / "page.png") == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--save", "out.mp4", "the name must end in .rrd"),
        ("--animation", "out.mp4", "the name must end in .gif or .webp"),
        ("--animation", "folder.gif", "there is a folder of that name"),
        ("--png", "file", "a file of that name is there"),
        ("--png", "file/page.png", "cannot write"),
        ("--png", "file/folder", "cannot write"),
        ("--animation", "file/out.gif", "cannot write"),
        ("--save", "file/out.rrd", "cannot write"),
    ],
)
def test_outputs_that_cannot_be_are_refused(option, value, message, made, tmp_path, capsys):
    if option == "--save":
        pytest.importorskip("rerun")
    (tmp_path / "folder.gif").mkdir()
    (tmp_path / "file").write_text("mine")
    assert view(made / "npz", option, tmp_path / value) == 2
    assert message in capsys.readouterr().err
    assert contents(tmp_path) == ["file", "folder.gif"]
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("option", ["--frame=-1", "--stamp=soon", "--stamp=nan", "--fps=0"])
def test_numbers_that_are_none_are_wrong_usage(option, made):
    with pytest.raises(SystemExit) as caught:
        view(made / "npz", option)
    assert caught.value.code == 2


def test_ctrl_c_leaves_whole_pages_and_nothing_else(made, tmp_path):
    folder, pages = tmp_path / "npz", tmp_path / "pages"
    folder.mkdir()
    for number in range(150):
        shutil.copy(next((made / "npz").iterdir()), folder / f"{number:03d}.npz")
    command = [sys.executable, "-m", "alocc_ros.cli.main", "view", str(folder)]
    command += ["--png", str(pages), "--animation", str(tmp_path / "out.webp")]
    running = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        until = time.monotonic() + 120
        while not list(pages.glob("*.png")) and time.monotonic() < until:
            time.sleep(0.05)
        running.send_signal(signal.SIGINT)
        _, said = running.communicate(timeout=120)
    finally:
        running.kill()
    assert (running.returncode, said) == (130, "alocc: interrupted\n")
    assert contents(tmp_path) == ["npz", "pages"]
    for page in pages.iterdir():
        assert page.suffix == ".png" and height(page)


def test_a_recording_that_was_cut_off_is_shown_as_far_as_it_goes(made, tmp_path, capsys):
    whole = (made / "bare.mcap").read_bytes()
    cut = tmp_path / "cut.mcap"
    cut.write_bytes(whole[: len(whole) * 3 // 4])
    assert view(cut, "--png", tmp_path / "pages") == 0
    assert 1 <= len(contents(tmp_path / "pages")) < FRAMES
    assert "alocc: warning: cut.mcap is cut off or damaged at byte" in capsys.readouterr().err


def test_a_folder_with_one_bad_file_writes_nothing_of_it(made, tmp_path, capsys):
    folder = tmp_path / "npz"
    shutil.copytree(made / "npz", folder)
    bad = sorted(folder.iterdir())[1]
    bad.write_bytes(bad.read_bytes()[:300])
    assert view(folder, "--animation", tmp_path / "out.gif") == 2
    assert str(bad) in capsys.readouterr().err
    assert contents(tmp_path) == ["npz"]
    good = read_npz(sorted(folder.iterdir())[0])
    assert good.random_weights


def test_a_preset_of_ones_own_does_for_results_beside_the_bag(made, tmp_path):
    """It names topics of the bag only; what `alocc run` wrote has others."""
    text = (Path(__file__).parents[2] / "config/presets/nuscenes.yaml").read_text()
    config = tmp_path / "mine.yaml"
    config.write_text(text)
    page, inputs = tmp_path / "page.png", (str(made / "bare.mcap"), str(made / "in.mcap"))
    assert main(["view", *inputs, "--config", str(config), "--png", str(page)]) == 0
    with_preset = np.asarray(Image.open(page))
    assert main(["view", *inputs, "--preset", "nuscenes", "--png", str(page)]) == 0
    np.testing.assert_array_equal(with_preset, np.asarray(Image.open(page)))
