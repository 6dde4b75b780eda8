# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Frames of a scene without any file: what the rig records, and what is true.

For training on endless data::

    scene = generate_scene(seed)
    frame = render(scene, time=3.5, size=(256, 704), device="cuda")
    truth = truth_of(scene, frame.lidar_time, "occ3d")
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch

from alocc_ros.datasets.formats import find_format
from alocc_ros.datasets.truth import Truth
from alocc_ros.labels import OCC3D, label_map
from alocc_ros.metrics.rays import lidar_origins
from alocc_ros.synthetic import rig
from alocc_ros.synthetic.render import View, render_camera
from alocc_ros.synthetic.scene import Scene
from alocc_ros.synthetic.shadows import shadow_map
from alocc_ros.synthetic.visibility import camera_mask, lidar_mask, ray_mask
from alocc_ros.synthetic.voxels import fill_voxels
from alocc_ros.types import CAMERAS, Calibration, CameraImage, FrameSet

ANCHOR = "cam_front"
KEY_FRAME_RATE = 2.0  # Hz


@dataclass(frozen=True)
class Frame:
    """One cycle of the cameras.

    Attributes:
        scene: what was rendered.
        time: s, when the cycle began; each camera has its own time in ``times``.
        times: s, by camera.
        calibration: by camera, for the size rendered.
        views: by camera: image, depth, label and actor of each pixel.
        start: ns, the stamp of the scene's time 0.
    """

    scene: Scene
    time: float
    times: Mapping[str, float]
    calibration: Mapping[str, Calibration]
    views: Mapping[str, View]
    start: int = 0

    @property
    def lidar_time(self) -> float:
        """s, when the LiDAR completes its sweep; the truth is that of this instant."""
        return self.time + rig.LIDAR_PHASE / 1e9

    def frame_set(self) -> FrameSet:
        """The frame as the pipeline takes it."""
        stamps = {camera: self.start + round(t * 1e9) for camera, t in self.times.items()}
        images = {}
        for camera, view in self.views.items():
            pixels = view.image.cpu().numpy()
            height, width = pixels.shape[:2]
            images[camera] = CameraImage(
                camera, stamps[camera], pixels, "rgb8", height, width, 3 * width
            )
        poses = {camera: self.scene.ego_pose(t) for camera, t in self.times.items()}
        # The network has six places; of a camera that the rig has not, nothing is used.
        place = self.calibration[ANCHOR]
        rig_of_six = {c: self.calibration.get(c) or replace(place, camera=c) for c in CAMERAS}
        return FrameSet(
            stamp=stamps[ANCHOR],
            images=images,
            calibration=rig_of_six,
            map_T_base=poses[ANCHOR],
            map_T_base_at=poses,
            missing={c: "the vehicle has none" for c in CAMERAS if c not in images},
            fitted=tuple(self.calibration),
        )


def render(
    scene: Scene,
    time: float,
    size: tuple[int, int] = (rig.FULL_HEIGHT, rig.FULL_WIDTH),
    *,
    start: int = 1_700_000_000_000_000_000,
    cameras: Mapping[str, Calibration] | None = None,
    phases: Mapping[str, int] = rig.PHASES,
    device: torch.device | str = "cpu",
) -> Frame:
    """All cameras in the cycle that begins at ``time`` (s).

    Args:
        scene: the scene.
        time: s.
        size: height and width of the six cameras' images.
        start: ns, the stamp of the scene's time 0.
        cameras: another rig than nuScenes' six cameras, which has the anchor.
        phases: ns after ``time`` at which each camera fires.
        device: where to compute.
    """
    calibration = cameras or rig.cameras(*size)
    times = {camera: time + phases[camera] / 1e9 for camera in calibration}
    # Shadows move by millimetres within a cycle.
    middle = times[ANCHOR]
    shadows = shadow_map(scene, scene.solids(middle, device), scene.ego_pose(middle)[:3, 3])
    views = {
        camera: render_camera(
            scene, calibration[camera], times[camera], shadows=shadows, device=device
        )
        for camera in calibration
    }
    return Frame(scene, time, times, calibration, views, start)


def lidar_times(scene: Scene) -> list[float]:
    """s, when the LiDAR completes its sweep of each key frame."""
    count = int(scene.duration * KEY_FRAME_RATE + 1e-6) + 1
    return [n / KEY_FRAME_RATE + rig.LIDAR_PHASE / 1e9 for n in range(count)]


def ray_origins(scene: Scene, time: float) -> np.ndarray:  # [up to 8, 3] m
    """Where the benchmark's rays start, in the vehicle's frame at ``time``."""
    times = sorted({time, *(t for t in lidar_times(scene) if abs(t - time) > 1e-3)})
    poses = np.stack([scene.ego_pose(t) for t in times])
    mounts = np.repeat(rig.lidar().base_T_lidar[None], len(poses), axis=0)
    return lidar_origins(poses, mounts, times.index(time))


def truth_of(
    scene: Scene,
    time: float,
    benchmark: str = "occ3d",
    *,
    masks: bool = True,
    device: torch.device | str = "cpu",
) -> Truth:
    """What is true at ``time`` (s) in the grid of a benchmark, where the vehicle is by then.

    Args:
        scene: the scene.
        time: s, the LiDAR's; take ``Frame.lidar_time``.
        benchmark: ``occ3d``, ``openocc``, ``surroundocc`` or ``openoccupancy``.
        masks: also the camera mask and the LiDAR mask (occ3d) or the ray mask (openocc); that of
            the cameras is of the cycle whose LiDAR time ``time`` is.
        device: where to compute.
    """
    kind = find_format(benchmark)
    map_T_grid = scene.ego_pose(time)
    if kind.in_lidar_frame:
        map_T_grid = map_T_grid @ rig.lidar().base_T_lidar
    voxels = fill_voxels(scene, time, map_T_grid, kind.grid, device=device)
    labels = label_map(OCC3D, kind.classes, kind.classes.free)[voxels.labels]
    seen: dict[str, np.ndarray] = {}
    if masks and kind.camera_mask:
        cycle = time - rig.LIDAR_PHASE / 1e9
        seen["mask_camera"] = camera_mask(scene, voxels.labels, cycle, time, device=device)
    if masks and kind.lidar_mask:
        seen["mask_lidar"] = lidar_mask(voxels.labels, device=device)
    if masks and kind.ray_mask:
        origins = ray_origins(scene, time)
        seen["ray_mask"] = ray_mask(labels, origins, free=kind.classes.free, device=device)
    flow = voxels.flow if kind.flow else None
    return Truth(labels, kind.classes, kind.grid, flow=flow, **seen)
