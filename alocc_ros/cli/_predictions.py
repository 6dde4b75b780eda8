# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Predictions of an evaluation, kept as the NPZ files that ``alocc view`` shows."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from alocc_ros.bags.outputs import save_npz
from alocc_ros.datasets.samples import ANCHOR, Sample, Scene
from alocc_ros.errors import OutputError
from alocc_ros.evaluation.evaluate import Predictor
from alocc_ros.files import component
from alocc_ros.types import Occupancy


@dataclass(frozen=True)
class Predictions:
    """A file for each key frame.

    Attributes:
        folder: where they are; it is made.
        weights: that they are of, in the words of ``load_network``.
    """

    folder: Path
    weights: str

    def has(self, scene: Scene) -> bool:
        """Whether all of a scene is there, and of these weights."""
        return all(self._is_there(self._file(sample)) for sample in scene.samples)

    def kept(self, predictor: Predictor) -> Predictor:
        """The same predictor, whose predictions are written.

        Raises:
            OutputError: when it is used: a file cannot be written.
        """

        def of_scene(scene: Scene) -> Callable[[Sample], Occupancy]:
            predict = predictor(scene)

            def keep(sample: Sample) -> Occupancy:
                occupancy = predict(sample)
                save_npz(self._file(sample), occupancy, self.weights)
                return occupancy

            return keep

        return of_scene

    def _file(self, sample: Sample) -> Path:
        """In order of time by name."""
        stamp = sample.cameras[ANCHOR].stamp
        return self.folder / f"{stamp}_{component(sample.scene_name)}.npz"

    def _is_there(self, path: Path) -> bool:
        if not path.is_file():
            return False
        try:
            with np.load(path) as content:
                return str(content["weights"]) == self.weights
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise OutputError(f"{path}: not a prediction ({error}); delete it") from error
