# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""From a set of images to occupancy and flow: the file to read first.

``step`` is the whole of it. Nothing here knows where a frame set comes from (a bag, a live
vehicle, a data set) or where the answer goes.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from alocc_ros.engine import running
from alocc_ros.errors import ModelError
from alocc_ros.geometry import inverse
from alocc_ros.network.alocc import Alocc, NetworkInput, NetworkOutput
from alocc_ros.network.cameras import CameraGeometry
from alocc_ros.network.memory import Memory
from alocc_ros.records import ModelRecord
from alocc_ros.stream.image_geometry import Crop
from alocc_ros.stream.memory import (
    MANUAL,
    KeyFrame,
    MemoryPolicy,
    Recall,
    TemporalMemory,
    map_T_camera,
)
from alocc_ros.stream.preprocessing import Preprocessor
from alocc_ros.types import CAMERAS, FrameSet, Occupancy

# A camera that was blind in the key frame has nothing to match against. So far behind the
# previous camera no depth is visible, all depths cost the same, and the stereo cue is neutral.
_OUT_OF_SIGHT = 1e6


@dataclass
class Pipeline:
    """One stream of frame sets through one network, with its temporal memory.

    Attributes:
        network: in evaluation mode, on the device it is to run on.
        record: what the network's input and labels mean.
        policy: when to push into and when to reset the memory (default: the record's interval).
        preprocessor: images to network input (default: exactly the reference's).
        base_T_grid: [4, 4], where the voxel grid's frame lies on the vehicle. Identity for models
            of the ego frame; SurroundOcc models need the LiDAR's mounting.
        grid_frame: name of that frame in the output; None: the frame set's base frame.
        backend: operator forms, see ``engine.BACKENDS``.
        confidence: also return how sure the network is of each label.
        random_weights: marks every output as worthless.
        timings: seconds of the last step by part: preprocess, network, total.
    """

    network: Alocc
    record: ModelRecord
    policy: MemoryPolicy | None = None
    preprocessor: Preprocessor | None = None
    base_T_grid: np.ndarray | None = None
    grid_frame: str | None = None
    backend: str = "eager"
    confidence: bool = False
    random_weights: bool = False
    timings: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        record, variant = self.record, self.network.variant
        if record.frame != "ego" and self.base_T_grid is None:
            raise ModelError(
                f"{record.name} sees in the {record.frame} frame: give base_T_grid, "
                f"where the {record.frame} is mounted"
            )
        if self.base_T_grid is None:
            self.base_T_grid = np.eye(4)
        interval = round(record.history_interval * 1e9)
        self.memory = TemporalMemory(self.policy or MemoryPolicy(interval_ns=interval))
        if self.preprocessor is None:
            self.preprocessor = Preprocessor(
                variant.input_size,
                record.mean,
                record.std,
                channel_order=record.channel_order,
                undistort=True,  # calibrations of rectified images have no distortion
            )
        self._device = next(self.network.parameters()).device
        self._spare: Memory | None = None

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
        images = torch.from_numpy(self.preprocessor(frame)).to(self._device)
        prepared = time.perf_counter()
        recall = self.memory.recall(frame)
        network_input = self._network_input(frame, images, recall)
        if lidar_depth is not None:
            measured = torch.from_numpy(lidar_depth).to(self._device)
            network_input = replace(network_input, lidar_depth=measured)
        previous = _remembered(recall)
        with running(self.backend):
            output = self.network(network_input, previous, keep=recall.push, recycle=self._spare)
        self.memory.commit(frame, output.memory, replace(output.memory, history=None))
        if recall.push and previous is not None:
            self._spare = previous  # its buffer carries the memory after the next
        answer = self._occupancy(frame, output, recall)
        end = time.perf_counter()
        self.timings = {
            "preprocess": prepared - start,
            "network": end - prepared,
            "total": end - start,
        }
        return answer

    def reset(self, reason: str = MANUAL) -> None:
        """Forget the past; the next frame begins a sequence."""
        self.memory.reset(reason)

    def _network_input(self, frame: FrameSet, images: torch.Tensor, recall: Recall) -> NetworkInput:
        key = recall.keyframe
        map_T_cameras = map_T_camera(frame, CAMERAS)
        map_T_grid = frame.map_T_base @ self.base_T_grid
        moved, previous_T_camera = np.eye(4), np.tile(np.eye(4), (len(CAMERAS), 1, 1))
        glanced = moved
        if key is not None:
            glance = recall.glance or key
            moved = inverse(key.map_T_base @ self.base_T_grid) @ map_T_grid
            glanced = inverse(glance.map_T_base @ self.base_T_grid) @ map_T_grid
            previous_T_camera = _seen_before(glance, map_T_cameras)
        calibrations = [frame.calibration[c] for c in CAMERAS]
        crops = [Crop.fit(c.width, c.height, self.network.variant.input_size) for c in calibrations]
        cameras = CameraGeometry(
            grid_T_camera=inverse(map_T_grid) @ map_T_cameras,
            intrinsics=np.stack([c.intrinsics for c in calibrations]),
            post_rotation=np.stack([c.post_rotation() for c in crops]),
            post_translation=np.stack([c.post_translation() for c in crops]),
            previous_T_camera=previous_T_camera,
            augmentation=np.eye(3),
        )
        alive = torch.tensor([c in frame.images for c in CAMERAS])
        return NetworkInput(
            images=images,
            cameras=cameras,
            previous_T_current=torch.from_numpy(moved),
            elapsed=self._nominal_age(recall),
            glance_T_current=torch.from_numpy(glanced),
            alive=None if bool(alive.all()) else alive,
        )

    def _nominal_age(self, recall: Recall) -> float:
        """Seconds since the key frame as the weights know them.

        Key frames were always told to be whole intervals apart, whatever the clock said; only
        a frame between two of them is told its true age.
        """
        interval, seconds = self.network.variant.history_interval, recall.elapsed_ns * 1e-9
        return max(1, round(seconds / interval)) * interval if recall.push else seconds

    def _occupancy(self, frame: FrameSet, output: NetworkOutput, recall: Recall) -> Occupancy:
        confidence = None
        if self.confidence:
            confidence = torch.sigmoid(output.logits.amax(-1)).cpu().numpy()
        missing = [f"{c}: {frame.missing.get(c, 'no image')}" for c in CAMERAS]
        missing = [m for c, m in zip(CAMERAS, missing, strict=True) if c not in frame.images]
        flow = output.flow
        return Occupancy(
            labels=output.labels.cpu().numpy(),
            # Half precision, as published: 2 cm/s at 20 m/s.
            flow=None if flow is None else flow.half().contiguous().cpu().numpy(),
            grid=self.record.grid,
            classes=self.record.classes,
            stamp=frame.stamp,
            frame_id=self.grid_frame or frame.base_frame,
            map_T_base=frame.map_T_base,
            confidence=confidence,
            degraded="; ".join(missing),
            reset=recall.reset,
            random_weights=self.random_weights,
        )


def _remembered(recall: Recall) -> Memory | None:
    """The key frame's history with what there is to see of an interval ago."""
    memory = None if recall.keyframe is None else recall.keyframe.memory
    glance = None if recall.glance is None else recall.glance.memory
    if memory is None or glance is None:
        return memory
    return replace(memory, stereo=glance.stereo, flow_bev=glance.flow_bev)


def _seen_before(glance: KeyFrame, map_T_cameras: np.ndarray) -> np.ndarray:  # [N, 4, 4]
    """Camera now -> the same camera at that frame; out of sight if it had no image then."""
    moved = inverse(glance.map_T_camera) @ map_T_cameras
    for n, camera in enumerate(CAMERAS):
        if camera in glance.missing:
            moved[n] = np.eye(4)
            moved[n, 2, 3] = -_OUT_OF_SIGHT
    return moved
