# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""What the network is asked to minimise (paper, section 3.6).

Every mean is over what ALL processes hold: a sum here, divided by the count averaged over the
processes. DistributedDataParallel averages gradients, so however a batch is dealt out to
processes, its gradient is the same. (The reference does so for the mask losses only.)

Labels are those of the benchmark, in the network's layout [Y, X, Z]; ``IGNORED`` is 255.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from alocc_ros.distributed import mean_over_ranks
from alocc_ros.ops.flow_head.reference import FLOW_BINS, FLOW_START, FLOW_STEP, bin_values

IGNORED = 255

# Voxels of each class in the nuScenes training scenes, in the order of Occ3D's classes
# (those of the reference); OpenOcc's are the same voxels without "others", in its own order.
OCC3D_VOXELS = (
    944004, 1897170, 152386, 2391677, 16957802, 724139, 189027, 2074468, 413451, 2384460,
    5916653, 175883646, 4275424, 51393615, 61411620, 105975596, 116424404, 1892500630,
)  # fmt: skip
_OPENOCC_OF_OCC3D = (4, 10, 9, 3, 5, 2, 6, 7, 8, 1, 11, 12, 13, 14, 15, 16, 17)
OPENOCC_VOXELS = tuple(OCC3D_VOXELS[i] for i in _OPENOCC_OF_OCC3D)
VOXELS = {"occ3d": OCC3D_VOXELS, "openocc": OPENOCC_VOXELS}
# Fewer voxels than this tell nothing of how frequent a class is.
_LEAST_VOXELS = 1000
# Sorting is what ``jaccard_loss`` costs. Shares that are off by less are left out, nearly all of
# them; a class's loss so is too small by this at most.
_NEARLY_RIGHT = 1 / 256


@dataclass(frozen=True)
class ClassBalance:
    """How much a class weighs and how often its voxels are sampled.

    Attributes:
        weight: [classes] of the class in the mask and dice losses.
        sampling: [classes] probability of a voxel of that class to be sampled, up to a factor.
        entropy: [classes] of a voxel of that class in ``class_entropy``.
    """

    weight: Tensor
    sampling: Tensor
    entropy: Tensor

    @staticmethod
    def of(voxels: Sequence[int], gamma: float = 0.25, entropy: float = 0.5) -> ClassBalance:
        """From how many voxels of each class there are.

        Weights are relative to the first class; sampling and the entropy's weights, with these
        powers, to the most frequent one.
        """
        count = torch.tensor(voxels, dtype=torch.float64).clamp(min=_LEAST_VOXELS)
        log = torch.log(count + 1e-3)
        rarity = count.max() / count
        return ClassBalance(
            (log[0] / log).float(), (rarity**gamma).float(), (rarity**entropy).float()
        )


@dataclass(frozen=True)
class PointSampling:
    """How the points are chosen at which a mask is compared.

    Attributes:
        points: of one class in one sample.
        oversample: so many times more are sampled first, by class.
        hard: the share of ``points`` for which the most uncertain of those are taken; the rest is
            sampled uniformly.
    """

    points: int
    oversample: float = 3.0
    hard: float = 0.75


def present_classes(labels: Tensor) -> Tensor:  # [V] uint8 -> [K] int64
    """The labels that occur, ``IGNORED`` excepted."""
    return torch.bincount(labels.long(), minlength=256)[:IGNORED].nonzero()[:, 0]


