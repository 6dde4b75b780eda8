# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Pages of results, with the images below the voxels and the truth beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from alocc_ros.bags.frames import FrameSource, preset_of
from alocc_ros.bags.reader import Bag
from alocc_ros.datasets.truth import UNKNOWN
from alocc_ros.ros.demo.scores import Pair
from alocc_ros.types import FrameSet
from alocc_ros.viewer.frames import Layer, ViewFrame
from alocc_ros.viewer.layers import mask_unseen
from alocc_ros.viewer.page import render_page
from alocc_ros.viewer.pictures import Animation, save_png

PREDICTION, TRUTH = "what the node says", "what is true"


def draw(pairs: Sequence[Pair], bag: Path, model: str, picture: Path, animation: Path) -> None:
    """Writes the page of the middle one, and all of them in motion.

    Args:
        pairs: in order of time.
        bag: where the images are.
        model: its name.
        picture: PNG to write.
        animation: WebP to write.

    Raises:
        AloccError: an image cannot be decoded, or a file cannot be written.
    """
    with Bag(bag) as opened:
        frames = list(FrameSource(opened, preset_of(opened)))
    with Animation(animation) as motion:
        for number, pair in enumerate(pairs):
            stamp = pair.prediction.stamp
            # Without its anchor image a result has the stamp of another one of the same turn.
            frame = min(frames, key=lambda frame: abs(frame.stamp - stamp))
            page = render_page(_view(pair, frame, model))
            motion.add(stamp, page)
            if number == len(pairs) // 2:
                save_png(picture, page)


def _view(pair: Pair, frame: FrameSet, model: str) -> ViewFrame:
    """Only what a camera sees: elsewhere a network may say anything."""
    prediction, truth = pair.prediction, pair.truth
    free = np.uint8(truth.classes.free)
    flow = truth.flow
    if flow is not None:  # what cannot move stands still
        flow = np.where(np.isin(truth.labels, truth.classes.flow)[..., None], flow, 0)
    true = replace(
        prediction,
        labels=np.where(truth.labels == UNKNOWN, free, truth.labels),
        flow=flow,
        confidence=None,
        degraded="",
        reset="",
        random_weights=False,
    )
    layers = (
        Layer(PREDICTION, model, prediction),
        Layer(TRUTH, "", true, camera_mask=truth.mask_camera),
    )
    return mask_unseen(ViewFrame(prediction.stamp, frame, layers))
