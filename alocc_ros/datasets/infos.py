# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""``bevdetv2-nuscenes_infos_*.pkl``: the tables of nuScenes joined, one entry a key frame.

A pickle can hold code; ``plain_pickle`` reads it without running any.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from alocc_ros.datasets.boxes import CLASS_OF_CATEGORY, DETECTION_CLASSES, Box
from alocc_ros.datasets.nuscenes import NuScenes, pose_matrices
from alocc_ros.datasets.plain_pickle import read_pickle
from alocc_ros.datasets.samples import CameraSample, Dataset, LidarSample, Sample, Scene
from alocc_ros.datasets.splits import read_splits
from alocc_ros.datasets.tables import OnProgress, nothing
from alocc_ros.errors import DataError
from alocc_ros.files import below, whole_file
from alocc_ros.geometry import inverse, quaternion_xyzw
from alocc_ros.types import CAMERAS, Calibration

PREFIX = "./data/nuscenes"  # what paths in the public files begin with


class InfoFile(Dataset):
    """A data set whose tables are in an info file."""

    def __init__(self, path: Path, root: Path | None = None) -> None:
        """Reads the file.

        Args:
            path: of the ``.pkl``.
            root: the folder of ``samples``; None: that of the file, or ``nuscenes`` beside it.

        Raises:
            DataError: the file is damaged, holds code, or lacks something.
        """
        contents = read_pickle(path)
        infos = contents.get("infos") if isinstance(contents, dict) else None
        if not isinstance(infos, list) or not infos:
            raise DataError(f"{path} holds no list of infos")
        root = _root_beside(path) if root is None else root
        entries = _Entries(root)
        scenes: dict[str, list[Sample]] = {}
        for place, info in enumerate(infos):
            try:
                sample = entries.sample(info)
            except KeyError as error:
                raise DataError(f"{path}: info {place} has no {error}") from error
            except (DataError, TypeError, ValueError, AttributeError, OverflowError) as error:
                raise DataError(f"{path}: info {place}: {error}") from error
            scenes.setdefault(sample.scene_token, []).append(sample)
        metadata = contents.get("metadata")
        version = metadata.get("version") if isinstance(metadata, dict) else None
        version = version if isinstance(version, str) else ""
        found = [
            Scene(inside[0].scene_name, token, tuple(sorted(inside, key=lambda s: s.stamp)))
            for token, inside in scenes.items()
        ]
        super().__init__(root, version or path.name, found, read_splits(root / version))


def open_dataset(
    path: Path, version: str | None = None, on_progress: OnProgress = nothing
) -> Dataset:
    """A folder with tables, or an info file.

    Raises:
        DataError: it is neither, or damaged.
    """
    if path.is_file():
        return InfoFile(path)
    return NuScenes(path, version, on_progress=on_progress)


def _root_beside(path: Path) -> Path:
    for folder in (path.parent, path.parent / "nuscenes"):
        if (folder / "samples").is_dir():
            return folder
    raise DataError(
        f"{path}: there is no folder 'samples' beside it nor in 'nuscenes' beside it: "
        "say where the data set is"
    )


