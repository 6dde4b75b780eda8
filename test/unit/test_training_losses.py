# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Every loss against a slow one written from the specification, values and gradients."""

from __future__ import annotations

import math

import pytest
import torch

from alocc_ros.datasets.formats import FORMATS
from alocc_ros.labels import OCC3D, OPENOCC
from alocc_ros.network.heads import mix_true_match
from alocc_ros.network.lifting import mix_measured_depth
from alocc_ros.ops.flow_head import FLOW_BINS
from alocc_ros.training import losses
from alocc_ros.training.denoising import occupancy_map
from alocc_ros.training.losses import (
    IGNORED,
    ClassBalance,
    PointSampling,
    class_entropy,
    dead_classes,
    depth_loss,
    flow_losses,
    jaccard_loss,
    mask_losses,
    present_classes,
    sample_points,
)

OCC3D_VOXELS, OPENOCC_VOXELS = (FORMATS[n].voxel_counts for n in ("occ3d", "openocc"))
BALANCE = ClassBalance.of(OCC3D_VOXELS)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def labels_of(*shape: int, seed: int = 0, classes: int = 18) -> torch.Tensor:
    labels = torch.randint(0, classes, shape, generator=generator(seed)).to(torch.uint8)
    labels[torch.rand(shape, generator=generator(seed + 1)) < 0.2] = IGNORED
    return labels


# --- weights -----------------------------------------------------------------------------------

OCC3D_WEIGHT = (
    1.0, 0.9517, 1.1528, 0.9367, 0.8265, 1.0197, 1.1324, 0.9459, 1.0638, 0.9369, 0.8823, 0.7247,
    0.9011, 0.7749, 0.7672, 0.7445, 0.7408, 0.6441,
)  # fmt: skip
OCC3D_DRAW = (
    6.691, 5.620, 10.557, 5.304, 3.250, 7.150, 10.003, 5.496, 8.225, 5.308, 4.229, 1.811, 4.587,
    2.463, 2.356, 2.056, 2.008, 1.0,
)  # fmt: skip
OPENOCC_WEIGHT = (
    1.0, 1.0675, 1.1336, 1.1334, 1.2337, 1.3948, 1.3701, 1.1444, 1.2872, 1.1515, 0.8768, 1.0902,
    0.9376, 0.9282, 0.9008, 0.8963, 0.7793,
)  # fmt: skip


def test_class_weights_are_those_of_the_specification():
    assert BALANCE.weight.tolist() == pytest.approx(OCC3D_WEIGHT, abs=6e-5)
    assert BALANCE.sampling.tolist() == pytest.approx(OCC3D_DRAW, abs=6e-4)
    openocc = ClassBalance.of(OPENOCC_VOXELS).weight.tolist()
    assert openocc == pytest.approx(OPENOCC_WEIGHT, abs=6e-5)


def test_openocc_counts_are_occ3ds_by_name():
    by_name = dict(zip(OCC3D.names, OCC3D_VOXELS, strict=True))
    assert [by_name[n] for n in OPENOCC.names] == list(OPENOCC_VOXELS)


def test_a_class_that_was_never_counted_gets_finite_weights():
    balance = ClassBalance.of((0, 1000, 0, 10**9))
    assert torch.isfinite(balance.weight).all() and (balance.weight > 0).all()
    assert torch.isfinite(balance.sampling).all()
    assert torch.isfinite(balance.entropy).all()


# --- drawing -----------------------------------------------------------------------------------


def test_points_are_distinct_labelled_and_mostly_doubtful():
    labels, draw = labels_of(5000), PointSampling(400)
    present = present_classes(labels)
    logits = torch.randn(len(present), 5000, generator=generator(3))
    index = sample_points(logits, labels, BALANCE, draw, generator())
    assert index.shape == (18, 400)
    assert (labels[index] != IGNORED).all()
    hard, easy = index[:, :300], index[:, 300:]
    assert all(len(row.unique()) == 300 for row in hard)
    assert all(len(row.unique()) == 100 for row in easy)
    doubt = logits.abs()
    # 300 of 1200 drawn evenly of about 4000: the largest doubt kept is about the lower quarter.
    assert (doubt.gather(1, hard).amax(1) < doubt.quantile(0.35, dim=1)).all()
    assert not torch.equal(hard[0].sort().values, hard[1].sort().values)  # rows draw on their own


