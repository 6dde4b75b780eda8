# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Temporal fusion: the operator, and the projected history against the raw one."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from operators import RESAMPLED, assert_close, norm, random, threads
from small_networks import small
from torch import Tensor, nn

from alocc_ros.grid import VoxelGrid
from alocc_ros.network.plan import empty_plan
from alocc_ros.network.state import State
from alocc_ros.network.temporal import HistoryFusion, ProjectedHistoryFusion
from alocc_ros.ops.conv import FoldedConv
from alocc_ros.ops.history import fuse_history, fuse_history_reference, index_motion, warp

SLOTS, SIZES = 3, {"planar": (9, 11, 1), "volume": (9, 11, 5)}  # Y, X, Z


def motion_of(planar: bool, batch: int = 2, metres: float = 1.3) -> Tensor:  # [B, 3, 4]
    """Turns and small moves in all directions, another one for each sample."""
    moves = []
    for i in range(batch):
        turn = math.radians(4.0 - 9.0 * i)
        moves.append(
            [
                [math.cos(turn), -math.sin(turn), 0.01, metres - 2 * i],
                [math.sin(turn), math.cos(turn), -0.02, -0.4],
                [0.02, -0.01, 1.0, 0.25],
                [0, 0, 0, 1.0],
            ]
        )
    lower, step = (-4.0, -3.0, -1.0), (0.8, 0.8, 6.4 if planar else 0.8)
    return index_motion(torch.tensor(moves, dtype=torch.float64), lower, step, planar)


def case(shape: str, batch: int = 2, channels: int = 6, slots: int = SLOTS, seed: int = 0):
    """Arguments of ``fuse_history`` but the last."""
    size, width = SIZES[shape], (slots + 1) * channels
    return (
        random(batch, *size, channels, seed=seed),
        random(batch, *size, slots * channels, seed=seed + 1),
        random(batch, width, seed=seed + 2),
        motion_of(shape == "planar", batch),
        random(width, channels, seed=seed + 3),
        random(channels, seed=seed + 4),
    )


def new_history(arguments: tuple[Tensor, ...]) -> Tensor:
    """Room for it that holds NaN, so that what is not written shows."""
    return torch.full_like(arguments[1], torch.nan)


@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize(("channels", "slots"), [(1, 1), (6, 4), (32, 2), (40, 1)])
def test_it_equals_the_reference(kernels, shape, channels, slots):
    arguments = case(shape, channels=channels, slots=slots)
    kept, expected = new_history(arguments), new_history(arguments)
    fused = fuse_history(*arguments, kept)
    assert_close(fused, fuse_history_reference(*arguments, expected), RESAMPLED)
    assert_close(kept, expected, RESAMPLED)
    assert not kept.isnan().any()


@pytest.mark.parametrize("shape", SIZES)
def test_history_that_is_not_kept_is_only_read(form, shape):
    arguments = case(shape)
    before = arguments[1].clone()
    unkept = form(fuse_history)(*arguments, None)
    assert torch.equal(arguments[1], before)
    assert_close(unkept, fuse_history_reference(*arguments, None), RESAMPLED)
    assert_close(unkept, fuse_history(*arguments, new_history(arguments)), tolerance=1e-6)


@pytest.mark.parametrize("shape", SIZES)
def test_a_batch_is_each_sample_alone(kernels, shape):
    *by_sample, matrix, offset = case(shape)
    kept = new_history(by_sample)
    together = fuse_history(*by_sample, matrix, offset, kept)
    for i in range(2):
        one = tuple(t[i : i + 1] for t in by_sample)
        alone_kept = new_history(one)
        alone = fuse_history(*one, matrix, offset, alone_kept)
        assert_close(together[i : i + 1], alone, tolerance=1e-6)
        assert_close(kept[i : i + 1], alone_kept, tolerance=1e-6)


def test_slots_that_do_not_all_fit_at_once(monkeypatch, kernels):
    from alocc_ros.ops import history
    from alocc_ros.ops.history import cpu

    arguments = case("volume", slots=5)
    whole_kept, kept = new_history(arguments), new_history(arguments)
    whole = fuse_history(*arguments, whole_kept)
    monkeypatch.setattr(history, "_AT_ONCE", 2 * arguments[0].numel())
    monkeypatch.setattr(cpu, "_AT_ONCE", 2 * 11 * 5 * 6 * 6)
    assert_close(fuse_history(*arguments, kept), whole, tolerance=1e-6)
    assert_close(kept, whole_kept, tolerance=1e-6)


@pytest.mark.parametrize("shape", SIZES)
def test_at_rest_the_history_moves_on_by_one_slot(kernels, shape):
    arguments = list(case(shape))
    arguments[3] = torch.eye(4, dtype=torch.float64)[None, :3].repeat(2, 1, 1)
    kept = new_history(arguments)
    fuse_history(*arguments, kept)
    assert torch.equal(kept[..., :6], arguments[0])
    assert_close(kept[..., 6:], arguments[1][..., :-6], RESAMPLED)


