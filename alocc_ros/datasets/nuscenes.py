# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""nuScenes and everything in its format, out of its own tables.

A folder with ``v1.0-trainval/`` (or another version), ``samples/`` and ``sweeps/``. Only key
frames are kept in memory; ``NuScenes.readings`` gives all that was recorded in a scene.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from alocc_ros.datasets.samples import (
    ANCHOR,
    LIDAR,
    CameraSample,
    Dataset,
    LidarSample,
    OtherSample,
    Reading,
    Sample,
    Scene,
    camera_image,
    frame_set,
    lidar_points,
)
from alocc_ros.datasets.splits import read_splits
from alocc_ros.datasets.tables import OnProgress, nothing, read_columns
from alocc_ros.errors import DataError
from alocc_ros.files import below
from alocc_ros.types import CAMERAS, Calibration

# What the tables are read into is offered here too, for who looks at nuScenes and nothing else.
__all__ = [
    "ANCHOR",
    "DEFAULT_VERSION",
    "LIDAR",
    "CameraSample",
    "Dataset",
    "LidarSample",
    "NuScenes",
    "OtherSample",
    "Reading",
    "Sample",
    "Scene",
    "camera_image",
    "frame_set",
    "lidar_points",
    "pose_matrices",
]

DEFAULT_VERSION = "v1.0-trainval"
_CHANNELS = {camera.upper(): camera for camera in CAMERAS}
_READ = {*_CHANNELS, LIDAR}
_TABLES = ("scene", "sample", "sample_data", "ego_pose", "sensor", "calibrated_sensor")


class NuScenes(Dataset):
    """A folder with tables."""

    def __init__(
        self,
        root: Path,
        version: str | None = None,
        *,
        scenes: Collection[str] | None = None,
        on_progress: OnProgress = nothing,
    ) -> None:
        """Reads the tables; about 20 s for the whole of nuScenes.

        Args:
            root: the folder that holds ``v1.0-...``.
            version: name of that folder; None: ``v1.0-trainval``, or the only one there is.
            scenes: names of those that are wanted, the others are passed over; None: all.
            on_progress: is told how far it is.

        Raises:
            DataError: a table is missing, damaged, or contradicts another one.
        """
        root = Path(root)
        version = version or _only_version(root)
        self._folder = root / version
        missing = [t for t in _TABLES if not (self._folder / f"{t}.json").is_file()]
        if missing:
            tables = ", ".join(f"{t}.json" for t in missing)
            raise DataError(f"{self._folder} lacks {tables}: these are no nuScenes tables")
        self._sensors = _read_sensors(self._folder)
        found = _read_scenes(self._folder, self._sensors, root, scenes, on_progress)
        super().__init__(root, version, found, read_splits(self._folder))

    def readings(
        self, scenes: Collection[Scene], on_progress: OnProgress = nothing
    ) -> dict[str, list[Reading]]:
        """By name of scene, in order of time: images (12 Hz), LiDAR turns (20 Hz), and the rest.

        Raises:
            DataError: a table is damaged.
        """
        scene_of = {sample.token: scene.name for scene in scenes for sample in scene.samples}
        rows = _read_sample_data(self._folder, scene_of, on_progress)
        poses = _read_poses(self._folder, {row.pose for row in rows}, on_progress)
        found: dict[str, list[Reading]] = {scene.name: [] for scene in scenes}
        calibrations = _Calibrations(self._sensors)
        for row in rows:
            reading = _reading(row, self.root, self._sensors, calibrations, poses)
            found[scene_of[row.sample]].append(reading)
        for readings in found.values():
            readings.sort(key=lambda r: (r.stamp, r.path.name))
        return found


# --- the tables --------------------------------------------------------------------------------


def _only_version(root: Path) -> str:
    if not root.is_dir():
        raise DataError(f"there is no folder {root}")
    found = sorted(p.parent.name for p in root.glob("*/sample_data.json"))
    if not found:
        raise DataError(f"{root} holds no tables: expected a folder such as {DEFAULT_VERSION}")
    if DEFAULT_VERSION in found:
        return DEFAULT_VERSION
    if len(found) > 1:
        raise DataError(f"{root} holds {', '.join(found)}: say which version is meant")
    return found[0]


