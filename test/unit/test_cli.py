# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch

from alocc_ros import __version__, records
from alocc_ros.cli import main as cli
from alocc_ros.cli._models import load_network
from alocc_ros.cli.main import main
from alocc_ros.errors import BagError, CheckpointError
from alocc_ros.network.checkpoint import read_state_dict, save_safetensors
from alocc_ros.network.model import Alocc
from alocc_ros.network.variants import VARIANTS
from alocc_ros.records import find

COMMAND = (sys.executable, "-m", "alocc_ros.cli.main")


@pytest.fixture(autouse=True)
def private_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


# --- the shell around the commands ----------------------------------------------------


def test_the_version_comes_fast_and_without_torch():
    code = (
        "import sys, alocc_ros.cli.main as m\n"
        "try: m.main(['--version'])\n"
        "except SystemExit: pass\n"
        "print([n for n in ('torch', 'numpy', 'scipy', 'rclpy', 'yaml') if n in sys.modules])"
    )
    seconds, outputs = zip(*(timed(code) for _ in range(3)), strict=True)
    idle, _ = zip(*(timed("pass") for _ in range(3)), strict=True)
    assert outputs[0].splitlines() == [f"alocc {__version__}", "[]"]
    assert min(seconds) - min(idle) < 0.25, f"{min(seconds):.2f} s of which {min(idle):.2f} Python"


def timed(code: str) -> tuple[float, str]:
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    return time.perf_counter() - start, done.stdout