@pytest.mark.parametrize("metres", [1e3, -1e3, 1e12])
def test_what_lies_outside_is_zero(kernels, metres):
    arguments = list(case("volume"))
    arguments[3] = motion_of(False, metres=metres)
    kept = new_history(arguments)
    assert_close(
        fuse_history(*arguments, kept), fuse_history_reference(*arguments, None), RESAMPLED
    )
    assert not kept[..., 6:].any()


@pytest.mark.parametrize("argument", [0, 1])
def test_nan_is_shown_instead_of_hidden(form, argument):
    arguments = case("volume")
    arguments[argument][1, 4, 4, 2, 3] = torch.nan
    fused = form(fuse_history)(*arguments, None)
    assert fused[1].isnan().any() and not fused[0].isnan().any()
    if argument == 0:
        assert fused[1, 4, 4, 2].isnan().all() and fused.isnan().sum() == 6


def test_threads_change_nothing(compiled):
    arguments, results = case("volume"), []
    for count in (1, 2, 7):
        with threads(count):
            kept = new_history(arguments)
            fused = fuse_history(*arguments, kept)
        results.append((fused, kept))
    for fused, kept in results[1:]:
        # The product is torch's, and it may split its sums as it pleases; the warp is ours.
        assert_close(fused, results[0][0], tolerance=1e-6)
        assert torch.equal(kept, results[0][1])


def test_a_planar_lattice_takes_its_slab_as_the_plane_at_one_metre():
    pitch = torch.eye(4, dtype=torch.float64)
    pitch[0, 2] = 0.1  # x grows with z
    motion = index_motion(pitch[None], (-40.0, -40.0, -1.0), (0.4, 0.4, 6.4), planar=True)[0]
    x, _, _ = motion @ torch.tensor([100.0, 100.0, 1.0, 1.0], dtype=torch.float64)
    assert float(x) == pytest.approx(100.0 + 0.1 / 0.4)


def test_warp_by_whole_cells_moves_whole_cells():
    volume = random(1, 2, 6, 7, 4)
    motion = torch.eye(4, dtype=torch.float64)[None, :3].clone()
    motion[0, :, 3] = torch.tensor([2.0, -1.0, 1.0])  # x, y, z of the place that is read
    expected = torch.zeros_like(volume)
    expected[..., 1:, :-2, :-1] = volume[..., :-1, 2:, 1:]
    assert_close(warp(volume, motion), expected)


def fusions(name: str, channels: int):
    """Raw and projected temporal fusion of the same weights."""
    variant = replace(
        small(name),
        context_channels=channels,
        history=SLOTS,
        grid=VoxelGrid(lower=(-4.0, -3.0, -1.0), shape=(11, 9, 5), resolution=0.8),
    )
    convolution, batch_norm = (
        (nn.Conv3d, nn.BatchNorm3d) if variant.volumetric else (nn.Conv2d, nn.BatchNorm2d)
    )
    torch.manual_seed(0)
    time_conv = nn.Sequential(convolution(channels + 1, channels, 1), norm(batch_norm(channels)))
    cat_conv = nn.Sequential(
        convolution(channels * (SLOTS + 1), channels, 1), norm(batch_norm(channels), seed=6)
    )
    projected = ProjectedHistoryFusion(variant, FoldedConv.of(*time_conv), FoldedConv.of(*cat_conv))
    return variant, HistoryFusion(variant, time_conv.eval(), cat_conv.eval()), projected


@pytest.mark.parametrize("name", ["alocc_2d", "alocc_3d"])
@pytest.mark.parametrize("channels", [6, 32])
@pytest.mark.parametrize("batch", [1, 2])
def test_projected_history_equals_the_raw_one_over_several_frames(kernels, name, channels, batch):
    variant, raw, projected = fusions(name, channels)
    planar, plan = not variant.volumetric, empty_plan(1, batch, SLOTS, "cpu")
    x, y, z = variant.lift_cells
    histories, spare, ages = [None, None], None, torch.zeros(batch, SLOTS)
    # A key frame, one between, and more key frames than there are slots.
    for number, keyframe in enumerate((True, True, False, True, True, True)):
        volume = random(batch, channels, y, x, z, seed=number)
        motion = motion_of(planar, batch)
        if not number:
            motion = torch.eye(4, dtype=torch.float64)[None, :3].repeat(batch, 1, 1)
        elapsed = 0.0 if not number else 0.5 if keyframe else 0.2
        told = torch.cat([torch.zeros(batch, 1), ages + elapsed], 1)
        now = plan._replace(motion=motion, ages=told)
        states = [None if h is None else State(h) for h in histories]
        room = State(spare if keyframe else None)
        expected, (old, *_) = raw(volume, None, states[0], now, State(), keyframe)
        recalled = projected.recall(states[1], now, room, keyframe)
        fused, (new, *_) = projected(volume, recalled, states[1], now, room, keyframe)
        assert_close(fused, expected, RESAMPLED)
        if keyframe:
            assert spare is None or new is spare
            # Each slot of the raw history, multiplied, is a slot of the projected one.
            rows = old.permute(0, 3, 4, 5, 1, 2) @ projected.projection
            assert_close(new, rows.flatten(4), RESAMPLED)
            spare, ages = histories[1], torch.cat([torch.zeros(batch, 1), told[:, 1:-1]], 1)
        else:
            assert new is histories[1] and old is histories[0]
        histories = [old, new]