def test_classes_are_drawn_as_often_as_torchs_multinomial_draws_them():
    # 20 rare points of weight about 10 and 980 of weight 1, 300 drawn without replacement.
    labels = torch.full((1000,), 17, dtype=torch.uint8)
    labels[:20] = 2
    logits = torch.randn(2, 1000, generator=generator(9))  # doubt that has nothing to do with it
    rare = others = 0
    rate = BALANCE.sampling[labels.long()]
    for seed in range(200):
        index = sample_points(
            logits, labels, BALANCE, PointSampling(100, 3.0, 1.0), generator(seed)
        )
        rare += int((labels[index[0]] == 2).sum())
        drawn = torch.multinomial(rate, 300, generator=generator(seed + 5000))
        kept = drawn[logits[0, drawn].abs().argsort()[:100]]
        others += int((labels[kept] == 2).sum())
    assert rare / 200 == pytest.approx(others / 200, rel=0.05)


@pytest.mark.parametrize("known", [0, 1, 7, 60, 400])
def test_no_more_points_are_drawn_than_are_labelled(known):
    labels = torch.full((500,), IGNORED, dtype=torch.uint8)
    labels[:known] = 4
    index = sample_points(torch.randn(1, 500), labels, BALANCE, PointSampling(100), generator())
    assert index.shape[1] == min(75, known) + min(25, known)
    assert known == 0 or int(index.max()) < known


def test_the_same_seed_draws_the_same_points():
    labels = labels_of(3000)
    logits = torch.randn(3, 3000)
    draws = [
        sample_points(logits, labels, BALANCE, PointSampling(90), generator(s)) for s in (1, 1, 2)
    ]
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])


# --- mask and dice -----------------------------------------------------------------------------


def mask_losses_slow(logits, labels, balance, draw, seeds, absent=False):
    """Point by point, as the reference counts."""
    entropy = dice = points = classes = 0.0
    for x, truth, seed in zip(logits, labels, seeds, strict=True):
        present = list(range(len(x))) if absent else sorted({int(v) for v in truth} - {IGNORED})
        rows = x[present]
        index = sample_points(rows, truth, balance, draw, generator(seed))
        for row, c in enumerate(present):
            a = float(balance.weight[c])
            overlap = share = target = 0.0
            for v in index[row].tolist():
                t = float(truth[v] == c)
                p = 1 / (1 + torch.exp(-x[c, v]))
                entropy = entropy - a * (t * torch.log(p) + (1 - t) * torch.log(1 - p))
                overlap, share, target = overlap + p * t, share + p, target + t
            points += a * index.shape[1]
            classes += a
            dice = dice + a * (1 - (2 * overlap + 1) / (share + target + 1))
    return entropy / points, dice / classes


@pytest.mark.parametrize("absent", [False, True])
def test_mask_and_dice_are_the_slow_ones(absent):
    labels = [labels_of(300, seed=s, classes=5) for s in (0, 10)]
    labels[1][labels[1] == 3] = 4  # a class that only the first sample has
    logits = [
        torch.randn(18, 300, generator=generator(s)).double().requires_grad_() for s in (1, 2)
    ]
    draw = PointSampling(40)
    generators = [generator(s) for s in (5, 6)]
    found = mask_losses(logits, labels, BALANCE, draw, generators, absent=absent)
    truth = mask_losses_slow(logits, labels, BALANCE, draw, (5, 6), absent)
    for a, b in zip(found, truth, strict=True):
        assert a.item() == pytest.approx(b.item(), rel=1e-5)
        gradients = [torch.autograd.grad(x, logits, retain_graph=True) for x in (a, b)]
        for ours, slow in zip(*gradients, strict=True):
            torch.testing.assert_close(ours, slow, rtol=1e-4, atol=1e-8)