def test_help_names_every_command(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    assert all(re.search(rf"^ +{name}\s+\w", shown, re.M) for name, _ in cli.COMMANDS)


@pytest.mark.parametrize("argv", [[], ["dance"], ["models"], ["models", "fetch"], ["--flip"]])
def test_wrong_usage_exits_with_2(argv, capsys):
    with pytest.raises(SystemExit) as caught:
        main(argv)
    assert caught.value.code == 2
    assert "usage: alocc" in capsys.readouterr().err


class _Raises:
    """A command module whose work ends in an exception."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def add_arguments(self, parser) -> None: ...

    def run(self, args) -> int:
        raise self.error


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (BagError("no bag\nat a\x1b[31mll"), 2, "alocc: error: no bag at a [31mll\n"),
        (KeyboardInterrupt(), 130, "alocc: interrupted\n"),
        (
            ModuleNotFoundError("No module named 'torch'", name="torch"),
            2,
            "alocc: error: the Python package 'torch' is not installed: run "
            "tools/install_torch.py (CPU), or pip install alocc_ros[gpu]\n",
        ),
    ],
)
def test_what_users_can_mend_is_one_line_and_a_code(monkeypatch, capsys, error, code, line):
    monkeypatch.setattr(cli.importlib, "import_module", lambda _: _Raises(error))
    assert main(["models"]) == code
    assert capsys.readouterr().err == line


def test_our_own_defects_keep_their_traceback(monkeypatch):
    for error in (ZeroDivisionError(), ModuleNotFoundError("x", name="alocc_ros.cli.gone")):
        monkeypatch.setattr(cli.importlib, "import_module", lambda _, e=error: _Raises(e))
        with pytest.raises(type(error)):
            main(["models"])


def test_a_reader_that_goes_away_ends_the_command_quietly():
    shell = f"({' '.join(COMMAND)} models list --json; echo $? >&2) | head -c 1"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True)
    # 141 if the reader was gone before the last write, 0 if the pipe still took it all.
    assert done.stdout == "["
    assert done.stderr in ("141\n", "0\n")


# --- models ---------------------------------------------------------------------------


def test_list_shows_every_model_and_whether_it_is_here(capsys):
    path = records.weights_path(find("alocc_3d"))
    path.parent.mkdir(parents=True)
    path.touch()
    assert main(["models", "list"]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"^alocc_3d +704x256 +occ3d +16 +no +mIoU 45.5 +fetched$", shown, re.M)
    assert re.search(r"^alocc_flow_2d .* openocc .* yes .* not fetched$", shown, re.M)
    assert all(name in shown for name in records.load_records())


def test_list_as_json_holds_the_whole_records(capsys):
    assert main(["models", "list", "--json"]) == 0
    listed = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert set(listed) == set(records.load_records())
    assert listed["alocc_3d"]["grid"]["resolution"] == 0.4
    assert listed["alocc_3d"]["weights"] is None


def test_list_shows_models_that_were_never_published(monkeypatch, capsys):
    mine = dataclasses.replace(find("alocc_3d"), name="mine", repository=None, file=None, scores=())
    monkeypatch.setattr("alocc_ros.cli.models.load_records", lambda: {"mine": mine})
    assert main(["models", "list"]) == 0
    assert re.search(r"^mine .* - +unpublished$", capsys.readouterr().out, re.M)
    assert main(["models", "list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["weights"] is None


@pytest.fixture(scope="module")
def mini(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "mine.safetensors"
    save_safetensors(path, Alocc(VARIANTS["alocc_2d_mini"]).state_dict())
    return path


def test_verify_tells_the_network_by_its_weights(mini, capsys):
    assert main(["models", "verify", str(mini)]) == 0
    shown = capsys.readouterr().out
    assert "network  alocc_2d_mini (a guess: 100% of its weights fit)" in shown
    assert "tensors  the file's only ones" in shown
    assert "weights  602 tensors loaded" in shown
    assert shown.endswith("result   good\n")


def test_commands_say_which_tensors_they_use_and_refuse_an_average_of_zeros(mini, tmp_path, capsys):
    weights = read_state_dict(mini)
    zeros = {k: torch.zeros_like(v) for k, v in weights.items()}
    record, path = find("alocc_2d_mini"), tmp_path / "both.pth"
    torch.save({"state_dict": zeros, "ema_state_dict": weights}, path)
    load_network(record, path, "cpu", 0)
    used = "ema_state_dict, the averaged (EMA) ones; not used: state_dict"
    assert capsys.readouterr().err == f"alocc: weights of both.pth: {used}\n"
    load_network(record, path, "cpu", 0, quiet=True)
    assert capsys.readouterr().err == ""
    torch.save({"state_dict": weights, "ema_state_dict": zeros}, path)
    with pytest.raises(CheckpointError, match="both.pth: ema_state_dict: not trained: "):
        load_network(record, path, "cpu", 0)


def test_verify_takes_the_folder_of_a_run_and_reads_which_model_it_is(mini, tmp_path, capsys):
    weights = read_state_dict(mini)
    more = {f"head.{n}": torch.zeros(1) for n in range(20)}
    path = tmp_path / "weights.safetensors"
    save_safetensors(path, weights | more, {"model": "alocc_2d_mini"})
    assert main(["models", "verify", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert all(f"head.{n}" in shown for n in range(20)), "every name, however many"
    assert "network  alocc_2d_mini (trained as alocc_2d_mini)" in shown
    assert "record   none" in shown


def test_verify_of_another_network_fails_with_1(mini, capsys):
    assert main(["models", "verify", str(mini), "--variant", "alocc_flow_3d"]) == 1
    shown = capsys.readouterr().out
    assert re.search(r"^WRONG    the weights do not fit alocc_flow_3d: missing: ", shown, re.M)
    assert "this looks like alocc_2d_mini" in shown
    assert shown.endswith("result   does not hold\n")


def test_verify_compares_the_digest_with_the_record(mini, tmp_path, monkeypatch, capsys):
    path = tmp_path / "alocc_2d_mini.safetensors"
    path.symlink_to(mini)
    published = find("alocc_2d_mini")
    for digest, code in ((records.sha256(mini), 0), ("0" * 64, 1)):
        known = {published.name: dataclasses.replace(published, sha256=digest)}
        monkeypatch.setattr(records, "load_records", lambda known=known: known)
        assert main(["models", "verify", str(path)]) == code
        shown = capsys.readouterr().out
        assert ("SHA-256 agrees" in shown) == (code == 0)
        assert (f"has SHA-256 {'0' * 64}" in shown) == (code == 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{tmp}/nowhere.pth"], "nowhere.pth: cannot be read: No such file or directory"),
        (["{tmp}/page.pth"], "page.pth: not a checkpoint (it begins with b'<html><he')"),
        (["{mini}", "--variant", "resnet"], "unknown variant 'resnet'; there are alocc_2d_mini,"),
    ],
)
def test_verify_of_what_cannot_be_read_exits_with_2(arguments, message, mini, tmp_path, capsys):
    (tmp_path / "page.pth").write_text("<html><head>")
    arguments = [a.format(tmp=tmp_path, mini=mini) for a in arguments]
    assert main(["models", "verify", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and message in error


# The command, in a process whose record of alocc_3d names a commit.
PINNED = """
import dataclasses, sys
from alocc_ros import records
from alocc_ros.cli import models
find = records.find
models.find = lambda name: dataclasses.replace(find(name), revision="1" * 40)
from alocc_ros.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


def fetch(
    folder, port: int, name: str = "alocc_3d", command: Sequence[str] = COMMAND
) -> subprocess.CompletedProcess[str]:
    """In a process of its own: the hub's library reads its endpoint when it is imported."""
    environment = {
        "HF_ENDPOINT": f"http://127.0.0.1:{port}",
        "HF_HOME": str(folder.parent / "hub"),
        "HF_HUB_DISABLE_XET": "1",
        "XDG_CACHE_HOME": str(folder.parent / "cache"),
        "PATH": "",
    }
    command = [*command, "models", "fetch", name, "--dir", str(folder)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


class _Hub(BaseHTTPRequestHandler):
    """As much of the hub as one download needs."""

    content = b"weights" * 1000
    cut_short = False
    revision = "main"

    def do_HEAD(self) -> None:  # noqa: N802
        self._head()

    def do_GET(self) -> None:  # noqa: N802
        self._head()
        self.wfile.write(self.content[: 100 if self.cut_short else None])

    def _head(self) -> None:
        wanted = find("alocc_3d")
        if self.path != f"/{wanted.repository}/resolve/{self.revision}/{wanted.file}":
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("ETag", '"0123456789abcdef"')
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("Content-Length", str(len(self.content)))
        self.end_headers()

    def log_message(self, *_) -> None: ...


@pytest.fixture
def hub():
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


def test_fetch_brings_the_file_of_the_record(hub, tmp_path):
    folder = tmp_path / "weights"
    done = fetch(folder, hub)
    assert done.returncode == 0, done.stderr
    file = folder / find("alocc_3d").file
    assert file.read_bytes() == _Hub.content
    assert f"sha256 {records.sha256(file)}" in done.stdout
    assert [p.name for p in folder.iterdir()] == [file.name]
    assert "is already there" in fetch(folder, hub).stdout


def test_fetch_brings_the_revision_of_the_record(hub, tmp_path, monkeypatch):
    monkeypatch.setattr(_Hub, "revision", "1" * 40)
    command = [sys.executable, "-c", PINNED]
    done = fetch(tmp_path / "weights", hub, command=command)
    assert done.returncode == 0, done.stderr
    assert "newest revision" not in done.stdout
    assert (tmp_path / "weights" / find("alocc_3d").file).read_bytes() == _Hub.content


@pytest.mark.slow
def test_a_download_that_breaks_off_leaves_nothing(hub, tmp_path, monkeypatch):
    monkeypatch.setattr(_Hub, "cut_short", True)
    folder = tmp_path / "weights"
    done = fetch(folder, hub)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("alocc: error: alocc_3d could not be fetched")
    assert list(folder.iterdir()) == []


def test_a_file_that_the_hub_does_not_have_is_an_error(hub, tmp_path):
    done = fetch(tmp_path / "weights", hub, "alocc_2d")
    assert done.returncode == 2
    assert "alocc_2d could not be fetched (" in done.stderr


def test_offline_is_said_in_one_line_and_leaves_nothing(tmp_path):
    done = fetch(tmp_path / "weights", port=9)
    assert done.returncode == 2
    assert done.stderr.startswith("alocc: error: offline: the Hugging Face hub cannot be reached")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "weights").exists()
