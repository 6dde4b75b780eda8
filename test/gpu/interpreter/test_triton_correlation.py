# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import pytest
import torch
from emulated import TYPES, assert_near, both, stored
from operators import REORDERED, RESAMPLED, random

from alocc_ros.ops.correlation import correlation, matching_maps, triton_maps
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


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("last", [False, True], ids=["channels first", "channels last"])
def test_maps_of_half_size(kind, last):
    """At rest, turned and moved, and far outside."""
    motion = torch.eye(4, dtype=torch.float64)[None, :3].repeat(3, 1, 1)
    motion[1, :2] += torch.tensor([[0.1, -0.2, 0.03, 1.7], [0.2, 0.1, 0.01, -2.4]])
    motion[2, 0, 3] = 1e12
    order = torch.channels_last if last else torch.contiguous_format
    now, before = (random(3, 5, 8, 10, seed=i).to(kind) for i in range(2))
    given = (*(t.contiguous(memory_format=order) for t in (now, before)), motion)
    ours, emulated = both(matching_maps, triton_maps, given)
    assert not ours[5].any() and ours[4].any()
    assert_near(ours, emulated, kind, factor=RESAMPLED / REORDERED if kind == TYPES[0] else 1)


def test_nan_of_a_past_map_and_of_a_motion():
    motion = torch.eye(4, dtype=torch.float64)[None, :3].repeat(2, 1, 1)
    motion[1, 0, 3] = torch.nan
    now, before = random(2, 3, 6, 6), random(2, 3, 6, 6, seed=1)
    before[0, 1, 3, 3] = now[0, 2, 0, 0] = torch.nan
    ours, emulated = both(matching_maps, triton_maps, (now, before, motion))
    assert ours[2, 1].isnan().any() and ours[0, 2].isnan().any() and not ours[1].isnan().any()
    assert torch.equal(ours[:3].isnan(), emulated[:3].isnan())
