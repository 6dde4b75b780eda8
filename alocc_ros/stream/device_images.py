# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Preprocessing with the second half on a device: images are decoded by the preprocessor's threads,
or JPEGs by the device itself, and resized, cropped and normalised where the network runs, bit for
bit as ``Preprocessor`` does it (before the result is rounded to the network's type).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from alocc_ros.ops.library import fused_form
from alocc_ros.ops.resize import bicubic_filters, resize_images_
from alocc_ros.stream.device_jpeg import DeviceJpegDecoder, plain_jpeg
from alocc_ros.stream.image_geometry import Crop
from alocc_ros.stream.preprocessing import Preprocessor
from alocc_ros.types import FrameSet


class _Filters(NamedTuple):
    columns: slice  # of the image that are read
    rows: slice
    tables: tuple[Tensor, Tensor, Tensor, Tensor]  # on the device


class DeviceImages:
    """A frame's images on a device, as the network wants them."""

    def __init__(
        self, preprocessor: Preprocessor, device: torch.device, dtype: torch.dtype
    ) -> None:
        """What the preprocessor would do, on ``device``, in ``dtype``.

        Raises:
            DeviceError: the preprocessor's ``decode`` is ``gpu`` and that does not work here.
        """
        self._preprocessor, self._device, self._dtype = preprocessor, device, dtype
        self._operator = fused_form(resize_images_) if device.type == "cuda" else resize_images_
        mean, std = preprocessor.statistics
        self._mean = torch.tensor(mean, device=device)
        self._scale = torch.tensor([1.0 / s for s in std], device=device)
        self._filters: dict[Crop, _Filters] = {}
        self._jpeg = DeviceJpegDecoder(device) if preprocessor.decode == "gpu" else None

    def __call__(self, frame: FrameSet, cameras: Sequence[str]) -> Tensor:  # [N, 3, H, W]
        """The same as ``Preprocessor.__call__``; errors as there."""
        p = self._preprocessor
        here = self._decoded_here(frame, cameras)
        begun = [
            None if camera in here else p.submit(p.decoded, frame, camera) for camera in cameras
        ]
        size = (len(cameras), 3, *p.input_size)
        out = torch.empty(size, dtype=self._dtype, device=self._device)
        out = out.contiguous(memory_format=torch.channels_last)
        for place, camera, job in zip(out, cameras, begun, strict=True):
            pixels = here[camera] if job is None else job.result()
            crop = None if pixels is None else p.crop(frame.calibration[camera])
            if crop is None:
                place.copy_(torch.from_numpy(p.black()))
            elif crop.reaches_outside:
                whole = p.preprocess_one(frame.images[camera], frame.calibration[camera])
                place.copy_(torch.from_numpy(whole))
            else:
                self._resize(pixels, crop, place)
        return out

    def _decoded_here(self, frame: FrameSet, cameras: Sequence[str]) -> dict[str, Tensor]:
        """Pixels on the device, by camera, of what it decodes itself: plain JPEGs that need not be
        undistorted and are cropped inside.
        """
        if self._jpeg is None:
            return {}
        p, plain = self._preprocessor, {}
        for camera in cameras:
            image, calibration = frame.images.get(camera), frame.calibration.get(camera)
            if image is None or calibration is None or p.undistorts(calibration):
                continue
            crop = p.crop(calibration)
            if not crop.reaches_outside and (data := plain_jpeg(image, (crop.width, crop.height))):
                plain[camera] = data
        decoded = zip(plain, self._jpeg(list(plain.values())), strict=True)
        return {camera: pixels for camera, pixels in decoded if pixels is not None}

    def _resize(self, pixels: np.ndarray | Tensor, crop: Crop, out: Tensor) -> None:
        filters = self._filters.get(crop) or self._made(crop)
        read = pixels[filters.rows, filters.columns]
        if isinstance(read, Tensor):
            image = read.contiguous()
        else:
            image = torch.from_numpy(np.ascontiguousarray(read))
            if self._device.type == "cuda":
                image = image.pin_memory().to(self._device, non_blocking=True)
        reverse = self._preprocessor.channel_order == "bgr"
        self._operator(image[None], *filters.tables, self._mean, self._scale, reverse, out[None])

    def _made(self, crop: Crop) -> _Filters:
        rows, columns = crop.input_size
        across = bicubic_filters(crop.width, crop.resized[0], crop.left, columns)
        down = bicubic_filters(crop.height, crop.resized[1], crop.top, rows)
        tables = (across.starts, across.weights, down.starts, down.weights)
        made = _Filters(
            slice(across.begin, across.end),
            slice(down.begin, down.end),
            tuple(t.to(self._device) for t in tables),
        )
        self._filters[crop] = made
        return made
