# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""From a set of images to occupancy and flow: the file to read first, ``step`` is all of it.

Nothing here knows where a frame set comes from (bag, vehicle, data set) or where the answer goes.
"""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from alocc_ros import records
from alocc_ros.errors import ModelError
from alocc_ros.images import NetworkImages
from alocc_ros.network.lifting import lidar_bins
from alocc_ros.network.model import Alocc, Measured, Output
from alocc_ros.planning import plan_frame
from alocc_ros.records import ModelRecord
from alocc_ros.runtime.loading import load_network
from alocc_ros.runtime.runner import Runner, make_runner
from alocc_ros.stream.keyframes import MANUAL, KeyframePolicy, KeyframeSettings
from alocc_ros.stream.preprocessing import Preprocessor
from alocc_ros.types import FrameSet, Occupancy


@dataclass
class Pipeline:
    """One stream of frame sets through one network, with its temporal memory.

    Attributes:
        network: weights, on the device where it is to run.
        record: what the network's input and labels mean.
        settings: when a frame is a key frame and when to reset (default: the record's interval).
        preprocessor: images to network input (default: exactly the reference's).
        grid_frame: name of that frame in the output; None: the frame set's base frame.
        backend, precision: how the network is run, see ``runtime.runner.BACKENDS`` and
            ``runtime.precision.PRECISIONS``.
        confidence: also return how sure the network is of each label.
        random_weights: marks every output as worthless.
        early: images will be given to ``images`` before the frame that they are in, and its pose to
            ``recall``.
        runner: how it is run; None: made, from ``network``, ``backend`` and ``precision``.
        images: the way of images into the network (``images.py``).
        timings: seconds of the last step by part: preprocess, network, total; and early, which was
            spent on its images before it.
        flow_overflow: moving voxels so far that got no flow because there were too many.
    """

    network: Alocc
    record: ModelRecord
    settings: KeyframeSettings | None = None
    preprocessor: Preprocessor | None = None
    grid_frame: str | None = None
    backend: str = "auto"
    precision: str = "auto"
    confidence: bool = False
    random_weights: bool = False
    early: bool = False
    runner: Runner | None = None
    timings: dict[str, float] = field(default_factory=dict)
    flow_overflow: int = 0

    def __post_init__(self) -> None:
        record, variant = self.record, self.network.variant
        interval = round(record.history_interval * 1e9)
        self.keyframes = KeyframePolicy(self.settings or KeyframeSettings(interval_ns=interval))
        self.preprocessor = self.preprocessor or Preprocessor.for_model(record, variant.input_size)
        if self.runner is None:
            self.runner = make_runner(self.network, self.backend, self.precision)
        self.state = self.runner.new_state(early=self.early)
        self.images = NetworkImages(self.preprocessor, self.runner, self.state)

    @classmethod
    def load(cls, model: str, device: str = "auto", variant: str | None = None) -> Pipeline:
        """The pipeline of a model.

        Args:
            model: a name of ``alocc models list``, a file of weights, or the folder of a run.
            device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
            variant: the network that a file of unknown origin is for.

        Raises:
            ModelError, CheckpointError: there is no such model, its weights are not here, or they
                do not fit.
            DeviceError: no such device.
        """
        record, weights = records.resolve(model, variant)
        if weights is None:
            raise ModelError(f"the weights of {record.name} are not here: alocc models fetch")
        return cls(load_network(record, weights, device, seed=0)[0], record)

    def beside(self, **changes: Any) -> Pipeline:
        """Another stream through the same weights, with a memory of its own.

        Both may step at the same time, each in a thread, and on a GPU on a CUDA stream of its own.
        Make all of them before the first one steps. Backends whose buffers are their own
        (``tensorrt``, ``compiled``) load the weights once more.

        Args:
            changes: what is not to be as here, by the name of an attribute. ``preprocessor`` is not
                shared; without one it is that of the model.
        """
        own = {
            "preprocessor": None,
            "runner": self.runner if self.runner.concurrent else None,
            "timings": {},
            "flow_overflow": 0,
        }
        return dataclasses.replace(self, **own | changes)

    def step(self, frame: FrameSet, lidar_depth: np.ndarray | None = None) -> Occupancy:
        """Occupancy and flow at ``frame.stamp``.

        Args:
            frame: images and poses.
            lidar_depth: [N, H, W] float32 m at the pixels of the network's input, 0 where there
                is no return; for models that were trained with it.

        Raises:
            AloccError: an image, a calibration or a pose is unusable; the memory is untouched.
        """
        start = time.perf_counter()
        if self.record.frame != "ego" and frame.base_T_grid is None:
            raise ModelError(
                f"{self.record.name} sees in the {self.record.frame} frame: give base_T_grid, "
                f"where the {self.record.frame} is mounted"
            )
        with self.images.on_stream():
            taken = self.images.take(frame)
            prepared, answered = time.perf_counter(), None
            try:
                decision, variant, measured = self.keyframes.plan(frame), self.network.variant, None
                plan = plan_frame(frame, decision, variant, self.state.ages)
                if lidar_depth is not None:
                    bins = lidar_bins(torch.from_numpy(lidar_depth), variant)
                    measured = Measured(bins.to(taken.images.device))
                output = self.runner.step(taken.images, plan, self.state, measured, taken.seen)
                short = self.keyframes.remembered < variant.history
                self.keyframes.update(frame)
                answer, answered = self._occupancy(frame, output, decision.reset, short), taken
            finally:
                self.images.finish(frame, answered)
        seconds = prepared - start, (end := time.perf_counter()) - prepared, end - start
        self.timings = dict(zip(("preprocess", "network", "total"), seconds, strict=True))
        self.timings["early"] = taken.seconds
        return answer

    def recall(self, frame: FrameSet) -> bool:
        """Sums up what is remembered, ahead of a frame; ``step`` starts from that if the frame has
        this stamp and pose, and nothing came between.

        Args:
            frame: as far as it is known; images and calibrations are not needed.

        Returns:
            Whether there is a sum of it now.

        Raises:
            PoseError: the pose of the frame is not a rigid transform.
        """
        key = self.keyframes.keyframe
        if key is None or not self.runner.recalls:
            return False
        # Another rig than the key frame's would throw the memory away.
        frame = dataclasses.replace(frame, calibration=key.fingerprint)
        decision, variant = self.keyframes.foresee(frame), self.network.variant
        plan = plan_frame(frame, decision, variant, self.state.ages)
        if plan.first:
            return False
        with self.images.on_stream():
            self.runner.recall(plan, self.state)
        return True

    def reset(self, reason: str = MANUAL) -> None:
        """Forget the past; the next frame begins a sequence."""
        self.keyframes.reset(reason)

    def _occupancy(self, frame: FrameSet, output: Output, reset: str, short: bool) -> Occupancy:
        confidence = flow = None
        if self.confidence:
            confidence = torch.sigmoid(output.logits[0].amax(-1)).cpu().numpy()
        if output.flow is not None:
            # Half precision, as published: 2 cm/s at 20 m/s.
            flow = output.flow[0].half().contiguous().cpu().numpy()
        if output.flow_overflow is not None:
            self.flow_overflow += int(output.flow_overflow)
        # What the vehicle does not have is no degradation: a dead camera must stand out.
        absent = [c for c in frame.fitted if c not in frame.images]
        return Occupancy(
            labels=output.labels[0].cpu().numpy(),
            flow=flow,
            grid=self.record.grid,
            classes=self.record.classes,
            stamp=frame.stamp,
            frame_id=self.grid_frame or frame.base_frame,
            map_T_base=frame.map_T_base,
            confidence=confidence,
            degraded="; ".join(f"{c}: {frame.missing.get(c, 'no image')}" for c in absent),
            reset=reset,
            random_weights=self.random_weights,
            short_memory=short,
        )
