# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""``alocc evaluate`` with a real (small) network: alone, under torchrun, stopped, on bad input."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from benchmark_labels import VAL, labelled_nuscenes

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


def test_any_number_of_processes_gives_the_same_bytes(data, tmp_path):
    alone = evaluate(data, tmp_path / "1", *OPENOCC, "--submission", str(tmp_path / "1.gz"))
    assert alone.returncode == 0, alone.stderr
    scores = (tmp_path / "1" / "scores.json").read_bytes()
    read = json.loads(scores)
    assert read["frames"] == 6
    assert read["scores"]["rays"]["mAVE"] > 0, "a sum of floats is among the numbers"
    assert "the weights are random" in alone.stdout
    for processes in (2, 3):
        output, file = tmp_path / str(processes), tmp_path / f"{processes}.gz"
        done = evaluate(data, output, *OPENOCC, "--submission", str(file), processes=processes)
        assert done.returncode == 0, done.stderr
        assert (output / "scores.json").read_bytes() == scores
        assert file.read_bytes() == (tmp_path / "1.gz").read_bytes()
        assert done.stdout.count("frames of 3 scenes") == 1, "only one of them speaks"


def test_another_number_of_processes_goes_on(data, tmp_path):
    first = evaluate(data, tmp_path / "a", *OCC3D, "--max-scenes", "1")
    assert first.returncode == 0, first.stderr
    kept = tmp_path / "a" / "scenes" / f"{VAL[0]}.scores.npz"
    before = kept.stat().st_mtime_ns
    second = evaluate(data, tmp_path / "a", *OCC3D, processes=2)
    assert second.returncode == 0, second.stderr
    assert kept.stat().st_mtime_ns == before
    whole = evaluate(data, tmp_path / "b", *OCC3D, "--json")
    assert json.loads(whole.stdout)["frames"] == 6
    one, other = (json.loads((tmp_path / p / "scores.json").read_text()) for p in "ab")
    assert one == other


def test_missing_files_end_all_processes(data, tmp_path):
    empty = tmp_path / "nuscenes"
    empty.mkdir()
    (empty / "v1.0-trainval").symlink_to(data / "v1.0-trainval")
    done = evaluate(empty, tmp_path / "out", *OCC3D, processes=2)
    assert done.returncode != 0
    assert "6 files of the labels of occ3d are missing" in done.stderr
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
