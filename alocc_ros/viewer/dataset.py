# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Key frames of a folder in nuScenes format: images, and what is true there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from alocc_ros.datasets.formats import FORMATS, find_format
from alocc_ros.datasets.nuscenes import ANCHOR, NuScenes, Sample, frame_set
from alocc_ros.datasets.tables import OnProgress, nothing
from alocc_ros.datasets.truth import (
    UNKNOWN,
    check_present,
    missing_files,
    read_truth,
)
from alocc_ros.types import Occupancy
from alocc_ros.viewer.moments import Layer, Moment, View
from alocc_ros.viewer.sources import TRUTH, Source, Wishes


def dataset_sources(root: Path, wishes: Wishes, on_progress: OnProgress = nothing) -> list[Source]:
    """Images and, where there is any, ground truth.

    Raises:
        DataError: tables are damaged, the scene is not there, or labels of it are missing.
    """
    dataset = NuScenes(
        root, scenes=[wishes.scene] if wishes.scene else None, on_progress=on_progress
    )
    # To be compared with something, any scene may be the one that was recorded.
    samples = dataset.samples if wishes.all_scenes or wishes.scene else dataset.scenes[0].samples
    sources = [Source(root, "", partial(_frames, samples), has_images=True)]
    benchmark = _benchmark(root, samples, wishes)
    if benchmark:
        truth = partial(_truths, root, samples, benchmark)
        classes = FORMATS[benchmark].classes.name
        sources.append(Source(root, TRUTH, truth, classes=classes))
    return sources


def _benchmark(root: Path, samples: Sequence[Sample], wishes: Wishes) -> str:
    """The one that was asked for, else the first that is there and has the wanted classes."""
    if wishes.benchmark:
        find_format(wishes.benchmark)
        check_present(missing_files(root, samples, wishes.benchmark), wishes.benchmark)
        return wishes.benchmark
    for name, benchmark in FORMATS.items():
        fits = wishes.classes in ("", benchmark.classes.name)
        if fits and not missing_files(root, samples[:1], name):
            check_present(missing_files(root, samples, name), name)
            return name
    return ""


def _frames(samples: Sequence[Sample]) -> Iterator[Moment]:
    for sample in samples:
        yield Moment(sample.cameras[ANCHOR].stamp, partial(_view_of_images, sample))


def _view_of_images(sample: Sample) -> View:
    frame = frame_set(sample)
    return View(frame.stamp, frame)


def _truths(root: Path, samples: Sequence[Sample], benchmark: str) -> Iterator[Moment]:
    for sample in samples:
        stamp = sample.cameras[ANCHOR].stamp
        yield Moment(stamp, partial(_view_of_truth, root, sample, benchmark))


def _view_of_truth(root: Path, sample: Sample, benchmark: str) -> View:
    truth = read_truth(root, sample, benchmark)
    in_lidar_frame = FORMATS[benchmark].in_lidar_frame
    stamp = sample.cameras[ANCHOR].stamp
    occupancy = Occupancy(
        # What nobody labelled cannot be shown.
        labels=np.where(truth.labels == UNKNOWN, truth.classes.free, truth.labels),
        flow=truth.flow,
        grid=truth.grid,
        classes=truth.classes,
        stamp=stamp,
        frame_id="lidar" if in_lidar_frame else "base_link",
        map_T_base=sample.map_T_base,
    )
    base_T_grid = sample.base_T_lidar_grid if in_lidar_frame else None
    detail = f"{benchmark}   {sample.scene_name}"
    return View(stamp, None, (Layer(TRUTH, detail, occupancy, base_T_grid, truth.mask_camera),))
