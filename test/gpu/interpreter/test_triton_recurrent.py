# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

from typing import Any

import pytest
import torch
from emulated import TYPES, assert_near, both, stored
from operators import REORDERED, RESAMPLED, random
from torch import Tensor

from alocc_ros.ops.recurrent import (
    fuse_recurrent,
    gated_mix,
    scene_step,
    time_bias,
    triton_frustum,
    triton_mixing,
    triton_scene,
    warp_frustum,
)
from alocc_ros.ops.recurrent import triton as kernels

CELLS = (2, 6, 5, 4)
F64 = torch.float64
PLACES = RESAMPLED / REORDERED


def fuse_arguments(channels: int, previous: bool = True) -> tuple[Any, ...]:
    """One vehicle at rest, one that moves and turns; offsets lead out of the volume too."""
    motion = torch.eye(4, dtype=F64)[None, :3].repeat(2, 1, 1)
    motion[1] += torch.tensor([[0.01, -0.1, 0, 0.8], [0.1, 0.01, 0, -0.6], [0.02, 0, 0, 0.3]])
    offsets, volume = random(*CELLS, 3, seed=2), random(*CELLS, channels)
    return (
        *(volume, random(*CELLS, channels, seed=1), offsets if previous else None, motion),
        *(0.4 * random(channels, 3, seed=3), random(3, seed=4)),
        *(0.3 * random(channels, channels, seed=5), random(2, 2, channels, seed=6)),
        *(0.3 * random(2 * channels, channels, seed=7), random(channels, seed=8)),
        *(torch.zeros_like(volume), torch.zeros_like(offsets)),
    )


