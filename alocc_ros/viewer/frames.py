# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""What there is to see at one stamp, and a handle on it that reads nothing before it is asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from alocc_ros.types import FrameSet, Occupancy


@dataclass(frozen=True)
class Layer:
    """One voxel grid and where it is from.

    Attributes:
        name: ``prediction`` or ``ground truth``, or another caption.
        detail: which model, which benchmark.
        occupancy: the voxels.
        base_T_grid: [4, 4], where the grid's frame is on the vehicle; None: it is the base.
        camera_mask: [X, Y, Z] bool, voxels that a camera sees, if that is known.
    """

    name: str
    detail: str
    occupancy: Occupancy
    base_T_grid: np.ndarray | None = None
    camera_mask: np.ndarray | None = None


@dataclass(frozen=True)
class ViewFrame:
    """All that there is to see at one stamp.

    Attributes:
        stamp: ns.
        frame_set: images with calibration and poses, if there are any.
        layers: voxel grids; the first one is drawn into the images.
    """

    stamp: int
    frame_set: FrameSet | None = None
    layers: tuple[Layer, ...] = ()


@dataclass(frozen=True)
class FrameHandle:
    """A frame of a source that has not been read yet.

    Attributes:
        stamp: ns.
        load: reads it; may raise what reading raises.
    """

    stamp: int
    load: Callable[[], ViewFrame]
