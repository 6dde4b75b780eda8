# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Key frames as sequences: what came before each, and where a temporal memory begins.

As the reference counts them (docs/network.md section T2), except
that a scene stays together when another one was recorded at the same time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from alocc_ros.datasets.samples import Sample
from alocc_ros.geometry import inverse


@dataclass(frozen=True)
class Step:
    """A key frame in its sequence.

    Attributes:
        index: of the sample.
        start: there is no memory yet.
        adjacent: index of the key frame to compare the images with: the one before it in the scene
            (also across the cut between two halves), or itself at the scene's beginning.
        previous_T_current: [4, 4] float32, what moves the memory from the key frame before in the
            same sequence: ego poses at the LiDAR's stamps. Identity where there is none.
    """

    index: int
    start: bool
    adjacent: int
    previous_T_current: np.ndarray


def whole_scenes(samples: Sequence[Sample]) -> list[tuple[int, ...]]:
    """Indices of the samples of each scene in order of time; how to evaluate."""
    scenes: dict[str, list[int]] = {}
    for index in sorted(range(len(samples)), key=lambda i: samples[i].stamp):
        scenes.setdefault(samples[index].scene_name, []).append(index)
    return [tuple(scene) for scene in scenes.values()]


def half_scenes(samples: Sequence[Sample]) -> list[tuple[int, ...]]:
    """Each scene cut into two sequences; how to train."""
    return halves(whole_scenes(samples))


def halves(scenes: Sequence[Sequence[int]]) -> list[tuple[int, ...]]:
    """Each scene's frames cut into two sequences, the first one longer by at most one frame."""
    cut = []
    for scene in scenes:
        middle = (len(scene) + 1) // 2
        cut += [tuple(part) for part in (scene[:middle], scene[middle:]) if len(part)]
    return cut


def steps(samples: Sequence[Sample], sequences: Sequence[Sequence[int]]) -> list[list[Step]]:
    """Each sequence with what came before each of its frames."""
    before = {
        index: previous
        for scene in whole_scenes(samples)
        for previous, index in zip(scene, scene[1:], strict=False)
    }
    found = []
    for sequence in sequences:
        of_sequence = []
        for place, index in enumerate(sequence):
            previous = sequence[place - 1] if place else index
            moved = (
                inverse(samples[previous].lidar.map_T_base) @ samples[index].lidar.map_T_base
                if place
                else np.eye(4)
            )
            adjacent = before.get(index, index)
            of_sequence.append(Step(index, place == 0, adjacent, moved.astype(np.float32)))
        found.append(of_sequence)
    return found