def slab(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """Of volumes their lowest layer."""
    return tuple(
        a[:, :, :, :1].contiguous() if isinstance(a, Tensor) and a.dim() == 5 else a
        for a in arguments
    )


def scene_arguments(channels: int) -> tuple[Any, ...]:
    square = [0.3 * random(channels, channels, seed=i) for i in range(2, 6)]
    line = [random(channels, seed=i) for i in range(6, 9)]
    rows, sums = random(*CELLS, channels), 0.1 * random(2, channels, channels + 1, seed=1)
    return rows, sums, torch.tensor([1.0, 0.9]), [*square, *line]


def frustum_arguments() -> tuple[Any, ...]:
    """Cameras at rest, moved, and with half of what they saw behind them."""
    matrix = torch.eye(3, dtype=F64).repeat(3, 1, 1)
    matrix[1] += 0.05 * random(3, 3).double()
    offset = torch.tensor(
        [[0, 0, 0], [0.6, -0.8, 0.7], [0, 0, -2.2]], dtype=F64
    )  # the last: behind
    return random(3, 7, 6, 9), matrix, offset, 1.0, 0.5


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize(("channels", "previous"), [(8, True), (32, True), (32, False)])
def test_fusion(kind, channels, previous):
    given = tuple(stored(fuse_arguments(channels, previous), kind))
    ours, emulated = both(fuse_recurrent, kernels, given)
    for own, other in zip(ours, emulated, strict=True):
        assert_near(own, other, kind, factor=PLACES if kind == torch.float32 else 2)


def test_a_slab_has_no_place_along_z_but_its_own():
    given = slab(fuse_arguments(8))
    ours, emulated = both(fuse_recurrent, kernels, given)
    for own, other in zip(ours, emulated, strict=True):
        assert_near(own, other, torch.float32, factor=PLACES)
    flat = tuple(
        t * torch.tensor([1.0, 1, 0]) if i in (2, 4, 5) else t for i, t in enumerate(given)
    )
    ours, emulated = both(fuse_recurrent, kernels, flat)
    predicted = flat[0] @ flat[4] + flat[5]
    assert ((ours[1] - predicted).abs() > 1e-3).any()  # inside, so corrected
    for own, other in zip(ours, emulated, strict=True):
        assert_near(own, other, torch.float32, factor=PLACES)


def test_nan_of_a_voxel_and_of_the_motion():
    given = fuse_arguments(8)
    given[0][0, 2, 2, 2, 3] = torch.nan  # what is predicted there is NaN too
    given[3][1, 1, 3] = torch.nan
    ours, emulated = both(fuse_recurrent, kernels, given)
    assert ours[1][1].isnan().any() and ours[1][0].isnan().sum() == 3
    for own, other in zip(ours, emulated, strict=True):
        assert_near(own[0], other[0], torch.float32, factor=PLACES)
        assert torch.equal(own.isnan(), other.isnan())


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("channels", [8, 32])
def test_a_step_of_the_scene_layer(kind, channels):
    rows, sums, keep, layer = scene_arguments(channels)
    given = (stored(rows, kind), sums, keep, stored(layer, kind))
    ours, emulated = both(scene_step, triton_scene, given)
    assert ours[1].dtype == ours[2].dtype == torch.float32
    assert_near(ours[0], emulated[0], kind)
    for own, other in zip(ours[1:], emulated[1:], strict=True):
        assert_near(own, other, kind)


def test_sums_over_more_blocks_than_programs(monkeypatch):
    monkeypatch.setattr(triton_scene, "_PARTS", 1)
    monkeypatch.setattr(triton_scene, "_VOXELS", 16)
    ours, emulated = both(scene_step, triton_scene, scene_arguments(8))
    for own, other in zip(ours, emulated, strict=True):
        assert_near(own, other, torch.float32)


def test_nan_of_one_voxel_reaches_all_sums_of_its_sample():
    given = scene_arguments(8)
    given[0][1, 0, 0, 0, 0] = torch.nan
    ours, emulated = both(scene_step, triton_scene, given)
    assert ours[1][1].isnan().all() and not ours[1][0].isnan().any()
    for own, other in zip(ours, emulated, strict=True):
        assert_near(own, other, torch.float32)


def _last(values: Tensor) -> Tensor:
    return values.contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("order", [_last, Tensor.contiguous], ids=["bins last", "bins first"])
def test_a_moved_frustum(kind, order):
    values, *geometry = frustum_arguments()
    given = (order(stored(values, kind)), *geometry)
    ours, emulated = both(warp_frustum, triton_frustum, given)
    assert torch.equal(ours == 0, emulated == 0)  # what is outside is told by the exact zero
    assert (ours[2] == 0).any() and (ours[2] != 0).any()
    assert_near(ours, emulated, kind, factor=PLACES if kind == torch.float32 else 1)


def test_nothing_is_seen_by_way_of_nan():
    values, matrix, offset, *depths = frustum_arguments()
    values[1, 3, 3, 3], matrix[0, 0, 0] = torch.nan, torch.nan
    ours, emulated = both(warp_frustum, triton_frustum, (values, matrix, offset, *depths))
    assert ours[1].isnan().any() and (ours[0] == 0).all()
    assert_near(ours, emulated, torch.float32, factor=PLACES)


def mix_arguments(bins: int, kind: torch.dtype, known: bool = False) -> tuple[Any, ...]:
    then, now, other = (random(2, bins, 3, 7, seed=i) for i in range(3))
    then[0, :, 1], now[1, 2, 0, 0] = 0, torch.nan
    maps = stored((then, _last(now), other if known else None), kind)
    matrix = stored(0.3 * random(bins, 2 * bins, seed=3), kind).T  # as a convolution's weights
    return (*maps, matrix, random(bins, seed=4), random(bins, seed=5), random(1, seed=6))


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("bins", [12, 40])
@pytest.mark.parametrize("shares", [False, True], ids=["logits", "shares"])
def test_a_gated_mix(kind, bins, shares):
    for known in (False, True):
        given = (*mix_arguments(bins, kind, known), shares)
        ours, emulated = both(gated_mix, triton_mixing, given)
        # NaN of the present makes the gate one, and so a whole pixel.
        assert ours[1, :, 0, 0].isnan().all() and not ours[0].isnan().any()
        if not shares:
            assert torch.equal(ours[0, :, 1], given[1 + known][0, :, 1])  # nothing remembered
        assert_near(ours, emulated, kind)


def test_what_time_adds():
    times, rates = 40 * random(2, 2).abs(), 10.0 ** -random(6, seed=1).abs()
    given = (times, rates, random(6, seed=2), random(6, 10, seed=3), random(10, seed=4))
    given += (random(10, 5, seed=5), random(5, seed=6))
    assert_near(*both(time_bias, triton_mixing, given), torch.float32)
