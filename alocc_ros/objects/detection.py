# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Voxels to objects: connected cells of one class, seen from above.

Columns and not voxels are connected, which costs a tenth, and joins what hangs over (the arm of an
excavator, the load of a truck); two things of one class above each other would be one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from alocc_ros.arrays import MOVING_SPEED
from alocc_ros.grid import VoxelGrid
from alocc_ros.objects.things import THINGS, DetectedObject, Thing
from alocc_ros.types import Occupancy

# m/s between neighbouring columns of one class: they belong to different objects. A vehicle that
# turns has less between two of its own, and the network's flow is smooth within an object.
FLOW_EDGE = 1.5
MOST = 256  # objects of a result, the largest: noise must not take a planner's time
_UNEVEN = 0.3  # what a cut off the even places costs, in shares of the usual thickness


def detect_objects(occupancy: Occupancy) -> list[DetectedObject]:
    """The objects of one result, in order of class and place; none of them is tracked yet."""
    columns = _columns(occupancy)
    if not len(columns.key):
        return []
    fewest = np.array([THINGS[n].columns if n in THINGS else 0 for n in occupancy.classes.names])
    part = _parts(columns, _neighbours(columns, occupancy.grid), fewest)
    return _objects(columns, part, occupancy)


@dataclass(frozen=True)
class _Columns:
    """Cells seen from above that hold a thing; a cell with two classes is there twice.

    Attributes:
        key: [n] int64 class times cells of a level, plus ``cell``; ascending.
        label: [n] class.
        cell: [n] x index times cells along y, plus y index.
        count: [n] voxels.
        low, high: [n] lowest and highest level (z index).
        flow: [n, 2] m/s, mean; NaN where no voxel has any.
        confidence: [n] sum over the voxels; NaN if there is none.
    """

    key: np.ndarray
    label: np.ndarray
    cell: np.ndarray
    count: np.ndarray
    low: np.ndarray
    high: np.ndarray
    flow: np.ndarray
    confidence: np.ndarray


def _columns(occupancy: Occupancy) -> _Columns:
    labels, grid = occupancy.labels, occupancy.grid
    is_thing = np.zeros(256, bool)
    for label, name in enumerate(occupancy.classes.names):
        is_thing[label] = name in THINGS
    flat = np.flatnonzero(is_thing.take(labels.reshape(-1)))
    cell = flat // grid.shape[2]
    level = (flat - cell * grid.shape[2]).astype(np.int32)
    key = labels.reshape(-1).take(flat).astype(np.int64) * (grid.shape[0] * grid.shape[1]) + cell
    order = np.argsort(key, kind="stable")  # within a column z stays ascending
    flat, level, key = flat[order], level[order], key[order]
    first = np.flatnonzero(np.diff(key, prepend=-1))
    count = np.diff(first, append=len(key))
    flow = np.full((len(first), 2), np.nan)
    if occupancy.flow is not None and len(first):
        of_voxel = occupancy.flow.reshape(-1, 2).take(flat, axis=0).astype(np.float64)
        known = np.isfinite(of_voxel).all(axis=1)
        of_voxel[~known] = 0.0
        number = np.add.reduceat(known.astype(np.float64), first)
        with np.errstate(invalid="ignore", divide="ignore"):
            flow = np.add.reduceat(of_voxel, first) / number[:, None]
        still = ~np.isin(labels.reshape(-1).take(flat[first]), occupancy.classes.flow)
        flow[still] = 0.0  # of a class that cannot move: what the network says means nothing
    confidence = np.full(len(first), np.nan)
    if occupancy.confidence is not None and len(first):
        of_voxel = occupancy.confidence.reshape(-1).take(flat).astype(np.float64)
        confidence = np.add.reduceat(of_voxel, first)
    key = key[first]
    label, cell = np.divmod(key, grid.shape[0] * grid.shape[1])
    last = first + count - 1
    return _Columns(key, label, cell, count, level[first], level[last], flow, confidence)


