# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""What each benchmark counts, and against which labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from alocc_ros.datasets.formats import FORMATS, LabelFormat, VoxelAccumulator, format_of
from alocc_ros.datasets.samples import Scene
from alocc_ros.datasets.truth import UNKNOWN, Truth
from alocc_ros.errors import DataError, ModelError, ParameterError
from alocc_ros.grid import VoxelGrid
from alocc_ros.labels import ClassList, label_map
from alocc_ros.metrics.object_scores import ObjectResult, ObjectScores
from alocc_ros.metrics.ray_scores import RayResult, RayScores
from alocc_ros.metrics.rays import Hits, lidar_origins
from alocc_ros.metrics.voxels import VoxelResult, VoxelScores
from alocc_ros.records import SUPERVISIONS, ModelRecord
from alocc_ros.types import Occupancy

Scores = Mapping[str, VoxelAccumulator | RayScores | ObjectScores]
Results = Mapping[str, VoxelResult | RayResult | ObjectResult]


@dataclass(frozen=True)
class Scoring:
    """A benchmark as it is scored.

    Attributes:
        name: on the command line.
        labels: which labels are the truth.
        masked: only voxels that a camera sees count.
        voxels, rays, flow, objects: which scores there are.
        trained_on: of ``records.SUPERVISIONS``, those of the models that these scores are
            published of; others guess where this benchmark looks, or are not judged where they
            could be.
        source: the classes of the predictions, where they are not those of the labels: each is
            one of these, by name, and what the predictions have not is not scored.
    """

    name: str
    labels: LabelFormat
    masked: bool = False
    voxels: bool = False
    rays: bool = False
    flow: bool = False
    objects: bool = False
    trained_on: tuple[str, ...] = SUPERVISIONS
    source: ClassList | None = None

    @property
    def classes(self) -> ClassList:
        """What the labels mean."""
        return self.labels.classes

    def scores(self, reference_exact: bool = False) -> Scores:
        """Empty accumulators."""
        scores: dict[str, Any] = {}
        if self.source:
            names = self.classes.names
            kept = [c for c in self.labels.scored if names[c] in self.source.names]
            scores["voxels"] = VoxelScores(self.classes, tuple(kept))
            scores["rays"] = RayScores(
                self.classes, self.flow, self.labels.grid, scored=tuple(kept)
            )
            return {k: v for k, v in scores.items() if getattr(self, k)}
        if self.voxels:
            scores["voxels"] = self.labels.voxel_scores(reference_exact)
        if self.rays:
            scores["rays"] = RayScores(
                self.classes, self.flow, self.labels.grid, reference_exact=reference_exact
            )
        if self.objects:
            scores["objects"] = ObjectScores(self.classes, self.labels.grid)
        return scores

    def mapped(self, record: ModelRecord) -> Scoring:
        """The same benchmark for a model with other classes, each of which is one of these.

        Raises:
            ModelError: one of its classes is not.
        """
        if record.classes == self.classes:
            return self
        strange = [n for n in record.classes.names if n not in self.classes.names]
        if strange:
            raise ModelError(
                f"--map-classes: {', '.join(strange)} of {record.name} is no class of {self.name}"
            )
        return replace(self, source=record.classes)

    def mapping(self) -> dict[str, Any]:
        """What reports say of mapped classes; empty if they are not."""
        if self.source is None:
            return {}
        missing = [n for n in self.classes.names if n not in self.source.names]
        words = {"from": self.source.name, "to": self.classes.name, "not scored": missing}
        return {"mapped classes": words}

    def translated(self, prediction: Occupancy) -> Occupancy:
        """A prediction in the classes of the labels."""
        if self.source is None or prediction.classes != self.source:
            return prediction
        table = label_map(self.source, self.classes, missing=UNKNOWN)
        return replace(prediction, labels=table[prediction.labels], classes=self.classes)

    def check_model(self, record: ModelRecord) -> None:
        """That a model can be scored by this benchmark at all.

        Raises:
            ModelError: other classes, another grid, or no flow.
        """
        reason = self.misfit(record)
        if reason:
            fit = ", ".join(fitting(record)) or "none"
            also = [n for n, s in SCORINGS.items() if s.fits_mapped(record)]
            more = f"; with --map-classes also {', '.join(also)}" if also else ""
            raise ModelError(f"{reason}; benchmarks that fit it: {fit}{more}")

    def fits_mapped(self, record: ModelRecord) -> bool:
        """Whether a model can be scored once its classes are those of the same name here."""
        if record.classes == self.classes or not {*record.classes.names} < {*self.classes.names}:
            return False
        return not self.mapped(record).misfit(record)

    def misfit(self, record: ModelRecord) -> str:
        """Why a model cannot be scored; empty if it can."""
        truth = self.labels
        if record.classes != (self.source or truth.classes):
            return (
                f"{record.name} gives the classes of {record.classes.name}, "
                f"but {self.name} scores those of {truth.classes.name}"
            )
        if self.flow and not record.flow:
            return f"{record.name} gives no flow, which {self.name} scores"
        if record.frame != truth.frame:
            frame = "LiDAR's" if truth.in_lidar_frame else "vehicle's"
            return (
                f"{record.name} sees in the {record.frame} frame, "
                f"but the voxels of {self.name} lie in the {frame}"
            )
        if record.grid != truth.grid:
            return (
                f"{record.name} has other voxels than {self.name}, and a prediction is not "
                f"resampled: {_in_words(record.grid)}, not {_in_words(truth.grid)}"
            )
        return ""


def _in_words(grid: VoxelGrid) -> str:
    size = " x ".join(map(str, grid.shape))
    return f"{size} of {grid.resolution:g} m from {grid.lower}"


SCORINGS = {
    s.name: s
    for s in (
        Scoring(
            "occ3d",
            FORMATS["occ3d"],
            voxels=True,
            rays=True,
            trained_on=("all", "ray_visible", "visible"),
        ),
        Scoring(
            "occ3d-mask",
            FORMATS["occ3d"],
            voxels=True,
            masked=True,
            trained_on=("camera_visible",),
        ),
        Scoring(
            "openocc",
            FORMATS["openocc"],
            rays=True,
            flow=True,
            trained_on=("all", "ray_visible", "camera_visible"),
        ),
        Scoring(
            "openocc-mask",
            FORMATS["openocc"],
            masked=True,
            voxels=True,
            rays=True,
            flow=True,
            trained_on=("visible",),
        ),
        Scoring("surroundocc", FORMATS["surroundocc"], voxels=True),
        Scoring("openoccupancy", FORMATS["openoccupancy"], voxels=True),
        # Made of voxels, whatever they were trained on; nothing is published with these scores.
        Scoring("objects", FORMATS["openocc"], masked=True, objects=True, trained_on=()),
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


def fitting(record: ModelRecord) -> list[str]:
    """The benchmarks that a model can be scored by."""
    return [name for name, scoring in SCORINGS.items() if not scoring.misfit(record)]


def scoring_of(record: ModelRecord) -> Scoring:
    """The benchmark that a model was trained for."""
    labels = format_of(record)
    return next(
        scoring
        for scoring in SCORINGS.values()
        if scoring.labels == labels and record.supervision in scoring.trained_on
    )


def check_prediction(prediction: Occupancy, scoring: Scoring, where: str) -> None:
    """That a prediction is about the same voxels and classes as the truth.

    Raises:
        ModelError: it is not.
    """
    truth = scoring.labels
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
