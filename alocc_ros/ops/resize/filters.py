# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Which pixels a resized pixel is made of, and how much of each, as Pillow has it."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from alocc_ros.ops.resize.reference import WEIGHT_BITS

# Of the cubic through four points; Pillow's.
_SHARPNESS = -0.5


class Resampling(NamedTuple):
    """One axis.

    Attributes:
        begin, end: the part of the input that is read.
        starts: [n] int32, first pixel of each output pixel, counted from ``begin``.
        weights: [n, taps] int32, share of that pixel and of those behind it, 2**22 being all.
    """

    begin: int
    end: int
    starts: Tensor
    weights: Tensor


def bicubic_filters(size: int, resized: int, first: int, count: int) -> Resampling:
    """Of output pixels ``first`` and the ``count - 1`` behind it, where ``size`` pixels become
    ``resized``.

    Raises:
        ValueError: sizes that are not positive, or pixels outside of the result.
    """
    if size < 1 or resized < 1 or count < 1 or first < 0 or first + count > resized:
        raise ValueError(f"pixels {first} to {first + count} of {size} resized to {resized}")
    scale = size / resized
    stretch = max(scale, 1.0)  # a smaller image is blurred first, by the same filter
    support = 2.0 * stretch
    centre = (first + np.arange(count) + 0.5) * scale
    begin = np.maximum((centre - support + 0.5).astype(np.int64), 0)
    end = np.minimum((centre + support + 0.5).astype(np.int64), size)
    pixel = begin[:, None] + np.arange(math.ceil(support) * 2 + 1)
    weight = _cubic((pixel - centre[:, None] + 0.5) * (1.0 / stretch))
    weight = np.where(pixel < end[:, None], weight, 0.0)
    # One after the other, as a loop adds them: a sum of another order may round otherwise.
    weight = weight / np.cumsum(weight, axis=1)[:, -1:]
    whole = np.trunc(weight * (1 << WEIGHT_BITS) + np.where(weight < 0, -0.5, 0.5))
    taps = int((end - begin).max())
    # Where fewer taps are needed than elsewhere, those that are not must not lie outside.
    low, high = int(begin.min()), int(end.max())
    shift = np.maximum(begin + taps - high, 0)
    rows = np.zeros((count, taps), dtype=np.int32)
    for i, by in enumerate(shift):
        rows[i, by:] = whole[i, : taps - by]
    starts = torch.from_numpy((begin - shift - low).astype(np.int32))
    return Resampling(low, high, starts, torch.from_numpy(rows))


def _cubic(x: np.ndarray) -> np.ndarray:
    """Keys' kernel: 1 at 0, 0 at other integers and from 2 on."""
    a, x = _SHARPNESS, np.abs(x)
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))
