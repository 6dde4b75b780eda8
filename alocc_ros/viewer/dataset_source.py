# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Key frames of a folder in nuScenes format: images and ground truth."""

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
from alocc_ros.viewer.frames import FrameHandle, Layer, ViewFrame
from alocc_ros.viewer.source import TRUTH, ReadOptions, Source


def dataset_sources(
    root: Path, options: ReadOptions, on_progress: OnProgress = nothing
) -> list[Source]:
    """Images and, where there is any, ground truth.

    Raises:
        DataError: tables are damaged, the scene is not there, or labels of it are missing.
    """
    dataset = NuScenes(
        root, scenes=[options.scene] if options.scene else None, on_progress=on_progress
    )
    # To be compared with something, any scene may be the one that was recorded.
    everything = options.all_scenes or options.scene
    samples = dataset.samples if everything else dataset.scenes[0].samples
    if options.split:
        samples = tuple(
            sample for scene in dataset.split(options.split) for sample in scene.samples
        )
    sources = [Source(root, "", partial(_images, samples), has_images=True)]
    benchmark = _benchmark(root, samples, options)
    if benchmark:
        truth = partial(_truth, root, samples, benchmark)
        classes = FORMATS[benchmark].classes.name
        sources.append(Source(root, TRUTH, truth, classes=classes))
    return sources


def _benchmark(root: Path, samples: Sequence[Sample], options: ReadOptions) -> str:
    """The one that was asked for, else the first that is there and has the required classes."""
    if options.benchmark:
        find_format(options.benchmark)
        check_present(missing_files(root, samples, options.benchmark), options.benchmark)
        return options.benchmark
    for name, benchmark in FORMATS.items():
        fits = options.classes in ("", benchmark.classes.name)
        if fits and not missing_files(root, samples[:1], name):
            check_present(missing_files(root, samples, name), name)
            return name
    return ""


def _images(samples: Sequence[Sample]) -> Iterator[FrameHandle]:
    for sample in samples:
        yield FrameHandle(sample.cameras[ANCHOR].stamp, partial(view_of_images, sample))


def view_of_images(sample: Sample) -> ViewFrame:
    """The images of a key frame."""
    frame = frame_set(sample)
    return ViewFrame(frame.stamp, frame)


def _truth(root: Path, samples: Sequence[Sample], benchmark: str) -> Iterator[FrameHandle]:
    for sample in samples:
        stamp = sample.cameras[ANCHOR].stamp
        yield FrameHandle(stamp, partial(view_of_truth, root, sample, benchmark))


def view_of_truth(
    root: Path, sample: Sample, benchmark: str, *, camera_mask: bool = False
) -> ViewFrame:
    """The ground truth of a key frame.

    Args:
        root: folder of the data set.
        sample: the key frame.
        benchmark: whose labels.
        camera_mask: also which voxels a camera sees, where that is in another file.

    Raises:
        DataError: a file is missing or damaged.
    """
    truth = read_truth(root, sample, benchmark, camera_mask=camera_mask)
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
    layer = Layer(TRUTH, detail, occupancy, base_T_grid, truth.mask_camera)
    return ViewFrame(stamp, None, (layer,))
