# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import pytest
import torch
from emulated import TYPES, assert_near, both, stored
from operators import random

from alocc_ros.ops.depth_net import camera_gates, depth_answer, gate_feature
from alocc_ros.ops.depth_net import triton as kernels


@pytest.mark.parametrize("channels", [6, 80])
def test_gates(channels):
    shapes = [(27, channels), (channels, channels), (channels, channels)]
    layers = [
        0.2 * random(2, *shape, seed=i)
        for i, (k, c) in enumerate(shapes)
        for shape in ((k, c), (1, c))
    ]
    camera = random(3, 27, seed=9).double()
    ours, emulated = both(camera_gates, kernels, (camera, *layers))
    assert ours.dtype == torch.float32
    assert_near(ours, emulated, torch.float32)
    camera[1, 5] = torch.nan
    ours, emulated = both(camera_gates, kernels, (camera, *layers))
    assert ours[:, 1].isnan().all() and not ours[:, [0, 2]].isnan().any()
    assert_near(ours, emulated, torch.float32)


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("beside", ["nothing", "a part", "a part with a bias"])
def test_gated_features(kind, beside):
    feature = random(2, 20, 5, 7).contiguous(memory_format=torch.channels_last)
    gates = random(2, 20, 1, 1, seed=1), random(2, 20, 1, 1, seed=2)
    part = None if beside == "nothing" else random(2, 6, 5, 7, seed=3).to(kind)
    bias = random(6, seed=4).to(kind) if beside.endswith("bias") else None
    feature[1, 3, 2, 2] = torch.nan
    given = (feature.to(kind), *gates, part, bias)
    ours, emulated = both(gate_feature, kernels, given)
    for own, other in zip(ours, emulated, strict=True):
        assert own.isnan().sum() == 1
        assert_near(own, other, kind)


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("sides", [False, True], ids=["no sides", "sides"])
def test_answers(kind, sides):
    # More logits than bins, in either order in memory.
    logits = random(2, 25, 5, 7).contiguous(memory_format=torch.channels_last)
    fill, side = random(2, 6, 5, 7, seed=1), 3 * random(2, 11, 5, 7, seed=2)
    logits[1, 3, 2, 2] = fill[0, 0, 0, 0] = side[0, 8, 1, 1] = torch.nan
    given = (*stored((logits, fill, side if sides else None), kind), 20, 7, 4.0, 8.0)
    ours, emulated = both(depth_answer, kernels, given)
    assert ours[0].isnan().sum() == 20
    for own, other in zip(ours, emulated, strict=True):
        assert own.numel() == 0 or float(own.nan_to_num().abs().max()) > 0
        if own.numel():
            assert_near(own, other, kind)