def _neighbours(columns: _Columns, grid: VoxelGrid) -> np.ndarray:  # [m, 2] indices of columns
    """Pairs of columns of one class that share a face."""
    place = np.full(int(columns.label.max() + 1) * grid.shape[0] * grid.shape[1], -1, np.int32)
    index = np.arange(len(columns.key), dtype=np.int32)
    place[columns.key] = index
    x, y = np.divmod(columns.cell, grid.shape[1])
    pairs = []
    for step, inside in ((grid.shape[1], x + 1 < grid.shape[0]), (1, y + 1 < grid.shape[1])):
        beside = place[columns.key[inside] + step]
        there = beside >= 0
        pairs.append(np.stack([index[inside][there], beside[there]], axis=1))
    return np.concatenate(pairs)


def _connected(pairs: np.ndarray, number: int) -> np.ndarray:  # [m, 2] -> [number] part of each
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    edges = (np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1]))
    graph = coo_matrix(edges, shape=(number, number))
    return connected_components(graph, directed=False)[1]


def _parts(columns: _Columns, pairs: np.ndarray, fewest: np.ndarray) -> np.ndarray:
    """[n] the part of each column: connected, and of one flow.

    Args:
        columns: [n].
        pairs: [m, 2] neighbours of one class.
        fewest: [classes] columns of an object; parts with fewer are not cut off.
    """
    apart = np.hypot(*(columns.flow[pairs[:, 0]] - columns.flow[pairs[:, 1]]).T) > FLOW_EDGE
    part = _connected(pairs[~apart], len(columns.key))
    if not apart.any():
        return part
    # A column at an edge may be of neither flow (the mean of both, or noise): to the largest
    # neighbour with it.
    size = np.bincount(part)
    small = size < fewest[_first(columns.label, part)]
    one, beside = part[np.concatenate([pairs[apart], pairs[apart][:, ::-1]])].T
    # Always to a larger one (of equals the first), so that no two go to each other.
    larger = (size[beside] > size[one]) | ((size[beside] == size[one]) & (beside < one))
    one, beside = one[small[one] & larger], beside[small[one] & larger]
    order = np.lexsort((-beside, size[beside], one))
    goes_to = np.arange(len(size))
    goes_to[one[order]] = beside[order]  # of several the last, which is the largest
    while (further := goes_to[goes_to]).tolist() != goes_to.tolist():
        goes_to = further
    return np.unique(goes_to[part], return_inverse=True)[1]


def _first(values: np.ndarray, part: np.ndarray) -> np.ndarray:  # [n], [n] -> [parts]
    """The value of one column of each part."""
    found = np.zeros(int(part.max()) + 1, values.dtype)
    found[part] = values
    return found


@dataclass(frozen=True)
class _Footprint:
    """A rectangle around columns: middle [2] m, length and width m, yaw of the length rad."""

    middle: np.ndarray
    length: float
    width: float
    yaw: float


def _footprint(points: np.ndarray, resolution: float) -> _Footprint:  # [n, 2] m
    """The smallest one around the columns with these middles."""
    import cv2

    middle, (a, b), degrees = cv2.minAreaRect(points.astype(np.float32))
    if a < b:
        a, b, degrees = b, a, degrees + 90.0
    yaw = (np.radians(degrees) + np.pi / 2) % np.pi - np.pi / 2
    return _Footprint(np.array(middle, float), a + resolution, b + resolution, float(yaw))


def _along(points: np.ndarray, yaw: float, resolution: float) -> _Footprint:  # [n, 2] m
    """The one with this direction."""
    axes = np.array([[np.cos(yaw), np.sin(yaw)], [-np.sin(yaw), np.cos(yaw)]])
    turned = points @ axes.T
    low, high = turned.min(0), turned.max(0)
    length, width = high - low + resolution
    return _Footprint((low + high) / 2 @ axes, float(length), float(width), yaw)


