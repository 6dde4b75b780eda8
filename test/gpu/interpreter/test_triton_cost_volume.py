# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import pytest
import torch
from interpreted import TOLERANCES, TYPES, count_launches, stored, wide
from operators import assert_close, random

from alocc_ros.ops.cost_volume import cost_volume as operator
from alocc_ros.ops.cost_volume import cost_volume_reference
from alocc_ros.ops.cost_volume.triton import cost_volume
from alocc_ros.ops.library import fused_form, launches_of

BINS = 5


def case(channels: int = 20, h: int = 3, w: int = 5, seed: int = 0):
    """Places inside, at the border of, and beside the map, of two cameras."""
    current = torch.relu(random(2, channels, h, w, seed=seed))
    previous = torch.relu(random(2, channels, h, w, seed=seed + 1))
    homography = torch.eye(3, dtype=torch.float64) + 0.1 * random(2, 3, 3, seed=seed + 2).double()
    homography[:, 2] = torch.tensor([0.001, -0.002, 1.0])
    offset = 2.0 * random(2, 3, seed=seed + 3).double()
    last = torch.channels_last
    return (
        current.contiguous(memory_format=last),
        previous.contiguous(memory_format=last),
        homography,
        offset,
        1.0,
        0.5,
        BINS,
    )


def at_rest():
    still = torch.eye(3, dtype=torch.float64).repeat(2, 1, 1)
    return still, torch.zeros(2, 3, dtype=torch.float64)


@pytest.mark.parametrize("data", TOLERANCES)
def test_it_equals_the_reference(data):
    arguments = stored(case(), data)
    ours, reference = cost_volume(*arguments), cost_volume_reference(*wide(arguments))
    assert ours.dtype == data and ours.stride() == fused_form(operator)(*arguments).stride()
    assert_close(ours.float(), reference, TOLERANCES[data])
    assert float(reference.amax()) > 2 / BINS


@pytest.mark.parametrize("channels", [1, 16])
def test_any_number_of_channels_in_any_order(channels):
    arguments = tuple(
        t.contiguous() if isinstance(t, torch.Tensor) else t for t in case(channels, h=2, seed=8)
    )
    reference = cost_volume_reference(*arguments)
    assert_close(cost_volume(*arguments), reference, TOLERANCES[torch.float32])


@pytest.mark.parametrize("data", TYPES)
def test_depths_partly_behind_the_camera(data):
    current, previous, homography, offset, *depths = case(h=2, seed=1)
    offset[:, 2] = -2.0  # the first depths lie behind, the others before the camera
    arguments = stored((current, previous, homography, offset, *depths), data)
    assert_close(
        cost_volume(*arguments).float(), cost_volume_reference(*wide(arguments)), TOLERANCES[data]
    )


@pytest.mark.parametrize("value", [-1e6, 1e300, torch.nan])
def test_behind_the_camera_and_beside_the_image_it_is_flat(value):
    current, previous, homography, offset, *depths = case(h=2, w=2)
    offset[0, 2], offset[1, 0] = -1e6, value
    cost = cost_volume(current, previous, homography, offset, *depths)
    assert_close(cost, torch.full_like(cost, 1 / BINS))


def test_a_zero_in_the_validity_channel_is_penalised():
    feature = torch.ones(1, 8, 2, 2)
    homography = torch.tensor([[[1.0, 0, 100.0], [0, 1, 0], [0, 0, 1]]], dtype=torch.float64)
    offset = torch.tensor([[-100.0, 0, 0]], dtype=torch.float64)  # in view at depth 1 only
    small = feature / 7
    small[:, 4] = 1.0  # the first of the last group of four
    gone = small.clone()
    gone[:, 4] = 0.0
    # 1 of itself and the penalty of 5 at depth 1; 1 + 1 of all that is not there, and 5, at depth 2
    cost = cost_volume(small, gone, homography, offset, 1.0, 1.0, 2)
    expected = torch.softmax(-torch.tensor([1.0 + 5.0, 2.0 + 5.0]), 0)
    assert_close(cost[0, :, 1, 1], expected, TOLERANCES[torch.float32])


def test_nan_is_shown_in_all_bins_of_its_pixel():
    current, previous, _, _, *depths = case(h=3, w=4)
    current[0, 3, 2, 2] = torch.nan
    previous[1, 3, 2, 1] = torch.nan
    nan = cost_volume(current, previous, *at_rest(), *depths).isnan()
    assert nan[0, :, 2, 2].all() and nan[0].sum() == BINS
    assert nan[1, :, 2, 1].all() and not nan[1, :, 0].any()


def test_it_starts_as_many_kernels_as_it_says():
    arguments = case(h=1, w=2)
    assert count_launches(cost_volume, arguments) == 1
    assert launches_of(fused_form(operator), arguments) == 1
    copied = (arguments[0].contiguous(), *arguments[1:])
    assert count_launches(cost_volume, copied) == launches_of(fused_form(operator), copied) == 2
