# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""The tracks of a recording that is gone on with: objects keep the ids that they had in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from alocc_ros.arrays import POINT_DTYPE
from alocc_ros.bags.cdr import TYPESTORE
from alocc_ros.bags.results import info_of_message
from alocc_ros.bags.writer import whole_frames
from alocc_ros.outputs import RECORDING_NAMESPACE, find_output
from alocc_ros.types import Occupancy

_OCCUPANCY = find_output("occupancy").topic(RECORDING_NAMESPACE)
_GRID_INFO = find_output("grid_info").topic(RECORDING_NAMESPACE)


def recorded_voxels(path: Path) -> Iterator[Occupancy]:
    """What a recording of ``alocc run`` holds, frame by frame, as far as tracks depend on it.

    The pose is not among it, nor is why the memory was reset: whoever makes the frames again knows.
    """
    info = None
    for frame in whole_frames(path):
        for topic, type_name, stamp, data in frame:
            if topic == _GRID_INFO:
                info = info_of_message(TYPESTORE.deserialize_cdr(data, type_name))
            elif topic == _OCCUPANCY:
                cloud = TYPESTORE.deserialize_cdr(data, type_name)
                points = np.ascontiguousarray(cloud.data).view(POINT_DTYPE)
                cells, _ = info.grid.indices(np.stack([points[a] for a in "xyz"], axis=1))
                labels = np.full(info.grid.shape, info.classes.free, np.uint8)
                labels[tuple(cells.T)] = points["label"]
                flow = None  # of a model without: NaN of what never moves would become a zero
                if info.has_flow:
                    flow = np.zeros((*info.grid.shape, 2), np.float16)
                    flow[tuple(cells.T)] = np.stack([points["vx"], points["vy"]], axis=1)
                frame_id = cloud.header.frame_id
                pose = np.eye(4)
                yield Occupancy(labels, flow, info.grid, info.classes, stamp, frame_id, pose)
