# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Installs what the tests of the GPU path take: compilers of kernels and of engines, no GPU.

    python tools/install_gpu_tests.py               triton, TensorRT-RTX, nvImageCodec
    python tools/install_gpu_tests.py --tensorrt    tensorrt too, for running on a GPU

Not every platform and Python has wheels of these. What cannot be had is told in one line and is no
error: its tests skip. Only ``--tensorrt``, which somebody asked for, must succeed. All are
installed by themselves (``--no-deps``): none of them may change the torch that is here, and
some claim CUDA packages that a machine without a GPU has no use for. Standard library only.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version

# The Triton that the CUDA build of each torch is released with; a table of registers is compared.
TRITON = {"2.11": "3.6.0", "2.12": "3.7.0", "2.13": "3.7.0", "2.14": "3.8.0"}
NEWEST = "2.13"
TENSORRT_RTX = ("tensorrt-rtx-cu13-libs==1.7.*", "tensorrt-rtx-cu13-bindings==1.7.*")
NVIMGCODEC = "nvidia-nvimgcodec-cu13>=0.6"
# Users of a neighbouring network report wrong results from 8.6 and right ones from 10.3.
TENSORRT = "tensorrt>=10.3"


def installed(distribution: str) -> str | None:
    """Its version, or None."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def install(*requirements: str, whole: bool = False) -> bool:
    """Installs wheels alone, or anything with what it depends on; True if it succeeded."""
    command = [sys.executable, "-m", "pip", "install", "--quiet"]
    command += [] if whole else ["--no-deps", "--only-binary", ":all:"]
    done = subprocess.run([*command, *requirements], capture_output=True, text=True)
    lines = (done.stdout + done.stderr).strip().splitlines()
    if done.returncode == 0:
        print(f"installed {' '.join(requirements)}", flush=True)
    else:
        reason = next((x for x in reversed(lines) if "ERROR" in x), lines[-1] if lines else "")
        print(f"not installed: {' '.join(requirements)} ({reason})", flush=True)
    return done.returncode == 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tensorrt", action="store_true", help="tensorrt as well")
    arguments = parser.parse_args()

    torch = installed("torch") or NEWEST
    minor = ".".join(torch.split(".")[:2])
    # A CUDA build of torch has brought its own.
    if installed("triton") is None and not install(f"triton=={TRITON.get(minor, TRITON[NEWEST])}"):
        print("the tests of the Triton kernels will skip", flush=True)
    have = installed("tensorrt-rtx-cu13-libs") and installed("tensorrt-rtx-cu13-bindings")
    if not have and not install(*TENSORRT_RTX):
        print("the tests that build TensorRT engines will skip", flush=True)
    if installed("nvidia-nvimgcodec-cu13") is None and not install(NVIMGCODEC):
        print("the tests that decode JPEG with nvImageCodec will skip", flush=True)
    if arguments.tensorrt and installed("tensorrt") is None and not install(TENSORRT, whole=True):
        print(f"error: {TENSORRT} could not be installed", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
