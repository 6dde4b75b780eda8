# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import pytest
import torch
from interpreted import TOLERANCES, TYPES, count_launches, stored, wide
from operators import REORDERED, assert_close, random, uniform

from alocc_ros.ops.library import fused_form, launches_of
from alocc_ros.ops.lift import gpu, lift_reference
from alocc_ros.ops.lift import lift as operator
from alocc_ros.ops.lift.reference import LiftArguments
from alocc_ros.ops.lift.triton import lift
from alocc_ros.ops.lift.triton_sorted import lift_deterministic

SINGLE = torch.float32


def case(planar: bool = False, sided: bool = True, samples: int = 1, seed: int = 0):
    """Two cameras a sample; points inside, at all borders and outside of a small lattice."""
    n, bins, h, w, channels = 2 * samples, 5, 3, 2, 6
    rays = 0.05 * random(n, 3, 3, seed=seed + 2).double()
    rays[:, :, 2] = random(n, 3, seed=seed + 3).double()
    # The rows of an image below each other, as in a level camera: they share their nodes.
    rays[:, :2, 1] *= 0.1
    return LiftArguments(
        geometry=uniform(n, bins, h, w, seed=seed),
        context=random(n, channels, h, w, seed=seed + 1),
        rays=rays,
        origin=0.5 * random(n, 3, seed=seed + 4).double(),
        us=torch.linspace(0, 16, w, dtype=torch.float64),
        vs=torch.linspace(0, 32, h, dtype=torch.float64),
        camera_mask=torch.ones(n, dtype=torch.bool),
        side_weight=uniform(n, 27, h, w, seed=seed + 5) if sided else None,
        side_offset=8 * random(n, 18, h, w, seed=seed + 6).clamp(-1, 1) if sided else None,
        rows=None,
        weights=None,
        first_depth=1.0,
        depth_step=0.5,
        side_index_max=2,
        lower=[-2.0, -2.5, -1.0],
        step=[0.8, 0.5, 4.0] if planar else [0.8, 0.5, 0.8],
        size=[5, 6, 1] if planar else [5, 6, 3],
        samples=samples,
    )


@pytest.mark.parametrize("data", TYPES)
@pytest.mark.parametrize(("planar", "sided"), [(False, True), (True, True), (True, False)])
def test_it_equals_the_reference(data, planar, sided):
    a = stored(case(planar, sided), data)
    ours, reference = lift(*a), lift_reference(*wide(a))
    assert ours.dtype == data and ours.stride() == fused_form(operator)(*a).stride()
    assert float(reference.abs().max()) > 0.1
    assert_close(ours.float(), reference, max(REORDERED, TOLERANCES[data]))


def test_bfloat16_channels_last():
    a = stored(case(samples=2, sided=False), torch.bfloat16)
    a = a._replace(context=a.context.contiguous(memory_format=torch.channels_last))
    assert_close(lift(*a).float(), lift_reference(*wide(a)), TOLERANCES[torch.bfloat16])


@pytest.mark.parametrize("planar", [False, True])
def test_in_a_fixed_order_it_is_the_same(planar):
    a = case(planar, sided=planar, samples=2)
    a = a._replace(camera_mask=torch.tensor([True, False, True, True]))
    a.context[1], a.geometry[1] = torch.nan, torch.nan
    ours, reference = lift_deterministic(*a), lift_reference(*a)
    assert_close(ours, reference)
    assert ours.stride() == reference.stride()


def test_torch_itself_decides_which_of_the_two_is_taken():
    a = case(True, sided=False)
    assert count_launches(gpu.lift, a) == count_launches(lift, a)
    torch.use_deterministic_algorithms(True)
    try:
        taken, ours = count_launches(gpu.lift, a), gpu.lift(*a)
    finally:
        torch.use_deterministic_algorithms(False)
    assert taken == count_launches(lift_deterministic, a) != count_launches(lift, a)
    assert torch.equal(ours, lift_deterministic(*a))


def test_lists_longer_than_a_piece_in_a_fixed_order():
    """All points at one place: 60 of them under each of its nodes."""
    a = stored(case(True, sided=False), torch.float16)
    a.rays.zero_()
    a.origin[:] = torch.tensor([-0.3, -0.9, -0.5])
    ours = lift_deterministic(*a)
    assert (ours != 0).any(1).sum() == 4
    assert_close(ours.float(), lift_reference(*wide(a)), TOLERANCES[torch.float16])


@pytest.mark.parametrize("name", ["geometry", "context", "side_weight"])
def test_a_masked_camera_leaves_nothing_even_if_it_saw_nan(name):
    a = case(planar=True)._replace(camera_mask=torch.tensor([True, False]))
    getattr(a, name)[1] = torch.nan
    ours = lift(*a)
    assert ours.any() and not ours.isnan().any()
    assert_close(ours, lift_reference(*a))


def test_nan_is_shown_where_it_lands():
    a = case(sided=False)._replace(lower=[-6.0] * 3, step=[1.0] * 3, size=[12] * 3)
    a.geometry[0, :, 1] = torch.nan
    a.context[1, 2, 0] = torch.nan
    nan, reference = lift(*a).isnan(), lift_reference(*a).isnan()
    # What lies outside is added to the first node of its axis with weight 0 by the reference.
    assert torch.equal(nan[..., 1:, 1:, 1:], reference[..., 1:, 1:, 1:])
    assert nan[..., 1:, 1:, 1:].any() and not nan.all()


@pytest.mark.parametrize("place", [-9.0, 1e9, -1e300, torch.inf, torch.nan])
def test_points_outside_at_nan_or_at_infinity_leave_nothing(place):
    a = case(planar=True, sided=False)
    a.rays.zero_()
    a.origin[0] = torch.tensor([place, 0.0, -1.0])
    a.origin[1] = torch.tensor([0.0, place, -1.0])
    ours = lift(*a)
    assert not ours.any()
    assert_close(ours, lift_reference(*a))


def test_the_first_of_equal_peaks_is_copied():
    a = case(planar=True)._replace(side_index_max=4)
    a.geometry[:] = 0.25  # the bins 0 and 1 then, as the copy before the first is none
    assert_close(lift(*a), lift_reference(*a))


@pytest.mark.parametrize("data", TYPES)
def test_it_starts_as_many_kernels_as_it_says(data):
    a = stored(case(sided=False), data)
    assert count_launches(lift, a) == launches_of(fused_form(operator), a)
