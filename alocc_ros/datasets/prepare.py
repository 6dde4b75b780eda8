# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Files made once of a data set: joined tables for each split, classes of LiDAR points."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from alocc_ros.datasets.boxes import read_boxes
from alocc_ros.datasets.infos import PREFIX, write_infos
from alocc_ros.datasets.lidarseg import labels_path, lidarseg_files, read_categories, write_labels
from alocc_ros.datasets.samples import Dataset, Scene
from alocc_ros.datasets.splits import official_splits
from alocc_ros.datasets.tables import OnProgress, nothing
from alocc_ros.datasets.truth import check_present
from alocc_ros.errors import DataError

_MINI = "v1.0-mini"


def splits_to_prepare(
    dataset: Dataset, wanted: Collection[str] | None = None
) -> dict[str, tuple[Scene, ...]]:
    """The splits to make files for: those of which there are scenes, or the ``wanted`` ones.

    The scenes of nuScenes' mini version belong to large splits as well, of which they are no
    fair part: there only ``mini_train`` and ``mini_val`` count, and nowhere else.

    Raises:
        DataError: no such split, or nothing of it is here.
    """
    if wanted:
        return {name: dataset.split(name) for name in wanted}
    names = list(dataset.splits)
    if dataset.splits == official_splits():
        is_mini = dataset.version == _MINI
        names = [name for name in names if name.startswith("mini_") == is_mini]
    here = {scene.name for scene in dataset.scenes}
    names = [name for name in names if not here.isdisjoint(dataset.splits[name])]
    if not names:
        raise DataError(f"{dataset.root}: no scene of {dataset.version} is in a split")
    return {name: dataset.split(name) for name in names}


def info_path(folder: Path, split: str) -> Path:
    """The name by which the authors' code looks for the file."""
    return folder / f"bevdetv2-nuscenes_infos_{split}.pkl"


def prepare_infos(
    dataset: Dataset,
    splits: dict[str, tuple[Scene, ...]],
    folder: Path,
    prefix: str = PREFIX,
    on_progress: OnProgress = nothing,
) -> list[Path]:
    """Writes the info file of each split.

    Raises:
        DataError: the tables of annotations are damaged.
        OutputError: a file cannot be written.
    """
    stamps = {s.token: s.stamp for scenes in splits.values() for c in scenes for s in c.samples}
    boxes = read_boxes(dataset.root / dataset.version, stamps, on_progress)
    paths = []
    for number, (split, scenes) in enumerate(splits.items()):
        on_progress("info files", number, len(splits))
        path = info_path(folder, split)
        write_infos(path, scenes, dataset.root, dataset.version, boxes, prefix)
        paths.append(path)
    on_progress("info files", len(splits), len(splits))
    return paths


def has_lidarseg(dataset: Dataset) -> bool:
    """Whether nuScenes-lidarseg was downloaded."""
    return (dataset.root / dataset.version / "lidarseg.json").is_file()


def prepare_lidar_labels(
    dataset: Dataset, scenes: Sequence[Scene], folder: Path, on_progress: OnProgress = nothing
) -> int:
    """Writes the classes of the points of every key frame's sweep; gives their number.

    What is there already is left as it is, so a run that was stopped goes on.

    Raises:
        DataError: nuScenes-lidarseg is not there, or not whole.
        OutputError: a file cannot be written.
    """
    files = lidarseg_files(dataset.root, dataset.version)
    lidars = [sample.lidar for scene in scenes for sample in scene.samples]
    if unnamed := [lidar.path for lidar in lidars if lidar.token not in files]:
        raise DataError(f"lidarseg.json has no entry for {len(unnamed)} sweeps, e.g. {unnamed[0]}")
    todo = [lidar for lidar in lidars if not labels_path(folder, lidar).is_file()]
    missing = [files[lidar.token] for lidar in todo if not files[lidar.token].is_file()]
    check_present(missing, "nuScenes-lidarseg")
    for number, lidar in enumerate(todo):
        on_progress("LiDAR classes", number, len(todo))
        write_labels(labels_path(folder, lidar), read_categories(files[lidar.token]))
    on_progress("LiDAR classes", len(todo), len(todo))
    return len(lidars)
