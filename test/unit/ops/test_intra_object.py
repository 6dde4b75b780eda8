# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from operators import assert_close, differentiable, gradients, random

from alocc_ros.ops.intra_object import intra_object, intra_object_reference


def case(bins: int, length: int, seed: int):
    depth = torch.softmax(random(2, bins, 3, 4, seed=seed), 1)
    return depth, torch.sigmoid(random(2, length, 3, 4, seed=seed + 1))


@given(bins=st.integers(1, 12), length=st.integers(1, 15), seed=st.integers(0, 1000))
@settings(deadline=None, max_examples=30)
def test_it_is_the_banded_matrix_product(bins, length, seed):
    depth, fill = case(bins, length, seed)
    reference = intra_object_reference(depth, fill)
    with torch.no_grad():
        assert_close(intra_object(depth, fill), reference)
    assert_close(differentiable(intra_object)(depth, fill), reference)
    ours = gradients(intra_object, (depth, fill), (0, 1))
    for own, theirs in zip(
        ours, gradients(intra_object_reference, (depth, fill), (0, 1)), strict=True
    ):
        assert_close(own, theirs)


def test_by_hand(form):
    depth = torch.tensor([0.5, 0.25, 0.25]).view(1, 3, 1, 1)
    fill = torch.tensor([0.5, 1.0]).view(1, 2, 1, 1)
    for operator in (form(intra_object), intra_object_reference):
        # bin 1: 0.25 + 0.5 * 0.5; bin 2: 0.25 + 0.25 * 0.5 + 0.5 * 1.0
        assert operator(depth, fill).flatten().tolist() == [0.5, 0.5, 0.875]


def test_nan_reaches_its_own_bin_and_those_behind(form):
    depth, fill = case(6, 2, 0)
    depth[1, 2, 1, 3] = torch.nan
    nan = form(intra_object)(depth, fill).isnan()
    assert nan[1, :, 1, 3].tolist() == [False, False, True, True, True, False]
    assert nan.sum() == 3


def test_a_batch_is_each_camera_alone(form):
    depth, fill = case(7, 3, 4)
    operator = form(intra_object)
    alone = torch.cat([operator(depth[i : i + 1], fill[i : i + 1]) for i in range(2)])
    assert_close(operator(depth, fill), alone, tolerance=1e-6)
