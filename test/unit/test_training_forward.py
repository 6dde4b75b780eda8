# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""The forward of training against inference, and what only training has."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from small_networks import Stream, network_of, small
from torch import nn
from training_frames import MEAN, PLAIN, STD, network_input, training_frame

from alocc_ros.network.depth import DepthPrediction
from alocc_ros.network.lifting import Lifting
from alocc_ros.network.plan import frame_plan
from alocc_ros.network.variants import VARIANTS
from alocc_ros.ops.flow_head.reference import bin_values
from alocc_ros.ops.intra_object import intra_object, intra_object_reference
from alocc_ros.ops.lift import lift_reference
from alocc_ros.training.forward import SlotMemory, TrainingForward, grid_motion
from alocc_ros.training.schedule import Phase

EVERY = sorted(set(VARIANTS))

# Training and inference sum in another order and with other batch sizes. Without
# memory, or with a motion wrong by a metre, these networks' logits differ by 1e-3 and more.
TOLERANCE = 2e-5


def forward_of(network, **options) -> TrainingForward:
    return TrainingForward(network, MEAN, STD, "bgr", **options)


def close(a, b, tolerance=TOLERANCE):
    return (a - b).abs().max() <= tolerance * b.abs().max()


@pytest.mark.parametrize("name", EVERY)
def test_three_frames_in_training_are_three_frames_in_inference(name):
    network = network_of(small(name))
    v, stream = network.variant, Stream(network, "reference")
    forward, before, memories = forward_of(network), None, [None]
    for t in range(3):
        frame = training_frame(v, t)
        truth = stream.step(network_input(frame, v, before))
        prediction, memories = forward([frame], memories, PLAIN)
        logits = prediction.logits[0].permute(3, 2, 1, 0).detach()  # X, Y, Z, classes
        assert close(logits, truth.logits[0])
        if v.flow:
            everywhere = torch.ones_like(prediction.voxels[:, 0], dtype=torch.bool)  # 1, Y, X, Z
            share = torch.softmax(forward.flow_logits(prediction, everywhere), 1)
            flow = torch.einsum("mkc,k->mc", share, bin_values(share)).detach()
            y, x, z = everywhere.shape[1:]
            flow = flow.view(z, y, x, 2).permute(2, 1, 0, 3).flip(-1)
            if not v.flow_everywhere:
                flow[~torch.isin(truth.labels[0], torch.tensor(v.classes.flow))] = 0
            # A softmax over bins as far as 21 m/s doubles the logits' round-off.
            assert close(flow, truth.flow[0], 2 * TOLERANCE)
        before = frame


@pytest.mark.parametrize("name", ["alocc_flow_2d", "alocc_3d", "alocc_3d_gf"])
def test_two_samples_at_once_are_two_samples(name):
    network = network_of(small(name))
    v, forward = network.variant, forward_of(network)
    alone, together = [[None], [None]], [None, None]
    # The second sample's sequence begins one step later.
    frames = [[training_frame(v, t, s) for t in range(s, 3)] for s in (0, 1)]
    frames[1].insert(0, training_frame(v, 0, 1))
    for t in range(3):
        pair = [frames[s][t] for s in (0, 1)]
        if t == 1:
            alone[1], together[1] = [None], None
        both, together = forward(pair, together, PLAIN)
        for s in (0, 1):
            one, alone[s] = forward([pair[s]], alone[s], PLAIN)
            assert close(both.logits[s], one.logits[0])
            assert close(both.image_logits[s], one.image_logits[0])
            assert close(both.depth.chunk(2)[s], one.depth)


@pytest.mark.parametrize("name", EVERY)
def test_every_parameter_has_a_gradient_but_the_noise_query(name):
    network = network_of(small(name)).train()
    forward = forward_of(network)
    frames = [training_frame(network.variant, 0, s) for s in (0, 1)]
    prediction, memories = forward(frames, [None, None], PLAIN)
    total = prediction.logits.square().mean() + prediction.image_logits.square().mean()
    total = total + prediction.depth.square().mean()
    if prediction.flow_cost is not None:
        some = torch.rand(prediction.voxels[:, 0].shape) < 0.01
        total = total + forward.flow_logits(prediction, some).square().mean()
    total.backward()
    without = [n for n, p in network.named_parameters() if p.grad is None]
    assert without == []
    assert (network.alocc_head.query_feat.weight.grad[0] == 0).all()
    held = [t for m in memories for t in vars(m).values() if isinstance(t, torch.Tensor)]
    assert not any(t.requires_grad for t in held)


@pytest.mark.parametrize("name", ["alocc_flow_2d", "alocc_3d", "alocc_3d_gf"])
def test_checkpointing_changes_neither_gradients_nor_statistics(name):
    v = small(name)

    def gradients(checkpointing: bool):
        network = network_of(v).train()
        for module in network.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.3
        forward = forward_of(network, checkpointing=checkpointing)
        torch.manual_seed(1)
        prediction, _ = forward([training_frame(v, 0)], [None], Phase(0.5, 0.5, True))
        loss = prediction.logits.square().mean() + prediction.depth.square().mean()
        if prediction.flow_cost is not None:
            loss = loss + prediction.flow_cost.square().mean()
            loss = loss + prediction.voxels.square().mean()
        loss.backward()
        return {n: p.grad for n, p in network.named_parameters()}, dict(network.named_buffers())

    (plain, plain_buffers), (saving, saving_buffers) = gradients(False), gradients(True)
    for name, gradient in plain.items():
        if gradient is not None:
            torch.testing.assert_close(saving[name], gradient, rtol=1e-4, atol=1e-7)
    for name, buffer in plain_buffers.items():
        torch.testing.assert_close(saving_buffers[name], buffer)


