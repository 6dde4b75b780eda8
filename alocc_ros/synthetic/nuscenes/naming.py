# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""When the recordings of a scene are stamped, and how its files and rows are called."""

from __future__ import annotations

from dataclasses import dataclass

from alocc_ros.synthetic import rig
from alocc_ros.synthetic.nuscenes.spec import DatasetSpec, first_stamp, scene_name
from alocc_ros.synthetic.nuscenes.tables import token


@dataclass(frozen=True)
class SampleData:
    """A row of sample_data to be: what was recorded when.

    Attributes:
        channel: name of the sensor, in capitals.
        stamp: us.
        time: s in the scene.
        key_frame: its number, None for what lies between key frames.
        next_key_frame: number of the key frame that it belongs to.
        file: path in the data set.
    """

    channel: str
    stamp: int
    time: float
    key_frame: int | None
    next_key_frame: int
    file: str


@dataclass(frozen=True)
class SceneNaming:
    """Stamps, files and tokens of one scene.

    Attributes:
        spec: of the data set.
        number: of the scene, from 0.
    """

    spec: DatasetSpec
    number: int

    @property
    def name(self) -> str:
        """Name of the scene."""
        return scene_name(self.number)

    @property
    def start(self) -> int:
        """us."""
        return first_stamp(self.number)

    @property
    def log(self) -> str:
        """Name of the log, with which the names of files begin."""
        return f"alocc-synthetic-{self.spec.seed}-{self.name}"

    def time(self, stamp: int) -> float:
        """Seconds in the scene of a stamp (us)."""
        return (stamp - self.start) / 1e6

    def cycle_start(self, cycle: int) -> int:
        """us, the start of a cycle of the cameras."""
        return self.start + round(cycle * rig.CAMERA_PERIOD / 1000)

    def lidar_stamp(self, key: int) -> int:
        """us, of the LiDAR sweep of a key frame."""
        return self.cycle_start(key * rig.KEY_FRAME_CYCLES) + rig.LIDAR_PHASE // 1000

    def file(self, channel: str, stamp: int, key: bool, ending: str) -> str:
        """Path of a recording in the data set."""
        folder = "samples" if key else "sweeps"
        return f"{folder}/{channel}/{self.log}__{channel}__{stamp}.{ending}"

    def lidarseg_file(self, data: SampleData) -> str:
        """Path of the point labels of a LiDAR sweep."""
        return f"lidarseg/{self.spec.version}/{self.data_token(data)}_lidarseg.bin"

    @property
    def map_file(self) -> str:
        """Path of the map image."""
        return f"maps/{self.log}.png"

    def token_of(self, kind: str, *parts: object) -> str:
        """Token of one of the scene's rows."""
        return token(self.spec.seed, self.name, kind, *parts)

    def sample_token(self, key: int) -> str:
        """Token of a key frame."""
        return self.token_of("sample", key)

    def data_token(self, data: SampleData) -> str:
        """Token of a row of sample_data, and of its ego pose."""
        return self.token_of(data.channel, data.stamp)

    def annotation_token(self, actor: int, key: int) -> str:
        """Token of an actor's box in a key frame."""
        return self.token_of("annotation", actor, key)

    def instance_token(self, actor: int) -> str:
        """Token of an actor."""
        return self.token_of("instance", actor)
