# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Where files are kept: the ones that came with the code, and the ones fetched or built later."""

from __future__ import annotations

import os
from pathlib import Path

from alocc_ros.errors import AloccError


def shared_folder(name: str) -> Path:
    """The folder ``models``, ``config``, ``launch`` or ``rviz`` of this installation.

    In a source checkout (``pip install -e`` too) it lies beside the package; pip and colcon
    install it to ``<prefix>/share/alocc_ros``, and every one of their layouts
    (``lib/python3.x/site-packages``, Debian's ``dist-packages``, ``--user``, ``--target``,
    ``--symlink-install``) has that prefix among the parents of the package.

    Raises:
        AloccError: the installation is incomplete; the message lists where it was looked for.
    """
    package = Path(__file__).parent
    source = package.parent
    places = [p / "share" / "alocc_ros" / name for p in source.parents]
    places.insert(0, source / "share" / "alocc_ros" / name)
    if (source / "package.xml").is_file():
        places.insert(0, source / name)
    for place in places:
        if place.is_dir():
            return place
    looked = ", ".join(str(p) for p in places[:5])
    raise AloccError(f"the {name} files of alocc_ros are not installed (looked in {looked})")


def cache_folder() -> Path:
    """This user's folder for what can be fetched or built again (it need not exist).

    Raises:
        AloccError: the system does not know where this user is at home.
    """
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "alocc_ros"
    except RuntimeError as error:
        raise AloccError("this user has no home folder; set XDG_CACHE_HOME") from error
