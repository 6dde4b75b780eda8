# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""One of something is no plural."""

from __future__ import annotations

import re
from pathlib import Path

from alocc_ros.words import counted

ROOT = Path(__file__).parents[2]


def test_one_is_singular():
    words = [counted(n, "key frame") for n in (0, 1, 2)]
    assert words == ["0 key frames", "1 key frame", "2 key frames"]


def test_commands_for_data_sets_count_so():
    """No plural right behind a number that may be one."""
    plural = re.compile(r"\{[^{}]*\} (key frames|scenes|frames|files|sweeps|images|messages)\b")
    for name in ("evaluate", "train", "prepare", "synth", "convert", "play", "view", "_progress"):
        text = (ROOT / f"alocc_ros/cli/{name}.py").read_text("utf-8")
        found = [m[0] for m in plural.finditer(text)]
        # Counters that run, and shares of a whole.
        assert [f for f in found if "task" not in f and "counts" not in f] == [], name
