# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""JPEG pictures decoded by the device on which the network runs (nvImageCodec, an extra)."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from alocc_ros.errors import DeviceError
from alocc_ros.stream.decoding import check_size, is_compressed
from alocc_ros.stream.encodings import mosaic_of
from alocc_ros.types import CameraImage

_END = b"\xff\xd9"  # nvJPEG answers with grey where the rest of a picture is missing


class DeviceJpegDecoder:
    """Decodes pictures on a device, several at a time.

    On a CPU it is libjpeg-turbo, whose pixels are those of Pillow; nvJPEG's differ by rounding of
    the inverse transform and of colours.
    """

    def __init__(self, device: torch.device) -> None:
        """Raises DeviceError if nvImageCodec is not installed, or cannot be used here."""
        try:
            from nvidia import nvimgcodec
        except ImportError as error:
            raise DeviceError(
                f"decode gpu: nvImageCodec cannot be imported ({error}); pip install "
                "'alocc_ros[nvjpeg]', or take exact or fast"
            ) from error
        cpu = device.type == "cpu"
        kinds = nvimgcodec.BackendKind
        backends = (
            [kinds.CPU_ONLY] if cpu else [kinds.HW_GPU_ONLY, kinds.GPU_ONLY, kinds.HYBRID_CPU_GPU]
        )
        place = nvimgcodec.NVIMGCODEC_DEVICE_CPU_ONLY if cpu else _number(device)
        self._device = device
        try:
            self._decoder = nvimgcodec.Decoder(
                device_id=place,
                backends=[nvimgcodec.Backend(kind) for kind in backends],
                options=":fancy_upsampling=1",
            )
        except RuntimeError as error:
            raise DeviceError(f"decode gpu: nvImageCodec does not work here: {error}") from error
        # Calibrations are for the pixels as they are stored.
        self._settings = nvimgcodec.DecodeParams(
            apply_exif_orientation=False, color_spec=nvimgcodec.ColorSpec.SRGB
        )

    def __call__(self, pictures: Sequence[bytes]) -> list[Tensor | None]:  # [h, w, 3] uint8 RGB
        """The pixels of each, on the device's current stream; None of what it cannot decode."""
        if not pictures:
            return []
        stream = 0 if self._device.type == "cpu" else torch.cuda.current_stream(self._device)
        found = self._decoder.decode(
            list(pictures), params=self._settings, cuda_stream=getattr(stream, "cuda_stream", 0)
        )
        return [None if image is None else self._tensor(image) for image in found]

    def _tensor(self, image: object) -> Tensor:
        if self._device.type == "cpu":
            return torch.from_numpy(np.asarray(image))
        return torch.from_dlpack(image)


def plain_jpeg(image: CameraImage, expected: tuple[int, int]) -> bytes | None:
    """The bytes of a whole colour JPEG, which any decoder reads alike; None: it is something else,
    or damaged, and Pillow is the one to read it or to say why not.

    Args:
        image: the message.
        expected: width and height that it must have.

    Raises:
        ImageError: it is a JPEG of another size.
    """
    if not is_compressed(image.encoding) or mosaic_of(image.encoding):
        return None
    data = bytes(image.data)
    if not data.rstrip(b"\0").endswith(_END):
        return None
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as opened:
            mode, size = opened.mode, opened.size
    except Exception:  # whatever a damaged header runs Pillow into; it is asked again, and tells
        return None
    check_size(image, *size, expected)
    return data if mode == "RGB" else None


def _number(device: torch.device) -> int:
    return torch.cuda.current_device() if device.index is None else device.index