@dataclass(frozen=True)
class _Sensor:
    """A sensor as it was mounted on one vehicle."""

    channel: str
    base_T_sensor: np.ndarray  # [4, 4]
    intrinsics: list[list[float]]


@dataclass(frozen=True)
class _DataRow:
    """What is kept of a row of sample_data."""

    token: str
    sample: str
    sensor: str
    pose: str
    stamp: int  # ns
    file: str
    size: tuple[int, int]  # width, height
    is_key_frame: bool


class _Calibrations:
    """One object for all images of a camera, as it is cheaper to compare."""

    def __init__(self, sensors: Mapping[str, _Sensor]) -> None:
        self._sensors = sensors
        self._known: dict[tuple[str, tuple[int, int]], Calibration] = {}

    def of(self, row: _DataRow) -> Calibration:
        key = (row.sensor, row.size)
        if key not in self._known:
            sensor = self._sensors[row.sensor]
            self._known[key] = Calibration(
                camera=_CHANNELS[sensor.channel],
                width=row.size[0],
                height=row.size[1],
                intrinsics=_intrinsics(sensor, row),
                base_T_camera=sensor.base_T_sensor,
            )
        return self._known[key]


def _intrinsics(sensor: _Sensor, row: _DataRow) -> np.ndarray:  # [3, 3]
    try:
        matrix = np.asarray(sensor.intrinsics, dtype=np.float64)
    except (TypeError, ValueError):
        matrix = np.zeros(0)
    if matrix.shape != (3, 3) or not np.isfinite(matrix).all():
        raise DataError(f"calibrated_sensor {row.sensor} of {sensor.channel}: no 3x3 intrinsics")
    if min(row.size) <= 0:
        raise DataError(f"sample_data {row.token}: an image of {row.size[0]} x {row.size[1]} px")
    return matrix


def _read_sensors(folder: Path) -> dict[str, _Sensor]:
    """By token: every sensor of every vehicle."""
    channels = dict(read_columns(folder, "sensor", ("token", "channel")))
    columns = ("token", "sensor_token", "translation", "rotation", "camera_intrinsic")
    rows = list(read_columns(folder, "calibrated_sensor", columns))
    where = str(folder / "calibrated_sensor.json")
    poses = pose_matrices([r[2] for r in rows], [r[3] for r in rows], where)
    return {
        row[0]: _Sensor(channels.get(row[1], ""), pose, row[4])
        for row, pose in zip(rows, poses, strict=True)
    }


def _read_scenes(
    folder: Path,
    sensors: Mapping[str, _Sensor],
    root: Path,
    wanted: Collection[str] | None,
    on_progress: OnProgress,
) -> list[Scene]:
    names, about = {}, {}
    for token, name, description in read_columns(folder, "scene", ("token", "name", "description")):
        if wanted is None or name in wanted:
            names[token], about[token] = name, description
    if unknown := sorted(set(wanted or ()) - set(names.values())):
        raise DataError(f"{folder} has no {', '.join(unknown)}")
    stamps, scene_of = {}, {}
    for token, stamp, scene in read_columns(
        folder, "sample", ("token", "timestamp", "scene_token")
    ):
        if scene in names:
            stamps[token], scene_of[token] = stamp * 1000, scene
    read = {token for token, sensor in sensors.items() if sensor.channel in _READ}
    rows = _read_sample_data(folder, scene_of, on_progress, key_frames_of=read)
    poses = _read_poses(folder, {row.pose for row in rows}, on_progress)
    calibrations = _Calibrations(sensors)
    found: dict[str, dict[str, Reading]] = {token: {} for token in scene_of}
    for row in rows:
        reading = _reading(row, root, sensors, calibrations, poses)
        found[row.sample][sensors[row.sensor].channel] = reading
    samples: dict[str, list[Sample]] = {scene: [] for scene in names}
    for token, readings in found.items():
        if lacking := [c for c in (*_CHANNELS, LIDAR) if c not in readings]:
            raise DataError(
                f"{folder}/sample_data.json: the key frame {token} of {names[scene_of[token]]} "
                f"has no {', '.join(lacking)}"
            )
        sample = Sample(
            token,
            names[scene_of[token]],
            scene_of[token],
            stamps[token],
            {camera: readings[channel] for channel, camera in _CHANNELS.items()},
            readings[LIDAR],
        )
        samples[sample.scene_token].append(sample)
    if empty := [names[scene] for scene, inside in samples.items() if not inside]:
        raise DataError(f"{folder}/sample.json: {', '.join(sorted(empty))} has no key frame")
    if not names:
        raise DataError(f"{folder}/scene.json holds no scene")
    return [
        Scene(names[t], t, tuple(sorted(inside, key=lambda s: s.stamp)), about[t])
        for t, inside in samples.items()
    ]


