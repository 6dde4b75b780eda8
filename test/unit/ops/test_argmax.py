# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from operators import assert_close, random

from alocc_ros.ops.argmax import (
    classify,
    classify_reference,
    occupancy_argmax,
    occupancy_argmax_reference,
)


@given(seed=st.integers(0, 1000), classes=st.integers(2, 19), first=st.integers(0, 1))
@settings(deadline=None, max_examples=30)
def test_labels_equal_the_reference(seed, classes, first):
    logits = 20 * random(300, classes, seed=seed)
    with torch.no_grad():
        ours = occupancy_argmax(logits, first)
    assert torch.equal(ours, occupancy_argmax_reference(logits, first))


@pytest.mark.parametrize("shape", [(2, 5, 4, 3), (1, 1), (40_000,)])
def test_labels_have_the_shape_of_the_volume_whatever_the_order_in_memory(form, shape):
    logits = random(18, *shape).movedim(0, -1)  # classes come first in memory
    ours = form(occupancy_argmax)(logits, 1)
    assert ours.dtype == torch.uint8
    assert torch.equal(ours, occupancy_argmax_reference(logits, 1))


def test_saturated_logits_tie_and_the_lowest_class_wins(form):
    logits = torch.tensor([[1.0, 17.5, 20.0], [0.0, 1.0, 2.0]])
    assert form(occupancy_argmax)(logits, 0).tolist() == [1, 2]
    assert form(occupancy_argmax)(logits, 1).tolist() == [1, 2]


def test_what_comes_before_the_first_class_is_no_answer(form):
    logits = torch.tensor([[9.0, 0.0, 1.0], [9.0, 1.0, 0.0]])
    assert form(occupancy_argmax)(logits, 1).tolist() == [2, 1]
    voxels = torch.eye(2)
    assert form(classify)(voxels, logits, 1)[1].tolist() == [2, 1]


def test_labels_lie_in_memory_as_users_want_them(form):
    voxels, classes = random(2, 5, 4, 3, 6), random(7, 6, seed=1).T
    logits, labels = form(classify)(voxels, classes, 0)
    for made in (labels, form(occupancy_argmax)(logits, 0)):
        assert made.transpose(1, 2).is_contiguous()


def test_a_batch_is_each_sample_alone(kernels):
    logits = 5 * random(2, 4, 5, 3, 7)
    alone = torch.cat([occupancy_argmax(one[None], 0) for one in logits])
    assert torch.equal(occupancy_argmax(logits, 0), alone)


def test_logits_and_labels_at_once_are_those_of_two_steps(form):
    voxels, classes = random(2, 5, 4, 3, 6), random(7, 6, seed=1).T
    logits, labels = form(classify)(voxels, classes, 1)
    expected = classify_reference(voxels, classes, 1)
    assert_close(logits, expected[0])
    assert labels.dtype == torch.uint8 and torch.equal(labels, expected[1])
    assert torch.equal(labels, occupancy_argmax_reference(voxels @ classes, 1))
