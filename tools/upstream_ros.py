# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Whether the node's tests can run over a sourced ROS 2 distribution; else what is missing.

    python tools/upstream_ros.py

`make test-upstream` asks it first. Everything of ROS that package.xml names must come from the
distribution or a workspace over it: no wheels, no stand-ins. Fetches and installs nothing;
standard library only.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Whose Python is imported, and could be one of ros_standins/ or of a wheel.
MODULES = ("rclpy", "tf2_ros", "message_filters", "cv_bridge", "launch", "launch_ros")
PYTHON = {"pytest": "pytest", "pytest_rerunfailures": "pytest-rerunfailures",
          "hypothesis": "hypothesis", "torch": "torch"}  # fmt: skip
_NOT_TESTED = {"rviz2"}  # needs a screen


def ros_packages() -> list[str]:
    """What package.xml names of ROS, to run and to test."""
    manifest = ET.parse(ROOT / "package.xml").getroot()
    named = {e.text or "" for e in manifest if e.tag in ("depend", "exec_depend", "test_depend")}
    return sorted(name for name in named - _NOT_TESTED if not name.startswith("python3-"))


def problems() -> list[str]:
    """Each with its remedy; empty: the tests can run."""
    prefixes = [Path(p) for p in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if p]
    if not prefixes:
        return [
            "no ROS 2 distribution is sourced: source /opt/ros/$ROS_DISTRO/setup.bash, and the "
            "install/setup.bash of the workspace with this package"
        ]
    index = Path("share", "ament_index", "resource_index", "packages")
    missing = [
        name for name in ros_packages() if not any((p / index / name).exists() for p in prefixes)
    ]
    found = []
    if missing:
        found.append(
            f"the distribution lacks {', '.join(missing)}: rosdep install --from-paths "
            f"{ROOT} --ignore-src"
        )
    for module in MODULES:
        spec = importlib.util.find_spec(module)
        # A folder of that name that happens to be in the path, as launch/ here, is no package.
        origin = spec.origin if spec is not None else None
        if origin is None:
            if module not in missing:
                found.append(f"{sys.executable} does not find {module}: use the Python of the "
                             "distribution (make test-upstream PYTHON=...)")  # fmt: skip
        elif "ros_standins" in Path(origin).parts:
            found.append(f"{module} is a stand-in ({origin}): leave .venv, or remove its "
                         "alocc_ros_standins.pth")  # fmt: skip
        elif not any(Path(origin).is_relative_to(prefix) for prefix in prefixes):
            found.append(f"{module} is not the distribution's ({origin})")
    if _is_from_wheels("ros-rclpy"):
        found.append("rclpy comes from a wheel: leave that environment")
    if not any((p / index / "alocc_ros").exists() for p in prefixes):
        found.append(
            "this package is not built: colcon build --packages-select alocc_ros, then source "
            "install/setup.bash"
        )
    if lacking := [pip for name, pip in PYTHON.items() if importlib.util.find_spec(name) is None]:
        found.append(
            f"{sys.executable} does not find {', '.join(lacking)}: docs/install.md says how to get "
            "torch, pip brings the others"
        )
    return found


def _is_from_wheels(distribution: str) -> bool:
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def main() -> int:
    found = problems()
    for problem in found:
        print(f"test-upstream: {problem}", file=sys.stderr)
    return 2 if found else 0


if __name__ == "__main__":
    sys.exit(main())
