# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""What a sceptic tries: each gives one line that names the thing, code 2, and nothing half-made.

Bad bags and messages are in test_run.py, damaged files in test/unit/test_bag_reader.py.
"""

from __future__ import annotations

import fcntl
import json
import os
import pickle
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tiny_model
import torch

from alocc_ros.bags.sample import write_sample
from alocc_ros.bags.writer import whole_frames
from alocc_ros.bench import parity
from alocc_ros.cli import models as _models  # noqa: F401, bound before the records change
from alocc_ros.cli.main import main
from alocc_ros.errors import AloccError
from alocc_ros.network.checkpoint import save_safetensors
from alocc_ros.network.model import Alocc
from alocc_ros.resources import cache_folder

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("tiny")]
TINY = ("--model", "tiny", "--random-weights")


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bag") / "sample.mcap"
    write_sample(path, seconds=1.5, rate=4.0, width=176, height=99)
    return path


def refused(capsys: pytest.CaptureFixture[str], *argv: str | Path) -> str:
    """The one line with which a command refuses."""
    assert main([str(a) for a in argv]) == 2
    error = capsys.readouterr().err
    assert error.startswith("alocc: error: ")
    assert error.count("\n") == 1
    return error


def contents(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


# --- outputs -------------------------------------------------------------------------------


def test_the_bag_itself_is_never_overwritten(bag, tmp_path, capsys):
    before = bag.read_bytes()
    assert "in the bag itself" in refused(capsys, "run", bag, "-o", bag, *TINY)
    link = tmp_path / "link.mcap"
    link.symlink_to(bag)
    assert "in the bag itself" in refused(capsys, "run", bag, "-o", link, *TINY)
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "part_0.mcap").write_bytes(before)
    out = folder / "out.mcap"
    assert "in the bag itself" in refused(capsys, "run", folder, "-o", out, *TINY)
    assert bag.read_bytes() == before
    assert contents(folder) == ["part_0.mcap"]


def test_a_folder_where_the_output_should_be_is_seen_before_the_work(bag, tmp_path, capsys):
    (tmp_path / "out.mcap").mkdir()
    assert "a folder of that name" in refused(
        capsys, "run", bag, "-o", tmp_path / "out.mcap", *TINY
    )
    assert contents(tmp_path) == ["out.mcap"]


def test_two_runs_do_not_write_one_output(bag, tmp_path, capsys):
    notes = tmp_path / "out.mcap.partial.json"
    with notes.open("a") as other:
        fcntl.flock(other, fcntl.LOCK_EX)  # as a run does for as long as it lives
        out = tmp_path / "out.mcap"
        assert "another run is writing" in refused(capsys, "run", bag, "-o", out, *TINY)
        assert contents(tmp_path) == [notes.name]
    assert main(["run", str(bag), "-o", str(out), *TINY]) == 0
    assert contents(tmp_path) == ["out.mcap"]


@pytest.mark.parametrize("also", [None, "--npz", "--overlay"])
def test_a_full_disk_is_named_and_what_is_done_is_kept(bag, tmp_path, also):
    """A limit on the size of files fails writes in the same way as a full disk."""
    out = tmp_path / "out.mcap"
    more = [] if also is None else [also, str(tmp_path / "more")]
    limit = 60_000 if also is None else 20_000  # bytes: some frames; less than one picture
    command = [sys.executable, tiny_model.__file__, "run", str(bag), "-o", str(out), *TINY, *more]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert done.returncode == 2, done.stderr
    assert "alocc: error: cannot write" in done.stderr and "File too large" in done.stderr
    assert "Traceback" not in done.stderr
    if also is None:
        assert len(list(whole_frames(tmp_path / "out.mcap.partial"))) > 0
        assert main(["run", str(bag), "-o", str(out), *TINY]) == 0, "there is room again"
        assert contents(tmp_path) == ["out.mcap"]
    else:
        assert not list(tmp_path.rglob("*.partial*")), "half-written files"


def test_a_full_standard_output_is_one_line():
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "alocc_ros.cli.main", "models", "list"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2
    said = "alocc: error: cannot write to the standard output: No space left on device\n"
    assert done.stderr == said


# --- inputs --------------------------------------------------------------------------------


def test_what_is_no_bag_is_named(tmp_path, capsys):
    empty = tmp_path / "empty"
    empty.mkdir()
    for bag in ("/dev/null", empty):
        assert f"bag {bag}" in refused(capsys, "run", bag, "-o", tmp_path / "out.mcap", *TINY)
    assert contents(tmp_path) == ["empty"]


class _RunsCode:
    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return (os.mkdir, ("it-ran",))


def other_network(path: Path) -> None:
    variant = tiny_model.replace(tiny_model.VARIANT, backbone_width=16)
    save_safetensors(path.with_suffix(".safetensors"), Alocc(variant).state_dict())


CHECKPOINTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "noise": (lambda p: p.write_bytes(np.random.default_rng(0).bytes(5000)), "not a checkpoint"),
    "empty": (lambda p: p.write_bytes(b""), "not a checkpoint"),
    "folder": (lambda p: p.mkdir(), "there is no weights.safetensors in it"),
    "code": (lambda p: torch.save({"state_dict": {"x": _RunsCode()}}, p), "refused"),
    "pickle": (lambda p: p.write_bytes(pickle.dumps({"x": _RunsCode()}, 4)), "checkpoint"),
    "other": (other_network, "the weights do not fit tiny"),
}


@pytest.mark.parametrize("kind", CHECKPOINTS)
def test_a_checkpoint_that_is_none_is_named_and_runs_nothing(
    kind, bag, tmp_path, capsys, monkeypatch, recwarn
):
    monkeypatch.chdir(tmp_path)
    make, says = CHECKPOINTS[kind]
    make(Path("mine.pth"))
    (file,) = contents(tmp_path)
    error = refused(capsys, "run", bag, "-o", "out.mcap", "--model", file, "--variant", "tiny")
    assert file in error and says in error
    assert contents(tmp_path) == [file]
    assert not recwarn.list, "warnings that no user can act on"


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        ("benchmark --model alocc_9d", "unknown model 'alocc_9d'"),
        ("benchmark --threads 0", "--threads 0"),
        ("benchmark --frames -3", "--frames -3"),
        ("benchmark --backend magic", "unknown backend 'magic'"),
        ("benchmark --device cuda:99", "cuda:99"),
        ("benchmark --shape 255 704", "--shape 255 704"),
        ("flops --shape 0 704", "--shape 0 704"),
        ("flops --model alocc_9d", "unknown model 'alocc_9d'"),
        ("models fetch alocc_9d", "unknown model 'alocc_9d'"),
        ("models verify nowhere.pth", "nowhere.pth"),
        ("parity --golden nowhere", "nowhere is not a golden folder"),
        ("run x.mcap -o y.mcap --model alocc_3d_surroundocc --random-weights", "--grid-frame"),
    ],
)
def test_wrong_choices_are_named(argv, says, capsys):
    assert says in refused(capsys, *argv.split())


@pytest.mark.parametrize("number", ["0", "-1", "some"])
def test_max_frames_says_what_it_wants(number, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["run", "x.mcap", "-o", "y.mcap", *TINY, "--max-frames", number])
    assert caught.value.code == 2
    assert "whole number from 1" in capsys.readouterr().err


def test_nobody_at_home_is_an_error_of_the_user(monkeypatch):
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(AloccError, match="XDG_CACHE_HOME"):
        cache_folder()


# --- golden folders ------------------------------------------------------------------------

GENERATOR = """
import torch
SALT = ""
def make_state_dict(schema):
    return {}
