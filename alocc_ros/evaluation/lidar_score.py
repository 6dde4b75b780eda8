# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""A recording of results against the LiDAR of the drive: no labels are needed."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from alocc_ros.bags.clouds import Sweep, sweeps
from alocc_ros.bags.reader import Bag
from alocc_ros.bags.results import WORLDS, RecordedGrids, transforms_of
from alocc_ros.errors import BagError, PoseError
from alocc_ros.geometry import inverse
from alocc_ros.metrics.lidar_scores import LidarResult, LidarScores
from alocc_ros.stream.skips import Skips
from alocc_ros.stream.transforms import TransformTree
from alocc_ros.types import Occupancy

NO_SWEEP = "no sweep near it"
NO_POSE = "no pose of the LiDAR"


@dataclass(frozen=True)
class LidarScore:
    """Scores of one series of grids.

    Attributes:
        name: of the series, such as ``/alocc``.
        result: over all grids that have a sweep.
        still: so many were compared as if the vehicle had stood still between grid and sweep,
            because nothing says how it moved.
    """

    name: str
    result: LidarResult
    still: int


class LidarDrive:
    """What a LiDAR measured on a drive, to be compared with any number of series of grids."""

    def __init__(self, bag: Bag, topic: str, skips: Skips) -> None:
        """Looks at all sweeps once.

        Args:
            bag: the drive, with LiDAR and transforms.
            topic: of the sweeps.
            skips: counts sweeps and grids that cannot be used.

        Raises:
            BagError: the recording is damaged.
        """
        self.bag, self.topic, self.skips = bag, topic, skips
        self.stamps = sorted({s.stamp for s in sweeps(bag, topic, skips)})
        self.tree = transforms_of(bag)


def score_grids(
    grids: RecordedGrids,
    drive: LidarDrive,
    apart: int,
    origin: Sequence[float] = (0.0, 0.0, 0.0),
) -> LidarScore:
    """Compares each grid with the sweep that is nearest in time.

    Args:
        grids: what was recorded.
        drive: that it is of.
        apart: ns, a sweep that is farther away is of another moment.
        origin: m in the sweeps' frame, where rays start; not 0 where several LiDARs make one cloud
            in the vehicle's frame.

    Raises:
        BagError: a recording is damaged, or not one grid has a sweep.
    """
    skips, scores, still = drive.skips, LidarScores(), 0
    read = _Forward(drive.bag, drive.topic)
    for stamp, make in grids:
        wanted = _nearest(drive.stamps, stamp, apart)
        sweep = None if wanted is None else read.at(wanted)
        if sweep is None:
            skips.add(grids.topic, NO_SWEEP, f"grid at {stamp} ns")
            continue
        occupancy = make()
        try:
            grid_T_lidar, moved = _between(drive.tree, occupancy, grids.base_frame, sweep)
        except PoseError as error:
            skips.add(drive.topic, NO_POSE, str(error))
            continue
        still += not moved
        points = np.vstack([origin, sweep.points]) @ grid_T_lidar[:3, :3].T + grid_T_lidar[:3, 3]
        labels, free = occupancy.labels, occupancy.classes.free
        scores.update(labels, free, occupancy.grid, points[1:], points[0])
    result = scores.result()
    if not result.frames:
        why = "; ".join(f"{count} x {what}" for what, count in skips.counts.items())
        raise BagError(
            f"bag {drive.bag.path}: not one grid of {grids.topic} can be compared with "
            f"{drive.topic} ({why or 'there are no grids'})"
        )
    return LidarScore(grids.name, result, still)


class _Forward:
    """Sweeps by stamp, asked for in the order of time; one is held. What cannot be used was counted
    before.
    """

    def __init__(self, bag: Bag, topic: str) -> None:
        self._bag, self._topic = bag, topic
        self._rest: Iterator[Sweep] = iter(())
        self._held: Sweep | None = None

    def at(self, stamp: int) -> Sweep | None:
        """From where it was on, and once more from the beginning (a bag that was looped)."""
        if self._held is not None and self._held.stamp == stamp:
            return self._held
        for rest in (self._rest, None):
            self._rest = sweeps(self._bag, self._topic, Skips()) if rest is None else rest
            for sweep in self._rest:
                if sweep.stamp == stamp:
                    self._held = sweep
                    return sweep
        return None


def _nearest(stamps: Sequence[int], stamp: int, apart: int) -> int | None:
    place = bisect_left(stamps, stamp)
    near = [s for s in stamps[max(place - 1, 0) : place + 1] if abs(s - stamp) <= apart]
    return min(near, key=lambda s: abs(s - stamp), default=None)


def _between(
    tree: TransformTree, occupancy: Occupancy, base: str, sweep: Sweep
) -> tuple[np.ndarray, bool]:  # [4, 4] grid_T_lidar, whether the vehicle's motion is in it
    """Where the LiDAR was in the grid's frame, each at its own time."""
    frame = occupancy.frame_id or base
    for world in WORLDS:
        try:
            map_T_grid = tree.lookup(world, frame, occupancy.stamp)
            return inverse(map_T_grid) @ tree.lookup(world, sweep.frame, sweep.stamp), True
        except PoseError:
            continue
    return tree.lookup(frame, sweep.frame, None), False
