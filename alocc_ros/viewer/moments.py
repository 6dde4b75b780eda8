# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""What there is to see, instant by instant; and putting together what belongs together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial.transform import Rotation

from alocc_ros.errors import ParameterError
from alocc_ros.geometry import inverse
from alocc_ros.types import FrameSet, Occupancy


@dataclass(frozen=True)
class Layer:
    """One voxel grid and where it is from.

    Attributes:
        name: ``prediction`` or ``ground truth``, or another caption.
        detail: which model, which benchmark.
        occupancy: the voxels.
        base_T_grid: [4, 4], where the grid's frame is on the vehicle; None: it is the base.
        seen: [X, Y, Z] bool, voxels that a camera sees, if that is known.
    """

    name: str
    detail: str
    occupancy: Occupancy
    base_T_grid: np.ndarray | None = None
    seen: np.ndarray | None = None


@dataclass(frozen=True)
class View:
    """All that is known of one instant.

    Attributes:
        stamp: ns.
        frame: images with calibration and poses, if there are any.
        layers: voxel grids; the first one is drawn into the images.
    """

    stamp: int
    frame: FrameSet | None = None
    layers: tuple[Layer, ...] = ()


@dataclass(frozen=True)
class Moment:
    """An instant of a source; what there is to see is only read when it is asked for."""

    stamp: int
    look: Callable[[], View]


def placed(layer: Layer, frame: FrameSet | None) -> Layer:
    """The layer seen from where the vehicle was at the frame's stamp, if its own is another.

    What stands still on the map then lies on its image. A grid of which nobody recorded where
    the vehicle was (its pose is the identity) stays where it is.
    """
    map_T_own = layer.occupancy.map_T_base
    if frame is None or layer.occupancy.stamp == frame.stamp or (map_T_own == np.eye(4)).all():
        return layer
    base_T_own = inverse(frame.map_T_base) @ map_T_own
    base_T_grid = base_T_own if layer.base_T_grid is None else base_T_own @ layer.base_T_grid
    return replace(layer, base_T_grid=base_T_grid)


def upright(layer: Layer) -> Layer:
    """The same voxels in a frame whose x axis looks ahead, up to 45 degrees.

    A LiDAR's frame may be turned: that of nuScenes has y ahead. Whole quarters of a turn leave
    the cells what they are.
    """
    if layer.base_T_grid is None:
        return layer
    heading = np.arctan2(layer.base_T_grid[1, 0], layer.base_T_grid[0, 0])
    quarters = round(heading / (np.pi / 2)) % 4
    occupancy = layer.occupancy
    turn = np.rint(Rotation.from_euler("z", 90 * quarters, degrees=True).as_matrix())
    corners = np.array([occupancy.grid.lower, occupancy.grid.upper]) @ turn.T
    labels = np.ascontiguousarray(np.rot90(occupancy.labels, quarters))
    x, y, z = corners.min(axis=0).tolist()
    flow = occupancy.flow
    if flow is not None:
        flow = np.rot90(flow, quarters) @ turn[:2, :2].T.astype(flow.dtype)
    turned = replace(
        occupancy,
        labels=labels,
        flow=flow,
        grid=replace(occupancy.grid, lower=(x, y, z), shape=labels.shape),
        confidence=None,  # nobody looks at it here
    )
    base_T_grid = layer.base_T_grid.copy()
    base_T_grid[:3, :3] = base_T_grid[:3, :3] @ turn.T
    return replace(layer, occupancy=turned, base_T_grid=base_T_grid)


def only_seen(view: View) -> View:
    """Without the voxels that no camera sees, as far as ground truth in the view tells them.

    Models that were trained with that mask put anything there, and are not scored for it.

    Raises:
        ParameterError: none of the grids comes with such a mask, or one has another lattice.
    """
    seen, grid = next(
        ((la.seen, la.occupancy.grid) for la in view.layers if la.seen is not None), (None, None)
    )
    if seen is None or any(layer.occupancy.grid != grid for layer in view.layers):
        raise ParameterError(
            f"--camera-mask: nothing tells which voxels the cameras see at {view.stamp} ns; the "
            "ground truth of occ3d does, for grids like its own"
        )
    layers = []
    for layer in view.layers:
        occupancy = layer.occupancy
        labels = np.where(seen, occupancy.labels, np.uint8(occupancy.classes.free))
        layers.append(replace(layer, occupancy=replace(occupancy, labels=labels)))
    return replace(view, layers=tuple(layers))


def joined(
    moments: Iterable[Moment],
    others: Iterable[Moment],
    tolerance: int,  # ns
    on_pair: Callable[[], None] = lambda: None,
) -> Iterator[Moment]:
    """``moments``, each with what the nearest one of ``others`` adds to it.

    Both in order of time. A moment of ``others`` goes to the one that it is nearest to, and
    only within ``tolerance``; what finds no partner is left as it is.
    """
    waiting = iter(others)
    before: Moment | None = None
    behind = next(waiting, None)
    for moment, following in _with_next(moments):
        while behind is not None and behind.stamp <= moment.stamp:
            before, behind = behind, next(waiting, None)
        near = [m for m in (before, behind) if m is not None]
        found = min(near, key=lambda m: abs(m.stamp - moment.stamp), default=None)
        if found is not None:
            apart = abs(found.stamp - moment.stamp)
            nearer = following is not None and abs(found.stamp - following.stamp) < apart
            if apart <= tolerance and not nearer:
                if found is before:
                    before = None
                else:
                    before, behind = None, next(waiting, None)
                on_pair()
                yield _both(moment, found)
                continue
        yield moment


def _with_next(moments: Iterable[Moment]) -> Iterator[tuple[Moment, Moment | None]]:
    rest = iter(moments)
    current = next(rest, None)
    while current is not None:
        following = next(rest, None)
        yield current, following
        current = following


def _both(moment: Moment, other: Moment) -> Moment:
    def look() -> View:
        one, two = moment.look(), other.look()
        return View(one.stamp, one.frame or two.frame, one.layers + two.layers)

    return Moment(moment.stamp, look)
