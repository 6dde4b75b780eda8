# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""What docs/training.md says about several machines."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from alocc_ros.cli.main import main

ROOT = Path(__file__).parents[2]
SOURCE = Path(__file__).parents[1] / "training_source.py"
# As `alocc launch`, with another program in the processes.
DRIVER = """
import argparse, sys
from alocc_ros.cli import launch
parser = argparse.ArgumentParser()
launch.add_arguments(parser)
args = parser.parse_args()
sys.exit(launch.start(args, args.arguments))
"""


def test_the_slurm_script_is_a_script():
    subprocess.run(["bash", "-n", str(ROOT / "tools/train.slurm")], check=True)
    assert "srun alocc launch --nnodes" in (ROOT / "tools/train.slurm").read_text("utf-8")


def test_there_is_one_form_of_the_command_in_the_pages():
    pages = (ROOT / "README.md", *(ROOT / "docs").rglob("*.md"))
    text = "\n".join(p.read_text("utf-8") for p in pages)
    assert len(re.findall(r"alocc launch --\S+ \d.* (train|evaluate) --", text)) > 4
    assert "torchrun --" not in text


def test_two_machines_train_together_as_documented(tmp_path):
    page = (ROOT / "docs/training.md").read_text("utf-8")
    (options,) = re.findall(r"alocc launch (--nnodes .*) train --model", page)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = options.replace("--nproc-per-node 8", "--nproc-per-node 1")
    options = options.replace("first-machine:29500", f"127.0.0.1:{port}")
    run = [str(SOURCE), "run", str(tmp_path / "run"), "steps=2"]
    command = [sys.executable, "-c", DRIVER, *options.split(), *run]
    machines = [
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        for _ in range(2)
    ]  # fmt: skip
    try:
        for machine in machines:
            error = machine.communicate(timeout=300)[1]
            assert machine.returncode == 0, error
            assert "Warning" not in error and "Traceback" not in error
    finally:
        for machine in machines:
            machine.kill()
    assert (tmp_path / "run" / "log.jsonl").read_text().count('"loss"') == 2
    slots = (tmp_path / "run/checkpoints/step-00000002").glob("slot-*.pt")
    assert len(list(slots)) == 2, "one of each machine"


@pytest.mark.parametrize(
    ("script", "code", "words"),
    [
        ("import sys; sys.exit(2)", 2, ""),
        ("import os; os.kill(os.getpid(), 9)", 1, "process 0 was killed by SIGKILL"),
    ],
)
def test_the_exit_code_is_that_of_the_processes(tmp_path, script, code, words):
    file = tmp_path / "script.py"
    file.write_text(script)
    command = [sys.executable, "-c", DRIVER, "--nproc-per-node", "1", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert code == 1 or done.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "alocc launch [OPTIONS] train|evaluate"),
        (["run", "x.mcap"], "alocc launch [OPTIONS] train|evaluate"),
        (["--nnodes", "2", "train"], "--rdzv-endpoint HOST:PORT"),
        (["--nnodes", "2", "--rdzv-endpoint", "head", "train"], "expected HOST:PORT"),
        (["--rdzv-endpoint", "head.invalid:29500", "train"], "no such host"),
    ],
)
def test_what_cannot_be_launched_is_one_line(capsys, arguments, words):
    assert main(["launch", *arguments]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1
