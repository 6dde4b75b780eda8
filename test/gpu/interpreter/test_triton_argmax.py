# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import pytest
import torch
from emulated import TYPES, assert_near, both, stored
from operators import random

from alocc_ros.ops.argmax import classify, occupancy_argmax
from alocc_ros.ops.argmax import triton as kernels


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("classes", [1, 17, 18])
@pytest.mark.parametrize("first", [0, 1])
def test_labels(kind, classes, first):
    # Columns of what has more, as where a network has a class that is no label.
    logits = stored(20 * random(2, 7, 30, classes + first), kind)[..., first:]
    ours, emulated = both(occupancy_argmax, kernels, (logits, first))
    assert ours.dtype == torch.uint8 and torch.equal(ours, emulated)


def test_saturated_logits_tie_and_the_first_nan_is_highest():
    nan = torch.nan
    logits = torch.tensor([[1.0, 17.5, 20.0], [0.0, nan, nan], [nan, 0.0, 99.0], [-200.0] * 3])
    ours, emulated = both(occupancy_argmax, kernels, (logits, 0))
    assert ours.tolist() == emulated.tolist() == [1, 1, 0, 0]


def test_classes_first_in_memory_and_four_axes():
    logits = random(18, 3, 4, 5, 6).movedim(0, -1)
    ours, emulated = both(occupancy_argmax, kernels, (logits, 1))
    assert torch.equal(ours, emulated)


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize(("width", "classes"), [(48, 18), (6, 17)])
def test_logits_and_labels_at_once(kind, width, classes):
    # The classes as the network has them: a transposed view.
    voxels, matrix = stored((random(2, 5, 30, width), random(classes, width, seed=1)), kind)
    ours, emulated = both(classify, kernels, (voxels, matrix.T, 1))
    assert_near(ours[0], emulated[0], kind)
    assert torch.equal(ours[1], emulated[1])


def test_nan_of_a_voxel_is_its_own():
    voxels, matrix = random(70, 6), random(6, 5, seed=1)
    voxels[3, 2] = torch.nan
    ours, emulated = both(classify, kernels, (voxels, matrix, 0))
    assert ours[0].isnan().any(1).nonzero().tolist() == [[3]]
    assert_near(ours[0], emulated[0], torch.float32)
    assert torch.equal(ours[1], emulated[1])
