# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import pytest
import torch
from emulated import TYPES, assert_near, both, stored
from operators import random

from alocc_ros.ops.correlation import correlation
from alocc_ros.ops.correlation import triton as kernels


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("channels", [3, 16])
@pytest.mark.parametrize("last", [False, True], ids=["channels first", "channels last"])
def test_borders_empty_cells_and_any_order_in_memory(kind, channels, last):
    now, then = random(2, channels, 5, 9), random(2, channels, 5, 9, seed=1)
    then[0, :, 1:3, 2:6] = 0  # nothing was there
    now[1, :, 4, 8] = 0
    order = torch.channels_last if last else torch.contiguous_format
    given = tuple(t.contiguous(memory_format=order) for t in stored((now, then), kind))
    assert_near(*both(correlation, kernels, given), kind)


def test_nan_is_shown_where_the_general_form_shows_it():
    now, then = random(1, 3, 4, 30), random(1, 3, 4, 30, seed=1)
    now[0, 0, 1, 1] = then[0, 1, 2, 20] = torch.nan
    ours, emulated = both(correlation, kernels, (now, then))
    assert 0 < ours.isnan().float().mean() < 1
    assert_near(ours, emulated, torch.float32)
