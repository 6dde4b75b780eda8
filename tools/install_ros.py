# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Puts real ROS 2 into the running virtual environment, from Python wheels.

    python tools/install_ros.py                   Kilted
    python tools/install_ros.py --distro jazzy

rclpy, Fast DDS and the standard messages come from wheels; ``msg/`` and tf2_msgs are built
with the generators of those wheels (CMake and a C++ compiler are needed); for the Python
packages that no wheel has, ``ros_standins/`` is put at the very end of the module search path,
where any real one comes first. Where a ROS 2 installation is sourced, nothing is done. Can be
run again at any time. Standard library only.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DISTROS = ("kilted", "jazzy")
PYTHONS = ((3, 10), (3, 14))  # first and last CPython that the wheels are made for

PREFIX = Path(sys.prefix)
# alocc_ros/__init__.py looks here. Not site-packages: a folder called alocc_ros there would
# hide an editable install of the package.
MESSAGES = "lib/alocc_ros_messages"
STANDINS_FILE = Path(sysconfig.get_path("purelib")) / "alocc_ros_standins.pth"


class SetupError(Exception):
    """Something that the user can mend."""


def no_wheels() -> str | None:
    """Why no ROS wheels exist for this interpreter, or None."""
    here = f"{platform.python_implementation()} {platform.python_version()}"
    system = f"{platform.system()} {platform.machine()}"
    first, last = (".".join(map(str, v)) for v in PYTHONS)
    if system != "Linux x86_64" or platform.libc_ver()[0] != "glibc":
        return f"ROS wheels exist for Linux on x86-64 with glibc only, this is {system}"
    if platform.python_implementation() != "CPython" or not (
        PYTHONS[0] <= sys.version_info[:2] <= PYTHONS[1]
    ):
        return f"ROS wheels exist for CPython {first} to {last} only, this is {here}"
    return None


def sourced_ros() -> str | None:
    """The ROS installation of this shell, or None: then rclpy is not to be had from pip."""
    spec = importlib.util.find_spec("rclpy")
    if spec is None or spec.origin is None or Path(spec.origin).is_relative_to(PREFIX):
        return None
    return f"{os.environ.get('ROS_DISTRO', 'unknown release')}, {Path(spec.origin).parent}"