def test_gradients_of_entropy_and_dice_are_those_of_differences():
    target = (torch.rand(2, 9, generator=generator(1)) < 0.5).double()
    x = torch.randn(2, 9, dtype=torch.float64, generator=generator(2), requires_grad=True)
    assert torch.autograd.gradcheck(lambda v: losses.binary_entropies(v, target), x)
    assert torch.autograd.gradcheck(lambda v: losses.dice_losses(v, target), x)


def test_perfect_masks_cost_nothing_and_wrong_ones_much():
    labels = labels_of(400, classes=4)
    right = torch.full((18, 400), -30.0)
    for c in range(4):
        right[c, labels == c] = 30.0
    good = mask_losses([right], [labels], BALANCE, PointSampling(50), [generator()])
    bad = mask_losses([-right], [labels], BALANCE, PointSampling(50), [generator()])
    assert max(map(float, good)) < 1e-2
    assert float(bad[0]) > 25 and float(bad[1]) > 0.7


def test_a_batch_without_labels_costs_nothing_but_has_gradients():
    nothing = torch.full((50,), IGNORED, dtype=torch.uint8)
    logits = torch.randn(18, 50, requires_grad=True)
    entropy, dice = mask_losses([logits], [nothing], BALANCE, PointSampling(10), [generator()])
    assert entropy.item() == dice.item() == 0
    (entropy + dice).backward()
    assert (logits.grad == 0).all()


# --- between classes ---------------------------------------------------------------------------


def class_entropy_slow(logits, labels, weight):
    """Voxel by voxel."""
    total = count = 0.0
    for x, truth in zip(logits, labels, strict=True):
        for v, c in enumerate(truth.tolist()):
            if c != IGNORED:
                share = torch.exp(x[c, v]) / torch.exp(x[:, v]).sum()
                total = total - weight[c] * torch.log(share)
                count += float(weight[c])
    return total / count


def test_class_entropy_is_the_slow_one():
    labels = [labels_of(60, seed=s, classes=5) for s in (0, 10)]
    logits = [torch.randn(18, 60, generator=generator(s)).double().requires_grad_() for s in (1, 2)]
    weight = BALANCE.entropy
    found = class_entropy(logits, labels, weight)
    truth = class_entropy_slow(logits, labels, weight)
    # The loss is computed in single precision, as all losses are.
    assert found.item() == pytest.approx(truth.item(), rel=1e-6)
    for ours, slow in zip(*(torch.autograd.grad(x, logits) for x in (found, truth)), strict=True):
        torch.testing.assert_close(ours, slow, rtol=1e-4, atol=1e-8)


def test_a_class_weighs_by_its_rarity():
    assert ClassBalance.of((1000, 10**5, 10**9), entropy=0.5).entropy.tolist() == pytest.approx(
        [1000.0, 100.0, 1.0]
    )
    assert ClassBalance.of((1000, 10**5), entropy=0.0).entropy.tolist() == [1.0, 1.0]


def test_a_voxel_that_is_surely_missed_pulls_where_mask_and_dice_do_not():
    labels = torch.zeros(5000, dtype=torch.uint8)
    labels[:3] = 2  # a rare class, and a network that is sure there is none
    logits = torch.zeros(18, 5000)
    logits[0] = 20.0
    logits[2] = -20.0
    logits.requires_grad_()
    balance = ClassBalance.of([5000] * 18)
    mask, dice = mask_losses([logits], [labels], balance, PointSampling(200), [generator()])
    entropy = class_entropy([logits], [labels], balance.entropy)
    weak, strong = (torch.autograd.grad(x, logits)[0][2, :3].abs() for x in (mask + dice, entropy))
    assert (strong > 0).all() and strong.sum() > 100 * weak.sum()


def test_class_entropy_without_labels_costs_nothing_but_has_gradients():
    nothing = torch.full((50,), IGNORED, dtype=torch.uint8)
    logits = torch.randn(18, 50, requires_grad=True)
    entropy = class_entropy([logits], [nothing], BALANCE.entropy)
    assert entropy.item() == 0
    entropy.backward()
    assert (logits.grad == 0).all()


# --- what is scored ---------------------------------------------------------------------------