class _Entries:
    """Makes samples of infos; images of one camera share one calibration."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._known: dict[tuple, Calibration] = {}
        self._sizes: dict[tuple[str, str], tuple[int, int]] = {}

    def sample(self, info: Mapping[str, Any]) -> Sample:
        scene = info.get("scene_name") or Path(info["occ_path"]).parts[-2]
        scene_token = info["scene_token"]
        stamp = _integer(info["timestamp"]) * 1000
        lidar = LidarSample(
            token=_text(info.get("lidar_token", "")),
            stamp=stamp,
            path=self._file(info["lidar_path"]),
            base_T_lidar=_pose(info, "lidar2ego"),
            map_T_base=_pose(info, "ego2global"),
        )
        cameras = {c: self._camera(c, info["cams"][c.upper()], scene) for c in CAMERAS}
        return Sample(_text(info["token"]), _text(scene), _text(scene_token), stamp, cameras, lidar)

    def _camera(self, camera: str, entry: Mapping[str, Any], scene: str) -> CameraSample:
        path = self._file(entry["data_path"])
        return CameraSample(
            camera=camera,
            token=_text(entry.get("sample_data_token", "")),
            stamp=_integer(entry["timestamp"]) * 1000,
            path=path,
            calibration=self._calibration(camera, entry, scene, path),
            map_T_base=_pose(entry, "ego2global"),
        )

    def _calibration(
        self, camera: str, entry: Mapping[str, Any], scene: str, image: Path
    ) -> Calibration:
        intrinsics = np.asarray(entry["cam_intrinsic"], dtype=np.float64)
        if intrinsics.shape != (3, 3) or not np.isfinite(intrinsics).all():
            raise ValueError(f"{camera} has no 3x3 cam_intrinsic")
        base_T_camera = _pose(entry, "sensor2ego")
        if (camera, scene) not in self._sizes:
            self._sizes[camera, scene] = _size(entry, image)
        size = self._sizes[camera, scene]
        key = (camera, size, intrinsics.tobytes(), base_T_camera.tobytes())
        if key not in self._known:
            self._known[key] = Calibration(camera, *size, intrinsics, base_T_camera)
        return self._known[key]

    def _file(self, path: str) -> Path:
        """Below our root, wherever the data set was when the file was made."""
        for folder in ("samples/", "sweeps/"):
            at = _text(path).rfind(folder)
            if at >= 0:
                return below(self._root, path[at:])
        raise ValueError(f"{path} is neither in samples/ nor in sweeps/")


def _size(entry: Mapping[str, Any], image: Path) -> tuple[int, int]:
    """Width and height; the public files do not tell them."""
    if "width" in entry and "height" in entry:
        return _integer(entry["width"]), _integer(entry["height"])
    try:
        with Image.open(image) as picture:
            return picture.size
    except OSError as error:
        reason = error.strerror or "it is no image"
        raise DataError(f"cannot read the size of {image}: {reason}") from error


def _pose(entry: Mapping[str, Any], name: str) -> np.ndarray:  # [4, 4]
    translation = entry[f"{name}_translation"]
    return pose_matrices([translation], [entry[f"{name}_rotation"]], name)[0]


def _integer(value: Any) -> int:
    if isinstance(value, bool) or int(value) != value:
        raise ValueError(f"{value!r} is no whole number")
    return int(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{str(value)[:40]!r} is no text")
    return value


# --- writing -----------------------------------------------------------------------------------


def write_infos(
    path: Path,
    scenes: Sequence[Scene],
    root: Path,
    version: str,
    boxes: Mapping[str, Sequence[Box]],
    prefix: str = PREFIX,
) -> None:
    """Writes an info file that the authors' code and others' of BEVDet's family read.

    Args:
        path: of the file; it appears whole or not at all.
        scenes: whose key frames are to be in it.
        root: the data set's folder, which becomes ``prefix`` in the file.
        version: of the tables.
        boxes: by sample token; samples without boxes may be left out.
        prefix: what paths in the file begin with.

    Raises:
        OutputError: the file cannot be written.
    """
    samples = sorted((s for scene in scenes for s in scene.samples), key=lambda s: s.stamp)
    before = {
        sample.token: earlier.token
        for scene in scenes
        for earlier, sample in zip(scene.samples, scene.samples[1:], strict=False)
    }
    infos = [
        _info(sample, before.get(sample.token, ""), boxes.get(sample.token, ()), root, prefix)
        for sample in samples
    ]
    data = pickle.dumps({"infos": infos, "metadata": {"version": version}}, protocol=2)
    # numpy 2 gives its functions a name that numpy 1, which the authors use, does not know;
    # numpy 2 knows both. (In protocol 2 a name is "c", module, newline.)
    data = data.replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")
    with whole_file(path) as scratch:
        scratch.write_bytes(data)


def _info(
    sample: Sample, previous: str, boxes: Sequence[Box], root: Path, prefix: str
) -> dict[str, Any]:
    lidar = sample.lidar

    def place(path: Path) -> str:
        return f"{prefix.rstrip('/')}/{path.relative_to(root).as_posix()}"

    return {
        "token": sample.token,
        "timestamp": sample.stamp // 1000,
        "scene_token": sample.scene_token,
        "scene_name": sample.scene_name,
        "prev": previous,
        "lidar_path": place(lidar.path),
        "lidar_token": lidar.token,
        **_spelled("lidar2ego", lidar.base_T_lidar),
        **_spelled("ego2global", lidar.map_T_base),
        "occ_path": f"{prefix.rstrip('/')}/gts/{sample.scene_name}/{sample.token}",
        "cams": {c.upper(): _camera_info(s, lidar, place) for c, s in sample.cameras.items()},
        "sweeps": [],
        **_box_infos(sample, boxes),
    }


def _camera_info(
    image: CameraSample, lidar: LidarSample, place: Callable[[Path], str]
) -> dict[str, Any]:
    calibration = image.calibration
    map_T_camera = image.map_T_base @ calibration.base_T_camera
    lidar_T_camera = inverse(lidar.map_T_lidar) @ map_T_camera
    return {
        "data_path": place(image.path),
        "type": image.camera.upper(),
        "sample_data_token": image.token,
        "timestamp": image.stamp // 1000,
        "width": calibration.width,
        "height": calibration.height,
        "cam_intrinsic": calibration.intrinsics,
        **_spelled("sensor2ego", calibration.base_T_camera),
        **_spelled("ego2global", image.map_T_base),
        "sensor2lidar_rotation": lidar_T_camera[:3, :3],
        "sensor2lidar_translation": lidar_T_camera[:3, 3],
    }


def _spelled(name: str, a_T_b: np.ndarray) -> dict[str, list[float]]:
    x, y, z, w = quaternion_xyzw(a_T_b).tolist()
    return {
        f"{name}_translation": a_T_b[:3, 3].tolist(),
        f"{name}_rotation": [w, x, y, z] if w >= 0 else [-w, -x, -y, -z],
    }


def _box_infos(sample: Sample, boxes: Sequence[Box]) -> dict[str, Any]:
    """Boxes in the LiDAR's frame, and again, fit for training, in the anchor camera's ego frame."""
    lidar_T_map = inverse(sample.lidar.map_T_lidar)
    base_T_map = inverse(sample.map_T_base)
    order = list(DETECTION_CLASSES)
    trained = [
        b for b in boxes if b.category in CLASS_OF_CATEGORY and b.lidar_points + b.radar_points > 0
    ]
    points = np.array([[b.lidar_points, b.radar_points] for b in boxes], np.int64).reshape(-1, 2)
    in_lidar = [_flat_box(b, lidar_T_map) for b in boxes]
    in_base = [np.nan_to_num(_flat_box(b, base_T_map)) for b in trained]
    in_lidar_array = np.array(in_lidar).reshape(-1, 9)
    return {
        "gt_boxes": in_lidar_array[:, :7].copy(),
        "gt_names": np.array([CLASS_OF_CATEGORY.get(b.category, b.category) for b in boxes], "U64"),
        "gt_velocity": in_lidar_array[:, 7:].copy(),
        "num_lidar_pts": points[:, 0].copy(),
        "num_radar_pts": points[:, 1].copy(),
        "valid_flag": points.sum(1) > 0,
        "ann_infos": (in_base, [order.index(CLASS_OF_CATEGORY[b.category]) for b in trained]),
    }


def _flat_box(box: Box, a_T_map: np.ndarray) -> np.ndarray:  # [9]
    """x, y, z, length, width, height, yaw, and the velocity's x and y, in frame a."""
    a_T_box = a_T_map @ box.map_T_box
    # The public files were made with pyquaternion, whose yaw is that of the inverse rotation,
    # negated: the same but for the vehicle's roll and pitch.
    yaw = np.arctan2(-a_T_box[0, 1], a_T_box[0, 0])
    velocity = a_T_map[:3, :3] @ box.velocity
    return np.array([*a_T_box[:3, 3], *box.size, yaw, *velocity[:2]])
