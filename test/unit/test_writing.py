# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Writing never follows links, and a full disk is one line."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from alocc_ros import schema
from alocc_ros.bags.sample import write_sample
from alocc_ros.bags.writer import Recorder
from alocc_ros.cli.main import main
from alocc_ros.distributed import World
from alocc_ros.errors import OutputError, ParameterError, PresetError
from alocc_ros.files import whole_file
from alocc_ros.network.checkpoint import save_safetensors
from alocc_ros.records import read_record
from alocc_ros.stream.preset import load_preset
from alocc_ros.stream.rig import load_rig
from alocc_ros.training import checkpoint
from alocc_ros.training.config import TrainingConfig
from alocc_ros.training.log import RunLog

PRECIOUS = b"precious"


@pytest.fixture
def precious(tmp_path: Path) -> Path:
    path = tmp_path / "elsewhere" / "precious"
    path.parent.mkdir()
    path.write_bytes(PRECIOUS)
    return path


@pytest.fixture(autouse=True)
def untouched(precious: Path):
    yield
    assert precious.read_bytes() == PRECIOUS


def test_a_whole_file_replaces_links_and_does_not_follow_them(tmp_path, precious):
    target = tmp_path / "out.npz"
    for link in (target, tmp_path / "out.npz.partial"):
        link.symlink_to(precious)
    with whole_file(target) as scratch:
        scratch.write_text("new")
    assert not target.is_symlink() and target.read_text() == "new"


@pytest.mark.parametrize("suffix", [".partial", ".partial.json"])
def test_run_does_not_follow_the_links_of_an_unfinished_output(tmp_path, precious, capsys, suffix):
    bag, out = tmp_path / "bag.mcap", tmp_path / "out.mcap"
    write_sample(bag, seconds=0.5, rate=4, width=176, height=99)
    Path(f"{out}{suffix}").symlink_to(precious)
    arguments = ["run", str(bag), "-o", str(out), "--model", "alocc_tiny"]
    assert main(arguments) == 2
    assert f"{out}{suffix}: it is a link" in capsys.readouterr().err
    assert main([*arguments, "--restart"]) == 2


def test_a_recording_does_not_follow_a_link(tmp_path, precious):
    (tmp_path / "out.mcap").symlink_to(precious)
    with pytest.raises(OutputError, match="it is a link"):
        Recorder(tmp_path / "out.mcap", {})


def test_the_files_of_a_training_run_do_not_follow_links(tmp_path, precious):
    run = tmp_path / "run"
    run.mkdir()
    for name in ("config.yaml", "config.yaml.partial", ".config.yaml.part", ".log.jsonl.part"):
        (run / name).symlink_to(precious)
    TrainingConfig("alocc_tiny").write(run / "config.yaml")
    assert TrainingConfig.read(run / "config.yaml").model == "alocc_tiny"
    (run / "log.jsonl").symlink_to(precious)
    with pytest.raises(OutputError, match="it is a link"):
        RunLog(run, 0)
    folder = run / "checkpoints"
    folder.mkdir()
    for name in (".step-00000003.part", "step-00000001"):
        (folder / name).symlink_to(precious.parent)
    for step in (2, 3):
        checkpoint.save(folder, step, {"step": step}, {}, World(), keep=1)
    assert [p.name for p in folder.iterdir()] == ["step-00000003"]
    assert checkpoint.load_state(folder / "step-00000003") == {"step": 3}
    save_safetensors(run / "weights.safetensors", {"a": torch.ones(3)})


def test_a_disk_that_is_full_is_one_line_and_costs_no_checkpoint(tmp_path):
    # A limit on the length of files stands in for the disk: the same error from the same call.
    code = (
        "import sys, torch; from pathlib import Path\n"
        "from alocc_ros.distributed import World\n"
        "from alocc_ros.errors import OutputError\n"
        "from alocc_ros.training import checkpoint\n"
        "folder = Path(sys.argv[1])\n"
        "checkpoint.save(folder, 1, {'a': torch.ones(3)}, {}, World(), keep=1)\n"
        "try: checkpoint.save(folder, 2, {'a': torch.ones(1 << 20)}, {}, World(), keep=1)\n"
        "except OutputError as error: print(error)\n"
        "assert checkpoint.latest(folder).name == 'step-00000001'\n"
        "checkpoint.load_state(checkpoint.latest(folder))\n"
    )

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))

    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "checkpoints")],
        capture_output=True,
        text=True,
        preexec_fn=limit,
    )
    assert done.returncode == 0, done.stderr
    assert "cannot write" in done.stdout and "state.pt" in done.stdout


# --- YAML ------------------------------------------------------------------------------------

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12)
)
MERGES = "a0: &a0 {x: 1}\n" + "".join(
    f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 10)}]}}\n" for n in range(1, 12)
)
HOSTILE = {
    "aliases": (BOMB, "aliases that stand for more than"),
    "merges": (MERGES, "aliases that stand for more than"),
    "nesting": ("a: " + "[" * 5000 + "]" * 5000, "nested deeper than"),
    "nesting without end": ("[" * 100_000, "nested deeper than"),
    "itself": ("a: &a [*a]", "an alias for something that holds it"),
    "length": ("a: " + "x" * (5 << 20), "characters; at most"),
    "a number too long": ("a: " + "1" * 5000, "digits"),
    "a date that is none": ("a: 2001-99-99", "month"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_yaml_is_an_error_in_one_line(tmp_path, kind):
    text, says = HOSTILE[kind]
    path = tmp_path / "file.yaml"
    path.write_text(text)
    with pytest.raises(yaml.YAMLError, match=says):
        schema.load_yaml(text)
    for read, error in (
        (load_preset, PresetError),
        (TrainingConfig.read, ParameterError),
        (read_record, Exception),
        (lambda p: load_rig(p, True), Exception),
    ):
        with pytest.raises(error, match=says):
            read(path)


def test_hostile_settings_on_the_command_line_are_an_error():
    with pytest.raises(ParameterError, match="nested deeper"):
        TrainingConfig("alocc_tiny").changed(["steps=" + "[" * 1000])


def test_aliases_within_reason_are_read():
    text = "common: &c {a: 1, b: [1, 2]}\none: *c\ntwo: {<<: *c, b: 3}\nthree: 0x10\n"
    assert schema.load_yaml(text) == yaml.safe_load(text)
    assert schema.load_yaml("") is None
