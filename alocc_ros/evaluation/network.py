# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""A network as a predictor: its memory is carried through a scene, as in training."""

from __future__ import annotations

from collections.abc import Callable

from alocc_ros.datasets.samples import Sample, Scene, frame_set
from alocc_ros.evaluation.evaluate import Predictor
from alocc_ros.evaluation.lidar_depth import lidar_depth
from alocc_ros.pipeline import Pipeline
from alocc_ros.stream.keyframes import KeyframeSettings
from alocc_ros.types import Occupancy

# Every key frame goes into the memory, and nothing but a new scene empties it: as in training,
# and as published scores were taken. (On a vehicle, time and poses are not to be trusted so.)
AS_IN_TRAINING = KeyframeSettings(
    interval_ns=1,
    references=1,
    max_gap_ns=10**15,
    max_speed=1e9,
    max_turn_rate=1e9,
)


def network_predictor(pipeline: Pipeline, remembers: bool = True) -> Predictor:
    """Runs ``pipeline``, whose settings should be ``AS_IN_TRAINING``.

    Without ``remembers`` each frame is the first one: what the memory is worth can be measured.
    """
    record, variant = pipeline.record, pipeline.network.variant

    def predictor(scene: Scene) -> Callable[[Sample], Occupancy]:
        pipeline.reset()

        def predict(sample: Sample) -> Occupancy:
            if not remembers:
                pipeline.reset()
            if (
                record.frame == "lidar"
            ):  # it measures a little apart from the cameras: not just a mounting
                pipeline.base_T_grid = sample.base_T_lidar_grid
            depth = None
            if record.lidar_depth:
                depth = lidar_depth(sample, variant.input_size, variant.depth_range)
            return pipeline.step(frame_set(sample), depth)

        return predict

    return predictor
