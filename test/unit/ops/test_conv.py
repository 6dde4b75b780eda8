# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Folded convolutions and their forms for a CPU against convolution and BatchNorm one by one."""

from __future__ import annotations

import pytest
import torch
from operators import assert_close, norm, random, threads
from torch import nn

from alocc_ros.ops.conv import FoldedConv, channels_last, conv_bn, conv_bn_reference
from alocc_ros.ops.conv.cpu import OneDnnConv, WinogradConv, pack, winograd_suits


def layers(channels: tuple[int, int], dims: int, seed: int = 0, **options):
    """Convolution and BatchNorm."""
    torch.manual_seed(seed)
    options = {"kernel_size": 3, "padding": 1} | options
    convolution, batch_norm = ((nn.Conv2d, nn.BatchNorm2d), (nn.Conv3d, nn.BatchNorm3d))[dims - 2]
    return convolution(*channels, **options), norm(batch_norm(channels[1]))


def forms(conv: nn.Module, bn: nn.Module | None, shape: torch.Size) -> list[FoldedConv]:
    """The folded convolution and every packed form that can take this shape here."""
    folded = FoldedConv.of(conv, bn)
    made = [folded, OneDnnConv(folded, shape)]
    if winograd_suits(folded, shape):
        made.append(WinogradConv(folded))
    return made


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {"stride": 2},
        {"stride": 2, "bias": False},
        {"padding": 6, "dilation": 6},
        {"kernel_size": 1, "padding": 0},
    ],
)
@torch.no_grad()
def test_folded_forms_equal_the_modules(dims, relu, residual, options):
    conv, bn = layers((5, 7), dims, **options)
    x = random(2, 5, *(9, 8, 6)[:dims])
    skip = random(*conv(x).shape, seed=1) if residual else None
    for norm_after in (bn, None):
        reference = conv_bn_reference(x, conv, norm_after, relu, skip)
        for form in forms(conv, norm_after, x.shape):
            ours = conv_bn(x, form, norm_after, relu, skip)
            assert_close(ours, reference)
            if options.get("kernel_size") != 1:  # torch cannot tell the order of a pointwise weight
                assert ours.is_contiguous(memory_format=channels_last(ours))


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
def test_winograd_equals_the_modules(compiled, batch, channels, size, relu, residual):
    conv, bn = layers(channels, len(size))
    x = random(batch, channels[0], *size)
    assert winograd_suits(FoldedConv.of(conv, bn), x.shape)
    packed = pack(FoldedConv.of(conv, bn), x.shape)
    assert isinstance(packed, WinogradConv)
    skip = random(batch, channels[1], *size, seed=1) if residual else None
    assert_close(packed(x, relu, skip), conv_bn_reference(x, conv, bn, relu, skip))


def test_winograd_shows_nan_instead_of_hiding_it(compiled):
    conv, _ = layers((32, 32), 2)
    x = random(1, 32, 32, 32)
    x[0, 5, 10, 11] = torch.nan
    nan = WinogradConv(FoldedConv.of(conv))(x, relu=True).isnan()
    # F(2x2) spreads it over the tiles that see it, no further.
    assert nan[0, :, 9:12, 10:13].all()
    assert not nan[0, :, :8].any() and not nan[0, :, 13:].any()


def test_winograd_is_the_same_with_any_number_of_threads_and_alone(compiled):
    conv, bn = layers((32, 48), 2)
    x, packed, found = random(2, 32, 33, 20), WinogradConv(FoldedConv.of(conv, bn)), []
    for count in (1, 2, 7):
        with threads(count):
            found.append(packed(x, True))
    assert all(torch.equal(found[0], y) for y in found)
    assert_close(found[0], torch.cat([packed(one[None], True) for one in x]), tolerance=1e-6)


