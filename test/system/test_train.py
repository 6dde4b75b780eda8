# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""``alocc train`` as a user calls it, on a synthetic data set."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.system]
ALOCC = [sys.executable, "-m", "alocc_ros.cli.main"]
QUICK = ["--set", "batch=1", "--set", "workers=0", "--set", "log_every=1"]
PATIENCE = 600  # seconds; a loaded machine is slow


def alocc(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [*ALOCC, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)


@pytest.fixture(scope="module")
def streets(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("streets") / "data"
    options = "--format nuscenes --no-sweeps --scenes 2 --split train=1,val=1 --frames 3"
    done = alocc("synth", folder, *options.split(), "--size", "135x240")
    assert done.returncode == 0, done.stderr
    return folder


def steps_of(run: Path) -> list[int]:
    lines = (run / "log.jsonl").read_text().splitlines()
    return [json.loads(line)["step"] for line in lines if "loss" in json.loads(line)]


def test_a_run_trains_evaluates_and_is_gone_on_with(streets, tmp_path):
    run = tmp_path / "run"
    first = alocc(
        "train", "--model", "alocc_tiny", "--data", streets, "-o", run, "--steps", 2, *QUICK,
        "--set", "evaluate_every=2", "--set", "evaluate_scenes=1",
    )  # fmt: skip
    assert first.returncode == 0, first.stderr
    assert "3 key frames of 1 scene: steps 0 to 2" in first.stderr
    without = find_spec("tensorboard") is None
    assert ("no files for TensorBoard" in first.stderr) == without
    assert (run / "tensorboard").exists() != without
    last = json.loads((run / "log.jsonl").read_text().splitlines()[-1])
    assert {"score/RayIoU", "score/mAVE"} <= set(last)

    refused = alocc("train", "--model", "alocc_tiny", "--data", streets, "-o", run)
    assert refused.returncode == 2
    assert refused.stderr.startswith("alocc: error:") and "--resume it" in refused.stderr

    other = alocc("train", "--data", streets, "-o", run, "--resume", "--set", "seed=1")
    assert other.returncode == 2 and "is of another run: seed was 0, is 1" in other.stderr

    more = alocc("train", "--data", streets, "-o", run, "--resume", "--steps", 3)
    assert more.returncode == 0, more.stderr
    assert steps_of(run) == [0, 1, 2]

    score = alocc(
        "evaluate", "--model", run, "--data",
        streets, "--benchmark", "openocc", "--json", "-o", tmp_path / "scores",
    )  # fmt: skip
    assert score.returncode == 0, score.stderr


LAUNCH = [*ALOCC, "launch", "--nproc-per-node", "2"]


def test_ctrl_c_in_two_processes_writes_a_checkpoint_and_exits_with_130(streets, tmp_path):
    run = tmp_path / "run"
    command = [*LAUNCH, "train", "--model", "alocc_tiny", "--data", str(streets), "-o", str(run)]
    process = subprocess.Popen(
        [*command, "--steps", "500", "--device", "cpu", *QUICK],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    for line in process.stderr:
        if line.startswith("step 0"):
            break
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does; the launcher passes on its own
    rest = process.communicate(timeout=PATIENCE)[1]
    assert process.returncode == 130, rest
    assert "Traceback" not in rest and rest.count("interrupted") == 1
    assert len(list((run / "checkpoints").glob("step-*"))) == 1


def test_two_processes_train_together(streets, tmp_path):
    run = tmp_path / "run"
    command = [*LAUNCH, "train", "--model", "alocc_tiny", "--data", str(streets)]
    command += ["-o", str(run), "--steps", "2", "--device", "cpu", *QUICK]
    command += ["--set", "evaluate_every=2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    assert "2 samples each, 2 x cpu" in done.stderr
    assert steps_of(run) == [0, 1]
    assert (run / "weights.safetensors").is_file()
    assert len(list((run / "checkpoints/step-00000002").glob("slot-*.pt"))) == 2


def test_what_is_missing_is_told_before_work_begins(streets, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(streets, broken)
    shutil.rmtree(broken / "openocc_v2_ray_mask")
    done = alocc("train", "--model", "alocc_tiny", "--data", broken, "-o", tmp_path / "run")
    assert done.returncode == 2
    told = "3 files of labels that alocc_tiny learns from are missing (3 in openocc_v2_ray_mask/"
    assert told in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--model", "alocc_tinny"], "did you mean alocc_tiny"),
        ([], "say what to train"),
        (["--model", "alocc_tiny", "--set", "speed=3"], "unknown setting 'speed'"),
        (["--model", "alocc_tiny", "--resume"], "no run to resume"),
        (["--model", "alocc_2d", "--set", "benchmark=openocc"], "other voxels or classes"),
        (["--model", "alocc_tiny", "--weights", "nowhere.pth"], "nowhere.pth"),
        (["--model", "alocc_tiny", "--set", "split=test"], "no split is called"),
    ],
)
def test_bad_input_is_one_line(streets, tmp_path, arguments, words):
    done = alocc("train", "--data", streets, "-o", tmp_path / "run", *arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert done.stderr.count("\n") == 1 and "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()