def jaccard_slow(logits, labels):
    """Of each class the mean of 1 - IoU over all thresholds of how wrong a voxel has to be to count
    as wrong: what the Lovasz extension is.
    """
    found = []
    for x, truth in zip(logits, labels, strict=True):
        known = (truth != IGNORED).nonzero()[:, 0]
        shares, target = torch.softmax(x[:, known], 0), truth[known]
        for label in present_classes(truth).tolist():
            hit = target == label
            error = torch.where(hit, 1 - shares[label], shares[label])
            levels = torch.cat([error.sort().values, error.new_ones(1)])
            total = 0.0
            for low, high in zip([error.new_zeros(()), *levels], levels, strict=False):
                wrong = error >= high if high > low else error < 0
                union = (hit | wrong).sum()
                total = total + (high - low) * (1 - (hit & ~wrong).sum() / union)
            found.append(total)
    return sum(found) / len(found)


def test_jaccard_loss_is_the_slow_one(monkeypatch):
    labels = [labels_of(60, seed=s, classes=5) for s in (0, 10)]
    logits = [2 * torch.randn(8, 60, generator=generator(s)).double() for s in (1, 2)]
    logits = [x.requires_grad_() for x in logits]
    truth = jaccard_slow(logits, labels)
    # What is nearly right is left out, which is said to make this little of a difference.
    assert jaccard_loss(logits, labels).item() == pytest.approx(truth.item(), abs=1 / 256)
    monkeypatch.setattr(losses, "_NEARLY_RIGHT", 0.0)
    found = jaccard_loss(logits, labels)
    assert found.item() == pytest.approx(truth.item(), rel=1e-6)
    for ours, slow in zip(*(torch.autograd.grad(x, logits) for x in (found, truth)), strict=True):
        torch.testing.assert_close(ours, slow, rtol=1e-4, atol=1e-8)


def test_of_sure_voxels_jaccard_loss_is_one_minus_the_iou():
    labels = torch.tensor([0, 0, 0, 1, 1, 2, IGNORED], dtype=torch.uint8)
    said = torch.tensor([0, 0, 1, 1, 1, 0, 3])
    logits = 40 * torch.nn.functional.one_hot(said, 4).T.double()
    iou = (2 / 4, 2 / 3, 0.0)
    assert jaccard_loss([logits], [labels]).item() == pytest.approx(1 - sum(iou) / 3, abs=1e-6)


def test_jaccard_loss_without_labels_costs_nothing_but_has_gradients():
    nothing = torch.full((50,), IGNORED, dtype=torch.uint8)
    logits = torch.randn(18, 50, requires_grad=True)
    loss = jaccard_loss([logits], [nothing])
    assert loss.item() == 0
    loss.backward()
    assert (logits.grad == 0).all()


# --- depth -------------------------------------------------------------------------------------


def depth_loss_slow(probability, bins):
    total, count = 0.0, 0
    for n, row, column in (bins >= 0).nonzero().tolist():
        p = probability[n, int(bins[n, row, column]), row, column]
        total, count = total - torch.log(p + 1e-8), count + 1
    return total / max(count, 1)


def test_depth_loss_is_the_slow_one():
    scores = torch.randn(3, 6, 2, 4, dtype=torch.float64, generator=generator(), requires_grad=True)
    bins = torch.randint(-1, 6, (3, 2, 4), generator=generator(1))
    share = torch.softmax(scores, 1)
    found, truth = depth_loss(share, bins), depth_loss_slow(share, bins)
    assert found.item() == pytest.approx(truth.item(), rel=1e-5)
    gradients = [torch.autograd.grad(x, scores, retain_graph=True)[0] for x in (found, truth)]
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-8)
    none = depth_loss(share, torch.full_like(bins, -1))
    assert none.item() == 0
    assert (torch.autograd.grad(none, scores)[0] == 0).all()


# --- flow --------------------------------------------------------------------------------------


