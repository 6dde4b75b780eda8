# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import pytest
import torch
from operators import assert_close, norm, random, threads
from torch import nn

from alocc_ros.ops.conv import FoldedConv
from alocc_ros.ops.upsample import (
    SplitConv,
    merge_levels,
    upsample_add_,
    upsample_add_reference,
    upsample_taps_,
    upsample_taps_reference,
)

WIDTHS = (4, 6, 10)


def levels_of(fine: tuple[int, ...], batch: int = 2):
    """Each half as large as the one before."""
    sizes = [tuple(max(1, s >> i) for s in fine) for i in range(3)]
    return [
        random(batch, c, *s, seed=i) for i, (c, s) in enumerate(zip(WIDTHS, sizes, strict=True))
    ]


def layers(dims: int):
    torch.manual_seed(0)
    if dims == 2:
        return nn.Conv2d(20, 16, 3, padding=1, bias=False), norm(nn.BatchNorm2d(16))
    return nn.Conv3d(20, 12, 1, bias=False), norm(nn.BatchNorm3d(12))


@pytest.mark.parametrize("size", [(8, 7, 6), (1, 5, 4), (5, 1, 1)])
@pytest.mark.parametrize("low", [[], [(1, 1, 1)], [(4, 3, 2), (2, 2, 1)], [(8, 7, 6)]])
@pytest.mark.parametrize("channels", [1, 5, 16])
def test_added_levels_equal_the_reference(kernels, size, low, channels):
    total = random(2, *size, channels)
    levels = [random(2, *s, channels, seed=i + 1) for i, s in enumerate(low)]
    expected = upsample_add_reference(total, levels)
    upsample_add_(total, levels)
    assert_close(total, expected)


@pytest.mark.parametrize("size", [(8, 7), (1, 5), (5, 1)])
@pytest.mark.parametrize("low", [[], [(1, 1)], [(4, 3), (2, 9)], [(8, 7)]])
@pytest.mark.parametrize("channels", [1, 5, 16])
def test_taps_equal_the_reference(kernels, size, low, channels):
    total = random(2, *size, channels)
    levels = [random(2, *s, 9 * channels, seed=i + 1) for i, s in enumerate(low)]
    expected = upsample_taps_reference(total, levels)
    upsample_taps_(total, levels)
    assert_close(total, expected)


def test_levels_in_another_order_in_memory(kernels):
    total, level = random(1, 6, 6, 4, 8), random(1, 8, 3, 3, 2, seed=1).movedim(1, -1)
    expected = upsample_add_reference(total, [level])
    upsample_add_(total, [level])
    assert_close(total, expected)


def test_a_batch_is_each_sample_alone(kernels):
    total, low = random(2, 6, 5, 4, 8), random(2, 3, 3, 2, 8, seed=1)
    flat, taps = random(2, 6, 5, 8, seed=2), random(2, 3, 2, 72, seed=3)
    alone = [t.clone() for t in total], [t.clone() for t in flat]
    upsample_add_(total, [low])
    upsample_taps_(flat, [taps])
    for i in range(2):
        upsample_add_(alone[0][i][None], [low[i : i + 1]])
        upsample_taps_(alone[1][i][None], [taps[i : i + 1]])
    assert_close(total, torch.stack(alone[0]), tolerance=1e-6)
    assert_close(flat, torch.stack(alone[1]), tolerance=1e-6)


def test_nan_is_shown_instead_of_hidden(kernels):
    total, low = random(1, 8, 8, 4, 3), random(1, 4, 4, 2, 3, seed=1)
    total[0, 0, 0, 0, 0] = low[0, 2, 2, 1, 1] = torch.nan
    expected = upsample_add_reference(total, [low]).isnan()
    upsample_add_(total, [low])
    assert total[0, 0, 0, 0, 0].isnan() and total[..., 1].isnan().any()
    assert not total[..., 2].isnan().any()
    # A tap of weight 0 may show NaN in one form and not in another, never hide a larger one.
    assert not (total.isnan() & ~expected).any()
    flat, taps = random(1, 8, 8, 3), random(1, 4, 4, 27, seed=1)
    flat[0, 0, 0, 0] = taps[0, 2, 2, 1] = torch.nan
    upsample_taps_(flat, [taps])
    assert flat[0, 0, 0, 0].isnan() and flat[..., 1].isnan().any()
    assert not flat[..., 2].isnan().any()


def test_threads_change_nothing(compiled):
    volumes = []
    for count in (1, 2, 7):
        total, flat = random(2, 9, 8, 4, 8), random(2, 9, 8, 8, seed=2)
        with threads(count):
            upsample_add_(total, [random(2, 4, 4, 2, 8, seed=1)])
            upsample_taps_(flat, [random(2, 4, 4, 72, seed=3)])
        volumes.append((total, flat))
    for total, flat in volumes[1:]:
        assert torch.equal(total, volumes[0][0]) and torch.equal(flat, volumes[0][1])


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("fine", [(8, 8, 8), (12, 8, 4), (5, 9, 2)])
def test_merging_levels_before_upsampling_equals_after(kernels, dims, fine):
    levels, (conv, bn) = levels_of(fine[:dims]), layers(dims)
    before = [level.clone() for level in levels]
    split = SplitConv(FoldedConv.of(conv, bn), WIDTHS)
    ours = merge_levels(levels, split, nn.Identity())
    assert_close(ours, merge_levels(levels, conv, bn))
    assert_close(ours, merge_levels(levels, FoldedConv.of(conv, bn), nn.Identity()))
    assert all(torch.equal(a, b) for a, b in zip(before, levels, strict=True))
    assert not split.state_dict()
