# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import pytest
import torch
from emulated import both

from alocc_ros.ops.resize import bicubic_filters, resize_images_, resize_images_reference
from alocc_ros.ops.resize import triton as kernels

MEAN, SCALE = torch.tensor([120.0, 110.0, 100.0]), torch.tensor([0.017, 0.018, 0.0175])


@pytest.mark.parametrize("kind", [torch.float32, torch.float16])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(
    ("size", "resized", "box"),
    [
        ((30, 52), (23, 14), (1, 3, 22, 14)),
        ((20, 11), (30, 40), (0, 5, 30, 40)),
        ((9, 9), (9, 9), (0, 0, 9, 9)),
    ],
    ids=["smaller", "larger", "cut only"],
)
def test_pixels_are_pillows(kind, reverse, size, resized, box):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (2, *size, 3), dtype=torch.uint8, generator=generator)
    images[1] = (images[1] > 127) * 255  # overshoots are cut off
    across = bicubic_filters(size[1], resized[0], box[0], box[2] - box[0])
    down = bicubic_filters(size[0], resized[1], box[1], box[3] - box[1])
    part = images[:, down.begin : down.end, across.begin : across.end]
    out = torch.empty(2, 3, box[3] - box[1], box[2] - box[0], dtype=kind)
    out = out.contiguous(memory_format=torch.channels_last)
    filters = (across.starts, across.weights, down.starts, down.weights)
    given = (part, *filters, MEAN, SCALE, reverse, out)
    ours, emulated = both(resize_images_, kernels, given)
    expected = resize_images_reference(images, resized, box, MEAN, SCALE, reverse)
    assert torch.equal(ours, expected.to(kind)) and torch.equal(emulated, ours)
