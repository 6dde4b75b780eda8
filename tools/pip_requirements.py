# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Prints what pip must install beside torch, for those who let colcon install the package itself.

    pip install -r <(python tools/pip_requirements.py)

Standard library only.
"""

from __future__ import annotations

import configparser
from pathlib import Path


def requirements() -> list[str]:
    """As in setup.cfg."""
    setup = configparser.ConfigParser()
    setup.read(Path(__file__).parents[1] / "setup.cfg")
    return setup["options"]["install_requires"].split()


if __name__ == "__main__":
    print("\n".join(requirements()))
