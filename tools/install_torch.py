# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Installs torch into the running interpreter without gigabytes of CUDA libraries.

    python tools/install_torch.py          a CPU build
    python tools/install_torch.py --gpu    whatever build pip prefers (CUDA on Linux)

What pip would take depends on the platform and on how pip is configured here, so pip is
asked first (a dry run; nothing is downloaded). Where it would take a CUDA build, uv is used
instead: it knows where the CPU builds are kept. Standard library only.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys

TESTED = "torch==2.13.0"
ALLOWED = "torch>=2.4"
# Older releases download every wheel in a dry run, the CUDA ones too.
PIP = "pip>=25.3"
MANUAL = f"""\
Install a CPU build of torch by hand into this environment, then run the command again:
    {sys.executable} -m pip install "{ALLOWED}" --index-url <index with CPU builds>
(the index is named on the start page of the PyTorch project), or take the CUDA build with
    make setup GPU=1"""


def installed_torch() -> str | None:
    """Version of the torch that imports here, or None."""
    probe = "import torch; print(torch.__version__, torch.version.cuda or 'cpu')"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else None


def run(*arguments: str) -> bool:
    """Runs a module of this interpreter, shown; True if it succeeded."""
    print("+ python -m", *arguments, flush=True)
    return subprocess.run([sys.executable, "-m", *arguments]).returncode == 0


def what_pip_would_take(requirement: str) -> list[str] | None:
    """Names of the packages that pip would install, or None if it finds no solution."""
    command = [sys.executable, "-m", "pip", "--quiet", "install", "--dry-run"]
    command += ["--only-binary", ":all:", "--report", "-", requirement]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        print(f"pip has no answer for {requirement}: {last_line(done.stderr)}", flush=True)
        return None
    report = json.loads(done.stdout[done.stdout.index("{") :])
    return sorted(item["metadata"]["name"].lower() for item in report["install"])


def last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "no message"


def install_cpu() -> bool:
    if not run("pip", "install", "--quiet", PIP):
        return False
    for requirement in (TESTED, ALLOWED):
        names = what_pip_would_take(requirement)
        if names is None:
            continue
        cuda = [n for n in names if n.startswith(("nvidia", "cuda"))]
        if not cuda:
            return run("pip", "install", requirement)
        print(f"pip would add {len(cuda)} CUDA packages to {requirement}; not taken", flush=True)
        break
    if not run("pip", "install", "--quiet", "uv"):
        return False
    uv = ("uv", "pip", "install", "--python", sys.executable, "--torch-backend", "cpu")
    return run(*uv, TESTED) or run(*uv, ALLOWED)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gpu", action="store_true", help="the build that pip prefers")
    gpu = parser.parse_args().gpu

    found = installed_torch()
    if found and (not gpu or not found.endswith("cpu")):
        print(f"torch {found} is installed")
        return 0
    if found:
        run("pip", "uninstall", "--yes", "torch")
    ok = run("pip", "install", TESTED) or run("pip", "install", ALLOWED) if gpu else install_cpu()
    found = installed_torch()
    if not (ok and found):
        print(f"error: torch could not be installed.\n{MANUAL}", file=sys.stderr)
        return 1
    if gpu and found.endswith("cpu"):
        print(f"warning: pip gave torch {found}, a build without CUDA", file=sys.stderr)
    print(f"torch {found} is installed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
