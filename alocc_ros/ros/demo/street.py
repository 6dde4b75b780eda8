# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""The street of the demo: a bag to play, and what is true in any turn of its cameras."""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from alocc_ros.bags.reader import Bag
from alocc_ros.bags.results import recorded_grids
from alocc_ros.datasets.tables import OnProgress, nothing
from alocc_ros.datasets.truth import Truth
from alocc_ros.errors import BagError
from alocc_ros.synthetic import rig
from alocc_ros.synthetic.dataset import bag_file, write_bags
from alocc_ros.synthetic.frames import KEY_FRAME_RATE, ray_origins, truth_of
from alocc_ros.synthetic.nuscenes.spec import DatasetSpec, scene_of, time_in_scene
from alocc_ros.synthetic.scene import Scene

_NUMBER = 0  # of the only scene
_LABELS = "openocc"  # of the truth that is in the bag


@dataclass(frozen=True)
class Street:
    """A drive along a street.

    Attributes:
        folder: where its folder is, or will be.
        seed: other seed, other street.
        seconds: how long; whole key frames (0.5 s) are driven.
        size: height and width of the images, px.
    """

    folder: Path
    seed: int
    seconds: float
    size: tuple[int, int]

    @property
    def spec(self) -> DatasetSpec:
        """What is to be drawn."""
        frames = max(math.ceil(self.seconds * KEY_FRAME_RATE - 1e-6), 1) + 1
        return DatasetSpec(self.seed, 1, frames, self.size)

    @property
    def bag(self) -> Path:
        """The recording."""
        spec, (height, width) = self.spec, self.size
        name = f"street_{self.seed}_{spec.frames}_{width}x{height}"
        return bag_file(self.folder / name, spec.names()[_NUMBER])

    @cached_property
    def scene(self) -> Scene:
        """What there is in it."""
        return scene_of(self.spec, _NUMBER)

    def make(self, on_progress: OnProgress = nothing) -> bool:
        """Draws the bag, if it is not there already; says whether it had to.

        Raises:
            OutputError: it cannot be written.
        """
        if self.bag.exists():
            if self._is_mine():
                return False
            shutil.rmtree(self.bag.parent)
        write_bags(self.bag.parent, self.spec, on_progress=on_progress)
        return True

    def truth(self, stamp: int, labels: str) -> tuple[Truth, np.ndarray]:
        """What is true of the turn in which an image was taken, and where rays begin ([n, 3] m).

        As in the benchmark that is the instant at which the LiDAR completes the turn, 35 ms
        after the anchor image: networks learn labels of that instant and not of their images'.

        Args:
            stamp: ns, of an image of that turn.
            labels: of which benchmark.
        """
        period = rig.CAMERA_PERIOD / 1e9
        number = int(time_in_scene(_NUMBER, stamp) / period + 0.01)  # stamps are rounded
        time = number * period + rig.LIDAR_PHASE / 1e9
        return truth_of(self.scene, time, labels), ray_origins(self.scene, time)

    def _is_mine(self) -> bool:
        """Whether this version of the package would draw what is in the bag."""
        try:
            with Bag(self.bag) as bag:
                (recorded,) = recorded_grids(bag)
                _, read = next(iter(recorded))
                theirs = read().labels
        except (BagError, ValueError, StopIteration):
            return False
        truth = truth_of(self.scene, rig.LIDAR_PHASE / 1e9, _LABELS, masks=False)
        return np.array_equal(theirs, truth.labels)
