# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Objects against annotated boxes: recall, precision and velocity by class and distance.

What counts, and what is left out, is told in docs/metrics.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from alocc_ros.arrays import MOVING_SPEED
from alocc_ros.errors import MetricError
from alocc_ros.grid import OCC3D_GRID, VoxelGrid
from alocc_ros.labels import ClassList
from alocc_ros.metrics.sums import Sums, plain, ratio, text_table
from alocc_ros.objects.things import THINGS, DetectedObject

RINGS = (0.0, 10.0, 20.0, 30.0, 40.0)  # m from the vehicle
NEAR = 30.0  # m; the totals are of what is nearer
MATCH = 2.0  # m between middles, seen from above, the distance of nuScenes' TP errors
FEWEST = 4  # voxels of its class that a box must hold to be asked for
_VEHICLES = ("vehicle", "two-wheeler")
_FAR = 1e6  # m; "no partner" as the assignment knows it
_SUMS = ("truth", "found", "detected", "right", "moving", "known", "followed", "switched")


@dataclass(frozen=True)
class TrueObjects:
    """The annotated boxes of a frame, in the grid's frame.

    Attributes:
        label: [n] class.
        centre: [n, 3] m.
        size: [n, 3] length, width, height, m.
        yaw: [n] rad, of the length.
        velocity: [n, 2] m/s over ground; NaN where it is not known.
        instance: [n] names that stay from frame to frame.
    """

    label: np.ndarray
    centre: np.ndarray
    size: np.ndarray
    yaw: np.ndarray
    velocity: np.ndarray
    instance: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.label)


@dataclass(frozen=True)
class ObjectResult:
    """Scores; arrays are [classes, rings] and NaN where there was nothing to count.

    Attributes:
        classes: what the rows mean.
        frames: how many there were.
        counts: by name, the sums of ``ObjectScores``.
    """

    classes: ClassList
    frames: int
    counts: dict[str, np.ndarray]

    def recall(self, rows: Any = slice(None), rings: Any = slice(None)) -> float:
        """Percent of the boxes that were found."""
        return self._share("found", "truth", rows, rings)

    def precision(self, rows: Any = slice(None), rings: Any = slice(None)) -> float:
        """Percent of the objects that are one box."""
        return self._share("right", "detected", rows, rings)

    def velocity_error(
        self, rows: Any = slice(None), rings: Any = slice(None), moving: bool = False
    ) -> float:
        """m/s, mean over found boxes; of those that move only, if ``moving``."""
        error, number = ("moving_error", "moving") if moving else ("error", "known")
        return self._share(error, number, rows, rings) / 100

    def vehicles(self) -> np.ndarray:
        """Labels of what drives."""
        names = enumerate(self.classes.names)
        return np.array([i for i, n in names if n in THINGS and THINGS[n].kind in _VEHICLES])

    def totals(self) -> dict[str, float]:
        """Of vehicles within ``NEAR``; percent, and m/s."""
        rows, rings = self.vehicles(), slice(0, RINGS.index(NEAR))
        return {
            "vehicle recall": self.recall(rows, rings),
            "vehicle precision": self.precision(rows, rings),
            "vehicle velocity error": self.velocity_error(rows, rings),
            "vehicle velocity error, moving": self.velocity_error(rows, rings, moving=True),
            "vehicle id switches": self._share("switched", "followed", rows, rings),
        }

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        measures = {
            "recall": self.recall,
            "precision": self.precision,
            "velocity error": self.velocity_error,
        }
        by_class = {
            name: {
                self.classes.names[row]: [measure(row, ring) for ring in range(len(RINGS) - 1)]
                for row in self._rows()
            }
            for name, measure in measures.items()
        }
        counts = {
            name: {self.classes.names[row]: array[row] for row in self._rows()}
            for name, array in self.counts.items()
        }
        totals = {**self.totals(), "frames": self.frames, "rings": RINGS}
        return plain({**totals, **by_class, "counts": counts})

    def table(self) -> str:
        """For people."""
        spans = [f"{a:g}-{b:g} m" for a, b in zip(RINGS, RINGS[1:], strict=False)]
        near = slice(0, RINGS.index(NEAR))
        every = (*range(len(spans)), near, slice(None))
        header = (*spans, f"< {NEAR:g} m", "all")
        kinds = [(self.classes.names[row], row) for row in self._rows()]
        rows = [*kinds, ("vehicles", self.vehicles()), ("all", slice(None))]
        tables = []
        for title, measure in (
            ("recall, %", self.recall),
            ("precision, %", self.precision),
            ("velocity error, m/s", self.velocity_error),
            ("boxes", lambda row, ring: int(self.counts["truth"][row, ring].sum())),
        ):
            cells = [(name, *(measure(row, ring) for ring in every)) for name, row in rows]
            tables.append(text_table((title, *header), cells))
        totals = [
            f"{name} {'-' if math.isnan(v) else f'{v:.2f}'}" for name, v in self.totals().items()
        ]
        return "\n\n".join([*tables, f"within {NEAR:g} m: {', '.join(totals)}"])

    def _rows(self) -> list[int]:
        return [label for label, name in enumerate(self.classes.names) if name in THINGS]

    def _share(self, numerator: str, denominator: str, rows: Any, rings: Any) -> float:
        above, below = (self.counts[n][rows, rings].sum() for n in (numerator, denominator))
        return float(100 * ratio(np.float64(above), np.float64(below)))


