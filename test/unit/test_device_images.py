# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Images that are resized where the network runs are those that the threads would have made."""

from __future__ import annotations

import io
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from small_networks import network_of, small

from alocc_ros.errors import CalibrationError, DeviceError, ImageError
from alocc_ros.images import NetworkImages
from alocc_ros.runtime.runner import make_runner
from alocc_ros.runtime.state import StreamState
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


def with_jpeg_decoder(frame, **settings):
    pytest.importorskip("nvidia.nvimgcodec", reason="nvImageCodec is not installed")
    preprocessor = Preprocessor(SIZE, undistort=True, decode="gpu", **settings)
    return preprocessor, DeviceImages(preprocessor, torch.device("cpu"), torch.float32)


def test_jpegs_that_the_device_decodes_are_the_same(frame, monkeypatch):
    # On a CPU nvImageCodec is libjpeg-turbo, as Pillow is: everything around it is compared.
    grey = io.BytesIO()
    Image.new("L", (WIDTH, HEIGHT), 77).save(grey, "JPEG")
    frame.images["cam_back_left"] = CameraImage("cam_back_left", 1, grey.getvalue(), "jpeg")
    turned = Image.Exif()
    turned[0x112] = 6
    out = io.BytesIO()
    Image.open(io.BytesIO(frame.images["cam_front"].data)).save(out, "JPEG", exif=turned)
    frame.images["cam_front"] = CameraImage("cam_front", 1, out.getvalue(), "jpeg")
    preprocessor, on_device = with_jpeg_decoder(frame)
    begun = []
    submit = preprocessor.submit
    monkeypatch.setattr(
        preprocessor, "submit", lambda job, *a: begun.append(a[-1]) or submit(job, *a)
    )
    with preprocessor:
        found = on_device(frame, CAMERAS)
        # Missing, distorted, grey: the threads' affair.
        assert sorted(begun) == ["cam_back", "cam_back_left", "cam_front_left"]
        with Preprocessor(SIZE, undistort=True) as exact:
            assert torch.equal(found, torch.from_numpy(exact(frame)))


@pytest.mark.parametrize("damage", ["cut", "scan", "header", "size", "empty"])
def test_a_damaged_jpeg_is_told_whoever_decodes(frame, damage):
    data = bytearray(frame.images["cam_front"].data)
    if damage == "cut":
        data = data[: len(data) // 2]
    elif damage == "scan":  # Pillow shows what it can of it; so does this
        data[len(data) // 2 : len(data) // 2 + 8] = b"\xff\x00" * 4
    elif damage == "header":
        data[2:20] = bytes(18)
    elif damage == "empty":
        data = bytearray()
    else:
        out = io.BytesIO()
        Image.new("RGB", (WIDTH, HEIGHT + 2)).save(out, "JPEG")
        data = bytearray(out.getvalue())
    frame.images["cam_front"] = CameraImage("cam_front", 1, bytes(data), "jpeg")
    preprocessor, on_device = with_jpeg_decoder(frame)
    with preprocessor, Preprocessor(SIZE, undistort=True) as exact:
        try:
            expected = torch.from_numpy(exact(frame))
        except ImageError as error:
            with pytest.raises(ImageError) as raised:
                on_device(frame, CAMERAS)
            assert str(raised.value) == str(error) and damage != "scan"
        else:
            assert damage == "scan" and torch.equal(on_device(frame, CAMERAS), expected)


def test_without_nv_image_codec_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "nvidia", None)
    said = pytest.raises(DeviceError, match=r"pip install 'alocc_ros\[nvjpeg\]'")
    with Preprocessor(SIZE, decode="gpu") as preprocessor, said:
        DeviceImages(preprocessor, torch.device("cpu"), torch.float32)


def test_a_gpu_decoder_without_a_gpu_is_refused_when_the_pipeline_is_made():
    network = network_of(small("alocc_2d_mini"))
    said = pytest.raises(DeviceError, match="decode gpu: it needs backend graph or tensorrt on")
    with Preprocessor(network.variant.input_size, decode="gpu") as preprocessor, said:
        NetworkImages(preprocessor, make_runner(network), StreamState(network))
