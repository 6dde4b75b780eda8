# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""What each benchmark counts, and against which labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from alocc_ros.datasets.nuscenes import Scene
from alocc_ros.datasets.truth import Truth, find_benchmark
from alocc_ros.errors import DataError, ModelError, ParameterError
from alocc_ros.labels import ClassList
from alocc_ros.metrics.ray_scores import RayResult, RayScores
from alocc_ros.metrics.rays import Hits, lidar_origins
from alocc_ros.metrics.voxels import (
    WITHOUT_OTHERS,
    SurroundOccReference,
    VoxelResult,
    VoxelScores,
)
from alocc_ros.records import ModelRecord
from alocc_ros.types import Occupancy

Scores = Mapping[str, VoxelScores | SurroundOccReference | RayScores]
Results = Mapping[str, VoxelResult | RayResult]


@dataclass(frozen=True)
class Scoring:
    """A benchmark as it is scored.

    Attributes:
        name: on the command line.
        labels: which labels are the truth, a name of ``datasets.truth.BENCHMARKS``.
        masked: only voxels that a camera sees count.
        voxels, rays, flow: which scores there are.
    """

    name: str
    labels: str
    masked: bool = False
    voxels: bool = False
    rays: bool = False
    flow: bool = False

    @property
    def classes(self) -> ClassList:
        """What the labels mean."""
        return find_benchmark(self.labels).classes

    def scores(self, reference_exact: bool = False) -> Scores:
        """Accumulators of which nothing is counted yet."""
        scores: dict[str, Any] = {}
        if self.labels == "surroundocc":
            scores["voxels"] = (
                SurroundOccReference()
                if reference_exact
                else VoxelScores(self.classes, WITHOUT_OTHERS)
            )
        elif self.voxels:
            scores["voxels"] = VoxelScores(self.classes, reference_exact=reference_exact)
        if self.rays:
            grid = find_benchmark(self.labels).grid
            scores["rays"] = RayScores(
                self.classes, self.flow, grid, reference_exact=reference_exact
            )
        return scores

    def check_model(self, record: ModelRecord) -> None:
        """That a model can be scored by this benchmark at all.

        Raises:
            ModelError: other classes, another grid, or no flow.
        """
        truth = find_benchmark(self.labels)
        if record.classes != truth.classes:
            raise ModelError(
                f"{record.name} gives the classes of {record.classes.name}, "
                f"but {self.name} scores those of {truth.classes.name}"
            )
        if self.flow and not record.flow:
            raise ModelError(f"{record.name} gives no flow, which {self.name} scores")
        if (record.frame == "lidar") != truth.in_lidar_frame:
            frame = "LiDAR's" if truth.in_lidar_frame else "vehicle's"
            raise ModelError(
                f"{record.name} sees in the {record.frame} frame, "
                f"but the voxels of {self.name} lie in the {frame}"
            )
        if record.grid != truth.grid:
            raise ModelError(f"{record.name} has other voxels than {self.name}: {record.grid}")


SCORINGS = {
    s.name: s
    for s in (
        Scoring("occ3d", "occ3d", voxels=True, rays=True),
        Scoring("occ3d-mask", "occ3d", voxels=True, masked=True),
        Scoring("openocc", "openocc", rays=True, flow=True),
        Scoring("openocc-mask", "openocc", masked=True, voxels=True, rays=True, flow=True),
        Scoring("surroundocc", "surroundocc", voxels=True),
    )
}


def find_scoring(name: str) -> Scoring:
    """The benchmark of that name.

    Raises:
        ParameterError: there is none.
    """
    if name not in SCORINGS:
        raise ParameterError(f"no benchmark is called {name!r}; there are {', '.join(SCORINGS)}")
    return SCORINGS[name]


def check_prediction(prediction: Occupancy, scoring: Scoring, where: str) -> None:
    """That a prediction is about the same voxels and classes as the truth.

    Raises:
        ModelError: it is not.
    """
    truth = find_benchmark(scoring.labels)
    if prediction.classes != truth.classes or prediction.grid != truth.grid:
        raise ModelError(
            f"{where}: the prediction has the classes of {prediction.classes.name} in "
            f"{prediction.grid}, but {scoring.name} those of {truth.classes.name} in {truth.grid}"
        )


def add_frame(
    scores: Scores,
    scoring: Scoring,
    prediction: Occupancy,
    truth: Truth,
    origins: np.ndarray | None,  # [t, 3] m, where rays are scored
) -> Hits | None:
    """Counts one frame; returns where the rays of the prediction end, if there are any.

    Raises:
        DataError: the truth has no camera mask, which this benchmark needs.
        MetricError: the prediction cannot be scored.
    """
    if scoring.masked and truth.mask_camera is None:
        raise DataError(f"{scoring.name} needs a camera mask, and the labels have none")
    if "voxels" in scores:
        mask = truth.mask_camera if scoring.masked else None
        scores["voxels"].update(prediction.labels, truth.labels, mask)
    if "rays" in scores:
        return scores["rays"].update(prediction, truth, origins)[0]
    return None


def ray_origins(scene: Scene) -> list[np.ndarray]:  # [up to 8, 3] m in the base frame, each
    """Where the rays of each sample of a scene begin."""
    # Both at the LiDAR's own time: labels and their frame belong to its sweep.
    map_T_base = np.stack([s.lidar.map_T_base for s in scene.samples])
    base_T_lidar = np.stack([s.lidar.base_T_lidar for s in scene.samples])
    return [lidar_origins(map_T_base, base_T_lidar, i) for i in range(len(scene.samples))]
