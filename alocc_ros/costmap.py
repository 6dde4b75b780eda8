# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""The grid for planners: what classes cost, where the vehicle itself is, in which frame it lies.

Consumers read nav_msgs/OccupancyGrid in their own ways: many take only the position of
``info.origin`` and not its orientation, so a grid in another frame than the vehicle's is drawn
anew, its cells parallel to that frame's axes. docs/integrations/ says who demands what.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import yaml

from alocc_ros import arrays
from alocc_ros.errors import ParameterError
from alocc_ros.geometry import inverse
from alocc_ros.grid import VoxelGrid
from alocc_ros.labels import CLASS_LISTS
from alocc_ros.schema import load_yaml, unknown_name
from alocc_ros.types import FrameSet, Occupancy

AUTO, NONE = "auto", "none"
BASE = "base"
_FARTHEST = 100.0  # m; a corner of a vehicle beyond it is a slip of the unit

Polygon = np.ndarray  # [n, 2] m, corners in the base frame


@dataclass(frozen=True)
class CostmapSettings:
    """How the grid is drawn.

    Attributes:
        costs: 0 to 100 by class name, where it is not the usual one.
        unknown: the cost of cells of which nothing is known.
        by_confidence: an obstacle costs as much less as the network is not sure of it.
        footprint: corners of the vehicle, in whose place all is free; ``auto``: the rectangle
            around its cameras, which is never larger than the vehicle; ``none``: nothing is freed.
    """

    costs: Mapping[str, int] = field(default_factory=dict)
    unknown: int = arrays.UNKNOWN
    by_confidence: bool = False
    footprint: str | Polygon = AUTO


@dataclass(frozen=True)
class Drawn:
    """A grid that is ready to be published.

    Attributes:
        cells: [Y, X] int8, row-major, x fastest.
        grid: where they lie in their frame; of z, ``lower`` is the height of the ground.
    """

    cells: np.ndarray
    grid: VoxelGrid


def parse_costs(text: str) -> dict[str, int]:
    """Costs by class out of ``pedestrian: 100, sidewalk: 30``.

    Raises:
        ParameterError: an unknown class, or a cost that is not 0 to 100.
    """
    entries = _yaml(f"{{{text}}}", "class: cost, class: cost, ...")
    names = sorted({n for c in CLASS_LISTS.values() for n in c.names if n != "free"})
    for name, cost in entries.items():
        if name not in names:
            raise ParameterError(unknown_name("class", str(name), names))
        if type(cost) is not int or not 0 <= cost <= 100:
            raise ParameterError(f"the cost of {name} must be a whole number, 0 to 100, is {cost}")
    return entries


def parse_footprint(text: str) -> str | Polygon:
    """A footprint out of ``auto``, ``none`` or ``[[x, y], [x, y], [x, y], ...]`` (m, Nav2's form).

    Raises:
        ParameterError: it is none of them.
    """
    if text in (AUTO, NONE):
        return text
    wanted = "auto, none, or at least three corners [[x, y], [x, y], [x, y]] in m"
    corners = _yaml(text, wanted)
    try:
        polygon = np.array(corners, dtype=np.float64)
    except (TypeError, ValueError):
        polygon = np.zeros(0)
    if polygon.ndim != 2 or polygon.shape[1] != 2 or len(polygon) < 3:
        raise ParameterError(f"must be {wanted}, is {text!r}")
    if not (np.abs(polygon) < _FARTHEST).all():
        raise ParameterError(f"a corner is not within {_FARTHEST:g} m of the base: {text!r}")
    return polygon


def _yaml(text: str, wanted: str) -> dict | list:
    try:
        value = load_yaml(text)
    except yaml.YAMLError:
        value = None
    if not isinstance(value, dict | list):
        raise ParameterError(f"must be {wanted}, is {text!r}")
    return value


def footprint(settings: CostmapSettings, frame: FrameSet) -> Polygon | None:
    """The vehicle's corners in its base frame, or None."""
    if not isinstance(settings.footprint, str):
        return settings.footprint
    if settings.footprint == NONE or not frame.fitted:
        return None
    mounts = [frame.calibration[c].base_T_camera for c in frame.fitted if c in frame.calibration]
    if not mounts:
        return None
    places = np.array([mount[:2, 3] for mount in mounts])
    (left, low), (right, high) = places.min(axis=0), places.max(axis=0)
    return np.array([(left, low), (right, low), (right, high), (left, high)])


def inside(polygon: Polygon, x: np.ndarray, y: np.ndarray) -> np.ndarray:  # [...] bool
    """Which points (m) lie within a polygon, by the number of its edges on one side of them."""
    within = np.zeros(np.broadcast_shapes(x.shape, y.shape), dtype=bool)
    for (x0, y0), (x1, y1) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        if y0 != y1:
            crosses = (y < y0) != (y < y1)
            within ^= crosses & (x < x0 + (y - y0) * ((x1 - x0) / (y1 - y0)))
    return within


