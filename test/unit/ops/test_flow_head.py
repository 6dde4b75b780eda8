# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""The forms of the flow head against repeating the cost, convolving and taking the mean bin."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from operators import assert_close, gradients, random, threads, uniform
from small_networks import small
from torch import Tensor, nn

from alocc_ros.grid import VoxelGrid
from alocc_ros.network.heads import PreparedFlowHead
from alocc_ros.ops.conv import FoldedConv
from alocc_ros.ops.flow_head import (
    FLOW_BINS,
    decode_flow_reference,
    dense_flow,
    flow_logits,
    gather_neighbourhoods,
    sparse_flow,
)

V, SIZE = 8, (10, 9, 6)  # voxel channels; Y, X, Z
CELLS = math.prod(SIZE)


def layers() -> tuple[nn.Conv3d, nn.Sequential]:
    torch.manual_seed(0)
    post = nn.Conv3d(24 + V, V, 3, padding=1)
    predict = nn.Sequential(nn.Conv3d(V, 2 * V, 1), nn.ReLU(), nn.Conv3d(2 * V, 2 * FLOW_BINS, 1))
    return post, predict


def prepared(everywhere: bool) -> PreparedFlowHead:
    """The head of ``layers`` as ``runtime/prepare.py`` makes it."""
    variant = replace(
        small("alocc_flow_2d"),
        voxel_channels=V,
        flow_everywhere=everywhere,
        grid=VoxelGrid(lower=(-4.0, -4.0, -1.0), shape=(SIZE[1], SIZE[0], SIZE[2]), resolution=0.8),
    )
    post, predict = layers()
    return PreparedFlowHead(variant, FoldedConv.of(post), predict)


def case(batch: int = 2, seed: int = 0) -> tuple[Tensor, Tensor]:
    return random(batch, 24, *SIZE[:2], seed=seed), random(batch, V, *SIZE, seed=seed + 1)


def sparse_arguments(cost: Tensor, voxels: Tensor, where: Tensor, capacity: int):
    head = prepared(everywhere=False)
    constants = (head.post_weight, head.post_bias)
    constants += (head.matrix1, head.offset1, head.matrix2, head.offset2)
    return cost, voxels, where, *constants, capacity


def reference(cost: Tensor, voxels: Tensor, where: Tensor | None = None) -> Tensor:
    """In the order that users want: the prepared head has it in its weights."""
    with torch.no_grad():
        return decode_flow_reference(cost, voxels, *layers(), where).flip(-1)


def test_dense_flow_equals_the_reference(form):
    cost, voxels = case()
    head = prepared(everywhere=True)
    deep, shared = head.deep(voxels).permute(0, 2, 3, 4, 1), head.flat(cost).permute(0, 2, 3, 1)
    arguments = (deep, shared, None, head.matrix1, head.offset1, head.matrix2, head.offset2)
    before = [None if a is None else a.clone() for a in arguments]
    # Relative to 22 m/s: a few 1e-6 m/s.
    assert_close(form(dense_flow)(*arguments), reference(cost, voxels))
    assert all(a is b or torch.equal(a, b) for a, b in zip(arguments, before, strict=True))
    # What is the same everywhere can be added by the operator.
    bias = random(V, seed=9)
    apart = form(dense_flow)(deep, shared - bias.repeat(3), bias, *arguments[3:])
    assert_close(apart, reference(cost, voxels))


def test_the_prepared_head_with_flow_everywhere_equals_the_reference(kernels):
    cost, voxels = case()
    labels = torch.full((2, *SIZE), 17, dtype=torch.uint8)
    flow, overflow = prepared(everywhere=True)(cost, voxels, labels)
    assert overflow is None
    assert_close(flow, reference(cost, voxels))


@pytest.mark.parametrize("z_size", [2, 3])
def test_dense_flow_of_low_volumes(form, z_size):
    cost, voxels = case()
    voxels = voxels[..., :z_size].contiguous()
    head = prepared(everywhere=True)
    deep, shared = head.deep(voxels).permute(0, 2, 3, 4, 1), head.flat(cost).permute(0, 2, 3, 1)
    matrices = (head.matrix1, head.offset1, head.matrix2, head.offset2)
    ours = form(dense_flow)(deep, shared, None, *matrices)
    assert_close(ours, reference(cost, voxels))


