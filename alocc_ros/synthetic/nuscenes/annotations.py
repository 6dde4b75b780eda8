# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Boxes of the actors that the LiDAR hits: rows of sample_annotation and instance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.spatial.transform import Rotation

from alocc_ros.synthetic.lidar import LidarSweep
from alocc_ros.synthetic.nuscenes.naming import SceneNaming
from alocc_ros.synthetic.nuscenes.tables import Row, chain, pose_row, token
from alocc_ros.synthetic.nuscenes.vocabulary import attributes_of, category_of, visibility_of
from alocc_ros.synthetic.scene import Scene

_REACH = 80.0  # m; boxes farther away are not annotated

# Index into the scene's actors, and the row of its box.
Annotation = tuple[int, Row]


def annotate(
    scene: Scene,
    naming: SceneNaming,
    key: int,
    time: float,
    sweep: LidarSweep,
    world_T_map: np.ndarray,
) -> list[Annotation]:
    """The boxes of a key frame, without ``prev`` and ``next``.

    Args:
        scene: the scene.
        naming: gives their tokens.
        key: number of the key frame.
        time: s, of its LiDAR sweep.
        sweep: that sweep.
        world_T_map: [4, 4].
    """
    counts = np.bincount(sweep.actors[sweep.actors >= 0], minlength=len(scene.actors))
    poses, velocities = scene.actor_poses(time), scene.actor_velocities(time)
    ego = scene.ego_pose(time)[:2, 3]
    annotations = []
    for index, actor in enumerate(scene.actors):
        x, y, heading = poses[index]
        distance = float(np.hypot(x - ego[0], y - ego[1]))
        if not counts[index] or distance > _REACH:
            continue
        length, width, height = actor.size
        map_T_box = np.eye(4)
        map_T_box[:3, :3] = Rotation.from_euler("z", heading).as_matrix()
        map_T_box[:3, 3] = x, y, height / 2
        speed = float(np.linalg.norm(velocities[index]))
        row = {
            "token": naming.annotation_token(index, key),
            "sample_token": naming.sample_token(key),
            "instance_token": naming.instance_token(index),
            "visibility_token": visibility_of(actor, distance, int(counts[index])),
            "attribute_tokens": [token("attribute", a) for a in attributes_of(actor, speed)],
            **pose_row(world_T_map @ map_T_box),
            "size": [width, length, height],
            "num_lidar_pts": int(counts[index]),
            "num_radar_pts": 0,
        }
        annotations.append((index, row))
    return annotations


def annotation_rows(
    scene: Scene, naming: SceneNaming, annotations: Mapping[int, Sequence[Annotation]]
) -> tuple[list[Row], list[Row]]:
    """(rows of sample_annotation, rows of instance) out of the boxes of each key frame."""
    by_actor: dict[int, list[Row]] = {}
    for key in sorted(annotations):
        for index, row in annotations[key]:
            by_actor.setdefault(index, []).append(row)
    instances = []
    for index, rows in by_actor.items():
        for row, (before, after) in zip(rows, chain([r["token"] for r in rows]), strict=True):
            row["prev"], row["next"] = before, after
        instances.append(
            {
                "token": naming.instance_token(index),
                "category_token": token("category", category_of(scene.actors[index])),
                "nbr_annotations": len(rows),
                "first_annotation_token": rows[0]["token"],
                "last_annotation_token": rows[-1]["token"],
            }
        )
    return [row for rows in by_actor.values() for row in rows], instances
