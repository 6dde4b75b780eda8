# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Recurrent fusion's operators: kernels against the definition, the definition against gradients
that autograd takes.
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from operators import RESAMPLED, assert_close, random, threads
from torch import Tensor

from alocc_ros.ops.history import index_motion
from alocc_ros.ops.recurrent import (
    SceneWeights,
    correct_motion_reference,
    fuse_recurrent,
    fuse_recurrent_reference,
    moved_indices,
    sample_rows,
    scene_step,
    scene_step_reference,
    warp_frustum,
)
from alocc_ros.ops.recurrent.reference import NORM_EPSILON

SIZE = (9, 11, 5)  # Y, X, Z


def motion_of(batch: int = 2) -> Tensor:  # [B, 3, 4]
    moves = torch.eye(4, dtype=torch.float64).repeat(batch, 1, 1)
    for i in range(batch):
        turn = torch.tensor(0.07 - 0.15 * i, dtype=torch.float64)
        moves[i, :2, :2] = torch.stack(
            [torch.stack([turn.cos(), -turn.sin()]), torch.stack([turn.sin(), turn.cos()])]
        )
        moves[i, :3, 3] = torch.tensor([1.3 - 2 * i, -0.4, 0.25])
    return index_motion(moves, (-4.0, -3.0, -1.0), (0.8, 0.8, 0.8), planar=False)


def fusion_case(channels: int, batch: int = 2) -> tuple[Tensor, ...]:
    """Arguments of ``fuse_recurrent`` but the last two."""
    return (
        random(batch, *SIZE, channels, seed=1),
        random(batch, *SIZE, channels, seed=2),
        2 * random(batch, *SIZE, 3, seed=3),
        motion_of(batch),
        random(channels, 3, seed=4) / channels**0.5,
        random(3, seed=5),
        random(channels, channels, seed=6),
        random(batch, 2, channels, seed=7),
        random(2 * channels, channels, seed=8),
        random(channels, seed=9),
    )


