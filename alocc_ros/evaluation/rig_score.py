# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""How well a network sees through the cameras of another vehicle than nuScenes'.

The synthetic street is drawn through both rigs, and only voxels that the other one can see count,
for both. What is left between them is what the rig costs: other lenses, heights and directions,
fewer overlaps. The same rig with the lowest rows of each image, as nuScenes' are cut, shows what
placing the crop is worth.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from alocc_ros.errors import CalibrationError
from alocc_ros.evaluation.network import AS_IN_TRAINING
from alocc_ros.metrics.voxels import VoxelResult, VoxelScores
from alocc_ros.network.model import Alocc
from alocc_ros.pipeline import Pipeline
from alocc_ros.records import ModelRecord
from alocc_ros.stream.preset import AUTO, LOWEST
from alocc_ros.stream.rig import RigCamera
from alocc_ros.synthetic import rig as nuscenes
from alocc_ros.synthetic.frames import ANCHOR, KEY_FRAME_RATE, Frame, render, truth_of
from alocc_ros.synthetic.generation import generate_scene
from alocc_ros.synthetic.visibility import seen_by
from alocc_ros.types import Calibration

# (what is being done, how many frames are done, of how many)
OnProgress = Callable[[str, int, int], None]

_NEAR = 20.0  # m
_PERIOD = 66_666_667  # ns, of cameras that run free at 15 Hz
ARMS = ("nuScenes' six", "this rig", "this rig, lowest rows")


@dataclass(frozen=True)
class RigScores:
    """Of each of ``ARMS``, over the voxels that the rig sees.

    Attributes:
        everywhere: in the whole grid.
        beside: within 20 m of the vehicle, outside of the front camera's view.
        remarks: what the network will not see well, by camera.
    """

    everywhere: Mapping[str, VoxelResult]
    beside: Mapping[str, VoxelResult]
    remarks: tuple[str, ...]

    @property
    def cost(self) -> float:
        """Points of mIoU between nuScenes' rig and this one."""
        return self.everywhere[ARMS[0]].miou - self.everywhere[ARMS[1]].miou


def calibrations_of(cameras: Mapping[str, RigCamera]) -> dict[str, Calibration]:
    """A whole rig out of a file.

    Raises:
        CalibrationError: there is no front camera, or a part of one is missing.
    """
    if ANCHOR not in cameras:
        raise CalibrationError(f"the rig has no {ANCHOR}, the camera that gives sets their stamp")
    for name, camera in cameras.items():
        for part in ("intrinsics", "base_T_camera"):
            if getattr(camera, part) is None:
                raise CalibrationError(f"{name}: the rig file has no {part}")
    return {n: c.intrinsics.mounted(n, c.base_T_camera) for n, c in cameras.items()}


def free_running(cameras: Mapping[str, Calibration]) -> dict[str, int]:
    """ns after a cycle's begin at which each fires: spread evenly over one period about the front
    one's, as nearest images of cameras without a common trigger are.
    """
    others = [c for c in cameras if c != ANCHOR]
    shifts = (np.arange(len(others)) + 0.5) / max(len(others), 1) - 0.5
    phase = nuscenes.PHASES[ANCHOR]
    return {ANCHOR: phase} | {
        c: phase + round(s * _PERIOD) for c, s in zip(others, shifts, strict=True)
    }


def score_rig(
    network: Alocc,
    record: ModelRecord,
    cameras: Mapping[str, Calibration],
    *,
    seeds: tuple[int, ...],
    frames: int,
    size: tuple[int, int],
    device: str = "cpu",
    on_progress: OnProgress,
) -> RigScores:
    """Drives through streets with both rigs.

    Args:
        network: in evaluation mode.
        record: what it gives; of the ego frame.
        cameras: the rig, by the names of the network's cameras.
        seeds: of the streets.
        frames: key frames of each street, 2 Hz.
        size: height and width of the images of nuScenes' rig.
        device: where streets are drawn.
        on_progress: told after each frame.
    """
    arms = {name: _Arm.new(network, record) for name in ARMS}
    total, done = len(seeds) * frames, 0
    for seed in seeds:
        for arm in arms.values():
            arm.pipeline.reset()
        for six, other in _frames(seed, frames, size, cameras, device):
            truth = truth_of(six.scene, six.lidar_time, record.classes.name, masks=False)
            seen = seen_by(
                six.scene,
                cameras,
                truth.labels,
                other.times,
                six.lidar_time,
                free=record.classes.free,
            )
            near = seen & _beside(record, cameras[ANCHOR])
            lowest = {c: replace(cal, crop=LOWEST) for c, cal in other.calibration.items()}
            for arm, frame in zip(
                arms.values(), (six, other, replace(other, calibration=lowest)), strict=True
            ):
                arm.count(frame, truth.labels, seen, near)
            done += 1
            on_progress("street", done, total)
    return RigScores(
        {name: arm.everywhere.result() for name, arm in arms.items()},
        {name: arm.beside.result() for name, arm in arms.items()},
        tuple(arms[ARMS[1]].remarks),
    )


def _frames(
    seed: int,
    frames: int,
    size: tuple[int, int],
    cameras: Mapping[str, Calibration],
    device: str,
) -> Iterator[tuple[Frame, Frame]]:
    """Both rigs at the same key frames."""
    scene = generate_scene(seed, duration=(frames - 1) / KEY_FRAME_RATE + 0.1)
    rig, phases = {c: replace(cal, crop=AUTO) for c, cal in cameras.items()}, free_running(cameras)
    for number in range(frames):
        time = number / KEY_FRAME_RATE
        six = render(scene, time, size, device=device)
        yield six, render(scene, time, cameras=rig, phases=phases, device=device)


@dataclass(frozen=True)
class _Arm:
    """One way of seeing a street."""

    pipeline: Pipeline
    everywhere: VoxelScores
    beside: VoxelScores
    remarks: list[str]

    @staticmethod
    def new(network: Alocc, record: ModelRecord) -> _Arm:
        pipeline = Pipeline(network, record, settings=AS_IN_TRAINING)
        arm = _Arm(pipeline, VoxelScores(record.classes), VoxelScores(record.classes), [])
        pipeline.preprocessor.say = arm.remarks.append
        return arm

    def count(self, frame: Frame, labels: np.ndarray, seen: np.ndarray, near: np.ndarray) -> None:
        found = self.pipeline.step(frame.frame_set()).labels
        self.everywhere.update(found, labels, seen)
        self.beside.update(found, labels, near)


def _beside(record: ModelRecord, front: Calibration) -> np.ndarray:  # [X, Y, Z] bool
    """Voxels near the vehicle that the front camera does not see."""
    grid = record.grid
    points = grid.centres(np.indices(grid.shape).reshape(3, -1).T)
    x, y = points[:, 0], points[:, 1]
    near = (np.abs(x) < _NEAR) & (np.abs(y) < _NEAR)
    ahead = (x - front.base_T_camera[0, 3]) * front.width / 2 / front.intrinsics[0, 0]
    return (near & (np.abs(y) > np.maximum(ahead, 0.0))).reshape(grid.shape)
