# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""What a network must beat: the class prior, which has never seen an image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from alocc_ros.datasets.samples import Sample, Scene
from alocc_ros.datasets.truth import Truth, read_truth
from alocc_ros.errors import DataError
from alocc_ros.evaluation.evaluate import Predictor
from alocc_ros.evaluation.scoring import Scoring
from alocc_ros.grid import VoxelGrid
from alocc_ros.labels import ClassList
from alocc_ros.types import FrameSet, Occupancy


@dataclass(frozen=True)
class ClassPrior:
    """The class that each voxel most often has, wherever the vehicle is.

    Attributes:
        labels: [X, Y, Z] uint8; free where nothing was ever seen.
        flow: [X, Y, Z, 2] float32 m/s (vx, vy), the mean of what could move there; or None.
        grid: where the voxels lie.
        classes: what the labels mean.
    """

    labels: np.ndarray
    flow: np.ndarray | None
    grid: VoxelGrid
    classes: ClassList

    def predictor(self) -> Predictor:
        """Predicts nothing else, whatever the sample."""

        def predictor(scene: Scene) -> Callable[[Sample], Occupancy]:
            return lambda sample: Occupancy(
                labels=self.labels,
                flow=self.flow,
                grid=self.grid,
                classes=self.classes,
                stamp=sample.stamp,
                frame_id=FrameSet.base_frame,
                map_T_base=sample.map_T_base,
            )

        return predictor


def class_prior(root: Path, scenes: Sequence[Scene], scoring: Scoring) -> ClassPrior:
    """Counted over all key frames of some scenes: those that others train on.

    Args:
        root: folder of the data set.
        scenes: whose labels are counted.
        scoring: whose labels; where only what cameras see is scored, only that is counted.

    Raises:
        DataError: no scenes, or a file is missing or damaged.
    """
    labels_of = scoring.labels
    counts = np.zeros((len(labels_of.classes.names), *labels_of.grid.shape), dtype=np.uint32)
    moving = np.zeros(labels_of.grid.shape, dtype=np.uint32)
    velocity = np.zeros((*labels_of.grid.shape, 2), dtype=np.float32)
    if not scenes:
        raise DataError("a class prior needs scenes to count in, and there are none")
    for scene in scenes:
        for sample in scene.samples:
            truth = read_truth(root, sample, scoring.labels, camera_mask=scoring.masked)
            known = _known(truth, scoring)
            for label in np.unique(truth.labels[known]):
                counts[label] += known & (truth.labels == label)
            if truth.flow is not None:
                moves = known & np.isin(truth.labels, labels_of.classes.flow)
                moves &= np.isfinite(truth.flow).all(-1)
                moving += moves
                velocity[moves] += truth.flow[moves]
    labels = np.where(counts.any(0), counts.argmax(0), labels_of.classes.free).astype(np.uint8)
    flow = None
    if scoring.flow:
        flow = velocity / np.maximum(moving, 1)[..., None].astype(np.float32)
    return ClassPrior(labels, flow, labels_of.grid, labels_of.classes)


def _known(truth: Truth, scoring: Scoring) -> np.ndarray:  # [X, Y, Z] bool
    known = truth.labels < len(truth.classes.names)
    return known & truth.mask_camera if scoring.masked else known
