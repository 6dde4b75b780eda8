# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Frames of the NPZ files of ``alocc run --npz``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from alocc_ros.bags.results import npz_stamp, read_npz
from alocc_ros.viewer.frames import FrameHandle, Layer, ViewFrame
from alocc_ros.viewer.source import PREDICTION, Source


def npz_source(path: Path, files: Sequence[Path]) -> Source:
    """Voxel grids of ``files``, in order of time; ``path`` is what the user named.

    Raises:
        BagError: a file is no such NPZ.
    """
    stamped = sorted((npz_stamp(file), file) for file in files)

    def frames() -> Iterator[FrameHandle]:
        for stamp, file in stamped:
            yield FrameHandle(stamp, partial(_load_npz, file))

    classes = read_npz(stamped[0][1]).classes.name
    return Source(path, PREDICTION, frames, classes=classes)


def _load_npz(file: Path) -> ViewFrame:
    occupancy = read_npz(file)
    return ViewFrame(occupancy.stamp, None, (Layer(PREDICTION, "", occupancy),))
