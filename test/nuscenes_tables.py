# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Writes folders in the nuScenes format, as small as they can be, for the tests."""

from __future__ import annotations

import io
import json
import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from alocc_ros.bags.sample import PHASES_MS, ego_pose, rig
from alocc_ros.geometry import quaternion_xyzw

VERSION = "v1.0-trainval"
START_US = 1_600_000_000_000_000
BASE_T_LIDAR = np.array([[0.0, -1, 0, 0.9], [1, 0, 0, 0], [0, 0, 1, 1.8], [0, 0, 0, 1]])
# x, y, z, w as the tables spell it: first the one that is last in ROS
Pose = tuple[list[float], list[float]]


def wxyz(a_T_b: np.ndarray) -> Pose:
    x, y, z, w = quaternion_xyzw(a_T_b).tolist()
    return a_T_b[:3, 3].tolist(), [w, x, y, z]


@dataclass
class Tables:
    """The tables while they grow; rows refer to each other by token."""

    rows: dict[str, list[dict]] = field(default_factory=lambda: {t: [] for t in TABLE_NAMES})

    def add(self, table: str, token: str, **values) -> str:
        self.rows[table].append({"token": token, **values})
        return token

    def sensor(self, channel: str, mounting: Pose, intrinsics: list | None = None) -> str:
        kind = channel.partition("_")[0].lower().replace("cam", "camera")
        self.add("sensor", f"sensor-{channel}", channel=channel, modality=kind)
        return self.add(
            "calibrated_sensor",
            f"calibrated-{channel}",
            sensor_token=f"sensor-{channel}",
            translation=mounting[0],
            rotation=mounting[1],
            camera_intrinsic=intrinsics or [],
        )

    def reading(
        self, sample: str, channel: str, stamp_us: int, file: str, pose: Pose, **values
    ) -> str:
        token = f"data-{Path(file).name}"
        kind = "jpg" if channel.startswith("CAM") else "pcd"
        self.add(
            "ego_pose", f"pose-{token}", timestamp=stamp_us, rotation=pose[1], translation=pose[0]
        )
        defaults = {"is_key_frame": True, "width": 0, "height": 0, "prev": "", "next": ""}
        return self.add(
            "sample_data",
            token,
            sample_token=sample,
            ego_pose_token=f"pose-{token}",
            calibrated_sensor_token=f"calibrated-{channel}",
            timestamp=stamp_us,
            fileformat=kind,
            filename=file,
            **{**defaults, **values},
        )

    def write(self, root: Path, version: str = VERSION) -> Path:
        folder = root / version
        folder.mkdir(parents=True)
        for table, rows in self.rows.items():
            (folder / f"{table}.json").write_text(json.dumps(rows, indent=0))
        return root


TABLE_NAMES = (
    "scene",
    "sample",
    "sample_data",
    "ego_pose",
    "sensor",
    "calibrated_sensor",
    "sample_annotation",
    "instance",
    "category",
    "attribute",
    "visibility",
    "log",
    "map",
)


def small_nuscenes(
    root: Path, scenes: tuple[str, ...] = ("scene-0003", "scene-0001"), samples: int = 3
) -> Path:
    """Key frames at 2 Hz, one sweep of the cameras between two of them; tiny images."""
    root.mkdir(exist_ok=True)
    tables, cameras = Tables(), rig(64, 36)
    for camera, calibration in cameras.items():
        mounting = wxyz(calibration.base_T_camera)
        tables.sensor(camera.upper(), mounting, calibration.intrinsics.tolist())
    tables.sensor("LIDAR_TOP", wxyz(BASE_T_LIDAR))
    tables.sensor("RADAR_FRONT", wxyz(np.eye(4)))
    tables.add("log", "log-1", logfile="drive", vehicle="van", date_captured="2020-09-13")
    tables.add("map", "map-1", log_tokens=["log-1"], category="semantic_prior", filename="map.png")
    Image.new("L", (8, 8)).save(root / "map.png")
    tables.add("category", "category-car", name="vehicle.car", description="", index=17)
    tables.add("category", "category-dog", name="animal", description="", index=1)
    random = np.random.default_rng(0)
    for place, scene in enumerate(scenes):
        start = START_US + place * 60_000_000
        tables.add(
            "scene",
            f"token-{scene}",
            name=scene,
            description="a drawn street",
            nbr_samples=samples,
            log_token="log-1",
            first_sample_token=f"{scene}-sample-0",
            last_sample_token=f"{scene}-sample-{samples - 1}",
        )
        _add_boxes(tables, scene, start, samples)
        for half in range(2 * samples - 1):
            key = half % 2 == 0
            sample, folder = f"{scene}-sample-{(half + 1) // 2}", "samples" if key else "sweeps"
            stamp = start + half * 250_000 + 50_000  # the LiDAR's
            if key:
                number = half // 2
                tables.add(
                    "sample",
                    sample,
                    timestamp=stamp,
                    scene_token=f"token-{scene}",
                    prev=f"{scene}-sample-{number - 1}" if number else "",
                    next=f"{scene}-sample-{number + 1}" if number + 1 < samples else "",
                )
                points = random.normal(size=(50, 5)).astype("<f4")
                file = f"samples/LIDAR_TOP/van__LIDAR_TOP__{stamp}.pcd.bin"
                _write(root / file, points.tobytes())
                pose = wxyz(ego_pose(stamp * 1000))
                tables.reading(sample, "LIDAR_TOP", stamp, file, pose)
            taken = stamp + 7_000
            file = f"{folder}/RADAR_FRONT/van__RADAR_FRONT__{taken}.pcd"  # of which there is none
            pose = wxyz(ego_pose(taken * 1000))
            tables.reading(sample, "RADAR_FRONT", taken, file, pose, is_key_frame=key)
            for camera, phase in PHASES_MS.items():
                taken = start + half * 250_000 + phase * 1000
                channel = camera.upper()
                file = f"{folder}/{channel}/van__{channel}__{taken}.jpg"
                buffer = io.BytesIO()
                colours = random.integers(0, 256, (36, 64, 3), dtype=np.uint8)
                Image.fromarray(colours).save(buffer, "JPEG")
                _write(root / file, buffer.getvalue())
                pose = wxyz(ego_pose(taken * 1000))
                size = {"width": 64, "height": 36}
                tables.reading(sample, channel, taken, file, pose, is_key_frame=key, **size)
    return tables.write(root)


