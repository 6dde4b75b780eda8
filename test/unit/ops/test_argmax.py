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
from alocc_ros.ops.argmax.reference import evenly_spaced


@given(seed=st.integers(0, 1000), classes=st.integers(1, 19), first=st.integers(0, 1))
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
    assert form(occupancy_argmax)(logits, 1).tolist() == [2, 3]


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
    assert labels.min() == 1  # the class before it is no label
    assert torch.equal(labels, occupancy_argmax_reference((voxels @ classes)[..., 1:], 1))
    for made in (labels, form(occupancy_argmax)(logits, 0)):
        assert made.transpose(1, 2).is_contiguous()  # as users want them


@pytest.mark.parametrize(
    ("rows", "even"),
    [
        (torch.empty(2, 3, 4, 5), True),
        (torch.empty(2, 3, 4, 5)[..., 1:], True),
        (torch.empty(5), True),
        (torch.empty(3, 2, 5).transpose(0, 1), False),
        (torch.empty(3, 1, 5).transpose(0, 1), True),
        (torch.empty(2, 5, 4).movedim(1, -1), False),
        (torch.empty(2, 4, 3, 5)[:, 1:], False),
    ],
)
def test_rows_that_a_gpu_reads_without_a_copy(rows, even):
    assert evenly_spaced(rows) == even
