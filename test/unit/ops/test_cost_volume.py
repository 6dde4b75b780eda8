# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import pytest
import torch
from operators import RESAMPLED, assert_close, gradients, random, threads

from alocc_ros.ops.cost_volume import cost_volume, cost_volume_reference, validity_channel

BINS = 11


def case(seed: int, h: int = 7, w: int = 9, channels: int = 20):
    current = torch.relu(random(2, channels, h, w, seed=seed))
    previous = torch.relu(random(2, channels, h, w, seed=seed + 1))
    homography = torch.eye(3, dtype=torch.float64) + 0.1 * random(2, 3, 3, seed=seed + 2).double()
    homography[:, 2] = torch.tensor([0.001, -0.002, 1.0])
    offset = 3.0 * random(2, 3, seed=seed + 3).double()
    return current, previous, homography, offset, 1.0, 0.5, BINS


def at_rest(cameras: int = 1):
    return (
        torch.eye(3, dtype=torch.float64).repeat(cameras, 1, 1),
        torch.zeros(cameras, 3, dtype=torch.float64),
    )


@pytest.mark.parametrize("seed", range(4))
def test_it_equals_the_reference(form, seed):
    assert_close(form(cost_volume)(*case(seed)), cost_volume_reference(*case(seed)), RESAMPLED)


@pytest.mark.parametrize("channels", [1, 3, 4, 17, 256])
def test_any_number_of_channels(form, channels):
    arguments = case(3, channels=channels)
    assert_close(form(cost_volume)(*arguments), cost_volume_reference(*arguments), RESAMPLED)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (7, 1)])
def test_maps_of_one_row_or_column(form, size):
    # At rest: a row's samples hit it exactly, or the one row would be beyond every position.
    current, previous, *_ = case(5, *size)
    arguments = (current, previous, *at_rest(2), 1.0, 0.5, BINS)
    assert_close(form(cost_volume)(*arguments), cost_volume_reference(*arguments), RESAMPLED)


def test_a_frame_with_itself_is_flat(form):
    feature = torch.relu(random(1, 8, 5, 6))
    cost = form(cost_volume)(feature, feature, *at_rest(), 1.0, 1.0, 10)
    assert_close(cost, torch.full_like(cost, 0.1))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_behind_the_camera_and_beside_the_image_it_is_flat(form, axis):
    current, previous, homography, offset, *depths = case(0)
    offset[:, axis] = -1e6
    cost = form(cost_volume)(current, previous, homography, offset, *depths)
    assert_close(cost, torch.full_like(cost, 1 / BINS))


def test_depths_partly_behind_the_camera(form):
    current, previous, homography, offset, *depths = case(1)
    offset[:, 2] = -3.0  # the first depths lie behind, the others before the camera
    arguments = (current, previous, homography, offset, *depths)
    ours, reference = form(cost_volume)(*arguments), cost_volume_reference(*arguments)
    assert_close(ours, reference, RESAMPLED)
    assert float(reference.amax()) > 2 / BINS


def test_the_validity_channel_is_that_of_the_published_network():
    assert validity_channel(256) == 252


def test_a_zero_in_the_validity_channel_is_penalised(form):
    feature = torch.ones(1, 256, 4, 4)
    half = feature.clone()
    half[:, 252] = 0.0  # one of 256: costs 1 of itself, and the penalty of 5
    # Both depths see the same: flat, whatever it costs.
    cost = form(cost_volume)(feature, half, *at_rest(), 1.0, 1.0, 2)
    assert_close(cost, torch.full_like(cost, 0.5))
    homography = torch.tensor([[[1.0, 0, 100.0], [0, 1, 0], [0, 0, 1]]], dtype=torch.float64)
    offset = torch.tensor([[-100.0, 0, 0]], dtype=torch.float64)  # in view at depth 1 only
    # 256 channels out of view cost as much as 256, so scale the feature down to see the penalty:
    # 6 at depth 1 (1 of itself, 5 the penalty), 1 + 5 + 255 / 255 elsewhere.
    small = feature / 255
    small[:, 252] = 1.0
    gone = small.clone()
    gone[:, 252] = 0.0
    cost = form(cost_volume)(small, gone, homography, offset, 1.0, 1.0, 2)
    expected = torch.softmax(-torch.tensor([1.0 + 5.0, 2.0 + 5.0]), 0)
    assert_close(cost[0, :, 1, 1], expected, RESAMPLED)


def test_nan_is_shown_in_all_bins_of_its_pixel(form):
    feature = torch.relu(random(2, 8, 5, 6))
    current, previous = feature.clone(), feature.clone()
    current[0, 3, 2, 2] = torch.nan
    previous[1, 3, 4, 1] = torch.nan
    nan = form(cost_volume)(current, previous, *at_rest(2), 1.0, 0.5, BINS).isnan()
    assert nan[0, :, 2, 2].all() and nan[1, :, 4, 1].all()
    assert not nan[0].any(0)[:2].any() and not nan[1].any(0)[:3].any()


def test_a_batch_is_each_camera_alone(form):
    *tensors, first, step, bins = case(2)
    alone = [
        form(cost_volume)(*(t[i : i + 1] for t in tensors), first, step, bins) for i in range(2)
    ]
    assert_close(form(cost_volume)(*case(2)), torch.cat(alone), tolerance=1e-6)


def test_gradients_are_those_of_the_reference():
    ours, theirs = (gradients(f, case(1), (0, 1)) for f in (cost_volume, cost_volume_reference))
    for own, its in zip(ours, theirs, strict=True):
        assert_close(own, its, RESAMPLED)


def test_threads_change_nothing(compiled):
    costs = []
    for count in (1, 2, 7):
        with threads(count):
            costs.append(cost_volume(*case(0)))
    assert all(torch.equal(costs[0], c) for c in costs)