def make_frame(t, size, stereo):
    return {"img": torch.zeros(1, 6, 3, *size), "start_of_sequence": True}
"""


@pytest.fixture
def golden(tmp_path) -> Path:
    """As much of a golden folder as can be opened."""
    entry = {"schema": "s.json", "golden": "g.npz", "stereo": False}
    manifest = {"salt": "", "frames": [0], "input_size": [64, 176], "variants": {"tiny": entry}}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    (tmp_path / "procedural.py").write_text(GENERATOR)
    (tmp_path / "s.json").write_text("{}")
    np.savez(tmp_path / "g.npz", **{"f0/x/sub": np.zeros(3)})
    assert parity.open_golden(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        ("frames", []),
        ("frames", "abc"),
        ("frames", [0.5]),
        ("input_size", [64]),
        ("input_size", [255, 704]),
        ("variants", []),
        ("variants", {"tiny": 3}),
        ("variants", {"tiny": {"schema": "s.json", "golden": "g.npz"}}),
    ],
)
def test_a_wrong_entry_of_the_manifest_is_named(golden, capsys, entry, value):
    manifest = json.loads((golden / "manifest.json").read_text())
    (golden / "manifest.json").write_text(json.dumps(manifest | {entry: value}))
    assert f"manifest.json: {entry}" in refused(capsys, "parity", "--golden", golden)


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("def (", "SyntaxError"),
        ("import no_such_module_at_all", "no_such_module_at_all"),
        ("SALT = ''", "has no function make_state_dict"),
        (GENERATOR.replace("return {}", "return 1 / 0"), "make_state_dict: ZeroDivisionError"),
        (GENERATOR, "the weights do not fit tiny"),
    ],
)
def test_a_generator_that_fails_is_named(golden, capsys, script, says):
    (golden / "procedural.py").write_text(script)
    error = refused(capsys, "parity", "--golden", golden)
    assert says in error and str(golden) in error


def test_a_frame_that_is_incomplete_is_named(golden):
    opened = parity.open_golden(golden)
    with pytest.raises(AloccError, match=r"make_frame\(0\) gives no usable frame: KeyError"):
        opened.frame(0, tiny_model.VARIANT, False)


def test_damaged_vectors_are_named(golden, capsys):
    file = golden / "g.npz"
    with parity.Vectors(file) as vectors:
        assert "f0/x/sub" in vectors
        with pytest.raises(AloccError, match=r"g\.npz has no f0/y"):
            vectors.get("f0/y")
        with pytest.raises(AloccError, match="holds 3 numbers, expected 4"):
            vectors.get("f0/x/sub", 4)
    whole = file.read_bytes()
    for content in (whole[:100], b"noise" * 100, b""):
        file.write_bytes(content)
        with pytest.raises(AloccError, match=r"g\.npz is not a whole \.npz file"):
            parity.Vectors(file)
    middle = whole.index(b"\x93NUMPY") + 130  # inside the numbers: the checksum tells
    file.write_bytes(whole[:middle] + b"\xff\xff" + whole[middle + 2 :])
    with parity.Vectors(file) as vectors, pytest.raises(AloccError, match="is damaged"):
        vectors.get("f0/x/sub")
    file.unlink()
    with pytest.raises(AloccError, match="named in the manifest but missing"):
        parity.Vectors(file)
