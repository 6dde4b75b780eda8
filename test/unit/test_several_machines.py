# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""What docs/training.md says about several machines."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SCRIPT = """
from alocc_ros.distributed import process_group
with process_group() as world:
    print("heard", world.broadcast(f"rank {world.rank} of {world.size}"))
"""


def test_the_slurm_script_is_a_script():
    subprocess.run(["bash", "-n", str(ROOT / "tools/train.slurm")], check=True)


def test_there_is_one_form_of_the_command_in_the_pages():
    pages = (ROOT / "README.md", *(ROOT / "docs").rglob("*.md"))
    lines = [x for p in pages for x in re.findall(r"torchrun --.*", p.read_text("utf-8"))]
    assert len(lines) > 3
    assert [x for x in lines if "-m alocc_ros.cli.main" not in x] == []


def test_two_machines_find_each_other_as_documented(tmp_path):
    page = (ROOT / "docs/training.md").read_text("utf-8")
    (options,) = re.findall(r"torchrun (--nnodes .*) -m alocc_ros.cli.main train", page)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = options.replace("--nproc-per-node 8", "--nproc-per-node 1")
    options = options.replace("first-machine:29500", f"127.0.0.1:{port}")
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, "-m", "torch.distributed.run", *options.split(), str(script)]
    machines = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    try:
        for machine in machines:
            out, error = machine.communicate(timeout=120)
            assert machine.returncode == 0, error
            assert "heard rank 0 of 2" in out
    finally:
        for machine in machines:
            machine.kill()
