# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Every fast operator against its slow obvious twin, with and without the C kernels."""

from __future__ import annotations

import math
import os
import shutil
import signal
import time
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from alocc_ros.ops import (
    classify,
    conv,
    correlation,
    cost_volume,
    flow,
    history,
    intra,
    native,
    upsample,
    winograd,
)
from alocc_ros.ops import splat as splatting
from alocc_ros.ops.mode import fast, twins

# Float32 sums of a few hundred terms in another order: 1e-6 of the largest value is common, 1e-5
# has never been seen from reordering; a wrong tap or weight shows at 1e-2.
REORDERED = 2e-5


def assert_close(ours: Tensor, twin: Tensor, tolerance: float = REORDERED) -> None:
    assert ours.shape == twin.shape
    scale = max(float(twin.abs().max()), 1e-6)
    assert float((ours - twin).abs().max()) <= tolerance * scale


@pytest.fixture(params=["C kernels", "plain torch"])
def kernels(request, monkeypatch):
    if request.param == "plain torch":
        monkeypatch.setattr(native, "library", lambda: None)
    elif native.library() is None:
        pytest.skip("no C compiler here")
    with torch.no_grad():
        yield request.param


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def norm(module: nn.Module, seed: int = 5) -> nn.Module:
    """A BatchNorm with statistics that matter."""
    g = torch.Generator().manual_seed(seed)
    for tensor, low, high in (
        (module.weight, 0.5, 1.5),
        (module.bias, -0.5, 0.5),
        (module.running_mean, -0.5, 0.5),
        (module.running_var, 0.5, 2.0),
    ):
        tensor.data.copy_(torch.rand(tensor.shape, generator=g) * (high - low) + low)
    return module.eval()


def test_fast_forms_yield_to_gradients_and_to_the_twin_switch():
    assert not fast()
    with torch.no_grad():
        assert fast()
        with twins():
            assert not fast()


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_conv_bn_equals_the_three_modules(dims, relu, residual, bias):
    convolution, batch_norm = ((nn.Conv2d, nn.BatchNorm2d), (nn.Conv3d, nn.BatchNorm3d))[dims - 2]
    layer, bn = convolution(5, 7, 3, 2, 1, bias=bias), norm(batch_norm(7))
    x = random(2, 5, *(9, 8, 6)[:dims])
    with torch.no_grad():
        skip = random(*layer(x).shape, seed=1) if residual else None
        ours = conv.conv_bn(x, layer, bn, relu, skip)
        assert_close(ours, conv.conv_bn_twin(x, layer, bn, relu, skip))
        dilated = convolution(5, 7, 3, padding=6, dilation=6, bias=bias)
        assert_close(conv.conv_bn(x, dilated, bn), conv.conv_bn_twin(x, dilated, bn))


@pytest.mark.parametrize(
    ("batch", "channels", "size"),
    [
        (1, (32, 32), (24, 24)),
        (2, (40, 48), (17, 31)),  # odd sizes: half tiles at two edges
        (6, (64, 32), (1, 90)),
        (1, (32, 32), (12, 9, 16)),
        (1, (48, 48), (11, 12, 5)),
        (2, (32, 64), (16, 16, 1)),
        (1, (32, 32), (3, 200, 2)),
    ],
)
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("residual", [False, True])
def test_winograd_equals_the_direct_convolution(batch, channels, size, relu, residual):
    layer = (nn.Conv2d if len(size) == 2 else nn.Conv3d)(*channels, 3, padding=1)
    bn = norm((nn.BatchNorm2d if len(size) == 2 else nn.BatchNorm3d)(channels[1]))
    x = random(batch, channels[0], *size)
    with torch.no_grad():
        if native.library() is None:
            pytest.skip("no C compiler here")
        assert winograd.suits(x, layer)
        skip = random(batch, channels[1], *size, seed=1) if residual else None
        ours = conv.conv_bn(x, layer, bn, relu, skip)
        assert_close(ours, conv.conv_bn_twin(x, layer, bn, relu, skip))
        with winograd.direct():
            assert not winograd.suits(x, layer)
            assert_close(ours, conv.conv_bn(x, layer, bn, relu, skip))


