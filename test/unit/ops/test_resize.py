# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Resizing in torch against Pillow: not close, equal."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from alocc_ros.ops.resize import bicubic_filters, resize_images_, resize_images_reference
from alocc_ros.stream.image_geometry import Crop
from alocc_ros.stream.preprocessing import MEAN, STD, preprocess
from alocc_ros.types import CameraImage

SAMPLE = Path(__file__).parents[4] / "shared/data/nuscenes_scene0061_sample"
SCALE = torch.tensor([np.float32(1.0 / s) for s in STD])


def resized(
    images: Tensor,  # [N, h, w, 3] uint8
    size: tuple[int, int],  # width and height of the whole result
    box: tuple[int, int, int, int],
    reverse: bool = True,
    kind: torch.dtype = torch.float32,
) -> Tensor:
    across = bicubic_filters(images.shape[2], size[0], box[0], box[2] - box[0])
    down = bicubic_filters(images.shape[1], size[1], box[1], box[3] - box[1])
    part = images[:, down.begin : down.end, across.begin : across.end]
    out = torch.empty(len(images), 3, box[3] - box[1], box[2] - box[0], dtype=kind)
    filters = (across.starts, across.weights, down.starts, down.weights)
    resize_images_(part, *filters, torch.tensor(MEAN), SCALE, reverse, out)
    return out


def noise(*size: int, seed: int = 0, hard: bool = False) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (*size, 3), dtype=torch.uint8, generator=generator)
    return (pixels > 127) * torch.tensor(255, dtype=torch.uint8) if hard else pixels


side = st.integers(1, 60)


@given(sizes=st.tuples(side, side, side, side), hard=st.booleans(), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=60)
def test_any_size_to_any_other_is_pillows(sizes, hard, seed):
    """Hard edges: overshoots beyond black and white are cut off after each pass."""
    h, w, rows, columns = sizes
    images = noise(1, h, w, seed=seed, hard=hard)
    # An odd part of it, at the border on one side.
    box = (columns // 3, 0, columns, max(1, rows - rows // 4))
    expected = resize_images_reference(
        images, (columns, rows), box, torch.tensor(MEAN), SCALE, reverse=False
    )
    assert torch.equal(resized(images, (columns, rows), box, reverse=False), expected)


@pytest.mark.skipif(not SAMPLE.exists(), reason="the sample of nuScenes is not here")
@pytest.mark.parametrize("input_size", [(256, 704), (896, 1600), (128, 352)])
def test_real_images_are_what_the_cpu_makes_of_them(input_size):
    paths = sorted(SAMPLE.glob("*.jpg"))[:: 6 if input_size[0] > 256 else 1]
    assert paths
    images = torch.stack([torch.from_numpy(np.array(Image.open(p))) for p in paths])
    crop = Crop.fit(images.shape[2], images.shape[1], input_size)
    box = (crop.left, crop.top, crop.left + input_size[1], crop.top + input_size[0])
    ours = resized(images, crop.resized, box)
    for path, own in zip(paths, ours, strict=True):
        message = CameraImage(path.stem, 0, path.read_bytes(), "jpeg")
        assert np.array_equal(own.numpy(), preprocess(message, crop))


def test_results_are_rounded_once_and_keep_the_order_of_memory():
    images, size, box = noise(2, 20, 31), (17, 11), (2, 1, 17, 10)
    expected = resized(images, size, box)
    assert torch.equal(resized(images, size, box, kind=torch.float16), expected.half())
    planar = images.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
    assert torch.equal(resized(planar, size, box), expected)


def test_filters_read_what_they_say_and_weights_add_up():
    down = bicubic_filters(900, 396, 140, 256)
    assert (down.begin, down.end) == (315, 900)
    last = down.starts + down.weights.shape[1]
    assert down.starts.min() == 0 and last.max() == down.end - down.begin
    total = down.weights.sum(1)
    assert ((total - (1 << 22)).abs() <= down.weights.shape[1]).all()


@pytest.mark.parametrize("wrong", [(0, 5, 0, 1), (5, 0, 0, 1), (5, 5, 3, 3), (5, 5, -1, 2)])
def test_pixels_that_are_not_there_are_refused(wrong):
    with pytest.raises(ValueError, match="resized to"):
        bicubic_filters(*wrong)