def _read_sample_data(
    folder: Path,
    samples: Collection[str],
    on_progress: OnProgress,
    key_frames_of: Collection[str] | None = None,
) -> list[_DataRow]:
    """Rows that belong to ``samples``: all of them, or only key frames of these sensors."""
    names = ("is_key_frame", "sample_token", "calibrated_sensor_token", "ego_pose_token")
    names = (*names, "token", "timestamp", "filename", "width", "height")
    rows = []
    for key, sample, sensor, pose, token, stamp, file, width, height in read_columns(
        folder, "sample_data", names, on_progress
    ):
        if sample not in samples:
            continue
        if key_frames_of is not None and not (key and sensor in key_frames_of):
            continue
        size = (width or 0, height or 0)  # the LiDAR has none
        rows.append(_DataRow(token, sample, sensor, pose, stamp * 1000, file, size, bool(key)))
    return rows


def _read_poses(
    folder: Path, wanted: Collection[str], on_progress: OnProgress
) -> dict[str, np.ndarray]:
    tokens, translations, rotations = [], [], []
    for token, translation, rotation in read_columns(
        folder, "ego_pose", ("token", "translation", "rotation"), on_progress
    ):
        if token in wanted:
            tokens.append(token)
            translations.append(translation)
            rotations.append(rotation)
    poses = pose_matrices(translations, rotations, str(folder / "ego_pose.json"))
    return dict(zip(tokens, poses, strict=True))


def _reading(
    row: _DataRow,
    root: Path,
    sensors: Mapping[str, _Sensor],
    calibrations: _Calibrations,
    poses: Mapping[str, np.ndarray],
) -> Reading:
    if row.pose not in poses:
        raise DataError(f"ego_pose.json of {root} has no {row.pose}, which {row.file} names")
    if row.sensor not in sensors:
        raise DataError(f"calibrated_sensor.json of {root} has no {row.sensor}: see {row.file}")
    try:
        path = below(root, row.file)
    except ValueError as error:
        raise DataError(f"sample_data.json of {root}: the row {row.token}: {error}") from error
    sensor, pose = sensors[row.sensor], poses[row.pose]
    key = row.is_key_frame
    if sensor.channel == LIDAR:
        return LidarSample(row.token, row.stamp, path, sensor.base_T_sensor, pose, key)
    if sensor.channel not in _CHANNELS:
        return OtherSample(sensor.channel, row.token, row.stamp, path, pose, key)
    camera = _CHANNELS[sensor.channel]
    return CameraSample(camera, row.token, row.stamp, path, calibrations.of(row), pose, key)


def pose_matrices(
    translations: Sequence[Sequence[float]], rotations: Sequence[Sequence[float]], where: str
) -> np.ndarray:  # [n, 4, 4] float64
    """Poses from translations (m) and quaternions (w, x, y, z; nuScenes order)."""
    try:
        t = np.asarray(translations, dtype=np.float64).reshape(-1, 3)
        q = np.asarray(rotations, dtype=np.float64).reshape(-1, 4)
        if len(t) != len(q):
            raise ValueError(f"{len(t)} translations but {len(q)} rotations")
        good = np.isfinite(t).all(1) & (np.abs(np.linalg.norm(q, axis=1) - 1) < 1e-3)
        if not good.all():
            bad = int(np.argmin(good))
            raise ValueError(
                f"the pose {t[bad].tolist()}, {q[bad].tolist()} is not finite, or its quaternion "
                "has not length 1"
            )
    except (TypeError, ValueError) as error:
        raise DataError(f"{where}: {error}") from error
    out = np.tile(np.eye(4), (len(t), 1, 1))
    if len(t):
        out[:, :3, :3] = Rotation.from_quat(q[:, [1, 2, 3, 0]]).as_matrix()
    out[:, :3, 3] = t
    return out
