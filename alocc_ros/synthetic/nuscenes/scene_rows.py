# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""The rows that a scene adds to the tables."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from alocc_ros.datasets.nuscenes import LIDAR
from alocc_ros.synthetic.nuscenes.naming import SampleData, SceneNaming
from alocc_ros.synthetic.nuscenes.tables import Row, calibration_token, chain, pose_row, token
from alocc_ros.synthetic.nuscenes.vocabulary import describe
from alocc_ros.synthetic.scene import Scene
from alocc_ros.types import CAMERAS


def scene_rows(
    scene: Scene,
    naming: SceneNaming,
    recorded: Sequence[SampleData],
    world_T_map: np.ndarray,
    annotations: list[Row],
    instances: list[Row],
) -> dict[str, list[Row]]:
    """Rows by table.

    Args:
        scene: the scene.
        naming: gives names, stamps and tokens.
        recorded: what sensors recorded, in any order.
        world_T_map: [4, 4].
        annotations: rows of sample_annotation.
        instances: rows of instance.
    """
    spec, frames = naming.spec, naming.spec.frames
    scene_token, log_token = naming.token_of("scene"), naming.token_of("log")
    tokens = [naming.sample_token(k) for k in range(frames)]
    chained = chain(tokens)
    samples = [
        {
            "token": sample_token,
            "timestamp": naming.lidar_stamp(key),
            "scene_token": scene_token,
            "prev": chained[key][0],
            "next": chained[key][1],
        }
        for key, sample_token in enumerate(tokens)
    ]
    data, poses = _data_rows(scene, naming, recorded, world_T_map)
    clouds = [r for r in recorded if r.channel == LIDAR and r.key_frame is not None]
    return {
        "scene": [
            {
                "token": scene_token,
                "log_token": log_token,
                "nbr_samples": frames,
                "first_sample_token": tokens[0],
                "last_sample_token": tokens[-1],
                "name": naming.name,
                "description": describe(scene),
            }
        ],
        "log": [
            {
                "token": log_token,
                "logfile": naming.log,
                "vehicle": "synthetic",
                "date_captured": "2026-01-01",
                "location": naming.name,
            }
        ],
        "map": [
            {
                "token": token(spec.seed, naming.name, "map"),
                "log_tokens": [log_token],
                "category": "semantic_prior",
                "filename": naming.map_file,
            }
        ],
        "sample": samples,
        "sample_data": data,
        "ego_pose": poses,
        "sample_annotation": annotations,
        "instance": instances,
        "lidarseg": [
            {
                "token": naming.data_token(r),
                "sample_data_token": naming.data_token(r),
                "filename": naming.lidarseg_file(r),
            }
            for r in clouds
        ],
    }


def _data_rows(
    scene: Scene, naming: SceneNaming, recorded: Sequence[SampleData], world_T_map: np.ndarray
) -> tuple[list[Row], list[Row]]:
    """(rows of sample_data, rows of ego_pose), sensor by sensor in the order of time."""
    height, width = naming.spec.size
    data, poses = [], []
    for channel in [c.upper() for c in CAMERAS] + [LIDAR]:
        mine = sorted((r for r in recorded if r.channel == channel), key=lambda r: r.stamp)
        chained = chain([naming.data_token(r) for r in mine])
        camera = channel != LIDAR
        for one, (before, after) in zip(mine, chained, strict=True):
            data_token = naming.data_token(one)
            pose = world_T_map @ scene.ego_pose(one.time)
            poses.append({"token": data_token, "timestamp": one.stamp, **pose_row(pose)})
            data.append(
                {
                    "token": data_token,
                    "sample_token": naming.sample_token(one.next_key_frame),
                    "ego_pose_token": data_token,
                    "calibrated_sensor_token": calibration_token(
                        naming.spec, naming.number, channel
                    ),
                    "timestamp": one.stamp,
                    "fileformat": "jpg" if camera else "pcd",
                    "is_key_frame": one.key_frame is not None,
                    "height": height if camera else 0,
                    "width": width if camera else 0,
                    "filename": one.file,
                    "prev": before,
                    "next": after,
                }
            )
    return data, poses