def test_winograd_shows_nan_instead_of_hiding_it():
    layer, x = nn.Conv2d(32, 32, 3, padding=1), random(1, 32, 32, 32)
    x[0, 5, 10, 11] = torch.nan
    with torch.no_grad():
        y = conv.conv_bn(x, layer, relu=True)
    # F(2x2) spreads it over the tiles that see it, no further.
    assert torch.isnan(y[0, :, 9:12, 10:13]).all()
    assert not torch.isnan(y[0, :, :8]).any() and not torch.isnan(y[0, :, 13:]).any()


@pytest.mark.parametrize(
    "options",
    [
        {"stride": 2},
        {"dilation": 2, "padding": 2},
        {"padding": 0},
        {"kernel_size": 5, "padding": 2},
        {"groups": 2},
        {"in_channels": 36},
        {"out_channels": 40},
        {"in_channels": 16},
    ],
)
def test_winograd_leaves_other_convolutions_alone(options):
    options = {"in_channels": 32, "out_channels": 32, "kernel_size": 3, "padding": 1} | options
    layer = nn.Conv2d(**options)
    x = random(1, options["in_channels"], 32, 32)
    with torch.no_grad():
        assert not winograd.suits(x, layer)
        if layer.groups == 1:
            assert_close(conv.conv_bn(x, layer), layer(x))


@pytest.mark.parametrize("change", ["in place", "load_state_dict", "norm", "replaced"])
def test_folded_weights_follow_the_module(change):
    layer, bn = nn.Conv2d(4, 4, 3, padding=1), norm(nn.BatchNorm2d(4))
    x = random(1, 4, 6, 6)
    with torch.no_grad():
        conv.conv_bn(x, layer, bn, relu=True)
        conv.folded(layer, bn)
        if change == "in place":
            layer.weight.mul_(2.0)
        elif change == "load_state_dict":
            layer.load_state_dict({"weight": random(4, 4, 3, 3), "bias": random(4)})
        elif change == "norm":
            bn.running_var.add_(1.0)
        else:
            layer.weight = nn.Parameter(random(4, 4, 3, 3, seed=9))
        assert_close(
            conv.conv_bn(x, layer, bn, relu=True), conv.conv_bn_twin(x, layer, bn, relu=True)
        )


def test_a_training_batch_norm_is_not_folded():
    layer, bn = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4).train()
    x = random(2, 3, 5, 5)
    with torch.no_grad():
        y = conv.conv_bn(x, layer, bn)
    assert_close(y.mean((0, 2, 3)), torch.zeros(4), tolerance=1.0)
    assert float(bn.num_batches_tracked) == 1


@given(bins=st.integers(1, 12), length=st.integers(1, 15), seed=st.integers(0, 1000))
@settings(deadline=None, max_examples=30)
def test_intra_object_fill_is_the_banded_matrix_product(bins, length, seed):
    depth = torch.softmax(random(2, bins, 3, 4, seed=seed), 1)
    fill = torch.sigmoid(random(2, length, 3, 4, seed=seed + 1))
    with torch.no_grad():
        assert_close(intra.fill_behind(depth, fill), intra.fill_behind_twin(depth, fill))


def test_intra_object_fill_by_hand():
    depth = torch.tensor([0.5, 0.25, 0.25]).view(1, 3, 1, 1)
    fill = torch.tensor([0.5, 1.0]).view(1, 2, 1, 1)
    for form in (intra.fill_behind, intra.fill_behind_twin):
        with torch.no_grad():
            out = form(depth, fill).flatten()
        # bin 1: 0.25 + 0.5 * 0.5; bin 2: 0.25 + 0.25 * 0.5 + 0.5 * 1.0
        assert out.tolist() == [0.5, 0.5, 0.875]


