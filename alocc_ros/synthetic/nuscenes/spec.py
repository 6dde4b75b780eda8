# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""What data set is to be written, and which scene is behind each of its numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from alocc_ros.datasets.nuscenes import DEFAULT_VERSION
from alocc_ros.synthetic import rig
from alocc_ros.synthetic.generation import generate_scene
from alocc_ros.synthetic.scene import Scene

_RIG = 1  # purpose of the random numbers
_START = 1_767_225_600_000_000  # us, the first scene's first camera
_BETWEEN = 120_000_000  # us from one scene to the next, more than any of them lasts


@dataclass(frozen=True)
class DatasetSpec:
    """What is to be written; the same specification gives the same files.

    Attributes:
        seed: of the whole data set.
        scenes: how many.
        frames: key frames of each, 0.5 s apart.
        size: height and width of the images, px.
        sweeps: also what lies between key frames (12 Hz images, 20 Hz LiDAR).
        rare: how many times as much there is of what is rare on a street (``generate_scene``).
        vary_rig: every scene is seen from another vehicle (``rig.RigChange``).
        split: names of splits and how many scenes each has, in order.
    """

    seed: int
    scenes: int
    frames: int
    size: tuple[int, int] = (rig.FULL_HEIGHT, rig.FULL_WIDTH)
    sweeps: bool = True
    split: tuple[tuple[str, int], ...] = ()
    rare: float = 1.0
    vary_rig: bool = False

    @property
    def version(self) -> str:
        """Name of the folder of tables."""
        return DEFAULT_VERSION

    @property
    def cycles(self) -> int:
        """How often the six cameras fire in a scene."""
        return (self.frames - 1) * (rig.KEY_FRAME_CYCLES if self.sweeps else 1) + 1

    def names(self) -> list[str]:
        """Names of the scenes."""
        return [scene_name(n) for n in range(self.scenes)]

    def splits(self) -> dict[str, list[str]]:
        """Scene names by split; all are ``val`` if nothing else was said."""
        names, parts, at = self.names(), {}, 0
        for split, count in self.split or (("val", self.scenes),):
            parts[split] = names[at : at + count]
            at += count
        return parts


def scene_name(number: int) -> str:
    """Name of the scene with this number, from 0."""
    return f"scene-{number + 1:04d}"


def scene_of(spec: DatasetSpec, number: int) -> Scene:
    """The scene with this number."""
    seed = spec.seed * 100_000 + number
    return generate_scene(seed, (spec.frames - 1) * 0.5 + 0.1, spec.rare)


def rig_change(spec: DatasetSpec, number: int) -> rig.RigChange:
    """How the vehicle of the scene with this number differs from nuScenes'."""
    if not spec.vary_rig:
        return rig.NO_CHANGE
    return rig.RigChange.sample(np.random.default_rng([spec.seed, number, _RIG]))


def first_stamp(number: int) -> int:  # us
    """When the scene with this number begins."""
    return _START + number * _BETWEEN


def time_in_scene(number: int, stamp: int) -> float:  # s
    """What the scene with this number calls a stamp (ns) of its images."""
    return (stamp - first_stamp(number) * 1000) / 1e9
