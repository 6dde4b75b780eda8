# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

from typing import Any

import pytest
import torch
from emulated import TYPES, assert_near, both, stored
from operators import random, uniform
from torch import Tensor

from alocc_ros.ops.flow_head import FLOW_BINS, dense_flow, sparse_flow
from alocc_ros.ops.flow_head import triton as kernels

CELLS = (2, 4, 3, 5)  # B, Y, X, Z


def layers(width: int) -> tuple[Tensor, ...]:
    """Transposed views, as the network's; weights about as large as those of a network."""
    hidden = 0.3 * random(2 * width, width, seed=2)
    last = 0.3 * random(2 * FLOW_BINS, 2 * width, seed=3)
    return hidden.T, random(2 * width, seed=4), last.T, random(2 * FLOW_BINS, seed=5)


def sparse_arguments(where: Tensor, capacity: int, width: int = 8) -> tuple[Any, ...]:
    voxels = random(*CELLS, width).permute(0, 4, 1, 2, 3)
    post = 0.05 * random(width, (24 + width) * 27, seed=6)
    cost = random(2, 24, *CELLS[1:3], seed=1)
    return (cost, voxels, where, post.T, random(width, seed=7), *layers(width), capacity)


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("width", [8, 48])
def test_everywhere(kind, width):
    deep, shared = random(*CELLS, width), random(*CELLS[:3], 3 * width, seed=1)
    bias = random(width, seed=8).to(kind) if width == 48 else None
    given = stored((deep, shared, bias, *layers(width)), kind)
    # Relative to some m/s; weights of half precision move the mean of 88 bins.
    assert_near(*both(dense_flow, kernels, tuple(given)), kind, factor=4)


def test_two_heights_are_bottom_and_top():
    given = (random(1, 3, 3, 2, 16), random(1, 3, 3, 48, seed=1), None, *layers(16))
    assert_near(*both(dense_flow, kernels, given), torch.float32)


CASES = {"some": (0.3, 60), "none": (0.0, 15), "too many": (0.5, 9), "all": (1.0, 60)}


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("case", CASES)
def test_listed_voxels(kind, case):
    share, capacity = CASES[case]
    # As labels lie in memory.
    where = (uniform(*CELLS, seed=9) < share).transpose(1, 2).contiguous().transpose(1, 2)
    given = tuple(stored(sparse_arguments(where, capacity), kind))
    (flow, overflow), (expected, too_many) = both(sparse_flow, kernels, given)
    assert torch.equal(overflow, too_many) and (overflow > 0).all() == (case == "too many")
    assert torch.equal(flow == 0, expected == 0)  # the same voxels, the first ones
    assert_near(flow, expected, kind, factor=4)


def test_a_list_longer_than_a_program_counts():
    """Cells of several blocks, and an order over (z, y, x) that is not memory's."""
    width, size = 8, (1, 9, 16, 9)
    where = uniform(*size, seed=9) < 0.1
    voxels = random(*size, width).permute(0, 4, 1, 2, 3)
    given = list(sparse_arguments(where, 100, width))
    given[:2] = random(1, 24, 9, 16, seed=1), voxels
    assert where.numel() > kernels._CELLS
    (flow, overflow), (expected, too_many) = both(sparse_flow, kernels, tuple(given))
    assert torch.equal(overflow, too_many) and overflow > 0
    assert torch.equal(flow == 0, expected == 0)
    assert_near(flow, expected, torch.float32, factor=4)


def test_nan_reaches_the_voxels_around_it_and_no_others():
    given = sparse_arguments(torch.ones(CELLS, dtype=torch.bool), 60)
    given[0][0, 0, 0, 0] = given[1][1, 2, 0, 0, 0] = torch.nan
    (flow, _), (expected, _) = both(sparse_flow, kernels, given)
    assert flow[0].isnan().any() and flow[1].isnan().any() and not flow.isnan().all()
    assert_near(flow, expected, torch.float32, factor=4)