def stereo_case(seed: int, h: int = 7, w: int = 9, channels: int = 20):
    current = torch.relu(random(2, channels, h, w, seed=seed))
    previous = torch.relu(random(2, channels, h, w, seed=seed + 1))
    homography = torch.eye(3, dtype=torch.float64) + 0.1 * random(2, 3, 3, seed=seed + 2).double()
    homography[:, 2] = torch.tensor([0.001, -0.002, 1.0])
    offset = 3.0 * random(2, 3, seed=seed + 3).double()
    depths = 1.0 + 0.5 * torch.arange(11, dtype=torch.float64)
    return current, previous, homography, offset, depths


@pytest.mark.parametrize("seed", range(6))
def test_cost_volume_equals_its_twin(kernels, seed):
    case = stereo_case(seed)
    # Positions are float64 in one form and float32 inside grid_sample in the other.
    assert_close(
        cost_volume.cost_volume(*case), cost_volume.cost_volume_twin(*case), tolerance=1e-4
    )


@pytest.mark.parametrize("channels", [1, 3, 4, 17, 256])
def test_cost_volume_takes_any_number_of_channels(kernels, channels):
    case = stereo_case(3, channels=channels)
    assert_close(
        cost_volume.cost_volume(*case), cost_volume.cost_volume_twin(*case), tolerance=1e-4
    )


def test_cost_volume_of_a_frame_with_itself_is_flat(kernels):
    feature = torch.relu(random(1, 8, 5, 6))
    depths = 1.0 + torch.arange(10, dtype=torch.float64)
    at_rest = torch.eye(3, dtype=torch.float64)[None], torch.zeros(1, 3, dtype=torch.float64)
    cost = cost_volume.cost_volume(feature, feature, *at_rest, depths)
    assert_close(cost, torch.full_like(cost, 0.1))


def test_cost_volume_behind_the_camera_is_flat(kernels):
    current, previous, homography, offset, depths = stereo_case(0)
    offset[:, 2] = -1e6
    cost = cost_volume.cost_volume(current, previous, homography, offset, depths)
    assert_close(cost, torch.full_like(cost, 1 / 11))


def test_the_validity_channel_is_that_of_the_reference():
    assert cost_volume.validity_channel(256) == 252


def test_a_zero_in_the_validity_channel_is_penalised(kernels):
    feature = torch.ones(1, 256, 4, 4)
    half = feature.clone()
    half[:, 252] = 0.0  # one of 256: costs 1 of itself, and the penalty of 5
    depths = torch.tensor([1.0, 2.0], dtype=torch.float64)
    # Depth 1 sees the image, depth 2 lies behind: cost 256 + 5 against 1 + 5.
    homography = torch.eye(3, dtype=torch.float64)[None]
    cost = cost_volume.cost_volume(
        feature, half, homography, torch.zeros(1, 3, dtype=torch.float64), depths
    )
    plain = cost_volume.cost_volume(
        feature, feature * 255 / 256, homography, torch.zeros(1, 3, dtype=torch.float64), depths
    )
    assert_close(cost, plain)  # both depths see the same: flat
    homography = torch.tensor([[[1.0, 0, 100.0], [0, 1, 0], [0, 0, 1]]], dtype=torch.float64)
    offset = torch.tensor([[-100.0, 0, 0]], dtype=torch.float64)  # in view at depth 1 only
    seen = cost_volume.cost_volume(feature, half, homography, offset, depths)
    twin = cost_volume.cost_volume_twin(feature, half, homography, offset, depths)
    assert_close(seen, twin, tolerance=1e-4)


