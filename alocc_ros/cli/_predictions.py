# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Predictions of an evaluation, kept as the NPZ files that ``alocc view`` shows, or as pages."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image, UnidentifiedImageError

from alocc_ros.bags.outputs import save_npz
from alocc_ros.datasets.samples import ANCHOR, Sample, Scene
from alocc_ros.errors import OutputError
from alocc_ros.evaluation.evaluate import Predictor
from alocc_ros.evaluation.scoring import Scoring
from alocc_ros.files import array_in, component
from alocc_ros.types import Occupancy
from alocc_ros.viewer.dataset_source import view_of_images, view_of_truth
from alocc_ros.viewer.frames import Layer, ViewFrame
from alocc_ros.viewer.layers import mask_unseen
from alocc_ros.viewer.page import render_page
from alocc_ros.viewer.pictures import save_png
from alocc_ros.viewer.source import PREDICTION

_WEIGHTS = "Weights"  # keyword of a page's text


class Keeper(Protocol):
    """Something that is kept of each prediction."""

    def has(self, scene: Scene) -> bool:
        """Whether all of a scene is there, and of these weights."""
        ...

    def kept(self, predictor: Predictor) -> Predictor:
        """The same predictor, of whose predictions something is kept."""
        ...


def both(one: Callable[[Scene], bool], two: Callable[[Scene], bool]) -> Callable[[Scene], bool]:
    """Whether both hold."""
    return lambda scene: one(scene) and two(scene)


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
        return _each(
            predictor,
            lambda sample, occupancy: save_npz(self._file(sample), occupancy, self.weights),
        )

    def _file(self, sample: Sample) -> Path:
        return self.folder / f"{_name(sample)}.npz"

    def _is_there(self, path: Path) -> bool:
        if not path.is_file():
            return False
        try:
            with np.load(path) as content:
                return str(array_in(content, "weights")) == self.weights
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise OutputError(f"{path}: not a prediction ({error}); delete it") from error


@dataclass(frozen=True)
class Pages:
    """A page for each key frame: the images, and the prediction above the truth.

    Attributes:
        folder: where they are; it is made.
        weights: that they are of; each page says so in its text.
        root: folder of the data set.
        scoring: whose truth; what it masks is left out. None: there is no truth.
    """

    folder: Path
    weights: str
    root: Path
    scoring: Scoring | None

    def has(self, scene: Scene) -> bool:
        """Whether all of a scene is there, and of these weights."""
        return all(self._is_there(self._file(sample)) for sample in scene.samples)

    def kept(self, predictor: Predictor) -> Predictor:
        """The same predictor, whose predictions are drawn.

        Raises:
            OutputError: when it is used: a file cannot be written.
        """
        return _each(predictor, self._draw)

    def _draw(self, sample: Sample, occupancy: Occupancy) -> None:
        in_lidar_frame = self.scoring is not None and self.scoring.labels.in_lidar_frame
        base_T_grid = sample.base_T_lidar_grid if in_lidar_frame else None
        layers = [Layer(PREDICTION, sample.scene_name, occupancy, base_T_grid)]
        if self.scoring is not None:
            name, masked = self.scoring.labels.name, self.scoring.masked
            layers += view_of_truth(self.root, sample, name, camera_mask=masked).layers
        images = view_of_images(sample)
        view = ViewFrame(images.stamp, images.frame_set, tuple(layers))
        if self.scoring is not None and self.scoring.masked:
            view = mask_unseen(view)
        save_png(self._file(sample), render_page(view), {_WEIGHTS: self.weights})

    def _file(self, sample: Sample) -> Path:
        return self.folder / f"{_name(sample)}.png"

    def _is_there(self, path: Path) -> bool:
        if not path.is_file():
            return False
        try:
            with Image.open(path) as page:
                return page.info.get(_WEIGHTS) == self.weights
        except (OSError, UnidentifiedImageError) as error:
            raise OutputError(f"{path}: not a page ({error}); delete it") from error


def _name(sample: Sample) -> str:
    """In order of time by name."""
    return f"{sample.cameras[ANCHOR].stamp}_{component(sample.scene_name)}"


def _each(predictor: Predictor, keep: Callable[[Sample, Occupancy], None]) -> Predictor:
    """The same predictor; ``keep`` is called with what it predicts."""

    def of_scene(scene: Scene) -> Callable[[Sample], Occupancy]:
        predict = predictor(scene)

        def kept(sample: Sample) -> Occupancy:
            occupancy = predict(sample)
            keep(sample, occupancy)
            return occupancy

        return kept

    return of_scene
