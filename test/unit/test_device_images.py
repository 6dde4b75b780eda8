# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Images that are resized where the network runs are those that the threads would have made."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from alocc_ros.errors import CalibrationError, ImageError
from alocc_ros.stream.device_images import DeviceImages
from alocc_ros.stream.preprocessing import Preprocessor
from alocc_ros.types import CAMERAS, Calibration, CameraImage, FrameSet

SIZE = (64, 176)
WIDTH, HEIGHT = 400, 225


def calibration(camera: str, **more: object) -> Calibration:
    matrix = np.array([[316.0, 0, WIDTH / 2], [0, 316.0, HEIGHT / 2], [0, 0, 1.0]])
    return Calibration(camera, WIDTH, HEIGHT, matrix, np.eye(4), **more)


def jpeg(camera: str, seed: int) -> CameraImage:
    low = np.random.default_rng(seed).integers(0, 256, (HEIGHT // 5, WIDTH // 5, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(low).resize((WIDTH, HEIGHT)).save(out, "JPEG")
    return CameraImage(camera, 1, out.getvalue(), "jpeg")


@pytest.fixture
def frame() -> FrameSet:
    rig = {c: calibration(c) for c in CAMERAS}
    rig["cam_back"] = calibration(
        "cam_back", distortion=(-0.3, 0.1, 0.0, 0.0), distortion_model="plumb_bob"
    )
    images = {c: jpeg(c, i) for i, c in enumerate(CAMERAS) if c != "cam_front_left"}
    return FrameSet(1, images, rig, np.eye(4), {})


@pytest.mark.parametrize("order", ["bgr", "rgb"])
@pytest.mark.parametrize("threads", [1, 2])
def test_they_are_the_same_to_the_bit(frame, order, threads):
    with Preprocessor(SIZE, channel_order=order, undistort=True, threads=threads) as preprocessor:
        expected = torch.from_numpy(preprocessor(frame))
        single = DeviceImages(preprocessor, torch.device("cpu"), torch.float32)
        half = DeviceImages(preprocessor, torch.device("cpu"), torch.float16)
        for _ in range(2):  # the second time with the tables that are known
            assert torch.equal(single(frame, CAMERAS), expected)
        ours = half(frame, CAMERAS[::-1])
    assert ours.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(ours, expected.flip(0).half())


def test_what_is_wrong_with_an_image_is_said_as_ever(frame):
    with Preprocessor(SIZE, undistort=True) as preprocessor:
        on_device = DeviceImages(preprocessor, torch.device("cpu"), torch.float32)
        frame.images["cam_back"] = CameraImage("cam_back", 1, b"\xff\xd8 no more", "jpeg")
        with pytest.raises(ImageError, match="cam_back"):
            on_device(frame, CAMERAS)
        frame.images["cam_back"] = jpeg("cam_back", 0)
        del frame.calibration["cam_back"]
        with pytest.raises(CalibrationError, match="cam_back: there is an image but no"):
            on_device(frame, CAMERAS)