def lifting_case(seed: int, channels: int = 6, planar: bool = False):
    n, bins, h, w = 3, 9, 4, 5
    geometry = torch.rand(n, bins, h, w, generator=torch.Generator().manual_seed(seed))
    context = random(n, channels, h, w, seed=seed + 1)
    rays = 0.05 * random(n, 3, 3, seed=seed + 2).double()
    rays[:, :, 2] = random(n, 3, seed=seed + 3).double()
    frustum = splatting.Frustum(
        us=torch.linspace(0, 20, w, dtype=torch.float64),
        vs=torch.linspace(0, 15, h, dtype=torch.float64),
        depths=1.0 + 0.5 * torch.arange(bins, dtype=torch.float64),
        ray_matrix=rays,
        origin=random(n, 3, seed=seed + 4).double(),
    )
    lattice = splatting.Lattice((-4.0, -5.0, -1.0), (0.5, 0.4, 3.2), (16, 25, 1))
    if not planar:
        lattice = splatting.Lattice((-4.0, -5.0, -1.0), (0.5, 0.4, 0.8), (16, 25, 5))
    sides = splatting.SideCopies(
        weight=torch.rand(n, 27, h, w, generator=torch.Generator().manual_seed(seed + 5)),
        offset=8 * random(n, 18, h, w, seed=seed + 6).clamp(-1, 1),
        index_max=5,
    )
    return geometry, context, frustum, lattice, sides


@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("with_sides", [False, True])
@pytest.mark.parametrize("alive", [None, [True, False, True]])
@pytest.mark.parametrize("seed", range(3))
def test_splat_equals_its_twin(kernels, seed, planar, with_sides, alive):
    geometry, context, frustum, lattice, sides = lifting_case(seed, planar=planar)
    sides = sides if with_sides else None
    alive = None if alive is None else torch.tensor(alive)
    ours = splatting.splat(geometry, context, frustum, lattice, sides, alive)
    twin = splatting.splat_twin(geometry, context, frustum, lattice, sides, alive)
    assert float(twin.abs().max()) > 0.1
    assert_close(ours, twin)


@pytest.mark.parametrize("with_sides", [False, True])
def test_splat_of_several_samples_is_that_of_each(with_sides):
    cases = [lifting_case(seed) for seed in (3, 4)]
    lattice, alone, alive = cases[0][3], [], torch.tensor([True, True, False])
    for geometry, context, frustum, _, sides in cases:
        used = sides if with_sides else None
        alone.append(splatting.splat_twin(geometry, context, frustum, lattice, used, alive))
    geometry, context, frusta, _, sides = zip(*cases, strict=True)
    frustum = replace(
        frusta[0],
        ray_matrix=torch.cat([f.ray_matrix for f in frusta]),
        origin=torch.cat([f.origin for f in frusta]),
    )
    joined = None
    if with_sides:
        joined = replace(
            sides[0],
            weight=torch.cat([s.weight for s in sides]),
            offset=torch.cat([s.offset for s in sides]),
        )
    together = splatting.splat_many(
        torch.cat(geometry), torch.cat(context), frustum, lattice, joined, alive.repeat(2), 2
    )
    assert not torch.allclose(alone[0], alone[1])
    assert_close(together, torch.stack(alone))


def test_splat_notices_that_cameras_or_lattice_moved(kernels):
    geometry, context, frustum, lattice, sides = lifting_case(0)
    moved = replace(frustum, origin=frustum.origin + 0.3)
    shifted = replace(lattice, lower=(-4.1, -5.0, -1.0))
    for case in ((frustum, lattice), (moved, lattice), (moved, shifted), (frustum, lattice)):
        ours = splatting.splat(geometry, context, *case, sides)
        assert_close(ours, splatting.splat_twin(geometry, context, *case, sides))


def test_splat_does_not_depend_on_the_number_of_threads():
    if native.library() is None:
        pytest.skip("no C compiler here")
    case, threads, volumes = lifting_case(0), torch.get_num_threads(), []
    try:
        with torch.no_grad():
            for count in (1, 2, 3, 7):
                torch.set_num_threads(count)
                volumes.append(splatting.splat(*case))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(volumes[0], v) for v in volumes)


