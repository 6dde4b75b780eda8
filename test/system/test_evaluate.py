# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""``alocc evaluate`` with a real (small) network: alone, under torchrun, stopped, on bad input."""

from __future__ import annotations

import gzip
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from benchmark_labels import VAL, labelled_nuscenes
from nuscenes_tables import small_nuscenes

from alocc_ros.cli.main import main
from alocc_ros.datasets.nuscenes import NuScenes
from alocc_ros.datasets.truth import truth_files

pytestmark = [pytest.mark.slow, pytest.mark.system]
SCRIPT = Path(__file__).parent / "tiny_evaluation.py"
PATIENCE = 600  # s; a loaded machine


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("nuscenes")
    labelled_nuscenes(root)
    return root


def command(data: Path, output: Path, *options: str, processes: int = 1) -> list[str]:
    launcher = [sys.executable]
    if processes > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone"]
        launcher += ["--nproc-per-node", str(processes)]
    arguments = ["--random-weights", "--device", "cpu", "--data", str(data), "-o", str(output)]
    return [*launcher, str(SCRIPT), "evaluate", *arguments, *options]


def evaluate(*arguments, **options) -> subprocess.CompletedProcess[str]:
    # Threads add up convolutions in another order; torchrun gives each process one as well.
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        command(*arguments, **options),
        capture_output=True,
        text=True,
        env=environment,
        timeout=PATIENCE,
    )


OPENOCC = ("--model", "flow", "--benchmark", "openocc")
OCC3D = ("--model", "tiny", "--benchmark", "occ3d")
OPENOCCUPANCY = ("--model", "fine", "--benchmark", "openoccupancy")


def test_any_number_of_processes_gives_the_same_bytes(data, tmp_path):
    def run(name: str, *options: str, processes: int) -> subprocess.CompletedProcess[str]:
        file = str(tmp_path / f"{name}.gz")
        options = (*OPENOCC, "--submission", file, *options)
        done = evaluate(data, tmp_path / name, *options, processes=processes)
        assert done.returncode == 0, done.stderr
        return done

    alone = run("one", "--json", processes=1)
    report = json.loads(alone.stdout)
    assert report["frames"] == 6
    assert report["scores"]["rays"]["mAVE"] > 0, "a sum of floats is among the numbers"
    run("three", "--max-scenes", "1", processes=1)  # and three go on from there
    kept = tmp_path / "three" / "scenes" / f"{VAL[0]}.scores.npz"
    before = kept.stat().st_mtime_ns
    for name, processes in (("two", 2), ("three", 3)):
        done = run(name, processes=processes)
        for file in (f"{name}/scores.json", f"{name}.gz"):
            ours, theirs = tmp_path / file, tmp_path / file.replace(name, "one")
            assert ours.read_bytes() == theirs.read_bytes()
        assert done.stdout.count("frames of 3 scenes") == 1, "only one of them speaks"
        assert "the weights are random" in done.stdout
    assert kept.stat().st_mtime_ns == before


def test_openoccupancy_is_scored_like_the_others(tmp_path):
    labelled_nuscenes(tmp_path / "nuscenes", VAL[:1], samples=2)
    done = evaluate(tmp_path / "nuscenes", tmp_path / "out", *OPENOCCUPANCY, "--json")
    assert done.returncode == 0, done.stderr
    scores = json.loads(done.stdout)["scores"]["voxels"]
    assert scores["frames"] == 2
    assert scores["class IoU"]["others"] is None, "neither in truth nor predicted"
    assert 0 < scores["IoU"] < 100 and 0 <= scores["mIoU"] <= 100


SPOILT = {
    "missing": (Path.unlink, "1 file of"),
    "cut off": (lambda path: path.write_bytes(path.read_bytes()[:-1000]), "is damaged"),
    "another shape": (lambda path: np.save(path, np.zeros((512, 512, 40), np.uint8)), "[M, 4]"),
    "outside": (lambda path: np.save(path, [[40, 0, 0, 1]]), "outside of the grid [512, 512, 40]"),
    "no class": (lambda path: np.save(path, [[0, 0, 0, 18]]), "label 18"),
}


@pytest.mark.parametrize("case", SPOILT)
def test_a_wrong_openoccupancy_file_ends_it_with_its_name(tmp_path, case):
    root = tmp_path / "nuscenes"
    labelled_nuscenes(root, VAL[:1], samples=1)
    (path,) = truth_files(root, NuScenes(root).samples[0], "openoccupancy")
    spoil, message = SPOILT[case]
    spoil(path)
    done = evaluate(root, tmp_path / "out", *OPENOCCUPANCY)
    assert done.returncode == 2
    assert message in done.stderr and str(path) in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out" / "scores.json").exists()


