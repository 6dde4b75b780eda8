# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Voxels drawn into the cameras' images, on a thread of their own.

A picture takes longer than everything else that is published, so it must not delay the worker.
The newest result waits for the thread; older ones are dropped.
"""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable, Collection
from typing import NamedTuple

import numpy as np
from PIL import Image as PillowImage

from alocc_ros.stream.decoding import decode
from alocc_ros.stream.image_geometry import Undistortion
from alocc_ros.stream.overlay import camera_T_grid, overlay
from alocc_ros.types import Calibration, FrameSet, Occupancy

_WIDTH = 800  # px


class _Result(NamedTuple):
    frame: FrameSet
    occupancy: Occupancy
    base_T_grid: np.ndarray | None  # [4, 4]
    cameras: Collection[str]


class Overlays:
    """Draws the newest result, as often as the drawing thread gets to it."""

    def __init__(
        self,
        publish: Callable[[FrameSet, str, np.ndarray], None],
        on_error: Callable[[str], None],
    ) -> None:
        """``publish`` gets frame set, camera and [h, w, 3] uint8 RGB; ``on_error`` a traceback."""
        self._publish, self._on_error = publish, on_error
        self._changed = threading.Condition()
        self._next: _Result | None = None
        self._thread: threading.Thread | None = None
        self._undistortions: dict[str, tuple[Calibration, Undistortion]] = {}

    def submit(
        self,
        frame: FrameSet,
        occupancy: Occupancy,
        base_T_grid: np.ndarray | None,  # [4, 4]
        cameras: Collection[str],
    ) -> None:
        """Queues a result, in place of one that is still waiting. Returns at once."""
        with self._changed:
            self._next = _Result(frame, occupancy, base_T_grid, cameras)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="overlays", daemon=True)
                self._thread.start()

    def stop(self) -> None:
        """Drops what is waiting, and waits for the picture that is being drawn."""
        with self._changed:
            self._next, thread = None, self._thread
        if thread is not None:
            thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                result, self._next = self._next, None
                if result is None:
                    self._thread = None
                    return
            for camera in result.cameras:
                try:
                    self._publish(result.frame, camera, self._picture(result, camera))
                except Exception:  # a defect must not end the others
                    self._on_error(traceback.format_exc().strip())

    def _picture(self, result: _Result, camera: str) -> np.ndarray:  # [h, w, 3] uint8 RGB
        frame, occupancy = result.frame, result.occupancy
        calibration = frame.calibration[camera]
        pixels = decode(frame.images[camera])
        if any(calibration.distortion):
            known = self._undistortions.get(camera)
            if known is None or known[0] is not calibration:
                known = self._undistortions[camera] = (calibration, Undistortion(calibration))
            pixels = known[1](pixels)
        width = min(_WIDTH, calibration.width)
        size = (width, round(width * calibration.height / calibration.width))
        picture = PillowImage.fromarray(pixels).resize(size, PillowImage.Resampling.BILINEAR)
        scale = np.diag([size[0] / calibration.width, size[1] / calibration.height, 1.0])
        place = camera_T_grid(frame, camera, result.base_T_grid)
        return overlay(np.asarray(picture), occupancy, place, scale @ calibration.intrinsics)
