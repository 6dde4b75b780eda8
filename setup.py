# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Metadata is in setup.cfg; this adds the files that ROS keeps in ``share/alocc_ros``.

``launch/``, ``config/``, ``models/`` and ``rviz/`` lie at the top of the repository, as in every
ROS package, and are installed to ``<prefix>/share/alocc_ros`` by pip and by colcon alike;
``alocc_ros.resources`` finds them in all three places.
"""

from pathlib import Path

from setuptools import setup

HERE = Path(__file__).parent
SHARE = Path("share/alocc_ros")


def shared_files():
    """(directory under the prefix, files) for every shared folder, as ``data_files`` wants it."""
    folders = {}
    patterns = ("models/*.yaml", "models/*.safetensors", "config/**/*", "launch/*.py", "rviz/*")
    for pattern in (*patterns, "package.xml"):
        for path in sorted(HERE.glob(pattern)):
            if path.is_file():
                relative = path.relative_to(HERE)
                folders.setdefault(str(SHARE / relative.parent), []).append(str(relative))
    return sorted(folders.items())


setup(data_files=shared_files())
