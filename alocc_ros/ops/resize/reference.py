# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Resizing by its definition, which is Pillow, and in torch with Pillow's integers."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

# Binary places of a weight: 8-bit pixels times weights and their sums fit into 32 bits.
WEIGHT_BITS = 22


def resize_images_reference(
    images: Tensor,  # [N, h, w, 3] uint8
    resized: tuple[int, int],  # width and height
    box: tuple[int, int, int, int],  # of the resized image: left, top, right, bottom
    mean: Tensor,  # [3] of values 0 to 255, by channel of the result
    scale: Tensor,  # [3], by which what differs from the mean is multiplied
    reverse: bool,  # channels are red, green, blue in one and blue, green, red in the other
) -> Tensor:  # [N, 3, bottom - top, right - left] float32
    """Pillow's antialiased bicubic, across first and then down; cropped and normalised."""
    width, height = resized
    done = []
    for image in images.cpu().numpy():
        narrow = Image.fromarray(image).resize((width, len(image)), Image.Resampling.BICUBIC)
        small = narrow.resize((width, height), Image.Resampling.BICUBIC).crop(box)
        done.append(torch.from_numpy(np.array(small)))
    return _normalised(torch.stack(done), mean.cpu(), scale.cpu(), reverse)


def resize_images(
    images: Tensor,  # [N, h, w, 3] uint8, rows and columns that the filters begin with
    column_starts: Tensor,  # [W] int32; see ``Resampling``
    column_weights: Tensor,  # [W, taps] int32
    row_starts: Tensor,  # [H] int32
    row_weights: Tensor,  # [H, taps] int32
    mean: Tensor,
    scale: Tensor,
    reverse: bool,
) -> Tensor:  # [N, 3, H, W] float32
    """``resize_images_reference`` bit for bit, on any device."""
    narrow = _pass(images, 2, column_starts, column_weights)
    return _normalised(_pass(narrow, 1, row_starts, row_weights), mean, scale, reverse)


def _pass(images: Tensor, axis: int, starts: Tensor, weights: Tensor) -> Tensor:
    """One axis; [N, h, w, 3] uint8 -> likewise."""
    size = [-1 if i == axis else 1 for i in range(4)]
    total = None
    for k in range(weights.shape[1]):
        pixels = images.index_select(axis, starts + k).int() * weights[:, k].view(size)
        total = pixels if total is None else total + pixels
    half = 1 << (WEIGHT_BITS - 1)
    return ((total + half) >> WEIGHT_BITS).clamp(0, 255).to(torch.uint8)


def _normalised(pixels: Tensor, mean: Tensor, scale: Tensor, reverse: bool) -> Tensor:
    channels = pixels.flip(-1) if reverse else pixels
    return ((channels.float() - mean) * scale).permute(0, 3, 1, 2).contiguous()
