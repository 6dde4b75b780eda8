# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import pytest
import torch
from emulated import TYPES, assert_near, both, stored
from operators import random

from alocc_ros.ops.upsample import triton as kernels
from alocc_ros.ops.upsample import upsample_add_, upsample_taps_

SIZE = (6, 5, 3)
LEVELS = {
    "none": [],
    "two": [(3, 3, 2), (1, 2, 1)],
    "more than a kernel takes": [(3, 2, 1), (6, 5, 3), (2, 2, 2), (7, 1, 1)],
}


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("channels", [3, 48])
@pytest.mark.parametrize("low", LEVELS)
def test_added_levels(kind, channels, low):
    total = random(2, *SIZE, channels)
    levels = [random(2, *s, channels, seed=i + 1) for i, s in enumerate(LEVELS[low])]
    given = stored((total, levels), kind)
    ours, emulated = both(upsample_add_, kernels, given)
    # Between two kernels the sum is stored.
    assert_near(ours, emulated, kind, factor=2 if len(levels) > 3 else 1)


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize(("low", "channels"), [("none", 3), ("two", 48), ("two", 6)])
def test_taps(kind, channels, low):
    total = random(2, *SIZE[:2], channels)
    levels = [random(2, *s[:2], 9 * channels, seed=i + 1) for i, s in enumerate(LEVELS[low])]
    ours, emulated = both(upsample_taps_, kernels, stored((total, levels), kind))
    assert_near(ours, emulated, kind)


def test_taps_of_more_levels_than_a_kernel_takes():
    levels = [
        random(1, *s[:2], 18, seed=i) for i, s in enumerate(LEVELS["more than a kernel takes"])
    ]
    given = (random(1, *SIZE[:2], 2, seed=9), levels)
    assert_near(*both(upsample_taps_, kernels, given), torch.float32)


def test_nan_is_shown_where_the_general_form_shows_it():
    total, low = random(1, *SIZE, 4), random(1, 3, 3, 2, 4, seed=1)
    total[0, 0, 0, 0, 0] = low[0, 1, 1, 1, 1] = torch.nan
    ours, emulated = both(upsample_add_, kernels, (total, [low]))
    assert ours[..., 1].isnan().any() and not ours[..., 2].isnan().any()
    assert_near(ours, emulated, torch.float32)
    flat, taps = random(1, *SIZE[:2], 4), random(1, 3, 3, 36, seed=1)
    flat[0, 0, 0, 0] = taps[0, 1, 1, 1] = torch.nan
    ours, emulated = both(upsample_taps_, kernels, (flat, [taps]))
    assert ours[..., 1].isnan().any() and not ours[..., 2].isnan().any()
    assert_near(ours, emulated, torch.float32)


def test_what_is_written_to_must_be_contiguous():
    total = random(1, 4, 4, 4, 2).transpose(1, 2)
    with pytest.raises(ValueError, match="contiguous"):
        kernels.upsample_add_(total, [])