@pytest.mark.parametrize("share", [0.0, 0.01, 0.4, 1.0])
def test_sparse_flow_equals_the_reference_where_it_is_wanted(form, share):
    cost, voxels = case()
    where = uniform(2, *SIZE, seed=2) < share
    flow, overflow = form(sparse_flow)(*sparse_arguments(cost, voxels, where, CELLS))
    assert_close(flow, reference(cost, voxels, where))
    assert not flow[~where].any()
    assert overflow.dtype == torch.int64 and overflow.tolist() == [0, 0]


def test_sparse_flow_at_the_corners(form):
    cost, voxels = case()
    where = torch.zeros(2, *SIZE, dtype=torch.bool)
    for corner in range(8):
        where[corner % 2, -(corner & 1), -(corner >> 1 & 1), -(corner >> 2)] = True
    flow, _ = form(sparse_flow)(*sparse_arguments(cost, voxels, where, 8))
    assert_close(flow, reference(cost, voxels, where))


@pytest.mark.parametrize("capacity", [0, 1, 40, 100])
def test_what_is_too_much_is_counted_and_what_fits_comes_in_order_of_z_y_x(form, capacity):
    cost, voxels = case()
    where = uniform(2, *SIZE, seed=2) < 0.15
    where[1] &= uniform(*SIZE, seed=3) < 0.3  # the second sample has less
    flow, overflow = form(sparse_flow)(*sparse_arguments(cost, voxels, where, capacity))
    fits = torch.zeros_like(where)
    for sample in range(2):
        for z, y, x in where[sample].permute(2, 0, 1).nonzero()[:capacity].tolist():
            fits[sample, y, x, z] = True
    wanted = where.flatten(1).sum(1)
    assert overflow.tolist() == (wanted - capacity).clamp(min=0).tolist()
    assert_close(flow, reference(cost, voxels, fits))
    assert not flow[~fits].any()


def test_the_prepared_head_asks_for_moving_classes_and_tells_what_was_too_much(kernels):
    cost, voxels = case()
    head, capacity = prepared(everywhere=False), CELLS // 8
    labels = torch.full((2, *SIZE), 17, dtype=torch.uint8)
    moving = head.moving.nonzero()[:, 0]
    assert len(moving) and not head.moving[17]
    labels[0, 2, 3, 4] = labels[0, 0, 0, 0] = int(moving[0])
    labels[1] = int(moving[-1])
    flow, overflow = head(cost, voxels, labels)
    assert overflow.tolist() == [0, CELLS - capacity]
    assert_close(flow[:1], reference(cost, voxels, head.moving[labels.long()])[:1])
    assert int(flow[1].abs().sum(-1).count_nonzero()) == capacity


def test_a_batch_is_each_sample_alone(form):
    cost, voxels = case()
    where = uniform(2, *SIZE, seed=2) < 0.3
    flow, overflow = form(sparse_flow)(*sparse_arguments(cost, voxels, where, 90))
    for i in range(2):
        one = slice(i, i + 1)
        alone = form(sparse_flow)(*sparse_arguments(cost[one], voxels[one], where[one], 90))
        assert_close(flow[one], alone[0], tolerance=1e-6)
        assert torch.equal(overflow[one], alone[1])


def test_nan_is_shown_where_it_is_looked_at(form):
    cost, voxels = case(batch=1)
    cost[0, 3, 0, 0] = voxels[0, 2, 5, 5, 3] = torch.nan
    where = uniform(1, *SIZE, seed=2) < 0.6
    flow, _ = form(sparse_flow)(*sparse_arguments(cost, voxels, where, CELLS))
    expected = torch.zeros_like(where)
    expected[0, :2, :2] = expected[0, 4:7, 4:7, 2:5] = True
    assert torch.equal(flow.isnan().all(-1), expected & where)
    head = prepared(everywhere=True)
    deep, shared = head.deep(voxels).permute(0, 2, 3, 4, 1), head.flat(cost).permute(0, 2, 3, 1)
    matrices = (head.matrix1, head.offset1, head.matrix2, head.offset2)
    flow = form(dense_flow)(deep, shared, None, *matrices)
    assert torch.equal(flow.isnan().all(-1), expected)


