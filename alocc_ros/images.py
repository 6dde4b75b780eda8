# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""A frame's images on their way into the network, some of them ahead of their frame."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from alocc_ros.errors import CalibrationError, DeviceError
from alocc_ros.runtime.runner import Runner
from alocc_ros.runtime.state import StreamState
from alocc_ros.stream.device_images import DeviceImages
from alocc_ros.stream.early import EarlyImage, EarlyImages
from alocc_ros.stream.preprocessing import Preprocessor
from alocc_ros.types import Calibration, CameraImage, FrameSet

_BLACK = "no image"  # the key of what is seen in the place of a camera that is missing


class Taken(NamedTuple):
    """What a frame is made of.

    Attributes:
        images: [N, 3, H, W] on the device, of the cameras that were not seen.
        seen: keys of what was, by number of the camera; see ``Runner.step``.
        seconds: that had been spent on its images before it.
        early: how many of them had been ``decoded``, and ``seen``.
    """

    images: Tensor
    seen: dict[int, object]
    seconds: float
    early: Counter[str]


@dataclass
class NetworkImages:
    """Preprocesses images, and has those seen that come early.

    Attributes:
        preprocessor: images to network input.
        runner, state: of the stream.
        done: images so far that were ``decoded``, and that were ``seen``, when their frame came.
    """

    preprocessor: Preprocessor
    runner: Runner
    state: StreamState
    done: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._early, device = EarlyImages(), self.runner.device
        self._cuda: torch.cuda.Stream | None = None
        self._on_device: DeviceImages | None = None
        if device.type == "cuda":
            self._cuda = torch.cuda.Stream(device)
            self._cuda.wait_stream(torch.cuda.current_stream(device))
            fast = self.runner.backend in ("graph", "tensorrt") and not self.runner.reason
            if self.preprocessor.decode != "fast" and fast:
                self._on_device = DeviceImages(self.preprocessor, device, self.runner.core.dtype)
        if self.preprocessor.decode == "gpu" and self._on_device is None:
            why = self.runner.reason or f"backend {self.runner.backend} on {device}"
            raise DeviceError(
                f"decode gpu: it needs backend graph or tensorrt on a CUDA device, this is {why}; "
                "take exact or fast"
            )

    def begin(self, image: CameraImage, calibration: Calibration) -> EarlyImage:
        """Begins to decode and preprocess an image ahead of its frame; comes back at once if the
        preprocessor has threads. The frame uses it if it has the same objects; two a camera are
        kept.

        Raises:
            CalibrationError: the rig has no such camera.
        """
        if image.camera not in self.preprocessor.cameras:
            raise CalibrationError(f"{image.camera}: the network has no place for it")
        early = EarlyImage(self.preprocessor, image, calibration)
        self._early.keep(early)
        return early

    def see(self, early: EarlyImage) -> None:
        """Waits until an image is preprocessed, and does what the network needs only it for; the
        newest one of each camera is kept.

        Raises:
            ImageError: the image cannot be used; its frame would say the same.
        """
        pixels = early.pixels.result()
        if not self.runner.sees or early not in self._early:
            return
        begin = time.perf_counter()
        with self.on_stream():
            self._see(early.image.camera, pixels, early)
        early.seconds += time.perf_counter() - begin

    def take(self, frame: FrameSet) -> Taken:
        """The frame's images, as far as they are not seen yet.

        Raises:
            ImageError, CalibrationError: see ``Preprocessor.__call__``.
        """
        cameras, early = self.preprocessor.cameras, self._early.of(frame)
        seen: dict[int, object] = {
            i: early[camera]
            for i, camera in enumerate(cameras)
            if camera in early and self.state.has_seen(i, early[camera])
        }
        count = Counter(decoded=len(early), seen=len(seen))
        if seen:  # what is seen in a camera's place while it is missing does not change
            for i, camera in enumerate(cameras):
                if camera not in frame.images:
                    if not self.state.has_seen(i, _BLACK):
                        self._see(camera, self.preprocessor.black(), _BLACK)
                    seen[i] = _BLACK
        others = [camera for i, camera in enumerate(cameras) if i not in seen]
        begun = {camera: one.pixels for camera, one in early.items() if camera in others}
        if self._on_device is not None and not begun:
            images = self._on_device(frame, others)
        else:
            pixels = self.preprocessor(frame, others, begun)
            images = torch.from_numpy(pixels).to(self.runner.device)
        return Taken(images, seen, sum(one.seconds for one in early.values()), count)

    def finish(self, frame: FrameSet, answered: Taken | None) -> None:
        """The frame is over: its images serve no other. None: without an answer."""
        if answered is not None:
            self.done.update(answered.early)
        self._early.forget(frame.images)
        self.state.forget_seen(but=(_BLACK, *self._early))

    @property
    def waiting(self) -> list[CameraImage]:
        """Images that were begun and were in no frame yet."""
        return [early.image for early in self._early]

    def on_stream(self) -> AbstractContextManager[Any]:
        """On a GPU, this stream's own CUDA stream is the current one."""
        return nullcontext() if self._cuda is None else torch.cuda.stream(self._cuda)

    def _see(self, camera: str, pixels: np.ndarray, key: object) -> None:
        image = torch.from_numpy(pixels)[None].to(self.runner.device)
        self.runner.see(image, self.state, self.preprocessor.cameras.index(camera), key)
