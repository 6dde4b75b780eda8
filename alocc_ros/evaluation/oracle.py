# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""The truth as a predictor: what is lost after the network, by what is made of its voxels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from alocc_ros.datasets.samples import Sample, Scene
from alocc_ros.datasets.truth import UNKNOWN, read_truth
from alocc_ros.evaluation.evaluate import Predictor
from alocc_ros.evaluation.scoring import Scoring
from alocc_ros.types import FrameSet, Occupancy


def oracle(root: Path, scoring: Scoring) -> Predictor:
    """Answers with the labels and the flow of the benchmark; what nobody knows is free."""

    def predictor(scene: Scene) -> Callable[[Sample], Occupancy]:
        def predict(sample: Sample) -> Occupancy:
            truth = read_truth(root, sample, scoring.labels)
            free = np.uint8(truth.classes.free)
            return Occupancy(
                labels=np.where(truth.labels == UNKNOWN, free, truth.labels),
                flow=truth.flow,
                grid=truth.grid,
                classes=truth.classes,
                stamp=sample.stamp,
                frame_id=FrameSet.base_frame,
                map_T_base=sample.lidar.map_T_base,
            )

        return predict

    return predictor