def test_splat_keeps_the_mass_of_a_point_inside_and_halves_it_between_nodes(kernels):
    geometry, context = torch.ones(1, 1, 1, 1), torch.full((1, 1, 1, 1), 3.0)
    frustum = splatting.Frustum(
        us=torch.zeros(1, dtype=torch.float64),
        vs=torch.zeros(1, dtype=torch.float64),
        depths=torch.ones(1, dtype=torch.float64),
        ray_matrix=torch.zeros(1, 3, 3, dtype=torch.float64),
        origin=torch.tensor([[1.0, 2.25, 0.0]], dtype=torch.float64),
    )
    lattice = splatting.Lattice((0.0, 0.0, 0.0), (1.0, 0.5, 1.0), (4, 6, 3))
    volume = splatting.splat(geometry, context, frustum, lattice)[0]  # [Y, X, Z]
    assert volume.sum() == 3.0
    # y = 2.25 m lies between nodes 4 (2.0 m) and 5 (2.5 m); x = 1 m on node 1.
    assert volume[4, 1, 0] == 1.5 and volume[5, 1, 0] == 1.5


def fusion_case(planar: bool, seed: int = 0, slots: int = 4, channels: int = 6):
    size = (9, 11, 1) if planar else (9, 11, 5)
    convolution, batch_norm = (nn.Conv2d, nn.BatchNorm2d) if planar else (nn.Conv3d, nn.BatchNorm3d)
    torch.manual_seed(seed)
    time_conv = nn.Sequential(convolution(channels + 1, channels, 1), norm(batch_norm(channels)))
    cat_conv = nn.Sequential(
        convolution(channels * (slots + 1), channels, 1), norm(batch_norm(channels), seed=6)
    )
    turn = math.radians(4.0)
    motion = torch.tensor(
        [
            [math.cos(turn), -math.sin(turn), 0.01, 1.3],
            [math.sin(turn), math.cos(turn), -0.02, -0.4],
            [0.02, -0.01, 1.0, 0.25],
            [0, 0, 0, 1.0],
        ],
        dtype=torch.float64,
    )
    lower, step = (-4.0, -3.0, -1.0), (0.8, 0.8, 6.4 if planar else 0.8)
    motion = history.index_motion(motion, lower, step, planar)
    frames = [random(channels, *size, seed=seed + i) for i in range(4)]
    return frames, slots, motion, time_conv.eval(), cat_conv.eval()


@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("channels", [6, 32, 40])
def test_embedded_history_equals_the_raw_one_over_several_frames(kernels, planar, channels):
    frames, slots, motion, time_conv, cat_conv = fusion_case(planar, channels=channels)
    raw = frames[0].expand(slots, *frames[0].shape)
    ages, embedded, old = torch.zeros(slots), None, None
    identity = torch.eye(4, dtype=torch.float64)[:3]
    for i, frame in enumerate(frames):
        moved = motion if i else identity
        if i:
            ages = ages + 0.5
        twin, warped, _ = history.fuse_twin(frame, raw, ages, moved, time_conv, cat_conv)
        rows = history.embed(frame, time_conv)
        if embedded is None:
            ours, new = history.fuse_first(rows, slots, time_conv, cat_conv)
        else:
            ours, new = history.fuse(rows, embedded, ages, moved, time_conv, cat_conv, out=old)
            assert old is None or new.data_ptr() == old.data_ptr()
        assert_close(ours, twin)
        old, embedded = embedded, new
        raw = torch.cat([frame[None], warped[:-1]])
        ages = torch.cat([torch.zeros(1), ages[:-1]])


@pytest.mark.parametrize("planar", [False, True])
def test_history_that_is_not_kept_is_only_read(kernels, planar):
    frames, slots, motion, time_conv, cat_conv = fusion_case(planar)
    rows = [history.embed(f, time_conv) for f in frames]
    _, past = history.fuse_first(rows[0], slots, time_conv, cat_conv)
    before = past.clone()
    ages = torch.full((slots,), 0.5)
    kept, _ = history.fuse(rows[1], past, ages, motion, time_conv, cat_conv)
    unkept, none = history.fuse(rows[1], past, ages, motion, time_conv, cat_conv, keep=False)
    assert none is None and torch.equal(past, before)
    assert_close(unkept, kept, tolerance=1e-6)


