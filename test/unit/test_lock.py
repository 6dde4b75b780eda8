# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""The lock files: whole, within the ranges of setup.cfg, and a changed file is refused."""

from __future__ import annotations

import configparser
import hashlib
import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOCKS = sorted((ROOT / "locks").glob("*.txt"))
sys.path.insert(0, str(ROOT / "tools"))

import lock  # noqa: E402


def pins(path: Path) -> dict[str, str]:
    return dict(re.findall(r"^([\w.-]+)==(\S+) \\$", path.read_text(), re.M))


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def missing(path: Path, wanted: list[str]) -> list[str]:
    """Requirements that the versions of a lock file do not meet."""
    from packaging.requirements import Requirement

    found = {canonical(name): version for name, version in pins(path).items()}
    needed = [Requirement(line) for line in wanted if line and not line.startswith("#")]
    return [
        str(r)
        for r in needed
        if not r.specifier.contains(found.get(canonical(r.name), "0"), prereleases=True)
    ]


@pytest.mark.parametrize("path", LOCKS, ids=lambda p: p.stem)
def test_every_package_has_a_hash_and_no_place_to_come_from(path):
    text = path.read_text()
    entries = re.findall(r"^[\w.-]+==\S+ \\\n    --hash=sha256:[0-9a-f]{64}$", text, re.M)
    assert len(entries) == len(pins(path)) > 10
    assert len(text.splitlines()) == 1 + 2 * len(entries)  # and nothing else


@pytest.mark.parametrize("path", [p for p in LOCKS if p.stem.startswith("python-")])
def test_what_is_locked_is_within_the_ranges_for_users(path):
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    wanted = config["options"]["install_requires"] + config["options.extras_require"]["test"]
    assert missing(path, wanted.splitlines()) == []


@pytest.mark.parametrize("release", ["kilted", "jazzy"])
def test_the_wheels_of_ros_are_locked(release):
    wanted = (ROOT / "ros_wheels" / f"{release}.txt").read_text()
    paths = [p for p in LOCKS if p.stem.startswith(f"{release}-")]
    assert paths
    for path in paths:
        assert missing(path, wanted.splitlines()) == []


def wheel(folder: Path) -> Path:
    path = folder / "locked_thing-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("locked_thing.py", "")
        about = "locked_thing-1.0.dist-info/"
        archive.writestr(
            f"{about}METADATA", "Metadata-Version: 2.1\nName: locked-thing\nVersion: 1.0\n"
        )
        archive.writestr(
            f"{about}WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{about}RECORD", "")
    return path


def test_a_file_that_was_changed_is_not_installed(tmp_path, monkeypatch, capsys):
    digest = hashlib.sha256(wheel(tmp_path).read_bytes()).hexdigest()
    monkeypatch.setattr(lock, "ROOT", tmp_path)
    monkeypatch.setattr(lock, "LOCKS", tmp_path / "locks")

    def pip(*arguments: str) -> subprocess.CompletedProcess[str]:
        here = ("--no-index", "--find-links", str(tmp_path), "--target", str(tmp_path / "site"))
        command = [sys.executable, "-m", "pip", "install", *here, *arguments[1:]]
        return subprocess.run(command, capture_output=True, text=True)

    monkeypatch.setattr(lock, "pip", pip)
    assert lock.install("python") == 0
    assert "no lock file of python" in capsys.readouterr().out

    file = lock.lock_file("python")
    file.parent.mkdir()
    file.write_text(f"locked-thing==1.0 --hash=sha256:{digest}\n")
    assert lock.install("python") == 0
    assert "hashes compared" in capsys.readouterr().out
    file.write_text(f"locked-thing==1.0 --hash=sha256:{'0' * 64}\n")
    assert lock.install("python") == 1
    file.write_text(f"locked-thing==2.0 --hash=sha256:{digest}\n")
    assert lock.install("python") == 0  # it cannot be had: said, and left to the ranges
    assert "not installed" in capsys.readouterr().out


def test_a_package_without_a_hash_is_not_locked():
    item = {"metadata": {"name": "a", "version": "1"}, "download_info": {"dir_info": {}}}
    with pytest.raises(ValueError, match="a 1 has no SHA-256"):
        lock.locked(json.dumps({"install": [item]}))
