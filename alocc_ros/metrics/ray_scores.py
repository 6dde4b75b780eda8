# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""RayIoU, velocity errors and the Occ score: what Occ3D and OpenOcc score along rays."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from alocc_ros.errors import MetricError
from alocc_ros.grid import OCC3D_GRID, VoxelGrid
from alocc_ros.labels import ClassList
from alocc_ros.metrics.rays import Hits, ray_directions, raycast
from alocc_ros.metrics.sums import (
    IGNORED,
    Sums,
    as_array,
    checked_labels,
    mean_of_known,
    plain,
    ratio,
    text_table,
)

THRESHOLDS = (1.0, 2.0, 4.0)  # m
_FLOW_THRESHOLD = 1  # mAVE_TP looks at the hits within 2 m


class Grid(Protocol):
    """Labels and flow of one frame: an ``Occupancy``, or its truth."""

    labels: np.ndarray  # [X, Y, Z] uint8
    flow: np.ndarray | None  # [X, Y, Z, 2] m/s


@dataclass(frozen=True)
class FlowResult:
    """Errors of velocity, m/s; NaN where there was nothing to count.

    Attributes:
        names: of the classes that have flow.
        ave_tp: [classes with flow] by class, over rays that hit the right class within 2 m.
        ave_ray: over rays that hit this class in truth.
        ave_voxel: over all voxels that are of this class in truth.
        mave_tp, mave_ray, mave: their means over classes.
    """

    names: tuple[str, ...]
    ave_tp: np.ndarray
    ave_ray: np.ndarray
    ave_voxel: np.ndarray
    mave_tp: float
    mave_ray: float
    mave: float


@dataclass(frozen=True)
class RayResult:
    """Scores in percent and m/s; NaN where there was nothing to count.

    Attributes:
        classes: what the labels mean.
        frames: how many were counted.
        class_iou: [3, classes without free] float64 at 1, 2 and 4 m.
        rayiou_at: [3] means over classes.
        rayiou: mean of the three.
        flow: velocity errors; None for models without flow.
        occ_score: 0.9 RayIoU + 0.1 max(1 - mAVE_TP, 0); NaN without flow.
    """

    classes: ClassList
    frames: int
    class_iou: np.ndarray
    rayiou_at: np.ndarray
    rayiou: float
    flow: FlowResult | None
    occ_score: float

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        names = self.classes.names[: self.classes.free]
        labels = [f"RayIoU@{t:g}" for t in THRESHOLDS]
        out: dict[str, Any] = {"frames": self.frames, "RayIoU": self.rayiou}
        out |= dict(zip(labels, self.rayiou_at, strict=True))
        if self.flow is not None:
            out |= {"mAVE_TP": self.flow.mave_tp, "mAVE": self.flow.mave}
            out |= {"AVE over true rays": self.flow.mave_ray, "Occ score": self.occ_score}
        for label, row in zip(labels, self.class_iou, strict=True):
            out[f"class {label}"] = dict(zip(names, row, strict=True))
        if self.flow is not None:
            for label, row in zip(_FLOW_COLUMNS, self._flow_columns(), strict=True):
                out[f"class {label}"] = dict(zip(self.flow.names, row, strict=True))
        return plain(out)

    def table(self) -> str:
        """For people."""
        header = ["class", *(f"RayIoU@{t:g} %" for t in THRESHOLDS)]
        rows = [
            [name, *self.class_iou[:, c]]
            for c, name in enumerate(self.classes.names[: self.classes.free])
        ]
        rows.append(["mean", *self.rayiou_at])
        if self.flow is not None:
            header += [f"{column} m/s" for column in _FLOW_COLUMNS]
            errors = dict(
                zip(self.flow.names, zip(*self._flow_columns(), strict=True), strict=True)
            )
            errors["mean"] = (self.flow.mave_tp, self.flow.mave_ray, self.flow.mave)
            for row in rows:
                row += errors.get(row[0], [math.nan] * 3)
        totals = [("RayIoU %", self.rayiou)]
        if self.flow is not None:
            totals.append(("Occ score %", self.occ_score))
        return f"{text_table(header, rows)}\n\n{text_table(('all', ''), totals)}"

    def _flow_columns(self) -> tuple[np.ndarray, ...]:
        return (self.flow.ave_tp, self.flow.ave_ray, self.flow.ave_voxel)


