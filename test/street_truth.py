# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""The drawn street of ``alocc_ros.bags.sample`` as voxels, with its images and poses.

What is drawn at a place is the voxel at that place, so pictures of both can be compared.
"""

from __future__ import annotations

import numpy as np

from alocc_ros.bags.sample import PHASES_MS, START, Box, draw, ego_pose, jpeg, rig, street
from alocc_ros.geometry import inverse
from alocc_ros.grid import VoxelGrid
from alocc_ros.labels import OCC3D, ClassList
from alocc_ros.types import CameraImage, FrameSet, Occupancy


def frame_at(stamp: int = START + 8_000_000, width: int = 320, height: int = 180) -> FrameSet:
    """Six images around ``stamp`` (ns), each at its own time and pose."""
    cameras, boxes = rig(width, height), street()
    images, poses = {}, {}
    for camera, phase in PHASES_MS.items():
        at = stamp + (phase - PHASES_MS["cam_front"]) * 1_000_000
        images[camera] = CameraImage(camera, at, jpeg(draw(cameras[camera], at, boxes)), "jpeg")
        poses[camera] = ego_pose(at)
    return FrameSet(stamp, images, cameras, ego_pose(stamp), poses)


def voxels_at(
    stamp: int = START + 8_000_000,
    grid: VoxelGrid | None = None,
    classes: ClassList = OCC3D,
    flow: bool = True,
) -> Occupancy:
    """The street around the vehicle at ``stamp`` (ns)."""
    grid = grid or VoxelGrid()
    index = np.stack(np.indices(grid.shape), axis=-1).reshape(-1, 3)
    map_T_base = ego_pose(stamp)
    points = grid.centres(index) @ map_T_base[:3, :3].T + map_T_base[:3, 3]
    x, y, z = points.T
    labels = np.full(len(points), classes.free, np.uint8)
    velocity = np.zeros((len(points), 2), np.float16)
    label = classes.names.index
    ground = np.abs(z) < 0.5 * grid.resolution
    labels[ground] = label("terrain")
    labels[ground & (np.abs(y) < 13.0)] = label("sidewalk")
    labels[ground & (np.abs(y) < 8.5)] = label("driveable_surface")
    for box in street():
        inside = _inside(box, stamp, x, y, z)
        labels[inside] = label("manmade" if box.size[2] > 3 else "car")
        velocity[inside] = inverse(map_T_base)[:2, :2] @ (box.speed, 0.0)
    return Occupancy(
        labels=labels.reshape(grid.shape),
        flow=velocity.reshape(*grid.shape, 2) if flow else None,
        grid=grid,
        classes=classes,
        stamp=stamp,
        frame_id="base_link",
        map_T_base=map_T_base,
    )


def _inside(box: Box, stamp: int, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    ahead = box.centre[0] + box.speed * (stamp - START) / 1e9
    return (
        (np.abs(x - ahead) < box.size[0] / 2)
        & (np.abs(y - box.centre[1]) < box.size[1] / 2)
        & (z > 0.2)
        & (z < box.size[2])
    )
