# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""What can be told of the Dockerfile without Docker."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "Dockerfile").read_text()
PAGE = (ROOT / "docs" / "install.md").read_text()


def instructions() -> list[tuple[str, str]]:
    """(instruction, arguments), continued lines joined, comments left out."""
    lines = [line for line in TEXT.splitlines() if not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    found = [line.partition(" ") for line in joined.splitlines() if line.strip()]
    return [(name, rest.strip()) for name, _, rest in found]


def test_every_line_is_an_instruction_and_the_base_can_be_chosen():
    known = {"ARG", "FROM", "SHELL", "WORKDIR", "COPY", "RUN", "ENV", "CMD"}
    found = instructions()
    assert {name for name, _ in found} <= known
    assert found[0] == ("ARG", "ROS_DISTRO=lyrical")
    assert found[1] == ("FROM", "ros:${ROS_DISTRO}-ros-base")


def test_what_is_copied_is_there_and_tracked():
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout
    for name, rest in instructions():
        if name == "COPY":
            for source in shlex.split(rest)[:-1]:
                assert (ROOT / source).exists(), source
                assert source == "." or not tracked or source in tracked.splitlines()


def test_scripts_are_copied_before_they_run():
    copied: set[str] = set()
    for name, rest in instructions():
        if name == "COPY":
            copied |= set(shlex.split(rest)[:-1])
        if name == "RUN" and "." not in copied:
            assert set(re.findall(r"tools/\w+\.py", rest)) <= copied


def test_the_page_tells_the_build_arguments_with_their_defaults():
    arguments = [rest.partition("=") for name, rest in instructions() if name == "ARG"]
    for name, _, default in arguments:
        assert f"| `{name}` | `{default}` |" in PAGE


def test_big_and_private_folders_stay_out_of_the_build():
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert {".git", ".venv*", "build", "install", "log", "out"} <= set(ignored)


def test_the_requirements_are_those_of_the_package():
    script = ROOT / "tools" / "pip_requirements.py"
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    assert "rosbags>=0.11" in done.stdout.splitlines()
    assert not [line for line in done.stdout.splitlines() if line.startswith("torch")]