def real_nuscenes(root: Path, sample: Path) -> Path:
    """The one real key frame that tests may read, under its own names, with tables around it."""
    tables = Tables()
    told = json.loads((sample / "calib.json").read_text())
    cameras, token = told["cams"], told["sample_token"]
    stamp = told["lidar"]["timestamp_us"]
    tables.add("scene", "token-0061", name="scene-0061", description="", nbr_samples=1)
    tables.add("sample", token, timestamp=stamp, scene_token="token-0061", prev="", next="")
    for channel, sensor in {**cameras, "LIDAR_TOP": told["lidar"]}.items():
        mounting = sensor["sensor2ego_translation"], sensor["sensor2ego_rotation_wxyz"]
        tables.sensor(channel, mounting, sensor.get("intrinsic"))
        file = f"samples/{channel}/{sensor['original_name']}"
        _write(root / file, (sample / sensor["file"]).read_bytes())
        pose = sensor["ego2global_translation"], sensor["ego2global_rotation_wxyz"]
        size = {name: sensor.get(name, 0) for name in ("width", "height")}
        tables.reading(token, channel, sensor["timestamp_us"], file, pose, **size)
    return tables.write(root)


def _add_boxes(tables: Tables, scene: str, start: int, samples: int) -> None:
    """A car that drives and turns, and a dog that is there in the first key frame only."""
    for name in ("car", "dog"):
        frames = range(samples if name == "car" else 1)
        instance = tables.add(
            "instance",
            f"{scene}-{name}",
            category_token=f"category-{name}",
            nbr_annotations=len(frames),
            first_annotation_token=f"{scene}-{name}-0",
            last_annotation_token=f"{scene}-{name}-{frames[-1]}",
        )
        for number in frames:
            heading = 0.3 * number + 0.1
            tables.add(
                "sample_annotation",
                f"{instance}-{number}",
                sample_token=f"{scene}-sample-{number}",
                instance_token=instance,
                attribute_tokens=[],
                visibility_token="",
                translation=[10.0 + 4 * number + start % 7, 3.0 - number, 0.8 + 0.01 * number],
                size=[1.9, 4.5, 1.6] if name == "car" else [0.4, 0.9, 0.6],
                rotation=[math.cos(heading / 2), 0.0, 0.0, math.sin(heading / 2)],
                prev=f"{instance}-{number - 1}" if number else "",
                next=f"{instance}-{number + 1}" if number + 1 < len(frames) else "",
                num_lidar_pts=5 - 2 * number,
                num_radar_pts=0,
            )


def add_lidarseg(root: Path) -> None:
    """Categories of the points of every sweep of key frames, in the way of nuScenes-lidarseg."""
    rows = []
    for row in json.loads((root / VERSION / "sample_data.json").read_text()):
        if "LIDAR_TOP" in row["filename"]:
            file = f"lidarseg/{VERSION}/{row['token']}_lidarseg.bin"
            points = (root / row["filename"]).stat().st_size // 20
            _write(root / file, (np.arange(points) % 32).astype(np.uint8).tobytes())
            rows.append(
                {"token": row["token"], "sample_data_token": row["token"], "filename": file}
            )
    (root / VERSION / "lidarseg.json").write_text(json.dumps(rows))


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
