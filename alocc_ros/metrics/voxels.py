# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""IoU over voxels: the mIoU family of Occ3D, SurroundOcc and OpenOccupancy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from alocc_ros.errors import MetricError
from alocc_ros.labels import OCC3D, ClassList
from alocc_ros.metrics.sums import (
    Sums,
    as_array,
    checked_labels,
    mean_of_known,
    plain,
    ratio,
    text_table,
)

# SurroundOcc and OpenOccupancy know no "others": their sixteen classes are 1 to 16 of Occ3D.
WITHOUT_OTHERS = tuple(range(1, 17))
_TINY = np.float32(1e-8)  # of the SurroundOcc code's denominators


@dataclass(frozen=True)
class VoxelResult:
    """Scores in percent; NaN where there was nothing to count.

    Attributes:
        classes: what the labels mean.
        frames: how many were counted.
        class_iou: [classes] float64, the free one included.
        miou: mean over the classes that count (never free space).
        miou_dynamic: mean over those that can move (mIoU_D).
        iou: of occupied against free space, whatever the class.
    """

    classes: ClassList
    frames: int
    class_iou: np.ndarray
    miou: float
    miou_dynamic: float
    iou: float

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        by_class = dict(zip(self.classes.names, self.class_iou, strict=True))
        totals = {"mIoU": self.miou, "mIoU_D": self.miou_dynamic, "IoU": self.iou}
        return plain({"frames": self.frames, **totals, "class IoU": by_class})

    def table(self) -> str:
        """For people."""
        rows = [*zip(self.classes.names, self.class_iou, strict=True)]
        rows += [("mIoU", self.miou), ("mIoU_D", self.miou_dynamic), ("IoU", self.iou)]
        return text_table(("class", "IoU %"), rows)


class VoxelScores(Sums):
    """Counts voxels by true and predicted class.

    Args:
        classes: what labels mean.
        scored: classes that the mIoU is the mean of; None: all but free.
        reference_exact: with the accidents of the reference's code: true labels outside the list
            leave the class matrix but are "occupied" in the geometric IoU, and a predicted
            label outside the list counts for whatever cell of the matrix it lands in.
    """

    def __init__(
        self,
        classes: ClassList = OCC3D,
        scored: tuple[int, ...] | None = None,
        reference_exact: bool = False,
    ) -> None:
        count = len(classes.names)
        super().__init__(
            matrix=np.zeros((count, count), np.int64),  # rows truth, columns prediction
            occupied=np.zeros((2, 2), np.int64),  # 0 free, 1 occupied
            frames=np.zeros((), np.int64),
        )
        self.classes = classes
        self._scored = tuple(range(classes.free)) if scored is None else scored
        self._reference = reference_exact

    def update(
        self,
        prediction: np.ndarray,  # [X, Y, Z] labels
        truth: np.ndarray,  # [X, Y, Z] labels, 255: unknown
        mask: np.ndarray | None = None,  # [X, Y, Z] bool or 0/1: which voxels count
    ) -> None:
        """One more frame.

        Raises:
            MetricError: arrays of other shapes, labels that are no class.
        """
        count, free = len(self.classes.names), self.classes.free
        if self._reference:
            prediction, truth = as_array(prediction), as_array(truth)
        else:
            truth = checked_labels(truth, self.classes, "truth", ignored=True)
            prediction = checked_labels(prediction, self.classes, "prediction", shape=truth.shape)
        if mask is not None:
            mask = as_array(mask)
            if mask.shape != truth.shape:
                raise MetricError(
                    f"the mask must be {list(truth.shape)}, as the truth, got {list(mask.shape)}"
                )
            prediction, truth = prediction[mask != 0], truth[mask != 0]
        known = truth < count
        cell = truth[known].astype(np.int32) * count + prediction[known]
        if len(cell) and cell.max() >= count * count:
            raise MetricError("a predicted label lies behind the end of the class matrix")
        self._sums["matrix"] += _histogram(cell, count)
        if not self._reference:
            prediction, truth = prediction[known], truth[known]
        self._sums["occupied"] += _histogram(
            (truth != free).astype(np.int32) * 2 + (prediction != free), 2
        )
        self._sums["frames"] += 1

    def result(self) -> VoxelResult:
        """The scores of all frames so far."""
        class_iou = _iou(self._sums["matrix"])
        return VoxelResult(
            self.classes,
            int(self._sums["frames"]),
            class_iou,
            miou=mean_of_known(class_iou[list(self._scored)]),
            miou_dynamic=mean_of_known(class_iou[list(self.classes.flow)]),
            iou=float(_iou(self._sums["occupied"])[1]),
        )


class SurroundOccReference:
    """SurroundOcc as the reference's code counts it; ``VoxelScores`` gives the right values.

    Its accidents: a class that is neither there nor predicted is 0 instead of left out, and
    counts are float32, so that after 2^24 voxels small ones get lost. Since that depends on the
    order of frames, the counts of every frame are kept.
    """

    classes = OCC3D

    def __init__(self) -> None:
        self._counts: list[np.ndarray] = []  # [19, 3]: 18 classes and "occupied"; hit, true, said

    def update(
        self,
        prediction: np.ndarray,  # [X, Y, Z] labels
        truth: np.ndarray,  # [X, Y, Z] labels
        mask: np.ndarray | None = None,  # counted as if it were all ones
    ) -> None:
        """One more frame.

        Raises:
            MetricError: arrays of other shapes, labels that are no class.
        """
        scores = VoxelScores(self.classes)
        scores.update(prediction, truth)
        matrix, occupied = (scores.state()[k] for k in ("matrix", "occupied"))
        self._counts.append(np.concatenate([_hits(matrix), _hits(occupied)[1:]]))

    def state(self) -> dict[str, np.ndarray]:
        """All that was counted."""
        return {"counts": np.array(self._counts, np.int64).reshape(-1, 19, 3)}

    def merge(self, state: Mapping[str, np.ndarray]) -> None:
        """Adds the frames of another accumulator.

        Raises:
            MetricError: it is the state of another kind.
        """
        if state.keys() != {"counts"} or state["counts"].shape[1:] != (19, 3):
            raise MetricError(f"these scores hold {sorted(state)}, not the counts of SurroundOcc")
        self._counts += list(state["counts"])

    def result(self) -> VoxelResult:
        """The scores of all frames so far."""
        total = np.zeros((19, 3), np.float32)
        for counts in self._counts:
            total += counts.astype(np.float32)
        hit, true, said = total.T
        iou = hit / (true + said - hit + _TINY) * np.float32(100)
        return VoxelResult(
            self.classes,
            len(self._counts),
            iou[:18].astype(np.float64),
            miou=float(iou[list(WITHOUT_OTHERS)].mean()),
            miou_dynamic=float(iou[list(self.classes.flow)].mean()),
            iou=float(iou[18]),
        )


def _histogram(cell: np.ndarray, count: int) -> np.ndarray:  # [count, count] int64
    return np.bincount(cell.reshape(-1), minlength=count * count).reshape(count, count)


def _hits(matrix: np.ndarray) -> np.ndarray:  # [n, n] -> [n, 3]
    """By class: true and predicted, true, predicted."""
    return np.stack([np.diag(matrix), matrix.sum(1), matrix.sum(0)], axis=1)


def _iou(matrix: np.ndarray) -> np.ndarray:  # [n, n] -> [n] %
    hit, true, said = _hits(matrix).T
    return 100 * ratio(hit, true + said - hit)