def sample_points(
    logits: Tensor,  # [K, V] of the classes that are present
    labels: Tensor,  # [V] uint8
    balance: ClassBalance,
    sampling: PointSampling,
    random: torch.Generator,
) -> Tensor:  # [K, n] int64, indices of labelled points
    """Where each class's mask is compared: uncertain points and a few others.

    A row samples on its own: ``oversample * points`` distinct points, frequent classes less
    often; of those the ones with the smallest |logit|; and further points uniformly. Where fewer
    are labelled than would be sampled, all of them are: sampling is without replacement. (The
    reference asks for more than there are, and gets points that it must not look at.)
    """
    known = (labels != IGNORED).nonzero()[:, 0]
    rows, count = len(logits), len(known)
    hard, easy = _split(sampling, count)
    first = min(int(sampling.oversample * sampling.points), count)
    confidence = logits.detach()[:, known].abs().float()
    if first < count:
        # Arrival times of Poisson processes: the first to come are a draw without replacement.
        rate = balance.sampling.to(logits.device)[labels[known].long()]
        # (The logarithm of a uniform draw: four times as fast as exponential_ on a CPU.)
        times = -torch.rand(rows, count, device=logits.device, generator=random).log_()
        drawn = (times / rate).topk(first, largest=False, sorted=False).indices
        uncertain = confidence.gather(1, drawn).topk(hard, largest=False, sorted=False).indices
        chosen = drawn.gather(1, uncertain)
    else:
        chosen = confidence.topk(hard, largest=False, sorted=False).indices
    order = torch.rand(rows, count, device=logits.device, generator=random)
    others = order.topk(easy, largest=False, sorted=False).indices
    return known[torch.cat([chosen, others], 1)]


def _split(sampling: PointSampling, count: int) -> tuple[int, int]:
    """Uncertain and uniformly sampled points of ``count`` labelled ones."""
    hard = int(sampling.hard * sampling.points)
    return min(hard, count), min(sampling.points - hard, count)


def mask_losses(
    logits: Sequence[Tensor],  # a sample: [C, V]
    labels: Sequence[Tensor],  # a sample: [V] uint8
    balance: ClassBalance,
    sampling: PointSampling,
    random: Sequence[torch.Generator],  # a sample
    absent: bool = False,
) -> tuple[Tensor, Tensor]:
    """Binary cross entropy and dice of every present class's mask, at sampled points.

    ``absent``: also of classes that a sample lacks, whose masks are empty there. The reference
    leaves them alone: where there is no bus, nothing keeps a truck from being one.
    """
    entropy = dice = _zero(logits)
    points = classes = logits[0].new_zeros((), dtype=torch.float32)
    for x, truth, generator in zip(logits, labels, random, strict=True):
        present = present_classes(truth)
        if not len(present):
            continue
        if absent:
            present = torch.arange(len(x), device=x.device)
        rows = x[present]
        index = sample_points(rows, truth, balance, sampling, generator)
        at = rows.gather(1, index).float()  # [K, n]
        target = (truth[index] == present[:, None]).to(at)
        weight = balance.weight.to(at)[present]
        entropy = entropy + (weight * binary_entropies(at, target)).sum()
        dice = dice + (weight * dice_losses(at, target)).sum()
        points = points + weight.sum() * index.shape[1]
        classes = classes + weight.sum()
    tiny = torch.finfo(torch.float32).eps
    return entropy / (mean_over_ranks(points) + tiny), dice / (mean_over_ranks(classes) + tiny)


def binary_entropies(logits: Tensor, target: Tensor) -> Tensor:  # [K, n] x 2 -> [K]
    """Binary cross entropy of each mask, summed over its points."""
    return F.binary_cross_entropy_with_logits(logits, target, reduction="none").sum(1)


def dice_losses(logits: Tensor, target: Tensor) -> Tensor:  # [K, n] x 2 -> [K]
    """Dice loss of each mask, smoothed by 1."""
    share = torch.sigmoid(logits)
    return 1 - (2 * (share * target).sum(1) + 1) / (share.sum(1) + target.sum(1) + 1)


def class_entropy(
    logits: Sequence[Tensor],  # a sample: [C, V]
    labels: Sequence[Tensor],  # a sample: [V] uint8
    weight: Tensor,  # [C]
) -> Tensor:
    """Cross entropy between the classes, at every labelled voxel, weighted by its class.

    Not a loss of the reference. A class of which a sample has few voxels dies under its two: all
    of the sampling pushes the logits down before they tell the class from anything, and at a
    sigmoid of 1e-8 dice has no slope and the uncertain points are elsewhere. Here a voxel that is
    missed pulls with its whole weight, however surely it is missed.
    """
    total = _zero(logits)
    count = logits[0].new_zeros((), dtype=torch.float32)
    for x, truth in zip(logits, labels, strict=True):
        known = (truth != IGNORED).nonzero()[:, 0]
        target = truth[known].long()
        entropy = F.cross_entropy(x[:, known].T.float(), target, reduction="none")
        share = weight.to(entropy)[target]
        total = total + (share * entropy).sum()
        count = count + share.sum()
    return total / _count(count)