def flow_losses_slow(logits, flow):
    entropy = error = angle = 0.0
    for voxel, truth in zip(logits, flow.tolist(), strict=True):
        expected = []
        for component in range(2):
            share = torch.softmax(voxel[:, component], 0)
            target = min(max(round((truth[component] + 22) / 0.5), 0), 87)
            entropy = entropy - torch.log(share[target])
            expected.append(sum(share[k] * (-22 + 0.5 * k) for k in range(FLOW_BINS)))
            error = error + (expected[-1] - truth[component]) ** 2
        a, b = expected
        length = torch.sqrt(a * a + b * b).clamp(min=1e-8) * max(math.hypot(*truth), 1e-8)
        angle = angle - (a * truth[0] + b * truth[1]) / length
    count = len(flow)
    return entropy / (2 * count), error / (2 * count), angle / count


def test_flow_losses_are_the_slow_ones(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    logits = torch.randn(5, FLOW_BINS, 2, generator=generator(), dtype=torch.float64)
    logits.requires_grad_()
    flow = torch.tensor([[1.2, -0.3], [0.0, 0.0], [30.0, -25.0], [-4.0, 4.1], [0.1, 9.9]]).double()
    found, truth = flow_losses(logits, flow), flow_losses_slow(logits, flow)
    for a, b in zip(found, truth, strict=True):
        assert a.item() == pytest.approx(b.item(), rel=1e-6)
        gradients = [torch.autograd.grad(x, logits, retain_graph=True)[0] for x in (a, b)]
        torch.testing.assert_close(*gradients, rtol=1e-6, atol=1e-12)


def test_gradients_of_flow_losses_are_those_of_differences(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    flow = torch.tensor([[1.2, -0.3], [-4.0, 4.1]], dtype=torch.float64)
    logits = torch.randn(2, FLOW_BINS, 2, dtype=torch.float64, generator=generator())
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: flow_losses(x, flow), logits)


def test_a_batch_where_nothing_moves_costs_nothing_but_has_gradients():
    logits = torch.zeros(0, FLOW_BINS, 2, requires_grad=True)
    total = sum(flow_losses(logits, torch.zeros(0, 2)))
    assert total.item() == 0
    total.backward()


# --- denoising ---------------------------------------------------------------------------------


def test_true_depth_is_mixed_in_where_it_was_measured():
    probability = torch.softmax(torch.randn(1, 5, 1, 2, generator=generator()), 1)
    bins = torch.tensor([[[3, -1]]])
    mixed = mix_measured_depth(probability, bins, 0.25)
    expected = 0.75 * probability[0, :, 0, 0]
    expected[3] += 0.25
    torch.testing.assert_close(mixed[0, :, 0, 0], expected)
    assert torch.equal(mixed[0, :, 0, 1], probability[0, :, 0, 1])
    assert torch.equal(mix_measured_depth(probability, bins, 0.0), probability)


def test_an_occupancy_map_holds_shares_of_classes():
    labels = torch.tensor([[[0, 2, 2, IGNORED, 1]]], dtype=torch.uint8)
    shares = occupancy_map(labels, 3, slice(1, 5))
    assert shares[:, 0, 0].tolist() == [0.0, 0.25, 0.5, 0.25]


def test_matches_are_mixed_before_their_softmax():
    scores = torch.randn(2, 9, generator=generator(), dtype=torch.float64)
    predicted, true = torch.softmax(scores, 1)[:, None]  # [B = 1, taps] each
    mixed = mix_true_match(predicted, true, 0.3)
    torch.testing.assert_close(mixed[0], torch.softmax(0.7 * scores[0] + 0.3 * scores[1], 0))


def test_classes_that_are_there_and_believed_in_nowhere():
    logits = torch.full((4, 50), -9.0)  # a sigmoid of 1.2e-4
    logits[0, :25], logits[3, 25:] = 5.0, 5.0
    labels = torch.zeros(50, dtype=torch.uint8)
    labels[25:], labels[7], labels[9] = 3, 1, IGNORED
    assert dead_classes([logits], [labels]) == [1]  # 2 is not there either, but need not be
    alive = logits.clone()
    alive[1, 40] = -6.5  # 1.5e-3, wherever it is
    assert dead_classes([logits, alive], [labels, labels]) == []
    # All logits together far down are no sign: between the classes one is sure of it.
    assert dead_classes([logits - 20], [labels]) == [1]