def test_in_the_temporal_start_every_history_is_the_present_displaced():
    network = network_of(small("alocc_2d"))
    v, forward = network.variant, forward_of(network)
    starting = Phase(0.0, 0.0, temporal=False)
    first, second = training_frame(v, 0), training_frame(v, 1)
    _, memories = forward([first], [None], starting)
    assert memories[0].history is None
    seen = []
    network.history_keyframe_time_conv[0].register_forward_pre_hook(
        lambda _, inputs: seen.append(inputs[0])
    )
    forward([second], memories, starting)
    groups, stamps = seen[0][:, :-1], seen[0][:, -1]  # [T + 1, C, Y, X], [T + 1, Y, X]
    assert stamps[:, 0, 0].tolist() == [0.0] + [v.history_interval] * v.history
    assert (groups[1] != groups[0]).any()  # moved by the vehicle
    assert all(torch.equal(groups[1], slot) for slot in groups[2:])


def test_a_mirrored_grid_mirrors_the_motion():
    v = small("alocc_2d")
    plain = [training_frame(v, t) for t in (0, 1)]
    mirrored = [training_frame(v, t, flip=True) for t in (0, 1)]
    point = torch.tensor([3.0, 2.0, 1.0, 1.0], dtype=torch.float64)
    mirror = torch.tensor([-1.0, 1.0, 1.0, 1.0], dtype=torch.float64)

    def motion(now, before):
        memory = SlotMemory(
            None, torch.zeros(0), None, None, before.cameras.augmentation, before.map_T_grid
        )
        return grid_motion(now, memory)

    straight = motion(plain[1], plain[0]) @ point
    both = motion(mirrored[1], mirrored[0]) @ (mirror * point)
    torch.testing.assert_close(both, mirror * straight)
    only_before = motion(plain[1], mirrored[0]) @ point
    torch.testing.assert_close(only_before, mirror * straight)


def test_true_depth_takes_over_where_it_was_measured():
    network = network_of(small("alocc_2d_mini"))
    forward, frame = forward_of(network), training_frame(network.variant, 0)
    nothing = replace(frame, depth_bins=torch.full_like(frame.depth_bins, -1))
    predicted, _ = forward([frame], [None], PLAIN)
    mixed, _ = forward([frame], [None], Phase(1.0, 0.0, True))
    unmeasured, _ = forward([nothing], [None], Phase(1.0, 0.0, True))
    assert not torch.equal(mixed.logits, predicted.logits)
    assert torch.equal(unmeasured.logits, predicted.logits)
    assert torch.equal(mixed.depth, predicted.depth)  # the depth loss sees the network's own


def test_intra_object_lifting_has_the_gradient_of_its_reference():
    torch.manual_seed(0)
    depth = torch.rand(2, 7, 3, 4, dtype=torch.float64, requires_grad=True)
    fill = torch.rand(2, 9, 3, 4, dtype=torch.float64, requires_grad=True)  # longer than the ray
    weight = torch.rand(2, 7, 3, 4, dtype=torch.float64)
    found = torch.autograd.grad((intra_object(depth, fill) * weight).sum(), (depth, fill))
    truth = torch.autograd.grad((intra_object_reference(depth, fill) * weight).sum(), (depth, fill))
    for a, b in zip(found, truth, strict=True):
        torch.testing.assert_close(a, b)


def test_lifting_has_the_gradient_of_its_reference():
    v = small("alocc_2d")
    plan = frame_plan(v, training_frame(v, 1).cameras).tensors("cpu")
    random = torch.Generator().manual_seed(0)
    depth, fill, context, weight, offset = (
        torch.rand(6, n, *v.feature_size, generator=random, requires_grad=True)
        for n in (v.depth_bins, v.intra_length, v.context_channels, 27, 18)
    )
    with torch.no_grad():  # peaks within the grid, or no side copy would be seen
        depth[:, 12:] *= 0.1
        fill *= 0.1
    prediction = DepthPrediction(depth, fill, context, weight, offset)
    # Without the quirk of the released weights: copies anywhere along the ray.
    lifting, slow = (Lifting(v, v.depth_bins - 1) for _ in range(2))
    slow.operator, slow.intra_object.operator = lift_reference, intra_object_reference
    volume, expected = lifting(prediction, plan), slow(prediction, plan)
    assert close(volume, expected)
    towards = torch.randn(volume.shape, generator=random)
    found = torch.autograd.grad((volume * towards).sum(), prediction[:5])
    truth = torch.autograd.grad((expected * towards).sum(), prediction[:5])
    for ours, reference in zip(found, truth, strict=True):
        assert reference.abs().max() > 0
        assert close(ours, reference, 1e-4)