def test_history_shows_nan_instead_of_hiding_it(kernels):
    frames, slots, motion, time_conv, cat_conv = fusion_case(planar=False)
    rows = history.embed(frames[0], time_conv)
    rows[4, 4, 2] = torch.nan
    _, past = history.fuse_first(rows, slots, time_conv, cat_conv)
    ages = torch.zeros(slots)
    fused, _ = history.fuse(rows, past, ages, motion, time_conv, cat_conv)
    assert torch.isnan(fused).any()


def test_a_planar_lattice_takes_its_slab_as_the_plane_at_one_metre():
    pitch = torch.eye(4, dtype=torch.float64)
    pitch[0, 2] = 0.1  # x grows with z
    motion = history.index_motion(pitch, (-40.0, -40.0, -1.0), (0.4, 0.4, 6.4), planar=True)
    x, _, _ = motion @ torch.tensor([100.0, 100.0, 1.0, 1.0], dtype=torch.float64)
    assert float(x) == pytest.approx(100.0 + 0.1 / 0.4)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("fine", [(8, 8, 8), (12, 8, 4)])
def test_merging_levels_before_upsampling_equals_after(kernels, dims, fine):
    sizes = [tuple(max(1, s >> i) for s in fine[:dims]) for i in range(3)]
    levels = [
        random(1, c, *s, seed=i) for i, (c, s) in enumerate(zip((4, 6, 10), sizes, strict=True))
    ]
    if dims == 2:
        layer, bn = nn.Conv2d(20, 16, 3, padding=1, bias=False), norm(nn.BatchNorm2d(16))
    else:
        layer, bn = nn.Conv3d(20, 12, 1, bias=False), norm(nn.BatchNorm3d(12))
    ours = upsample.merge_levels(levels, layer, bn)
    assert_close(ours, upsample.merge_levels_twin(levels, layer, bn))


@pytest.mark.parametrize("channels", [3, 8, 48])
def test_correlation_equals_its_twin(kernels, channels):
    current, previous = random(channels, 14, 17), random(channels, 14, 17, seed=1)
    previous[:, 3:6, 4:9] = 0.0  # empty cells
    assert_close(
        correlation.correlation(current, previous),
        correlation.correlation_twin(current, previous),
    )


def test_correlation_finds_a_shift(kernels):
    previous = random(16, 30, 30)
    current = torch.roll(previous, (4, -2), (1, 2))  # moved by +4 in y, -2 in x
    best = correlation.correlation(current, previous)[:, 15, 15].argmax()
    # The past is read at (y - 4, x + 2): tap (-2, +1) of the 11 x 11, counted from (-5, -5).
    assert divmod(int(best), correlation.TAPS) == (5 - 2, 5 + 1)


def test_flow_decoding_equals_its_twin(kernels):
    torch.manual_seed(0)
    post = nn.Conv3d(24 + 8, 8, 3, padding=1)
    predict = nn.Sequential(nn.Conv3d(8, 16, 1), nn.ReLU(), nn.Conv3d(16, 2 * flow.FLOW_BINS, 1))
    cost, voxels = random(1, 24, 10, 9), random(1, 8, 10, 9, 6, seed=1)
    # Relative to 22 m/s: a few 1e-6 m/s.
    assert_close(
        flow.decode_flow(cost, voxels, post, predict),
        flow.decode_flow_twin(cost, voxels, post, predict),
    )
    for threshold in (-9.0, -2.5, -0.5, 9.0):  # nowhere, in a few, here and there, everywhere
        where = random(10, 9, 6, seed=2) < threshold
        partly = flow.decode_flow(cost, voxels, post, predict, where)
        assert_close(partly, flow.decode_flow_twin(cost, voxels, post, predict, where))
        assert (partly[~where] == 0).all()


