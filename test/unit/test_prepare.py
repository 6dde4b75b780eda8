# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Preparing a network for inference leaves the network itself alone."""

from __future__ import annotations

import pytest
import torch
from small_networks import network_of, small
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from alocc_ros.bench.scene import example_frame
from alocc_ros.ops.conv import FoldedConv
from alocc_ros.runtime.prepare import pack_for_cpu, prepare


@pytest.mark.parametrize("name", ["alocc_2d_mini", "alocc_flow_2d", "alocc_flow_3d"])
@torch.no_grad()
def test_the_network_that_is_prepared_stays_as_it_was(name):
    network = network_of(small(name)).train()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    modules = [(path, type(m)) for path, m in network.named_modules()]
    ready = prepare(network)
    in_between = [(path, type(m)) for path, m in ready.named_modules()]
    pack_for_cpu(ready)
    assert [(path, type(m)) for path, m in network.named_modules()] == modules
    assert [(path, type(m)) for path, m in ready.named_modules()] == in_between
    assert all(m.training for m in network.modules())
    after = network.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[k], before[k]) for k in before)


def test_the_network_that_is_prepared_still_wants_its_gradients():
    network = network_of(small("alocc_flow_2d"))
    wanting = [p.requires_grad for p in network.parameters()]
    prepare(network)
    assert [p.requires_grad for p in network.parameters()] == wanting


@torch.no_grad()
def test_a_prepared_network_has_only_folded_convolutions_and_wants_no_gradient():
    ready = prepare(network_of(small("alocc_flow_3d")))
    kinds = {type(m) for m in ready.modules()}
    assert not kinds & {nn.Conv2d, nn.Conv3d, nn.BatchNorm2d, nn.BatchNorm3d}
    assert FoldedConv in kinds
    assert not ready.training and not any(p.requires_grad for p in ready.parameters())


@torch.no_grad()
def test_a_network_in_training_uses_the_statistics_of_its_batch():
    variant = small("alocc_2d_mini")
    network, frame = network_of(variant), example_frame(variant)
    norms = [m for m in network.img_backbone.modules() if isinstance(m, _BatchNorm)]
    before = [n.running_mean.clone() for n in norms]
    for training in (False, True):
        network.train(training)
        network(frame.images, frame.plan(None).tensors("cpu"))
        moved = [not torch.equal(n.running_mean, b) for n, b in zip(norms, before, strict=True)]
        assert all(moved) if training else not any(moved)
