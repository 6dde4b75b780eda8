# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Annotated boxes as the truth that objects are scored against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from alocc_ros.datasets.boxes import CLASS_OF_CATEGORY, Box, read_boxes
from alocc_ros.datasets.samples import Dataset, Sample, Scene
from alocc_ros.datasets.tables import OnProgress, nothing
from alocc_ros.datasets.truth import check_present
from alocc_ros.geometry import inverse
from alocc_ros.labels import ClassList
from alocc_ros.metrics.object_scores import TrueObjects

Boxes = Mapping[str, Sequence[Box]]  # by token of the sample


def boxes_of(dataset: Dataset, scenes: Sequence[Scene], on_progress: OnProgress = nothing) -> Boxes:
    """The boxes of all key frames of some scenes.

    Raises:
        DataError: the data set has no annotations here, or they are damaged.
    """
    folder = dataset.root / dataset.version
    table = folder / "sample_annotation.json"
    check_present([] if table.is_file() else [table], "the boxes that objects are scored against")
    stamps = {sample.token: sample.stamp for scene in scenes for sample in scene.samples}
    return read_boxes(folder, stamps, on_progress)


def true_objects(boxes: Sequence[Box], sample: Sample, classes: ClassList) -> TrueObjects:
    """Those of a known class, in the vehicle's frame at the LiDAR's time, as the labels are."""
    base_T_map = inverse(sample.lidar.map_T_base)
    known = [
        (classes.names.index(name), box)
        for box in boxes
        if (name := CLASS_OF_CATEGORY.get(box.category)) in classes.names
    ]
    base_T_box = [base_T_map @ box.map_T_box for _, box in known]
    velocity = [base_T_map[:2, :3] @ box.velocity for _, box in known]
    return TrueObjects(
        label=np.array([label for label, _ in known], dtype=np.int64),
        centre=np.array([pose[:3, 3] for pose in base_T_box]).reshape(-1, 3),
        size=np.array([box.size for _, box in known]).reshape(-1, 3),
        yaw=np.array([np.arctan2(pose[1, 0], pose[0, 0]) for pose in base_T_box]),
        velocity=np.array(velocity).reshape(-1, 2),
        instance=tuple(box.instance for _, box in known),
    )
