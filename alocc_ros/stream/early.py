# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Images that are worked on before the set is there that they will be part of.

Whether an image gets into a set is not known when it comes: the collector may drop it, a newer one
may take its place, its calibration may change. So what was made of it is kept under the image
itself and the calibration that was used, and serves only a frame that has both.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future

import numpy as np

from alocc_ros.stream.preprocessing import Preprocessor
from alocc_ros.types import Calibration, CameraImage, FrameSet

_MOST = 2  # a camera: the set that is being put together may want the one before the newest


class EarlyImage:
    """One image, and the network's input that is made of it, in one of the preprocessor's threads.

    Attributes:
        image: as it came.
        calibration: with which it was preprocessed.
        pixels: [3, H, W] float32; or the error that the frame with this image would have raised.
        seconds: that it has taken so far, without waiting.
    """

    def __init__(
        self, preprocessor: Preprocessor, image: CameraImage, calibration: Calibration
    ) -> None:
        """Begins with it; without threads it is done with it afterwards."""
        self.image, self.calibration, self.seconds = image, calibration, 0.0
        self.pixels: Future[np.ndarray] = preprocessor.submit(self._work, preprocessor)

    def _work(self, preprocessor: Preprocessor) -> np.ndarray:
        begin = time.perf_counter()
        pixels = preprocessor.preprocess_one(self.image, self.calibration)
        self.seconds += time.perf_counter() - begin
        return pixels


class EarlyImages:
    """The newest of each camera that were not part of a frame yet."""

    def __init__(self) -> None:
        self._kept: dict[str, deque[EarlyImage]] = {}

    def __iter__(self) -> Iterator[EarlyImage]:
        return (early for kept in self._kept.values() for early in kept)

    def keep(self, early: EarlyImage) -> None:
        """Takes one in; the oldest of its camera may have to go."""
        self._kept.setdefault(early.image.camera, deque(maxlen=_MOST)).append(early)

    def of(self, frame: FrameSet) -> dict[str, EarlyImage]:
        """By camera, what was begun of the frame's own images, with the frame's calibration."""
        return {
            early.image.camera: early
            for early in self
            if frame.images.get(early.image.camera) is early.image
            and frame.calibration.get(early.image.camera) is early.calibration
        }

    def forget(self, images: Mapping[str, CameraImage]) -> None:
        """These were in a frame, and what is older will not come again."""
        for camera, image in images.items():
            kept = self._kept.get(camera, ())
            newer = (early for early in kept if early.image.stamp > image.stamp)
            self._kept[camera] = deque(newer, maxlen=_MOST)

    def clear(self) -> None:
        """Forgets all."""
        self._kept.clear()