def fused_by(operator, case: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
    room = torch.full_like(case[0], torch.nan), torch.full((*case[0].shape[:-1], 3), torch.nan)
    operator(*case, *room)
    return room


@pytest.mark.parametrize("channels", [6, 8, 32, 40])
@pytest.mark.parametrize("first", [True, False])
def test_fusion_is_its_reference(kernels, channels, first):
    case = fusion_case(channels)
    if first:
        case = (*case[:2], None, *case[3:])
    fused, offsets = fused_by(fuse_recurrent, case)
    expected, truth = fused_by(fuse_recurrent_reference, case)
    # The gradient jumps where a place crosses a node: of those few the mean is asked.
    far = (offsets - truth).abs().amax(-1) > 1e-3
    assert float(far.float().mean()) < 0.005 and not offsets.isnan().any()
    assert_close(fused[~far], expected[~far], RESAMPLED)


def test_a_slab_moves_in_its_plane_alone(kernels):
    """A bird's-eye volume lies 1 m high, and neither pitch nor the offsets' z takes it away."""
    y, x, c = 9, 11, 8
    pitched = torch.eye(4, dtype=torch.float64)[None]
    pitched[0, 0, 3], pitched[0, 0, 2], pitched[0, 2, 3] = 0.7, 0.3, 0.4
    motion = index_motion(pitched, (-4.0, -3.0, -1.0), (0.5, 0.5, 6.4), planar=True)
    assert moved_indices(motion, y, x, 1)[0, 2, 3, 0].tolist() == pytest.approx([3 + 2.0, 2, 0])
    rows, history, previous = (random(1, y, x, 1, n, seed=n) for n in (c, c, 3))
    previous[..., 2] = 0
    offsets = random(c, 3, seed=4)
    offsets[:, 2] = 0
    none = torch.zeros
    case = (rows, history, previous, motion, offsets, none(3), torch.eye(c), none(1, 2, c),
            torch.eye(c).repeat(2, 1), none(c))  # fmt: skip
    fused, moved = fused_by(fuse_recurrent, case)
    expected, truth = fused_by(fuse_recurrent_reference, case)
    assert moved[..., 2].abs().max() < 1e-6
    assert (truth[..., :2] != (rows @ offsets)[..., :2]).float().mean() > 0.2  # corrected
    near = (moved - truth).abs().amax(-1) < 1e-3
    assert near.float().mean() > 0.99
    assert_close(fused[near], expected[near], RESAMPLED)
    assert (fused != torch.relu(rows)).float().mean() > 0.2  # something was fetched


def test_the_kernel_of_the_offsets_is_their_definition():
    case = fusion_case(8)
    predicted = (case[0] @ case[4] + case[5]).clamp(-20, 20)
    truth = correct_motion_reference(predicted, case[2], case[3]).offset
    _, offsets = fused_by(fuse_recurrent, case)
    assert float(((offsets - truth).abs().amax(-1) < 1e-4).float().mean()) > 0.995
    assert (truth != predicted).any(-1).float().mean() > 0.2  # inside, and corrected


def test_the_step_of_the_offsets_is_the_gradient_of_their_disagreement():
    """By autograd, of a sampler that repeats the border; places lie well between the nodes."""
    torch.manual_seed(0)
    batch, (y, x, z) = 2, SIZE
    predicted = (torch.rand(batch, y, x, z, 3).double() * 6 - 3).round() + 0.37
    previous = torch.rand(batch, y, x, z, 3, dtype=torch.float64) * 4
    motion = torch.eye(4, dtype=torch.float64)[None, :3].repeat(batch, 1, 1)
    leaf = predicted.clone().requires_grad_()
    place = moved_indices(motion, y, x, z) + leaf
    sizes = torch.tensor([x, y, z]).double()
    unit = place * 2 / (sizes - 1) - 1
    sampled = F.grid_sample(
        previous.movedim(-1, 1), unit[..., [2, 0, 1]], padding_mode="border", align_corners=True
    ).movedim(1, -1)
    loss = (sampled - leaf).square().mean(-1).sum()
    (gradient,) = torch.autograd.grad(loss, leaf)
    inside = ((unit >= -1) & (unit <= 1)).all(-1, keepdim=True)
    step = correct_motion_reference(predicted, previous, motion)
    assert inside.float().mean() > 0.1
    torch.testing.assert_close(step.gradient * inside, gradient * inside)
    expected = predicted - 0.1 * gradient.clamp(-20, 20) * inside
    torch.testing.assert_close(step.offset, expected)


def test_the_step_of_the_offsets_is_a_constant_to_training():
    case = fusion_case(8)
    predicted = random(2, *SIZE, 3, seed=11).requires_grad_()
    towards = random(2, *SIZE, 3, seed=12)
    step = correct_motion_reference(predicted, case[2], case[3])
    (gradient,) = torch.autograd.grad((step.offset * towards).sum(), predicted)
    assert torch.equal(gradient, towards)


def test_what_is_fetched_lies_where_offset_and_motion_lead():
    rows = random(1, *SIZE, 2)
    still = torch.eye(4, dtype=torch.float64)[None, :3]
    offset = torch.tensor([2.0, -1.0, 1.0]).expand(1, *SIZE, 3)  # x, y, z
    base = moved_indices(still, *SIZE)
    expected = torch.zeros_like(rows)
    expected[:, 1:, :-2, :-1] = rows[:, :-1, 2:, 1:]
    assert_close(sample_rows(rows, base + offset), expected)


def layer_of(channels: int, dtype: torch.dtype = torch.float32) -> SceneWeights:
    shapes = [(channels, channels)] * 4 + [(channels,)] * 3
    return SceneWeights(*(
        (random(*s, seed=20 + i) / channels**0.5).to(dtype) for i, s in enumerate(shapes)
    ))  # fmt: skip


@pytest.mark.parametrize("channels", [6, 8, 32, 40, 130])
def test_the_scene_step_is_its_reference(kernels, channels):
    rows, sums = random(2, *SIZE, channels), random(2, channels, channels + 1, seed=3)
    keep, layer = torch.tensor([1.0, 0.9]), layer_of(channels)
    ours, truth = scene_step(rows, sums, keep, list(layer)), scene_step_reference(
        rows, sums, keep, layer
    )  # fmt: skip
    for a, b in zip(ours, truth, strict=True):
        assert_close(a, b, 1e-4)


def scene_by_autograd(
    rows: Tensor, sums: Tensor, layer: SceneWeights
) -> tuple[Tensor, Tensor, Tensor]:
    """The same for one sample, its inner gradient taken by autograd."""
    c = rows.shape[-1]
    learning = [
        layer.weight - sums[:, :c], layer.bias - sums[:, c], layer.scale.clone(),
        layer.shift.clone(),
    ]  # fmt: skip
    learning = [t if t.requires_grad else t.requires_grad_() for t in learning]

    def answer(x: Tensor, weight: Tensor, bias: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        return F.layer_norm(F.linear(x, weight, bias), (c,), scale, shift, NORM_EPSILON)

    y = rows @ layer.key.T
    loss = (answer(y, *learning) - (rows @ layer.value.T - y)).square().mean()
    steps = torch.autograd.grad(loss, learning, create_graph=True)
    taught = [t - s for t, s in zip(learning, steps, strict=True)]
    asked = rows @ layer.query.T
    out = answer(asked, *taught) + asked
    return out, sums + torch.cat([steps[0], steps[1][:, None]], 1), torch.stack(steps[2:])


def test_the_scene_step_is_one_step_of_gradient_descent_and_has_its_gradient():
    c, double = 6, torch.float64
    rows = random(1, *SIZE, c).double().requires_grad_()
    sums = 0.3 * random(c, c + 1, seed=3).double()
    layer = SceneWeights(*(t.requires_grad_() for t in layer_of(c, double)))
    step = scene_step_reference(rows, sums[None], torch.ones(1, dtype=double), layer)
    out, new, norm = scene_by_autograd(rows[0], sums, layer)
    for ours, truth in ((step.rows[0], out), (step.sums[0], new), (step.norm[0], norm)):
        torch.testing.assert_close(ours, truth)
    # Of second order: training goes through the step into all that it was made of.
    towards = random(*out.shape, seed=9).double()
    leaves = (rows, *layer)
    ours = torch.autograd.grad((step.rows[0] * towards).sum(), leaves)
    truth = torch.autograd.grad((out * towards).sum(), leaves)
    for a, b in zip(ours, truth, strict=True):
        assert b.abs().max() > 0
        torch.testing.assert_close(a, b)


def test_threads_do_not_change_a_bit_of_it():
    rows, sums = random(1, *SIZE, 32), random(1, 32, 33, seed=3)
    case, found = fusion_case(32), []
    for count in (1, 2, 3):
        with threads(count):
            found.append((*scene_step(rows, sums, torch.ones(1), list(layer_of(32))),
                          *fused_by(fuse_recurrent, case)))  # fmt: skip
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


def test_not_a_number_stays_one(kernels):
    rows = random(1, *SIZE, 8)
    rows[0, 3, 4, 2] = torch.nan
    out, sums, _ = scene_step(rows, torch.zeros(1, 8, 9), torch.ones(1), list(layer_of(8)))
    assert out.isnan().all() and sums.isnan().all()  # every voxel has its part in the step
    case = fusion_case(8, batch=1)
    case[0][0, 3, 4, 2] = torch.nan
    fused, offsets = fused_by(fuse_recurrent, case)
    assert fused[0, 3, 4, 2].isnan().all() and offsets[0, 3, 4, 2].isnan().all()


def test_a_frustum_is_itself_for_a_camera_at_rest_and_shifts_with_it():
    values = random(2, 7, 4, 6)
    still, none = torch.eye(3).double().repeat(2, 1, 1), torch.zeros(2, 3).double()
    assert_close(warp_frustum(values, still, none, 1.0, 0.5), values)
    nearer = none.clone()
    nearer[:, 2] = 1.0  # what is at d now was at d + 1 m, straight ahead of pixel (0, 0)
    moved = warp_frustum(values, still, nearer, 1.0, 0.5)
    assert_close(moved[:, :5, 0, 0], values[:, 2:, 0, 0])
    assert (moved[:, 5:, 0, 0] == 0).all()
    behind = none.clone()
    behind[:, 2] = -1e6
    assert (warp_frustum(values, still, behind, 1.0, 0.5) == 0).all()