_FLOW_COLUMNS = ("AVE_TP", "AVE of rays", "AVE of voxels")


def occ_score(rayiou: float, mave_tp: float) -> float:
    """Percent, of percent and m/s. Velocities of nothing (NaN) get no points."""
    return 0.9 * rayiou + 10 * (0.0 if math.isnan(mave_tp) else max(1 - mave_tp, 0.0))


class RayScores(Sums):
    """Counts rays by true and predicted class and distance.

    Args:
        classes: what labels mean.
        flow: also score velocities.
        grid: the voxels.
        directions: [r, 3] of the rays; None: the benchmark's.
        reference_exact: with the accidents of the reference's code: rays that are never in the
            grid count as hits of voxel (0, 0, 0), rays onto unknown voxels count as false
            predictions, velocities that are not known make their class infinite, velocity
            errors have the precision of their arrays (float16 for voxels), and without a single
            moving hit the Occ score is NaN.
        scored: classes that RayIoU is the mean of; None: all but free.
    """

    def __init__(
        self,
        classes: ClassList,
        flow: bool = False,
        grid: VoxelGrid = OCC3D_GRID,
        directions: np.ndarray | None = None,
        reference_exact: bool = False,
        scored: tuple[int, ...] | None = None,
    ) -> None:
        count, levels = len(classes.names), len(THRESHOLDS)
        sums = {
            "frames": np.zeros((), np.int64),
            "true": np.zeros(count, np.int64),
            "said": np.zeros(count, np.int64),
            "hit": np.zeros((levels, count), np.int64),
        }
        if flow:
            for name, shape in (
                ("flow_hit", (levels, count)),
                ("flow_ray", (count,)),
                ("flow_voxel", (count,)),
            ):
                sums[f"{name}_error"] = np.zeros(shape, np.float64)
                sums[f"{name}_count"] = np.zeros(shape, np.int64)
        super().__init__(**sums)
        self.classes, self.grid = classes, grid
        self.directions = ray_directions() if directions is None else directions
        self._flow, self._reference = flow, reference_exact
        self._scored = list(range(classes.free) if scored is None else scored)

    def update(self, prediction: Grid, truth: Grid, origins: np.ndarray) -> tuple[Hits, Hits]:
        """One more frame; ``origins`` [t, 3] m, see ``lidar_origins``.

        Returns:
            Where the rays end in the prediction and in truth.

        Raises:
            MetricError: arrays of other shapes, labels that are no class, velocities that are
                no numbers, or none where they are scored.
        """
        free = self.classes.free
        true_labels = checked_labels(
            truth.labels, self.classes, "truth", ignored=True, shape=self.grid.shape
        )
        labels = checked_labels(
            prediction.labels, self.classes, "prediction", shape=self.grid.shape
        )
        flows = (self._velocities(prediction, "prediction"), self._velocities(truth, "truth"))
        hits = raycast(labels, origins, self.directions, free, self.grid)
        true_hits = raycast(true_labels, origins, self.directions, free, self.grid)
        true = true_hits.take(true_labels)
        kept = true != free
        if not self._reference:
            kept &= (true_hits.voxel >= 0) & (true != IGNORED)
        true, said = true[kept], hits.take(labels)[kept]
        apart = np.abs(hits.distance[kept] - true_hits.distance[kept])
        sums = {name: np.zeros_like(array) for name, array in self._sums.items()}
        sums["frames"] += 1
        sums["true"] += self._by_class(true[true != IGNORED])
        sums["said"] += self._by_class(said)
        if self._flow:
            flow, true_flow = (
                h.take(f)[kept] for h, f in zip((hits, true_hits), flows, strict=True)
            )
            self._add_errors(sums, "flow_ray", ..., true, flow, true_flow)
            at = np.isin(true_labels, self.classes.flow)
            moving = true_labels[at], flows[0][at], flows[1][at]
            self._add_errors(sums, "flow_voxel", ..., *moving)
        for level, threshold in enumerate(THRESHOLDS):
            right = (true == said) & (apart < np.float32(threshold))
            sums["hit"][level] += self._by_class(true[right])
            if self._flow:
                found = true[right], flow[right], true_flow[right]
                self._add_errors(sums, "flow_hit", level, *found)
        self.merge(sums)  # all of a frame, or, if it cannot be scored, nothing
        return hits, true_hits

    def result(self) -> RayResult:
        """The scores of all frames so far."""
        s, free = self._sums, self.classes.free
        iou = 100 * ratio(s["hit"], s["true"] + s["said"] - s["hit"])[:, :free]
        scored = iou[:, self._scored]
        rayiou_at = np.array([mean_of_known(row) for row in scored])
        # As one mean over all thresholds and classes: the same number, the benchmark's rounding.
        rayiou = mean_of_known(scored)
        flow = self._flow_result() if self._flow else None
        score = math.nan if flow is None else occ_score(rayiou, flow.mave_tp)
        if flow is not None and self._reference and math.isnan(flow.mave_tp):
            score = math.nan
        return RayResult(self.classes, int(s["frames"]), iou, rayiou_at, rayiou, flow, score)

    def _flow_result(self) -> FlowResult:
        moving = list(self.classes.flow)
        columns = []
        for name in ("flow_hit", "flow_ray", "flow_voxel"):
            error = ratio(self._sums[f"{name}_error"], self._sums[f"{name}_count"])
            columns.append((error[_FLOW_THRESHOLD] if error.ndim == 2 else error)[moving])
        return FlowResult(
            tuple(self.classes.names[c] for c in moving), *columns, *map(mean_of_known, columns)
        )

    def _by_class(self, labels: np.ndarray) -> np.ndarray:  # [classes] int64
        return np.bincount(labels, minlength=len(self.classes.names))

    def _add_errors(
        self,
        sums: dict[str, np.ndarray],
        name: str,
        level: Any,
        true: np.ndarray,  # [n] class
        flow: np.ndarray,  # [n, 2] m/s
        true_flow: np.ndarray,  # [n, 2] m/s
    ) -> None:
        error, count = sums[f"{name}_error"], sums[f"{name}_count"]
        if self._reference:
            for c in self.classes.flow:
                at = true == c
                difference = flow[at] - true_flow[at]
                if name != "flow_voxel":
                    difference = flow[at].astype(np.float32) - _at_least_float32(true_flow[at])
                with np.errstate(over="ignore"):
                    error[level, c] += np.linalg.norm(difference, axis=1).sum()
                count[level, c] += at.sum()
            return
        known = np.isin(true, self.classes.flow) & np.isfinite(true_flow).all(axis=1)
        difference = flow[known].astype(np.float64) - true_flow[known].astype(np.float64)
        length = np.hypot(difference[:, 0], difference[:, 1])
        if not np.isfinite(length).all():
            raise MetricError("the flow of the prediction holds NaN or inf where it is scored")
        classes = len(self.classes.names)
        error[level] += np.bincount(true[known], length, minlength=classes)
        count[level] += np.bincount(true[known], minlength=classes)

    def _velocities(self, grid: Grid, what: str) -> np.ndarray | None:
        if not self._flow:
            return None
        if grid.flow is None:
            raise MetricError(f"the {what} has no flow, which {self.classes.name} scores")
        flow = as_array(grid.flow)
        if flow.shape != (*self.grid.shape, 2) or flow.dtype.kind != "f":
            raise MetricError(
                f"flow of the {what} must be {[*self.grid.shape, 2]} m/s, "
                f"got {list(flow.shape)} {flow.dtype}"
            )
        return flow


def _at_least_float32(values: np.ndarray) -> np.ndarray:
    return values if values.dtype == np.float64 else values.astype(np.float32)
