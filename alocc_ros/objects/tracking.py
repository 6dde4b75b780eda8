# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Objects of one result to those of the next: ids that stay.

A track lives in the map. It is moved to the next result by its flow, and by its own motion where
there is none; then tracks and objects are put together so that the sum of distances is smallest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from alocc_ros.geometry import inverse
from alocc_ros.grid import VoxelGrid
from alocc_ros.labels import ClassList
from alocc_ros.objects.detection import detect_objects
from alocc_ros.objects.things import THINGS, DetectedObject
from alocc_ros.types import Occupancy

REACH = 2.0  # m between where a track should be and an object that continues it
_UNKNOWN_SPEED = 5.0  # m/s that something may have of which only one place is known
_OTHER_CLASS = 1.0  # m, what another class of the same kind costs
MISSED = 2  # results in a row without an object, after which a track is given up
UNSEEN = 3_000_000_000  # ns, the same


@dataclass(frozen=True)
class Track:
    """One object over time; places and directions in the map.

    Attributes:
        id: from 1, never given twice.
        seen: the object as it was seen last, in the frame of the grid of that result.
        place: [3] m, its middle then.
        velocity: [2] m/s over ground; NaN: nothing is known yet.
        yaw: rad.
        heading_known: ``yaw`` is where its front is, for it has moved.
        stamp: ns, when it was seen last.
        age: results in which it was seen.
        missed: results since.
    """

    id: int
    seen: DetectedObject
    place: np.ndarray
    velocity: np.ndarray
    yaw: float
    heading_known: bool
    stamp: int
    age: int = 1
    missed: int = 0


@dataclass
class ObjectTracker:
    """The tracks of one stream of results; nothing else is remembered.

    Attributes:
        tracks: those that may go on.
        next_id: of the next new one. It only grows, so no id ever means two things.
        stamp: ns of the newest result; None: there was none since the past was forgotten.
    """

    tracks: tuple[Track, ...] = ()
    next_id: int = 1
    stamp: int | None = None

    def forget(self) -> None:
        """All tracks end: the vehicle is elsewhere, or it is another time."""
        self.tracks, self.stamp = (), None

    def step(
        self, occupancy: Occupancy, base_T_grid: np.ndarray | None = None
    ) -> list[DetectedObject]:
        """The objects of a result with their ids.

        What has just been missed comes last, ``visible`` False and where it should be. A result
        that says that the memory was reset, or that is not newer than the one before (a bag that
        begins again), ends all tracks.

        Args:
            occupancy: the result.
            base_T_grid: [4, 4] where the grid's frame is on the vehicle, if it is not the base.
        """
        if occupancy.reset or (self.stamp is not None and occupancy.stamp <= self.stamp):
            self.forget()
        self.stamp = occupancy.stamp
        map_T_grid = occupancy.map_T_base
        if base_T_grid is not None:
            map_T_grid = map_T_grid @ base_T_grid
        objects = detect_objects(occupancy)
        pairs = self._pairs(objects, map_T_grid, occupancy)
        continued = {index: self.tracks[track] for track, index in pairs}
        missed = [track for n, track in enumerate(self.tracks) if n not in {t for t, _ in pairs}]
        tracks, found = [], []
        for index, one in enumerate(objects):
            track = self._track(one, continued.get(index), map_T_grid, occupancy.stamp)
            tracks.append(track)
            found.append(track.seen)
        for track in missed:
            later = replace(track, missed=track.missed + 1)
            unseen = occupancy.stamp - later.stamp
            ghost = _moved(later, unseen, inverse(map_T_grid))
            if later.missed <= MISSED and unseen <= UNSEEN and _inside(ghost, occupancy.grid):
                tracks.append(later)
                found.append(ghost)
        self.tracks = tuple(tracks)
        return found

    def _pairs(
        self, objects: Sequence[DetectedObject], map_T_grid: np.ndarray, occupancy: Occupancy
    ) -> list[tuple[int, int]]:
        """(track, object) that are one thing, by index."""
        from scipy.optimize import linear_sum_assignment

        if not self.tracks or not objects:
            return []
        seconds = (occupancy.stamp - np.array([t.stamp for t in self.tracks])) / 1e9
        turn = map_T_grid[:2, :2]
        place = np.stack([one.centre for one in objects]) @ map_T_grid[:2, :3].T + map_T_grid[:2, 3]
        before = np.stack([track.place[:2] for track in self.tracks])
        # The mean of both speeds is exact for what brakes or accelerates evenly.
        now = np.stack([one.velocity for one in objects]) @ turn.T
        then = np.stack([track.velocity for track in self.tracks])
        both = np.stack(np.broadcast_arrays(then[:, None], now[None]))
        known = ~np.isnan(both)
        speed = np.where(known, both, 0.0).sum(0) / np.maximum(known.sum(0), 1)
        apart = place[None] - before[:, None] - speed * seconds[:, None, None]
        distance = np.hypot(apart[..., 0], apart[..., 1])
        # What sticks half out of the grid, or is half hidden, has its middle elsewhere.
        length = np.array([t.seen.size[0] for t in self.tracks])
        grown = np.abs(length[:, None] - np.array([one.size[0] for one in objects])) / 2
        unknown = np.where(known.any(0)[..., 0], 0.0, _UNKNOWN_SPEED) * seconds[:, None]
        cost = distance + _class_costs(self.tracks, objects, occupancy.classes)
        cost[distance > REACH + grown + unknown] = np.inf
        most = 1e6  # no more than this, or the sums lose the distances
        rows, columns = linear_sum_assignment(np.where(np.isfinite(cost), cost, most))
        pairs = zip(rows.tolist(), columns.tolist(), strict=True)
        return [(track, one) for track, one in pairs if np.isfinite(cost[track, one])]

    def _track(
        self, one: DetectedObject, before: Track | None, map_T_grid: np.ndarray, stamp: int
    ) -> Track:
        """The track of an object that was seen, ``before`` or new."""
        place = map_T_grid[:3, :3] @ one.centre + map_T_grid[:3, 3]
        turned = float(np.arctan2(map_T_grid[1, 0], map_T_grid[0, 0]))
        velocity = map_T_grid[:2, :2] @ one.velocity
        yaw, known, age, track_id = one.yaw + turned, one.heading_known, 1, self.next_id
        if before is None:
            self.next_id += 1
        else:
            track_id, age = before.id, before.age + 1
            if np.isnan(velocity[0]):  # a model without flow
                velocity = (place - before.place)[:2] / ((stamp - before.stamp) / 1e9)
            if not known and before.heading_known:
                away = np.cos(yaw - before.yaw)
                yaw, known = yaw + np.pi * bool(away < 0), bool(abs(away) > np.sqrt(0.5))
        seen = replace(one, id=track_id, age=age, yaw=_wrapped(yaw - turned), heading_known=known)
        return Track(track_id, seen, place, velocity, yaw, known, stamp, age)


