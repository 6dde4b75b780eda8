# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""From a path to the sources in it.

The kind of an input is recognised by its contents.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from alocc_ros.bags.reader import Bag
from alocc_ros.datasets.tables import OnProgress, nothing
from alocc_ros.errors import BagError
from alocc_ros.viewer.bag_source import bag_sources
from alocc_ros.viewer.dataset_source import dataset_sources
from alocc_ros.viewer.npz_source import npz_source
from alocc_ros.viewer.source import ReadOptions, Source


def open_sources(
    path: Path, options: ReadOptions, stack: ExitStack, on_progress: OnProgress = nothing
) -> list[Source]:
    """Everything there is to see in ``path``.

    Args:
        path: file or folder.
        options: how it is to be read.
        stack: closes what was opened.
        on_progress: called while the tables of a dataset are read.

    Raises:
        AloccError: there is nothing, or it cannot be read; the message says why.
    """
    if not path.exists():
        raise BagError(f"there is no file or folder {path}")
    if path.suffix == ".npz":
        return [npz_source(path, [path])]
    if path.is_dir():
        files = sorted(path.glob("*.npz"))
        if files:
            return [npz_source(path, files)]
        if any(p.is_dir() for p in path.glob("v1.0-*")):
            return dataset_sources(path, options, on_progress)
        if not any(p.suffix in (".mcap", ".db3", ".yaml") for p in path.iterdir()):
            raise BagError(
                f"{path} holds no bag (.mcap, .db3), no .npz files of `alocc run --npz` and no "
                "nuScenes tables (v1.0-*)"
            )
    return bag_sources(stack.enter_context(Bag(path)), options)
