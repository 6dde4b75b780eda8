# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Lock files: what is installed, file by file with its SHA-256, for one Python and platform.

    python tools/lock.py write      writes the lock files of this Python and platform anew
    python tools/lock.py install    installs the locked packages, where a lock fits
    python tools/lock.py install --ros kilted

pip itself resolves (a dry run, held to the versions that this environment has tested) and checks
(``--require-hashes``). torch is in no lock: its CPU build is not what the name alone stands for,
so the hash would depend on where pip looks. Standard library only.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCKS = ROOT / "locks"
_HEAD = "# Made by tools/lock.py for {tag}; do not edit. pip compares every file with its hash.\n"
_LEFT_OUT = {"torch", "triton", "alocc-ros", "alocc_ros", "nuscenes-devkit", "pip"}
_MISMATCH = "DO NOT MATCH THE HASHES"


def tag() -> str:
    """Of this Python and platform, such as ``cpython-311-linux-x86_64``."""
    version = "".join(map(str, sys.version_info[:2]))
    names = platform.python_implementation(), version, platform.system(), platform.machine()
    return "-".join(names).lower()


def lock_file(name: str) -> Path:
    """Of what is called ``name`` (``python``, ``kilted``), for this Python and platform."""
    return LOCKS / f"{name}-{tag()}.txt"


def pip(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs pip of this interpreter."""
    return subprocess.run(
        [sys.executable, "-m", "pip", *arguments], capture_output=True, text=True, cwd=ROOT
    )


def locked(report: str) -> str:
    """The lines of a lock file out of pip's report of an installation.

    Raises:
        ValueError: a package has no hash, so that nothing could be compared.
    """
    lines = []
    for item in json.loads(report)["install"]:
        name, version = item["metadata"]["name"], item["metadata"]["version"]
        if name.lower() in _LEFT_OUT:
            continue
        digest = item["download_info"].get("archive_info", {}).get("hashes", {}).get("sha256")
        if digest is None:
            raise ValueError(f"{name} {version} has no SHA-256")
        lines.append(f"{name.lower()}=={version} \\\n    --hash=sha256:{digest}\n")
    return "".join(sorted(lines))


def write(name: str, *requirements: str) -> None:
    """Writes one lock file."""
    frozen = pip("list", "--format", "json")
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as tested:
        for package in json.loads(frozen.stdout):
            if (
                package["name"].lower() not in _LEFT_OUT
                and "editable_project_location" not in package
            ):
                tested.write(f"{package['name']}=={package['version']}\n")
        tested.flush()
        options = ("--dry-run", "--ignore-installed", "--quiet", "--report", "-")
        done = pip("install", *options, "-c", tested.name, *requirements)
    if done.returncode != 0:
        sys.exit(f"pip finds no solution for {name}: {done.stderr.strip().splitlines()[-1]}")
    target = lock_file(name)
    target.parent.mkdir(exist_ok=True)
    text = _HEAD.format(tag=tag()) + locked(done.stdout[done.stdout.index("{") :])
    target.write_text(text)
    print(f"wrote {target.relative_to(ROOT)}")


def install(name: str) -> int:
    """Installs what is locked, if it is to be had here; says why not otherwise. An exit code.

    What no lock holds, the caller installs by its range.
    """
    lock = lock_file(name)
    if not lock.exists():
        print(f"no lock file of {name} for {tag()}: the newest of the allowed ranges", flush=True)
        return 0
    done = pip("install", "--quiet", "--no-deps", "--require-hashes", "-r", str(lock))
    told = (done.stdout + done.stderr).strip()
    if done.returncode == 0:
        print(f"installed {lock.relative_to(ROOT)}, hashes compared", flush=True)
    elif _MISMATCH in told:  # never to be gone around
        print(told, file=sys.stderr)
        return 1
    else:
        why = told.splitlines()[-1] if told else "pip failed"
        print(f"not installed: {lock.relative_to(ROOT)} ({why}); the allowed ranges", flush=True)
    return 0


def main() -> int:
    """The program."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=("write", "install"))
    parser.add_argument("--ros", default="", help="of the wheels of this ROS release")
    args = parser.parse_args()
    name = args.ros or "python"
    if args.action == "install":
        return install(name)
    own = ("--no-build-isolation", "-e", ".[test]")
    write(name, *(("-r", f"ros_wheels/{args.ros}.txt") if args.ros else own))
    return 0


if __name__ == "__main__":
    sys.exit(main())