def run(*command: str | Path, environment: dict[str, str] | None = None) -> None:
    """Runs a command; its output is shown only if it fails."""
    done = subprocess.run(
        [str(c) for c in command],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    if done.returncode != 0:
        raise SetupError(f"{' '.join(map(str, command))}\n{done.stdout[-4000:]}")


def pip(*arguments: str | Path) -> None:
    run(sys.executable, "-m", "pip", "install", "--quiet", *arguments)


def install_wheels(distro: str) -> None:
    requirements = ROOT / "ros_wheels" / f"{distro}.txt"
    wanted = re.search(r"^ros-rclpy==(\d+)", requirements.read_text(), re.M)[1]
    try:
        found = importlib.metadata.version("ros-rclpy")
    except importlib.metadata.PackageNotFoundError:
        found = None
    if found and found.partition(".")[0] != wanted:
        raise SetupError(
            f"{PREFIX} holds the wheels of another ROS release (rclpy {found}); "
            f"use an environment of its own: make setup VENV=.venv-{distro} ROS={distro}"
        )
    run(sys.executable, ROOT / "tools" / "lock.py", "install", "--ros", distro)
    pip("-r", requirements)


def mend_include_folders() -> None:
    """The wheels' CMake files name the folders of the machine that built them."""
    import numpy

    python = sysconfig.get_path("include")
    places = (
        (re.compile(r"/opt/python/cp3[^/;\"]*/include/python3\.\d+"), python),
        (
            re.compile(r"/opt/python/cp3[^/;\"]*/lib/python3\.\d+/site-packages/numpy/\w+/include"),
            numpy.get_include(),
        ),
    )
    for path in (PREFIX / "share").rglob("*.cmake"):
        before = path.read_text(errors="surrogateescape")
        if "/opt/python/" not in before:
            continue
        text = before
        for pattern, here in places:
            text = pattern.sub(lambda _, here=here: here, text)
        if text != before:
            beside = path.with_suffix(".new")
            beside.write_text(text, errors="surrogateescape")
            os.replace(beside, path)


def missing_tools() -> str | None:
    """What the messages cannot be built without and this machine lacks, and how to get it."""
    compilers = [os.environ.get("CXX"), "c++", "g++", "clang++"]
    if not any(c and shutil.which(c.split()[0]) for c in compilers):
        return "no C++ compiler was found; install one (Debian: apt-get install g++)"
    include = Path(sysconfig.get_path("include")) / "Python.h"
    if not include.is_file():
        version = sysconfig.get_python_version()
        return (
            f"{include} is missing; install Python's headers "
            f"(Debian: apt-get install python{version}-dev)"
        )
    return None


def build_tools() -> None:
    if shutil.which("cmake") is None:
        pip("cmake>=3.20")


def build_messages(name: str, source: Path, *options: str) -> None:
    """Generates, compiles and installs the interfaces of one package into the environment."""
    folder = PREFIX / "build" / name
    environment = dict(os.environ)
    environment["AMENT_PREFIX_PATH"] = environment["CMAKE_PREFIX_PATH"] = str(PREFIX)
    environment["PATH"] = f"{PREFIX / 'bin'}{os.pathsep}{environment.get('PATH', '')}"
    environment.pop("PYTHONPATH", None)
    configure = ["cmake", "-S", source, "-B", folder]
    configure += [f"-DCMAKE_INSTALL_PREFIX={PREFIX}", f"-DPython3_EXECUTABLE={sys.executable}"]
    configure += ["-DBUILD_TESTING=OFF", *options]  # no build type: optimising takes twice as long
    if shutil.which("ninja"):
        configure += ["-G", "Ninja"]
    try:
        run(*configure, environment=environment)
    except SetupError:
        # Another CMake, compiler or Python may have left its traces; once more from nothing.
        shutil.rmtree(folder, ignore_errors=True)
        run(*configure, environment=environment)
    jobs = str(os.cpu_count() or 1)
    run("cmake", "--build", folder, "--parallel", jobs, environment=environment)
    run("cmake", "--install", folder, environment=environment)


def install_standins() -> None:
    beside = STANDINS_FILE.with_suffix(".new")
    beside.write_text(f"{ROOT / 'ros_standins'}\n")
    os.replace(beside, STANDINS_FILE)


def check() -> str:
    """Imports what was installed in a new interpreter; its one line of output."""
    code = (
        "import rclpy, cv_bridge, message_filters, tf2_ros\n"
        "from tf2_msgs.msg import TFMessage\n"
        "from alocc_ros.msg import SemanticGrid\n"
        "from rclpy.serialization import serialize_message as s\n"
        "s(TFMessage()), s(SemanticGrid())\n"
        "from rclpy.utilities import get_rmw_implementation_identifier as rmw\n"
        "print('rclpy', 'from', rclpy.__file__, 'over', rmw())"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode != 0:
        raise SetupError(f"ROS was installed but does not work:\n{done.stderr[-2000:]}")
    return done.stdout.strip()


def install(distro: str) -> None:
    steps = (
        (f"wheels of ROS 2 {distro}", lambda: install_wheels(distro)),
        ("build tools", lambda: (build_tools(), mend_include_folders())),
        ("tf2_msgs", lambda: build_messages("tf2_msgs", ROOT / "ros_wheels" / "tf2_msgs")),
        (
            "messages of alocc_ros",
            lambda: build_messages(
                "alocc_ros",
                ROOT,
                "-DALOCC_MESSAGES_ONLY=ON",
                f"-DPYTHON_INSTALL_DIR={MESSAGES}",
            ),
        ),
        ("stand-ins", install_standins),
    )
    for what, step in steps:
        start = time.monotonic()
        print(f"  {what} ...", end=" ", flush=True)
        step()
        print(f"{time.monotonic() - start:.0f} s", flush=True)
    print(f"  {check()}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--distro", choices=DISTROS, default=DISTROS[0])
    parser.add_argument("--stamp", type=Path, help="file to touch when nothing is left to do")
    args = parser.parse_args()
    done = set_up(args.distro)
    if done and args.stamp:
        args.stamp.touch()
    return 1 if done is None else 0


def set_up(distro: str) -> bool | None:
    """True: nothing is left to do; False: left out for now; None: it went wrong."""
    if sys.prefix == sys.base_prefix:
        print("error: run this with the python of a virtual environment", file=sys.stderr)
        return None
    reason = no_wheels()
    if reason:
        print(f"ROS 2 is left out: {reason}. Everything but the node works without it.")
        return True
    ros = sourced_ros()
    if ros:
        print(f"ROS 2 is already here ({ros}): build this package with colcon, see README.md.")
        return True
    missing = missing_tools()
    if missing:
        print(f"ROS 2 is left out, everything but the node works without it: {missing}")
        return False
    print(f"ROS 2 {distro} into {PREFIX}")
    try:
        install(distro)
    except SetupError as problem:
        print(
            f"\nerror: {problem}\nROS 2 could not be set up; mend that and run `make setup` "
            "again, or do without ROS: make setup ROS=0",
            file=sys.stderr,
        )
        return None
    return True


if __name__ == "__main__":
    sys.exit(main())