def test_neighbourhoods_are_what_a_convolution_looks_at():
    torch.manual_seed(0)
    voxels = torch.randn(2, 3, 4, 5, 6, dtype=torch.float64, requires_grad=True)  # B, V, Z, Y, X
    cost = torch.randn(2, 2, 5, 6, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(7, 5, 3, 3, 3, dtype=torch.float64)  # over Y, X, Z
    repeated = cost[..., None].expand(-1, -1, -1, -1, 4)
    dense = torch.nn.functional.conv3d(
        torch.cat([repeated, voxels.permute(0, 1, 3, 4, 2)], 1), weight, padding=1
    )
    corners = torch.zeros(2, 4, 5, 6, dtype=torch.bool)
    corners[0, 0, 0, 0] = corners[1, 3, 4, 5] = True
    for where in (torch.rand(2, 4, 5, 6) < 0.3, corners, torch.zeros_like(corners)):
        rows = flow.neighbourhoods(voxels, cost, where) @ weight.flatten(1).T
        twin = dense.permute(0, 4, 2, 3, 1)[where]
        torch.testing.assert_close(rows, twin)
        ours = torch.autograd.grad(rows.square().sum(), (voxels, cost))
        theirs = torch.autograd.grad(twin.square().sum(), (voxels, cost), retain_graph=True)
        torch.testing.assert_close(ours, theirs)


@given(seed=st.integers(0, 1000), classes=st.integers(1, 19), first=st.integers(0, 1))
@settings(deadline=None, max_examples=30)
def test_labels_equal_their_twin(seed, classes, first):
    logits = 20 * random(300, classes, seed=seed)
    with torch.no_grad():
        ours = classify.labels(logits, first)
    assert torch.equal(ours, classify.labels_twin(logits, first))


def test_saturated_logits_tie_and_the_lowest_class_wins(kernels):
    logits = torch.tensor([[1.0, 17.5, 20.0], [0.0, 1.0, 2.0]])
    assert classify.labels(logits).tolist() == [1, 2]


def test_logits_from_one_convolution_equal_features_times_embeddings():
    torch.manual_seed(0)
    raise_conv, embeddings = nn.Conv2d(6, 4 * 3, 3, padding=1), random(5, 4)
    x = random(1, 6, 7, 8)
    with torch.no_grad():
        merged = classify.merged_conv(raise_conv, embeddings, (embeddings,), 3)
        assert classify.merged_conv(raise_conv, embeddings, (embeddings,), 3) is merged
        ours = merged(x).unflatten(1, (3, 5))  # [1, Z, classes, Y, X]
        features = raise_conv(x).unflatten(1, (4, 3))  # [1, V, Z, Y, X]
        assert_close(ours, torch.einsum("qv,bvzyx->bzqyx", embeddings, features))
        raise_conv.weight.mul_(2.0)
        changed = classify.merged_conv(raise_conv, embeddings, (embeddings,), 3)
        assert changed is not merged
        embeddings.add_(1.0)
        assert classify.merged_conv(raise_conv, embeddings, (embeddings,), 3) is not changed


def test_kernels_build_into_an_empty_cache_and_a_broken_compiler_is_survived(
    tmp_path, monkeypatch, caplog
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    build = native.library.__wrapped__
    if build() is None:
        pytest.skip("no C compiler here")
    assert [p.suffix for p in (tmp_path / "alocc_ros").iterdir()] == [".so"]
    monkeypatch.setenv("CC", f"{shutil.which('env')} cc")
    assert build() is not None
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")  # nobody can write there
    assert build() is not None
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CC", "false")
    assert build() is None
    assert "plain torch" in caplog.text
    assert len(list((tmp_path / "alocc_ros").iterdir())) == 1  # nothing half-built


def test_kernels_work_in_a_forked_child():
    if native.library() is None:
        pytest.skip("no C compiler here")
    logits = random(100_000, 5)
    with torch.no_grad():
        expected = classify.labels(logits)  # the parent's threads exist by now
        child = os.fork()
        if child == 0:  # no exception may leave the child: it would run the rest of the tests
            torch.set_num_threads(2)
            # Compared by numpy: torch's own OpenMP threads do not survive a fork.
            seen = classify.labels(logits).numpy().tobytes()
            os._exit(0 if seen == expected.numpy().tobytes() else 1)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            assert os.waitstatus_to_exitcode(status) == 0
            return
        time.sleep(0.05)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    raise AssertionError("the child waits for threads that it does not have")