def draw(
    occupancy: Occupancy,
    frame: FrameSet,
    height: tuple[float, float],
    settings: CostmapSettings,
    target_T_grid: np.ndarray | None = None,
) -> Drawn:
    """The grid, in its own frame or in another one.

    Args:
        occupancy: what is seen.
        frame: of which it was seen.
        height: m in the grid's frame, within which obstacles count.
        settings: how it is drawn.
        target_T_grid: [4, 4] at the grid's stamp, of the frame that it is to lie in, z up; None:
            in its own.
    """
    cells = arrays.occupancy_grid(
        occupancy,
        height,
        costs=settings.costs,
        unknown=settings.unknown,
        by_confidence=settings.by_confidence,
    )
    grid_T_base = np.eye(4) if frame.base_T_grid is None else inverse(frame.base_T_grid)
    if target_T_grid is None:
        lower = (*occupancy.grid.lower[:2], 0.0)
        drawn = Drawn(cells, VoxelGrid(lower, occupancy.grid.shape, occupancy.grid.resolution))
        target_T_base = grid_T_base
    else:
        target_T_base = target_T_grid @ grid_T_base
        ground = (float(grid_T_base[2, 3]), float(target_T_base[2, 3]))
        drawn = _moved(cells, occupancy.grid, target_T_grid, ground, settings.unknown)
    corners = footprint(settings, frame)
    if corners is not None:
        x, y = _mapped(target_T_base, corners[:, 0], corners[:, 1], 0.0)
        _free(drawn, np.stack([x, y], axis=1))
    return drawn


def _free(drawn: Drawn, corners: Polygon) -> None:
    """Makes the cells whose centre is within the polygon free."""
    x, y = centres(drawn.grid)
    rows = slice(*np.searchsorted(y, (corners[:, 1].min(), corners[:, 1].max())))
    columns = slice(*np.searchsorted(x, (corners[:, 0].min(), corners[:, 0].max())))
    part = drawn.cells[rows, columns]
    part[inside(corners, x[None, columns], y[rows, None])] = arrays.CLEAR


def _moved(
    cells: np.ndarray,  # [Y, X] int8
    grid: VoxelGrid,
    target_T_grid: np.ndarray,  # [4, 4]
    ground: tuple[float, float],  # m, in the grid's frame and in the other one
    unknown: int,
) -> Drawn:
    """The cells in another frame: along its axes, on its whole multiples of a cell.

    The square is as large as the largest that the grid can fill, whichever way it is turned, so
    that its size never changes. Each cell has the cost of what lies at its centre, or that of an
    obstacle whose own centre is in it: a post must not fall between two centres.
    """
    size = grid.resolution
    side = math.ceil(math.hypot(*grid.shape[:2])) + 2
    middle = _mapped(target_T_grid, *((np.array(grid.lower) + grid.upper)[:2] / 2), ground[0])
    left, low = (float(np.floor(m / size - side / 2)) * size for m in middle)
    place = VoxelGrid((left, low, ground[1]), (side, side, 1), size)

    x, y = centres(place)
    column, row = _cells(grid, *_mapped(inverse(target_T_grid), x[None], y[:, None], ground[1]))
    known = (column >= 0) & (column < grid.shape[0]) & (row >= 0) & (row < grid.shape[1])
    out = np.full((side, side), unknown, dtype=np.int8)
    out[known] = cells[row[known], column[known]]

    row, column = np.nonzero(cells > max(arrays.CLEAR, unknown))
    x, y = centres(grid)
    onto, up = _cells(place, *_mapped(target_T_grid, x[column], y[row], ground[0]))
    np.maximum.at(out, (up, onto), cells[row, column])
    return Drawn(out, place)


def _mapped(
    a_T_b: np.ndarray, x: np.ndarray, y: np.ndarray, z: float
) -> tuple[np.ndarray, np.ndarray]:
    """x and y (m) in frame a of points in frame b."""
    first, second = (r[0] * x + r[1] * y + (r[2] * z + r[3]) for r in a_T_b[:2])
    return first, second


def _cells(grid: VoxelGrid, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Column and row of points (m); they may lie outside."""
    column, row = (
        np.floor((value - low) / grid.resolution).astype(np.intp)
        for value, low in zip((x, y), grid.lower[:2], strict=True)
    )
    return column, row


def centres(grid: VoxelGrid) -> tuple[np.ndarray, np.ndarray]:
    """x of the columns and y of the rows, m, seen from above."""
    x, y = (
        low + (np.arange(n) + 0.5) * grid.resolution
        for low, n in zip(grid.lower[:2], grid.shape[:2], strict=True)
    )
    return x, y
