# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""``alocc export``: a folder that is whole, or none; one line for what cannot be."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from alocc_ros.cli.main import main
from alocc_ros.errors import DeviceError
from alocc_ros.runtime.tensorrt import find_toolkit

pytest.importorskip("onnxscript")

EXPORT = ("export", "--model", "alocc_tiny", "--random-weights")


def rtx() -> bool:
    try:
        return bool(find_toolkit(["tensorrt_rtx"]))
    except DeviceError:
        return False


def refused(capsys: pytest.CaptureFixture, *arguments: str | Path) -> str:
    """The one line."""
    assert main([*EXPORT, *map(str, arguments)]) == 2
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    return line


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--whole --precision fp16", "--whole is for --backend onnx --precision fp32"),
        ("--whole --backend tensorrt", "--whole is for"),
        ("--target SM89", "--target is for --backend tensorrt"),
        ("--precision tf32", "--precision tf32 is for --backend tensorrt"),
        ("--cameras 0", "--cameras 0: 1 to 64"),
    ],
)
def test_options_that_do_not_go_together_are_told(options, words, tmp_path, capsys):
    assert words in refused(capsys, *options.split(), "-o", tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_build_only_is_for_the_gpu_here(capsys):
    assert "--build-only is for --backend tensorrt" in refused(capsys, "--build-only")
    line = refused(capsys, "--backend", "tensorrt", "--build-only", "--target", "SM89")
    assert "give --target with -o DIR" in line


@pytest.mark.skipif(not rtx(), reason="no TensorRT-RTX here")
def test_targets_that_are_not_and_gpus_that_are_not_are_told(tmp_path, capsys):
    out = ("--backend", "tensorrt", "-o", tmp_path / "out")
    assert "no target 'SM90': there are SM75" in refused(capsys, *out, "--target", "SM90")
    if not torch.cuda.is_available():
        assert "no GPU to build engines for: name one with --target (SM75" in refused(capsys, *out)


def test_folders_of_others_are_left_alone(tmp_path, capsys):
    (tmp_path / "thesis.tex").write_text("x")
    assert "is there and is no export" in refused(capsys, "-o", tmp_path)
    assert "is there and is no export" in refused(capsys, "-o", tmp_path / "thesis.tex")
    (tmp_path / "manifest.json").write_text('{"format": 1}')
    assert "is there and is no export" in refused(capsys, "-o", tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "x"


@pytest.mark.slow
@pytest.mark.skipif(not rtx(), reason="no TensorRT-RTX here")
def test_engines_and_graphs_lie_beside_a_manifest_that_says_what_they_are(tmp_path, capsys):
    import onnx

    out = tmp_path / "deep" / "tiny"
    out.mkdir(parents=True)
    options = ("--backend", "tensorrt", "--target", "SM89", "-o", str(out))
    assert main([*EXPORT, *options]) == 0
    shown = capsys.readouterr().out
    assert "RANDOM WEIGHTS" in shown and "tensorrt_rtx" in shown
    manifest = json.loads((out / "manifest.json").read_text())
    assert (manifest["variant"], manifest["precision"]) == ("alocc_tiny", "fp16")
    assert {"torch", "onnx", "tensorrt_rtx"} <= set(manifest["versions"])
    files = {"manifest.json"}
    for entry in manifest["segments"]:
        graph = (out / entry["onnx"]).read_bytes()
        assert hashlib.sha256(graph).hexdigest() == entry["sha256"]
        files.add(entry["onnx"])
        inputs = onnx.load_from_string(graph).graph.input
        assert {i.name for i in inputs} == {i["name"] for i in entry["inputs"]}
        for value, told in zip(inputs, entry["inputs"], strict=True):
            assert [d.dim_value for d in value.type.tensor_type.shape.dim] == told["shape"]
            assert told["type"] == ("uint8" if told["name"] == "labels" else "float16")
        # The list of voxels with flow is no affair of TensorRT.
        assert ("engine" in entry) == (entry["name"] != "flow")
        if "engine" in entry:
            engine = (out / entry["engine"]["file"]).read_bytes()
            assert hashlib.sha256(engine).hexdigest() == entry["engine"]["sha256"]
            files.add(entry["engine"]["file"])
    assert {p.name for p in out.iterdir()} == files
    assert [p.name for p in out.parent.iterdir()] == ["tiny"]


@pytest.mark.slow
def test_a_full_disk_leaves_what_was_there_and_nothing_half_written(tmp_path, capsys):
    out = tmp_path / "tiny"
    out.mkdir()
    (out / "manifest.json").write_text('{"format": 1, "precision": "fp32"}')
    # A limit on the size of files is a full disk that anybody can have.
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, before[1]))
        line = refused(capsys, "-o", out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert f"cannot write {out}: File too large" in line
    assert [p.name for p in tmp_path.iterdir()] == ["tiny"]
    assert [p.name for p in out.iterdir()] == ["manifest.json"]


@pytest.mark.slow
def test_ctrl_c_ends_it_with_130_and_nothing_is_left(tmp_path):
    out = tmp_path / "tiny"
    command = [sys.executable, "-m", "alocc_ros.cli.main", *EXPORT, "-o", str(out)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    end = time.monotonic() + 120
    while not (tmp_path / "tiny.partial").exists() and process.poll() is None:
        assert time.monotonic() < end
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert (process.returncode, told.splitlines()[-1]) == (130, "alocc: interrupted")
    assert "Traceback" not in told
    assert list(tmp_path.iterdir()) == []
