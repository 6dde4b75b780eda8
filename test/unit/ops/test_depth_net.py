# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""The small steps of the depth network, and those between it and lifting, against plain modules."""

from __future__ import annotations

import torch
from operators import assert_close, random
from small_networks import network_of, small
from torch import nn

from alocc_ros.network.geometry_fusion import GeometryMix, LogitsMix
from alocc_ros.network.heads import MatchingMaps
from alocc_ros.ops.conv import FoldedConv
from alocc_ros.ops.correlation import matching_maps
from alocc_ros.ops.depth_net import camera_gates, depth_answer, gate_feature
from alocc_ros.ops.recurrent import gated_mix
from alocc_ros.runtime.fused import of_shares


def test_gates_of_all_cameras_at_once_equal_the_networks_own(form):
    gates = network_of(small("alocc_2d_mini")).depth_net.gates
    camera = 300 * random(6, 27).double()
    prepared = gates.prepared()
    layers = [getattr(prepared, f"{kind}{i}") for i in range(3) for kind in ("matrix", "bias")]
    made = form(camera_gates)(camera, *layers)
    for ours, theirs in zip(made, gates(camera), strict=True):
        assert_close(ours, theirs)


def test_gated_features_and_what_stands_beside_them(form):
    feature, beside, bias = random(2, 6, 3, 4), random(2, 3, 3, 4, seed=1), random(3, seed=2)
    first, second = random(2, 6, 1, 1, seed=3), random(2, 6, 1, 1, seed=4)
    seen, joined = form(gate_feature)(feature, first, second, beside, bias)
    assert torch.equal(seen, feature * first)
    assert torch.equal(joined[:, :6], feature * second)
    assert torch.equal(joined[:, 6:], beside + bias[:, None, None])
    assert torch.equal(form(gate_feature)(feature, first, second, beside, None)[1][:, 6:], beside)
    assert form(gate_feature)(feature, first, second, None, None)[1].shape == feature.shape


def test_shares_and_pixels(form):
    logits, fill, sides = random(2, 7, 3, 4), random(2, 2, 3, 4, seed=1), 4 * random(2, 5, 3, 4)
    made = form(depth_answer)(logits, fill, sides, 5, 3, 4.0, 8.0)
    wanted = (torch.softmax(logits[:, :5], 1), torch.sigmoid(fill), torch.sigmoid(sides[:, :3]))
    for ours, theirs in zip(made, (*wanted, (4 * sides[:, 3:]).clamp(-8, 8)), strict=True):
        assert_close(ours, theirs)
        assert ours.is_contiguous(memory_format=torch.channels_last)
    without = form(depth_answer)(logits, fill, None, 5, 3, 4.0, 8.0)
    assert torch.equal(without[0], made[0]) and [t.shape[1] for t in without[2:]] == [0, 0]


def test_nan_stays_with_its_pixel(form):
    logits, fill, sides = random(1, 5, 2, 2), random(1, 2, 2, 2), random(1, 4, 2, 2)
    for x in (logits, fill, sides):
        x[0, -1, 1, 0] = torch.nan
    shares, *others = form(depth_answer)(logits, fill, sides, 5, 2, 4.0, 8.0)
    assert shares[0, :, 1, 0].isnan().all() and shares.isnan().sum() == 5
    assert [int(t.isnan().sum()) for t in others] == [1, 0, 1]


def test_maps_to_match_equal_those_of_the_module(form):
    now, before = random(2, 3, 8, 10), random(2, 3, 8, 10, seed=1)
    motion = torch.eye(4, dtype=torch.float64)[None, :3].repeat(2, 1, 1)
    motion[1, :2] += torch.tensor([[0.1, -0.2, 0.03, 1.7], [0.2, 0.1, 0.01, -2.4]])
    assert_close(form(matching_maps)(now, before, motion), MatchingMaps()(now, before, motion))


def test_mixes_equal_those_of_the_modules(form):
    net = network_of(small("alocc_3d_gf")).depth_net
    bins = len(net.depth_head.bias)
    then, now, known = (random(2, bins, 3, 4, seed=i) for i in range(3))
    then[:, :, 0] = 0  # outside

    def layers(gate: nn.Sequential) -> list[torch.Tensor]:
        return [gate[0].weight.flatten(1).T, gate[0].bias, gate[2].weight.flatten(), gate[2].bias]

    gate = layers(net.depth_his_fusion_post_layer.gate_net)
    expected = LogitsMix(net)(then, now, known)
    assert_close(form(gated_mix)(then, now, None, *gate, False), expected[0])
    assert_close(form(gated_mix)(then, now, known, *gate, False), expected[1])
    assert torch.equal(expected[1][:, :, 0], known[:, :, 0])

    class Prediction:
        history, surface = then, None

    ours = form(gated_mix)(then, now, None, *layers(net.gate_net), True)
    assert_close(ours, GeometryMix(net)(now, Prediction()))


def test_a_bias_behind_shares_is_a_matter_of_the_middle_tap():
    conv = FoldedConv.of(nn.Conv2d(5, 4, 3, stride=2, padding=1))
    shares = torch.softmax(random(2, 5, 7, 8), 1)
    other = of_shares(conv)
    assert not other.bias.any()
    assert_close(other(shares), conv(shares))