def _moved(track: Track, nanoseconds: int, grid_T_map: np.ndarray) -> DetectedObject:
    """The object of a track, where it should be so long after it was seen, in today's grid."""
    moved = track.place.copy()
    if not np.isnan(track.velocity[0]):
        moved[:2] += track.velocity * (nanoseconds / 1e9)
    turned = float(np.arctan2(grid_T_map[1, 0], grid_T_map[0, 0]))
    velocity = track.seen.velocity
    if not np.isnan(velocity[0]):
        velocity = grid_T_map[:2, :2] @ track.velocity
    return replace(
        track.seen,
        centre=grid_T_map[:3, :3] @ moved + grid_T_map[:3, 3],
        yaw=_wrapped(track.yaw + turned),
        velocity=velocity,
        voxels=0,
        columns=np.zeros(0, np.int64),
        visible=False,
    )


def _class_costs(
    tracks: Sequence[Track], objects: Sequence[DetectedObject], classes: ClassList
) -> np.ndarray:  # [tracks, objects] m
    """Networks take a truck for a car, but no car for a pedestrian."""
    kinds = np.array([THINGS[n].kind if n in THINGS else "" for n in classes.names])
    before = np.array([track.seen.label for track in tracks])[:, None]
    now = np.array([one.label for one in objects])[None]
    costs = np.where(kinds[before] == kinds[now], _OTHER_CLASS, np.inf)
    return np.where(before == now, 0.0, costs)


def _inside(one: DetectedObject, grid: VoxelGrid) -> bool:
    return all(
        low <= at <= high
        for low, at, high in zip(grid.lower[:2], one.centre, grid.upper[:2], strict=False)
    )


def _wrapped(angle: float) -> float:
    """In [-pi, pi)."""
    return float((angle + np.pi) % (2 * np.pi) - np.pi)