def jaccard_loss(
    logits: Sequence[Tensor],  # a sample: [C, V]
    labels: Sequence[Tensor],  # a sample: [V] uint8
) -> Tensor:
    """One minus the IoU of each class that a sample has, made smooth: the Lovasz extension of the
    Jaccard loss over the classes' shares (Berman et al., CVPR 2018).

    Not a loss of the reference. It asks for what is scored: a class of ten voxels counts as much as
    the road, and unlike a weight of classes that gains nothing from making it larger than it is.
    """
    total = _zero(logits)
    count = logits[0].new_zeros((), dtype=torch.float32)
    for x, truth in zip(logits, labels, strict=True):
        known = (truth != IGNORED).nonzero()[:, 0]
        target = truth[known]
        present = present_classes(truth)
        shares = torch.softmax(x[:, known].float(), 0)[present]  # [K, n]
        for label, share in zip(present.tolist(), shares.unbind(), strict=True):
            hit = (target == label).to(share)
            errors = (hit - share).abs()
            far = (errors > _NEARLY_RIGHT).nonzero()[:, 0]
            size, hit = hit.sum(), hit[far]
            errors, order = errors[far].sort(descending=True)
            hit = hit[order]
            # If the first so many voxels were wrong and all others right:
            loss = 1 - (size - hit.cumsum(0)) / (size + (1 - hit).cumsum(0))
            total = total + (errors * loss.diff(prepend=loss.new_zeros(1))).sum()
        count = count + len(present)
    return total / _count(count)


def dead_classes(
    logits: Sequence[Tensor],  # a sample: [C, V]
    labels: Sequence[Tensor],  # a sample: [V] uint8
    least: float = 1e-3,
) -> list[int]:
    """Classes that the labels have and that are believed in nowhere: no voxel has a sigmoid of
    ``least`` for them, nor such a share of all classes. Where a logit is as far down as that, dice
    has no slope, and little brings the class back.
    """
    dead = []
    for label in present_classes(torch.cat(list(labels))).tolist():
        rows = [x.detach()[label].float() for x in logits]
        if max(float(torch.sigmoid(r.max())) for r in rows) >= least:
            continue
        others = (torch.logsumexp(x.detach().float(), 0) for x in logits)
        share = max(float((r - o).max().exp()) for r, o in zip(rows, others, strict=True))
        if share < least:
            dead.append(label)
    return dead


def depth_loss(
    probability: Tensor,  # [N, D, h, w]
    bins: Tensor,  # [N, h, w] int64, -1: nothing measured
) -> Tensor:
    """Mean of -log of the probability of the measured depth bin."""
    known = bins >= 0
    right = probability.gather(1, bins.clamp(min=0)[:, None])[:, 0][known].float()
    return -torch.log(right + 1e-8).sum() / _count(known.sum())


def flow_losses(
    logits: Tensor,  # [M, FLOW_BINS, 2] at voxels whose flow is known, (along Y, along X)
    flow: Tensor,  # [M, 2] m/s
) -> tuple[Tensor, Tensor, Tensor]:
    """Cross entropy of the velocity bins, squared error and angle of the expected velocity."""
    logits = logits.float()
    values = bin_values(logits)
    target = ((flow - FLOW_START) / FLOW_STEP).round().clamp(0, FLOW_BINS - 1).long()
    log_share = torch.log_softmax(logits, 1)
    entropy = -log_share.gather(1, target[:, None])[:, 0]  # [M, 2]
    expected = torch.einsum("mkc,k->mc", log_share.exp(), values)
    cosine = torch.cosine_similarity(expected, flow, dim=1, eps=1e-8)
    count = _count(torch.tensor(len(flow), device=flow.device))
    return (
        entropy.sum() / (2 * count),
        (expected - flow).square().sum() / (2 * count),
        -cosine.sum() / count,
    )


def _zero(logits: Sequence[Tensor]) -> Tensor:
    """0, but with a gradient."""
    return sum(x.flatten()[:0].float().sum() for x in logits)


def _count(here: Tensor) -> Tensor:
    """The count averaged over the processes; never zero."""
    mean = mean_over_ranks(here.float())
    return torch.where(mean > 0, mean, 1.0)