def _cut(
    points: np.ndarray,  # [n, 2] m
    weights: np.ndarray,  # [n] voxels
    thing: Thing,
    around: _Footprint,
    resolution: float,
) -> np.ndarray | None:  # [n] bool
    """Which columns are of another object than the rest; None: all may be of one.

    Where two of a class touch there are fewer voxels across than within either of them.
    """
    for yaw, extent, most, least in (
        (around.yaw, around.length, thing.length, thing.shortest),
        (around.yaw + np.pi / 2, around.width, thing.width, thing.narrowest),
    ):
        if extent <= most + resolution / 2 or extent < 2 * least:
            continue
        at = points @ np.array([np.cos(yaw), np.sin(yaw)])
        at = at - at.min() + resolution / 2
        # Columns of a turned grid fall unevenly into slices: each is spread over its width.
        slices = np.arange(least, extent - least + 1e-6, resolution / 4)
        near = np.clip(1 - np.abs(at[:, None] - slices) / resolution, 0, None)
        profile = weights @ near
        # Where all are equally thick: in pieces of the class's usual size.
        number = max(2, round(extent / ((most + least) / 2)))
        place = slices / extent * number
        off = np.abs(place - np.clip(np.round(place), 1, number - 1))
        cost = profile / max(float(np.median(profile)), 1e-9) + _UNEVEN * off
        beyond = at > slices[np.argmin(cost)]
        if beyond.any() and not beyond.all():  # else the rectangle is longer than what is in it
            return beyond
    return None


def _objects(columns: _Columns, part: np.ndarray, occupancy: Occupancy) -> list[DetectedObject]:
    grid, names = occupancy.grid, occupancy.classes.names
    x, y = np.divmod(columns.cell, grid.shape[1])
    lower = np.array(grid.lower[:2]) + grid.resolution / 2
    points = np.stack([x, y], axis=1) * grid.resolution + lower
    order = np.argsort(part, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(part[order])) + 1)
    parts = [of for of in parts if len(of) >= THINGS[names[columns.label[of[0]]]].columns]
    if len(parts) > MOST:
        voxels = np.array([columns.count[of].sum() for of in parts])
        parts = [parts[n] for n in np.sort(np.argsort(-voxels, kind="stable")[:MOST])]
    pending = parts[::-1]
    found = []
    while pending:
        of = pending.pop()
        thing = THINGS[names[columns.label[of[0]]]]
        if len(of) < thing.columns:
            continue
        around = _footprint(points[of], grid.resolution)
        beyond = _cut(points[of], columns.count[of], thing, around, grid.resolution)
        if beyond is None:
            found.append(_object(columns, of, points[of], around, grid))
        else:
            pending += [of[beyond], of[~beyond]]
    if len(found) > MOST:
        largest = np.argsort([-one.voxels for one in found], kind="stable")[:MOST]
        found = [found[n] for n in np.sort(largest)]
    return found


def _object(
    columns: _Columns, of: np.ndarray, points: np.ndarray, around: _Footprint, grid: VoxelGrid
) -> DetectedObject:
    """The object that has the columns with the indices ``of`` [n], in the middle of ``points``."""
    velocity = _median(columns.flow[of])
    moves = bool(np.hypot(*velocity) > MOVING_SPEED)
    if moves:
        around = _along(points, float(np.arctan2(velocity[1], velocity[0])), grid.resolution)
    levels = int(columns.high[of].max()) + 1 - int(columns.low[of].min())
    height = levels * grid.resolution
    bottom = grid.lower[2] + int(columns.low[of].min()) * grid.resolution
    voxels = int(columns.count[of].sum())
    return DetectedObject(
        label=int(columns.label[of[0]]),
        centre=np.array([*around.middle, bottom + height / 2]),
        size=(around.length, around.width, height),
        yaw=around.yaw,
        heading_known=moves,
        velocity=velocity,
        confidence=float(columns.confidence[of].sum()) / voxels,
        voxels=voxels,
        columns=columns.cell[of],
    )


def _median(flow: np.ndarray) -> np.ndarray:  # [n, 2] -> [2]
    """Of what is known; NaN if nothing is. ``np.median`` takes five times as long."""
    ordered = np.sort(flow, axis=0)  # NaN last
    known = len(flow) - int(np.isnan(flow[:, 0]).sum())
    if not known:
        return np.full(2, np.nan)
    return (ordered[(known - 1) // 2] + ordered[known // 2]) / 2