class ObjectScores(Sums):
    """Counts objects and boxes, by class and ring.

    Which id a thing had in the frame before is remembered from ``update`` to ``update``, so frames
    of one scene come in order; it is no part of ``state``: scenes are merged, not gone on with.
    """

    def __init__(self, classes: ClassList, grid: VoxelGrid = OCC3D_GRID) -> None:
        shape = (len(classes.names), len(RINGS) - 1)
        super().__init__(
            frames=np.zeros((), np.int64),
            error=np.zeros(shape),
            moving_error=np.zeros(shape),
            **{name: np.zeros(shape, np.int64) for name in _SUMS},
        )
        self.classes, self.grid = classes, grid
        self._ids: dict[str, int] = {}

    def update(
        self,
        objects: Sequence[DetectedObject],
        labels: np.ndarray,  # [X, Y, Z] that the objects are made of
        truth: TrueObjects,
        true_labels: np.ndarray,  # [X, Y, Z]; 255: unknown
        seen: np.ndarray,  # [X, Y, Z] bool, by some camera
    ) -> None:
        """Counts one frame.

        Raises:
            MetricError: arrays of another shape than the grid's.
        """
        for name, array in (("labels", labels), ("true labels", true_labels), ("mask", seen)):
            if array.shape != self.grid.shape:
                raise MetricError(
                    f"{name} must be {list(self.grid.shape)}, got {list(array.shape)}"
                )
        objects = [one for one in objects if one.visible]
        asked, boxed = self._asked(truth, true_labels, seen != 0)
        pairs = self._pairs(objects, truth)
        self._sums["frames"] += 1
        for index in np.flatnonzero(asked):
            where = truth.label[index], _ring(truth.centre[index])
            self._sums["truth"][where] += 1
            if index in pairs:
                self._sums["found"][where] += 1
                self._count_motion(where, objects[pairs[index]], truth, index)
        box_of = {one: box for box, one in pairs.items()}
        for number, one in enumerate(objects):
            ring = _ring(one.centre)
            if ring is None:
                continue
            box = box_of.get(number)
            if box is None:
                unnamed = (true_labels == one.label).any(axis=2) & ~boxed[one.label]
                if not self._is_judged(one, labels, seen, unnamed):
                    continue
            if box is not None and not asked[box]:
                continue
            self._sums["detected"][one.label, ring] += 1
            self._sums["right"][one.label, ring] += box is not None

    def result(self) -> ObjectResult:
        """The scores of all that was counted."""
        counts = self.state()
        return ObjectResult(self.classes, int(counts.pop("frames")), counts)

    def _count_motion(
        self, where: tuple[int, int], one: DetectedObject, truth: TrueObjects, index: int
    ) -> None:
        velocity, instance = truth.velocity[index], truth.instance[index]
        error = float(np.hypot(*(one.velocity - velocity)))
        if not math.isnan(error):
            self._sums["known"][where] += 1
            self._sums["error"][where] += error
            if np.hypot(*velocity) > MOVING_SPEED:
                self._sums["moving"][where] += 1
                self._sums["moving_error"][where] += error
        if one.id:
            before = self._ids.get(instance)
            self._sums["followed"][where] += before is not None
            self._sums["switched"][where] += before not in (None, one.id)
            self._ids[instance] = one.id

    def _asked(
        self, truth: TrueObjects, labels: np.ndarray, seen: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """[n] bool: which boxes the voxels can tell of; [classes, X, Y] bool: columns in boxes."""
        low, high = np.array(self.grid.lower), np.array(self.grid.upper)
        step = self.grid.resolution
        asked = np.zeros(len(truth), bool)
        boxed = np.zeros((len(self.classes.names), *self.grid.shape[:2]), bool)
        for index in range(len(truth)):
            centre, size, label = truth.centre[index], truth.size[index], truth.label[index]
            diagonal = np.hypot(size[0], size[1]) / 2
            reach = np.array([diagonal, diagonal, size[2] / 2]) + step
            ends = np.stack([centre - reach, centre + reach]) - low
            begin, end = np.clip(np.floor(ends / step).astype(int) + [[0], [1]], 0, self.grid.shape)
            part = tuple(slice(a, b) for a, b in zip(begin, end, strict=True))
            at = np.argwhere(labels[part] == label) + begin
            x, y, z = (self.grid.centres(at) - centre).T
            c, s = np.cos(truth.yaw[index]), np.sin(truth.yaw[index])
            own = np.stack([c * x + s * y, c * y - s * x, z], axis=1)
            at = at[(np.abs(own) <= (size + step) / 2).all(axis=1)]
            boxed[label, at[:, 0], at[:, 1]] = True
            near = _ring(centre) is not None and ((low <= centre) & (centre <= high))[:2].all()
            asked[index] = near and len(at) >= FEWEST and seen[tuple(at.T)].any()
        return asked, boxed

    def _pairs(self, objects: Sequence[DetectedObject], truth: TrueObjects) -> dict[int, int]:
        """Box to object of its class, so that the distances' sum is smallest."""
        from scipy.optimize import linear_sum_assignment

        if not len(truth) or not objects:
            return {}
        centres = np.stack([one.centre[:2] for one in objects])
        apart = np.hypot(*(truth.centre[:, None, :2] - centres).transpose(2, 0, 1))
        other = truth.label[:, None] != np.array([one.label for one in objects])
        apart[other | (apart > MATCH)] = _FAR
        found = zip(*(part.tolist() for part in linear_sum_assignment(apart)), strict=True)
        return {box: one for box, one in found if apart[box, one] < _FAR}

    def _is_judged(
        self,
        one: DetectedObject,
        labels: np.ndarray,
        seen: np.ndarray,
        unnamed: np.ndarray,  # [X, Y] columns of the truth that are of its class and in no box
    ) -> bool:
        """Whether an object without a box is wrong.

        It is not cut off by the border, a camera sees it, and it is not mostly where the truth has
        its class, too, but nobody drew a box.
        """
        x, y = np.divmod(one.columns, self.grid.shape[1])
        last = np.array(self.grid.shape[:2]) - 1
        if min(x.min(), y.min()) == 0 or x.max() == last[0] or y.max() == last[1]:
            return False
        is_seen = ((labels[x, y] == one.label) & (seen[x, y] != 0)).any()
        return bool(is_seen and unnamed[x, y].mean() <= 0.5)


def _ring(centre: np.ndarray) -> int | None:
    """Index into ``RINGS``; None: too far away."""
    ring = int(np.searchsorted(RINGS, np.hypot(*centre[:2]), side="right")) - 1
    return ring if ring < len(RINGS) - 1 else None