def test_threads_change_little(compiled):
    # The products are torch's, and it may split its sums as it pleases.
    where, flows = uniform(2, *SIZE, seed=2) < 0.5, []
    for count in (1, 2, 7):
        with threads(count):
            flows.append(sparse_flow(*sparse_arguments(*case(), where, CELLS))[0])
    assert all(float((flows[0] - f).abs().max()) < 1e-4 for f in flows)


def test_the_logits_of_training_are_those_of_the_reference_and_so_are_their_gradients():
    post, predict = layers()
    cost, voxels = case()
    where = uniform(2, *SIZE, seed=2) < 0.2

    def ours(flat: Tensor, volume: Tensor, weight: Tensor) -> Tensor:
        return flow_logits(flat, volume, where, _with(post, weight), predict)

    def theirs(flat: Tensor, volume: Tensor, weight: Tensor) -> Tensor:
        repeated = flat[..., None].expand(*flat.shape, SIZE[2])
        features = torch.relu(
            nn.functional.conv3d(torch.cat([repeated, volume], 1), weight, post.bias, padding=1)
        )
        logits = predict(features).unflatten(1, (FLOW_BINS, 2))  # [B, bins, 2, Y, X, Z]
        return logits.permute(0, 5, 3, 4, 1, 2)[where.permute(0, 3, 1, 2)]

    arguments = (cost, voxels, post.weight.detach())
    with torch.no_grad():
        assert_close(ours(*arguments), theirs(*arguments))
    for own, its in zip(
        gradients(ours, arguments, (0, 1, 2)), gradients(theirs, arguments, (0, 1, 2)), strict=True
    ):
        assert_close(own, its)


def test_logits_of_no_voxels_at_all_have_a_gradient_of_zero():
    post, predict = layers()
    cost, voxels = case()
    cost.requires_grad_()
    logits = flow_logits(cost, voxels, torch.zeros(2, *SIZE, dtype=torch.bool), post, predict)
    assert logits.shape == (0, FLOW_BINS, 2)
    logits.sum().backward()
    assert not cost.grad.any() and not post.weight.grad.any()


def test_neighbourhoods_are_what_a_convolution_looks_at():
    torch.manual_seed(0)
    voxels = torch.randn(3, 4, 5, 6, dtype=torch.float64, requires_grad=True)  # V, Z, Y, X
    cost = torch.randn(2, 5, 6, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(7, 5, 3, 3, 3, dtype=torch.float64)  # over Y, X, Z
    repeated = cost[..., None].expand(-1, -1, -1, 4)
    together = torch.cat([repeated, voxels.permute(0, 2, 3, 1)])
    dense = torch.nn.functional.conv3d(together[None], weight, padding=1)[0]
    dense = dense.permute(3, 1, 2, 0).flatten(0, 2)  # [Z * Y * X, 7]
    some, corners = (torch.rand(120) < 0.3).nonzero()[:, 0], torch.tensor([0, 119])
    for index in (some, corners, torch.zeros(0, dtype=torch.int64)):
        rows = gather_neighbourhoods(cost, voxels, index) @ weight.flatten(1).T
        with torch.no_grad():  # another way of indexing where no gradient is wanted
            assert torch.equal(
                gather_neighbourhoods(cost, voxels, index) @ weight.flatten(1).T, rows
            )
        torch.testing.assert_close(rows, dense[index])
        ours = torch.autograd.grad(rows.square().sum(), (cost, voxels))
        theirs = torch.autograd.grad(dense[index].square().sum(), (cost, voxels), retain_graph=True)
        torch.testing.assert_close(ours, theirs)


def _with(conv: nn.Conv3d, weight: Tensor) -> nn.Module:
    """The convolution with this tensor as its weight, which need not be a parameter."""
    other = nn.Module()
    other.weight, other.bias = weight, conv.bias
    return other