def test_other_voxels_are_refused_not_resampled(data, tmp_path):
    options = ("--model", "alocc_3d_surroundocc", "--benchmark", "openoccupancy")
    done = evaluate(data, tmp_path / "out", *options)
    assert done.returncode == 2
    assert "200 x 200 x 16 of 0.5 m from (-50.0, -50.0, -5.0)" in done.stderr
    assert "not 512 x 512 x 40 of 0.2 m from (-51.2, -51.2, -5.0)" in done.stderr
    assert "is not resampled" in done.stderr


def test_an_info_file_gives_the_scores_that_the_tables_give(data, tmp_path):
    assert main(["prepare", "nuscenes", str(data), "--split", "val"]) == 0
    infos = data / "bevdetv2-nuscenes_infos_val.pkl"
    for name, source in (("tables", data), ("infos", infos)):
        done = evaluate(source, tmp_path / name, *OPENOCC, "--max-scenes", "1")
        assert done.returncode == 0, done.stderr
    scores = [json.loads((tmp_path / n / "scores.json").read_text()) for n in ("tables", "infos")]
    assert scores[0]["scores"] == scores[1]["scores"]


def test_what_has_no_labels_can_still_be_submitted(tmp_path):
    small_nuscenes(tmp_path / "nuscenes", ("scene-0077",), 1)
    options = ("--split", "test", "--submission", str(tmp_path / "test.gz"))
    about = ("--about", "team=Robots", "--about", "authors=A, B")
    done = evaluate(tmp_path / "nuscenes", tmp_path / "out", *OPENOCC, *options, *about)
    assert done.returncode == 0, done.stderr
    assert "1 frame of 1 scene, split test" in done.stdout
    assert "RayIoU" not in done.stdout
    assert not (tmp_path / "out" / "scores.json").exists()
    with gzip.open(tmp_path / "test.gz") as file:
        submission = pickle.load(file)  # what has just been written
    assert (submission["method"], submission["team"]) == ("flow", "Robots")
    assert list(submission["results"]) == ["scene-0077-sample-0"]


def test_missing_files_end_all_processes(data, tmp_path):
    empty = tmp_path / "nuscenes"
    empty.mkdir()
    (empty / "v1.0-trainval").symlink_to(data / "v1.0-trainval")
    done = evaluate(empty, tmp_path / "out", *OCC3D, processes=2)
    assert done.returncode != 0
    assert "42 files of" in done.stderr, "six images and labels of six key frames"
    assert not (tmp_path / "out").exists()


def test_an_interrupt_keeps_what_is_done(data, tmp_path):
    output = tmp_path / "out"
    child = subprocess.Popen(command(data, output, *OCC3D), stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + PATIENCE
    while not list(output.glob("scenes/*.npz")) and time.monotonic() < deadline:
        assert child.poll() is None
        time.sleep(0.01)
    child.send_signal(signal.SIGINT)
    _, error = child.communicate(timeout=PATIENCE)
    if child.returncode == 0:
        pytest.skip("it was done before the signal came")
    assert child.returncode == 130
    assert "scenes are done and kept" in error
    assert "Traceback" not in error
    assert not list(output.rglob("*.partial"))
    assert evaluate(data, output, *OCC3D).returncode == 0


def test_baselines_stand_in_the_same_table(data, tmp_path):
    options = (*OPENOCC, "--baselines", "val")
    done = evaluate(data, tmp_path / "out", *options)
    assert done.returncode == 0, done.stderr
    names = [line.split("  ")[0] for line in done.stdout.splitlines()]
    model = names[names.index("class prior of val") - 2]
    assert names[names.index("class prior of val") - 1] == f"{model}, no memory"
    prior = json.loads(evaluate(data, tmp_path / "out", *options, "--json").stdout)["baselines"]
    assert prior["class prior of val"]["RayIoU"] > prior[model]["RayIoU"]
    again = evaluate(data, tmp_path / "out", *options)
    assert "counting" in done.stderr and "counting" not in again.stderr
    kept = tmp_path / "out" / "baselines" / "class-prior"
    assert len(list((kept / "scenes").iterdir())) == len(VAL)
    scores = json.loads((kept / "scores.json").read_text())["scores"]["rays"]
    assert scores["RayIoU"] == prior["class prior of val"]["RayIoU"]
    none = evaluate(data, tmp_path / "none", *OPENOCC, "--baselines", "nowhere")
    assert none.returncode == 2 and "nowhere" in none.stderr
