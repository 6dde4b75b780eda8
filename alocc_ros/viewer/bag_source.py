# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Frames of a bag: images as ``alocc run`` would take them, and recorded voxel grids."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

from alocc_ros.bags.frames import FrameSource, preset_of
from alocc_ros.bags.reader import Bag, camera_types, topic_name
from alocc_ros.bags.results import RecordedGrids, recorded_grids
from alocc_ros.viewer.frames import FrameHandle, Layer, ViewFrame
from alocc_ros.viewer.source import PREDICTION, TRUTH, ReadOptions, Source


def bag_sources(bag: Bag, options: ReadOptions) -> list[Source]:
    """Recorded voxel grids and, where the preset's images are, those.

    Raises:
        BagError: the bag is damaged, what labels mean was not recorded, or no preset fits.
        CalibrationError: a camera has no intrinsics or extrinsics.
    """
    base_frame = {"base_frame": options.preset.base_frame} if options.preset else {}
    grids = recorded_grids(bag, **base_frame)
    sources = []
    for recorded in grids:
        name = TRUTH if "truth" in recorded.name else PREDICTION
        frames = partial(_grids, recorded, name)
        source = Source(bag.path, name, frames, topic=recorded.topic, warning=bag.warning)
        sources.append(replace(source, classes=recorded.info.classes.name))
    preset = options.preset or preset_of(bag)
    images = {topic for topic, kind in bag.types.items() if kind in camera_types()}
    fits = {topic_name(topics.image) for topics in preset.used_cameras.values()} <= images
    # A recording of results may hold pictures of other kinds, or none. With nothing else to look
    # at, or with a preset that was asked for, what does not fit is an error and not a choice.
    if fits or not grids or (options.preset and images):
        frames = partial(_images, FrameSource(bag, preset, options.calibration))
        sources.append(Source(bag.path, "", frames, has_images=True, warning=bag.warning))
    return sources


def _images(frame_sets: FrameSource) -> Iterator[FrameHandle]:
    for frame_set in frame_sets:
        view = ViewFrame(frame_set.stamp, frame_set)
        yield FrameHandle(view.stamp, lambda view=view: view)


def _grids(recorded: RecordedGrids, name: str) -> Iterator[FrameHandle]:
    def load(stamp: int, read: Callable) -> ViewFrame:
        occupancy = read()
        base_T_grid = recorded.base_T_grid(occupancy.frame_id)
        return ViewFrame(stamp, None, (Layer(name, recorded.info.model, occupancy, base_T_grid),))

    for stamp, read in recorded:
        yield FrameHandle(stamp, partial(load, stamp, read))