@pytest.mark.parametrize(
    "options",
    [
        {"stride": 2},
        {"dilation": 2, "padding": 2},
        {"padding": 0},
        {"kernel_size": 5, "padding": 2},
        {"in_channels": 36},
        {"out_channels": 40},
        {"in_channels": 16},
    ],
)
@torch.no_grad()
def test_winograd_leaves_other_convolutions_alone(options):
    options = {"in_channels": 32, "out_channels": 32, "kernel_size": 3, "padding": 1} | options
    conv = nn.Conv2d(**options)
    x = random(1, options["in_channels"], 32, 32)
    assert not winograd_suits(FoldedConv.of(conv), x.shape)
    packed = pack(FoldedConv.of(conv), x.shape)
    assert not isinstance(packed, WinogradConv)
    assert_close(packed(x), conv(x))


@torch.no_grad()
def test_small_inputs_doubles_and_a_machine_without_compiler_get_no_winograd(kernels):
    folded = FoldedConv.of(layers((32, 32), 2)[0])
    assert not winograd_suits(folded, torch.Size((1, 32, 8, 8)))
    assert not winograd_suits(folded.double(), torch.Size((1, 32, 32, 32)))
    fits = winograd_suits(folded.float(), torch.Size((1, 32, 32, 32)))
    assert fits == (kernels == "CPU kernel")


@torch.no_grad()
def test_folding_in_double_precision_is_exact():
    conv, bn = layers((5, 7), 3)
    conv, bn, x = conv.double(), bn.double(), random(2, 5, 6, 5, 4).double()
    folded = FoldedConv.of(conv, bn)
    assert_close(folded(x, True), conv_bn_reference(x, conv, bn, True), tolerance=1e-14)


@pytest.mark.parametrize("relu", [False, True])
@torch.no_grad()
def test_nan_in_weights_input_and_residual_is_shown(relu):
    conv, bn = layers((5, 7), 2)
    x, skip = random(1, 5, 6, 6), random(1, 7, 6, 6, seed=1)
    x[0, 0, 1, 1] = skip[0, 3, 5, 5] = bn.running_var[6] = torch.nan
    reference = conv_bn_reference(x, conv, bn, relu, skip)
    assert reference.isnan()[0, 6].all() and not reference.isnan().all()
    for form in forms(conv, bn, x.shape):
        if relu and isinstance(form, OneDnnConv):
            # oneDNN's ReLU makes NaN zero, and one of our own would cost another pass over the
            # result of every convolution. So weights are looked at when they are loaded
            # (network/checkpoint.py), and layers without ReLU still show NaN.
            continue
        assert torch.equal(form(x, relu, skip).isnan(), reference.isnan())


@torch.no_grad()
def test_folding_leaves_the_modules_as_they_were_and_shares_nothing_with_them():
    conv, bn = layers((4, 4), 2)
    before = [t.clone() for m in (conv, bn) for t in m.state_dict().values()]
    x = random(1, 4, 6, 6)
    folded = FoldedConv.of(conv, bn)
    y = folded(x)
    assert all(
        torch.equal(a, b)
        for a, b in zip(
            before, [t for m in (conv, bn) for t in m.state_dict().values()], strict=True
        )
    )
    conv.weight.mul_(2.0)
    conv.bias.add_(1.0)
    bn.running_var.add_(1.0)
    assert torch.equal(folded(x), y)
    assert not folded.state_dict()


def test_a_training_batch_norm_is_not_folded():
    conv, bn = layers((3, 4), 2)
    bn.reset_running_stats()
    x = random(2, 3, 5, 5)
    with torch.no_grad():
        y = conv_bn(x, conv, bn.train())
        normalised = (y - bn.bias.view(-1, 1, 1)) / bn.weight.view(-1, 1, 1)
    assert_close(normalised.mean((0, 2, 3)) + 1, torch.ones(4), tolerance=1e-5)
    assert_close(normalised.var((0, 2, 3), correction=0), torch.ones(4), tolerance=1e-3)
    assert int(bn.num_batches_tracked) == 1
