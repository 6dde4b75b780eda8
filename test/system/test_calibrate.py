# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""From a recording to a network in int8, as a user does it."""

from __future__ import annotations

import pytest

from alocc_ros.bags.reader import Bag
from alocc_ros.bags.sample import write_sample
from alocc_ros.cli.main import main

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


@pytest.mark.slow
def test_a_recording_is_looked_at_once_and_int8_runs_from_then_on(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    bag, out = tmp_path / "drive.mcap", tmp_path / "out.mcap"
    write_sample(bag, seconds=1.0, width=352, height=198)
    run = ["run", str(bag), "-o", str(out), "--model", "alocc_tiny", "--precision", "int8"]
    assert main(run) == 2
    assert "alocc calibrate BAG" in capsys.readouterr().err
    assert not out.exists()

    assert main(["calibrate", str(bag), "--model", "alocc_tiny", "--sets", "2"]) == 0
    told = capsys.readouterr().err
    assert "set 1 of at most 2" in told and "are kept for `--precision int8`" in told

    assert main(run) == 0
    with Bag(out) as results:
        assert results.counts["/alocc/occupancy"] == 2


def test_a_recording_without_a_whole_set_is_an_error(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    bag = tmp_path / "short.mcap"
    write_sample(bag, seconds=0.2, width=352, height=198)
    assert main(["calibrate", str(bag), "--model", "alocc_tiny"]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
