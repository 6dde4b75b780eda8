# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Key frames: what was recorded in each, in memory; and their files, read when asked for.

Whatever a data set's descriptions come from (tables of nuScenes, info files), these come of it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from alocc_ros.datasets.files import read_bytes
from alocc_ros.errors import DataError
from alocc_ros.geometry import inverse
from alocc_ros.types import Calibration, CameraImage, FrameSet
from alocc_ros.words import counted

ANCHOR = "cam_front"  # a key frame's grid lies where the vehicle was when this one looked
LIDAR = "LIDAR_TOP"


@dataclass(frozen=True)
class CameraSample:
    """An image that was taken.

    Attributes:
        camera: such as ``cam_front``.
        token: of the row of sample_data; empty where unknown.
        stamp: ns, when it was taken.
        path: of the file.
        calibration: of the camera.
        map_T_base: [4, 4] ego pose at ``stamp``.
        is_key_frame: False: a sweep between two key frames.
    """

    camera: str
    token: str
    stamp: int
    path: Path
    calibration: Calibration
    map_T_base: np.ndarray
    is_key_frame: bool = True


@dataclass(frozen=True)
class LidarSample:
    """One turn of the LiDAR, of points [P, 5] float32 (x, y, z, intensity, ring).

    Attributes:
        token, stamp, path, map_T_base, is_key_frame: as of an image.
        base_T_lidar: [4, 4] where it is mounted.
    """

    token: str
    stamp: int
    path: Path
    base_T_lidar: np.ndarray
    map_T_base: np.ndarray
    is_key_frame: bool = True

    @property
    def map_T_lidar(self) -> np.ndarray:  # [4, 4]
        """Where the LiDAR was."""
        return self.map_T_base @ self.base_T_lidar


@dataclass(frozen=True)
class OtherSample:
    """Something of a sensor that is not read here, a radar: it still tells where the vehicle was.

    Attributes:
        channel: such as ``RADAR_FRONT``.
        token, stamp, path, map_T_base, is_key_frame: as of an image.
    """

    channel: str
    token: str
    stamp: int
    path: Path
    map_T_base: np.ndarray
    is_key_frame: bool = True


Reading = CameraSample | LidarSample | OtherSample


@dataclass(frozen=True)
class Sample:
    """A key frame.

    Attributes:
        token: its name in every table and label folder.
        scene_name, scene_token: what it belongs to.
        stamp: ns; the LiDAR's, each camera has its own.
        cameras: by name, all six, in network order.
        lidar: the sweep that the labels were made from.
    """

    token: str
    scene_name: str
    scene_token: str
    stamp: int
    cameras: Mapping[str, CameraSample]
    lidar: LidarSample

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.scene_name}, {self.token}"

    @property
    def map_T_base(self) -> np.ndarray:  # [4, 4]
        """Ego pose of the frame set: at the anchor camera's stamp."""
        return self.cameras[ANCHOR].map_T_base

    @property
    def base_T_lidar_grid(self) -> np.ndarray:  # [4, 4]
        """Where a grid in the LiDAR's frame (SurroundOcc) lies in the frame set's base frame.

        The LiDAR measures up to 43 ms from the anchor camera, so this is not just its mounting.
        """
        return inverse(self.map_T_base) @ self.lidar.map_T_lidar


@dataclass(frozen=True)
class Scene:
    """About twenty seconds of one drive.

    Attributes:
        name: such as ``scene-0061``.
        token: of the row of the table.
        samples: its key frames in order of time.
        description: a few words about what is to be seen.
    """

    name: str
    token: str
    samples: tuple[Sample, ...]
    description: str = ""


class Dataset:
    """Scenes in a folder, wherever their descriptions were read from.

    Attributes:
        root: the folder of ``samples``, ``sweeps``, ``gts``, ...
        version: of the tables.
        scenes: in order of time.
        splits: names of scenes by name of split.
    """

    def __init__(
        self,
        root: Path,
        version: str,
        scenes: Sequence[Scene],
        splits: Mapping[str, Collection[str]],
    ) -> None:
        self.root, self.version, self.splits = root, version, splits
        self.scenes = tuple(sorted(scenes, key=lambda s: (s.samples[0].stamp, s.name)))

    @cached_property
    def samples(self) -> tuple[Sample, ...]:
        """Every key frame in order of time."""
        return tuple(sorted((s for c in self.scenes for s in c.samples), key=lambda s: s.stamp))

    def scene(self, name: str) -> Scene:
        """The scene of that name.

        Raises:
            DataError: there is none.
        """
        for scene in self.scenes:
            if scene.name == name:
                return scene
        raise DataError(f"{self.root} has no {name!r} in {self.version}, {self._there_are()}")

    def split(self, name: str) -> tuple[Scene, ...]:
        """The scenes of a split that are here.

        Raises:
            DataError: no such split, or none of its scenes is here.
        """
        if name not in self.splits:
            raise DataError(f"no split is called {name!r}; there are {', '.join(self.splits)}")
        chosen = tuple(scene for scene in self.scenes if scene.name in self.splits[name])
        if not chosen:
            raise DataError(
                f"{self.root}: no scene of the split {name!r} is in {self.version}, "
                f"{self._there_are()}"
            )
        return chosen

    def _there_are(self) -> str:
        names = sorted(scene.name for scene in self.scenes)
        shown = ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
        return f"which has {counted(len(names), 'scene')}: {shown}"


def frame_set(sample: Sample) -> FrameSet:
    """The key frame as the pipeline takes it, with the files' bytes.

    Raises:
        DataError: an image is not there.
    """
    cameras = sample.cameras
    return FrameSet(
        stamp=cameras[ANCHOR].stamp,
        images={name: camera_image(one) for name, one in cameras.items()},
        calibration={name: one.calibration for name, one in cameras.items()},
        map_T_base=sample.map_T_base,
        map_T_base_at={name: one.map_T_base for name, one in cameras.items()},
    )


def camera_image(image: CameraSample) -> CameraImage:
    """An image as it lies on the disk, not decoded.

    Raises:
        DataError: it is not there.
    """
    return CameraImage(image.camera, image.stamp, read_bytes(image.path), "compressed")


def lidar_points(lidar: LidarSample) -> np.ndarray:  # [P, 5] float32
    """x, y, z (m), intensity and ring of every point, in the LiDAR's frame.

    Raises:
        DataError: the file is not there, or cut off.
    """
    data = read_bytes(lidar.path)
    if len(data) % 20:
        raise DataError(f"{lidar.path} is cut off: {len(data)} bytes are no points of 20")
    return np.frombuffer(data, "<f4").reshape(-1, 5)
