# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""A sweep of the LiDAR: points with their class and the actor that they hit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from alocc_ros.labels import OCC3D
from alocc_ros.synthetic import rig
from alocc_ros.synthetic.raycast import Solids, first_hit, rotated, tile_image
from alocc_ros.synthetic.scene import Scene

# nuScenes' own numbers of classes, by Occ3D label; construction workers have one of their own.
LIDARSEG_CLASSES = {
    "others": 11,
    "barrier": 9,
    "bicycle": 14,
    "bus": 16,
    "car": 17,
    "construction_vehicle": 18,
    "motorcycle": 21,
    "pedestrian": 2,
    "traffic_cone": 12,
    "trailer": 22,
    "truck": 23,
    "driveable_surface": 24,
    "other_flat": 25,
    "sidewalk": 26,
    "terrain": 27,
    "manmade": 28,
    "vegetation": 30,
    "free": 0,
}
_LIDARSEG_OF_LABEL = np.array([LIDARSEG_CLASSES[name] for name in OCC3D.names], dtype=np.uint8)


@dataclass(frozen=True)
class LidarSweep:
    """What the LiDAR measures in one revolution.

    Attributes:
        points: [P, 5] float32: x, y, z (m, LiDAR frame), intensity (0 to 255), ring.
        labels: [P] uint8, Occ3D.
        lidarseg: [P] uint8, nuScenes' general classes.
        actors: [P] int32 index into ``scene.actors``, -1 for none.
    """

    points: np.ndarray
    labels: np.ndarray
    lidarseg: np.ndarray
    actors: np.ndarray


def scan(
    scene: Scene,
    time: float,
    *,
    sensor: rig.Lidar | None = None,
    solids: Solids | None = None,
    device: torch.device | str = "cpu",
) -> LidarSweep:
    """One sweep of the LiDAR, all of it at ``time`` (as if motion had been compensated)."""
    sensor = rig.lidar() if sensor is None else sensor
    solids = scene.solids(time, device) if solids is None else solids
    device = solids.origin.device
    rings, columns = len(sensor.elevations), sensor.columns
    azimuth = np.linspace(np.pi, -np.pi, columns, endpoint=False)
    level = np.cos(sensor.elevations)[:, None]
    rays = np.stack(
        np.broadcast_arrays(
            level * np.cos(azimuth), level * np.sin(azimuth), np.sin(sensor.elevations)[:, None]
        ),
        axis=-1,
    ).reshape(-1, 3)
    map_T_lidar = scene.ego_pose(time) @ sensor.base_T_lidar
    pose = torch.as_tensor(map_T_lidar, dtype=torch.float32, device=device)
    in_map = rotated(torch.as_tensor(rays, dtype=torch.float32, device=device), pose[:3, :3])
    pixels = tile_image(rings, columns, 8, torch.device(device))
    tiles = in_map[pixels]
    down = tiles[..., 2].clamp(max=-1e-4)
    ground = torch.where(tiles[..., 2] < -1e-4, -pose[2, 3] / down, torch.inf)
    limit = ground.clamp(max=sensor.reach)
    reached, hit = first_hit(solids, pose[:3, 3], tiles, limit)
    distance = torch.empty(len(rays), device=device)
    winner = torch.empty(len(rays), dtype=torch.long, device=device)
    distance[pixels.view(-1)], winner[pixels.view(-1)] = reached.view(-1), hit.view(-1)

    place = pose[:3, 3] + in_map * distance[:, None]
    labels = scene.streets.labels(place[:, 0], place[:, 1]).cpu().numpy()
    distance, winner = distance.cpu().numpy(), winner.cpu().numpy()
    solid = winner >= 0
    part = solids.part.cpu().numpy()[np.maximum(winner, 0)]
    labels = np.where(solid, scene.labels[part], labels)
    actors = np.where(solid, scene.owner[part], -1).astype(np.int32)
    random = np.random.default_rng([scene.seed, round(time * 1e6) & 0xFFFFFFFF])
    measured = distance + random.normal(0.0, sensor.noise, len(distance))
    kept = (distance < sensor.reach) & (distance > 1.0) & (random.random(len(distance)) > 0.03)
    bright = np.array([sum(p.colour) / 3 for p in scene.parts], dtype=np.float32)[part]
    intensity = np.where(solid, 20 + 160 * bright, 12.0) * np.exp(-distance / 60)
    intensity = np.clip(intensity * random.uniform(0.7, 1.3, len(distance)), 0, 255).round()
    ring = np.repeat(np.arange(rings), columns)
    points = np.column_stack([rays * measured[:, None], intensity, ring]).astype(np.float32)
    # Column after column, as the head turns.
    order = np.arange(len(rays)).reshape(rings, columns).T.reshape(-1)
    order = order[kept[order]]
    general = _lidarseg(scene, labels, actors)
    return LidarSweep(points[order], labels[order].astype(np.uint8), general[order], actors[order])


def _lidarseg(scene: Scene, labels: np.ndarray, actors: np.ndarray) -> np.ndarray:
    """nuScenes' general classes [n] uint8, which know more kinds of people."""
    worker = np.array([a.detail == "worker" for a in scene.actors] + [False])
    general = _LIDARSEG_OF_LABEL[labels].copy()
    general[worker[actors]] = 4  # human.pedestrian.construction_worker
    return general
