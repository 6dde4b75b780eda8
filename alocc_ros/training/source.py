# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Key frames of nuScenes, and of anything in its format, to train on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from alocc_ros.datasets.formats import find_format, format_of
from alocc_ros.datasets.infos import open_dataset
from alocc_ros.datasets.lidarseg import (
    CLASS_OF_CATEGORY,
    labels_path,
    lidarseg_files,
    read_categories,
    read_labels,
)
from alocc_ros.datasets.nuscenes import Sample, frame_set, lidar_points
from alocc_ros.datasets.truth import (
    check_present,
    missing_files,
    missing_images,
    read_truth,
    training_masks,
)
from alocc_ros.errors import DataError, TrainingError
from alocc_ros.records import ModelRecord
from alocc_ros.training.samples import KeyFrameSample


class NuScenesSource:
    """The scenes of a split, with everything that is there to learn from.

    Attributes:
        scenes: see ``samples.SampleSource``.
        has_point_labels: the LiDAR points have classes, so pixels learn theirs.
    """

    def __init__(self, data: Path, split: str, record: ModelRecord, benchmark: str = "") -> None:
        """Reads the tables, or the info file, and looks whether every file is there.

        Raises:
            DataError: tables or files are missing or damaged.
            TrainingError: the benchmark's voxels or classes are not the model's.
        """
        labels = find_format(benchmark) if benchmark else format_of(record)
        if (labels.classes, labels.grid) != (record.classes, record.grid):
            raise TrainingError(f"{record.name} has other voxels or classes than {labels.name}")
        self._labels = labels
        self._supervision = record.supervision
        self._masks = training_masks(record.supervision)
        dataset = open_dataset(data)
        self._root = root = dataset.root
        self._samples: list[Sample] = []
        self._before: list[int | None] = []  # the key frame before in the scene
        self.scenes: list[tuple[int, ...]] = []
        for scene in dataset.split(split):
            first = len(self._samples)
            self._samples += scene.samples
            indices = tuple(range(first, len(self._samples)))
            self._before += [None, *indices[:-1]]
            self.scenes.append(indices)
        missing = missing_files(root, self._samples, labels, **self._masks)
        check_present(missing, f"labels that {record.name} learns from", root)
        check_present(missing_images(self._samples), "images")
        check_present([s.lidar.path for s in self._samples if not s.lidar.path.is_file()], "points")
        self._categories: dict[str, Path] = {}
        prepared = [labels_path(root, s.lidar).is_file() for s in self._samples]
        self._prepared = all(prepared)
        if not self._prepared and (root / dataset.version / "lidarseg.json").is_file():
            self._categories = lidarseg_files(root, dataset.version)
        self.has_point_labels = self._prepared or bool(self._categories)

    def key(self, index: int) -> str:
        """A name for files about a key frame, of what it is and not of where it lies: a data set
        that was made anew in the same folder has other ones.

        Raises:
            DataError: an image cannot be read.
        """
        digest = hashlib.sha256()
        for _, camera in sorted(self._samples[index].cameras.items()):
            try:
                digest.update(camera.path.read_bytes())
            except OSError as error:
                raise DataError(f"{camera.path}: {error.strerror}") from error
        return digest.hexdigest()[:32]

    def read(self, index: int) -> KeyFrameSample:
        """One key frame.

        Raises:
            DataError: a file is damaged.
        """
        sample, before = self._samples[index], self._before[index]
        truth = read_truth(self._root, sample, self._labels, **self._masks)
        masks = {"ray_mask": truth.ray_mask, "camera_mask": truth.mask_camera}
        wanted = [masks[name] for name, is_wanted in self._masks.items() if is_wanted]
        if any(mask is None for mask in wanted):
            raise TrainingError(
                f"{sample.name}: {self._labels.name} has no {self._supervision} mask"
            )
        return KeyFrameSample(
            name=sample.name,
            frame=frame_set(sample),
            previous=None if before is None else frame_set(self._samples[before]),
            labels=truth.labels,
            supervised=np.logical_or.reduce(wanted) if wanted else None,
            flow=truth.flow,
            points=lidar_points(sample.lidar)[:, :3].astype(np.float64),
            map_T_points=sample.lidar.map_T_lidar,
            point_labels=self._point_labels(sample),
            base_T_grid=sample.base_T_lidar_grid if self._labels.in_lidar_frame else np.eye(4),
        )

    def _point_labels(self, sample: Sample) -> np.ndarray | None:  # [P] uint8
        if self._prepared:
            return read_labels(self._root, sample.lidar)
        if not self._categories:
            return None
        if sample.lidar.token not in self._categories:
            raise TrainingError(f"{sample.name}: nuScenes-lidarseg has no file for its LiDAR sweep")
        return CLASS_OF_CATEGORY[read_categories(self._categories[sample.lidar.token])]


class JoinedSource:
    """The scenes of several data sets, one after the other.

    Attributes:
        scenes: see ``samples.SampleSource``.
        has_point_labels: the LiDAR points of all of them have classes.
    """

    def __init__(self, sources: Sequence[NuScenesSource]) -> None:
        self.has_point_labels = all(s.has_point_labels for s in sources)
        self._places = [(s, i) for s in sources for scene in s.scenes for i in scene]
        indices = iter(range(len(self._places)))
        self.scenes = [tuple(next(indices) for _ in scene) for s in sources for scene in s.scenes]

    def read(self, index: int) -> KeyFrameSample:
        """One key frame.

        Raises:
            DataError: a file is damaged.
        """
        source, place = self._places[index]
        return source.read(place)

    def key(self, index: int) -> str:
        """A name for files about a key frame."""
        source, place = self._places[index]
        return source.key(place)
