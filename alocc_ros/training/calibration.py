# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""What a trained head says, balanced between classes and calibrated, and folded into its weights.

A loss that keeps rare classes alive says too much of them, and a confidence (the sigmoid of the
winning class) that no loss asked for says nothing. Both are set right by few numbers that are
fitted on labelled voxels: an offset of each class for the best mIoU, then a scale and a shift of
all logits so that the confidence is the share of voxels that are right. The scale goes into the
class embeddings; offsets and shift are what the embeddings make of a constant voxel feature, so
they go into the bias of the layer before.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alocc_ros.errors import ModelError
from alocc_ros.network.model import Alocc

_OFFSETS = (-3.0, -2.0, -1.3, -0.8, -0.4, -0.2, 0.2, 0.4, 0.8, 1.3, 2.0, 3.0)  # tried, in logits
_ROUNDS = 3
_STEPS = 50  # of L-BFGS, which needs a few
_BINS = 15  # of the calibration error, as usual


@dataclass(frozen=True)
class Calibration:
    """What is done to the logits l of a voxel: ``scale * (l + offset) + shift``.

    Attributes:
        offset: [C] of each class.
        scale, shift: of all of them.
    """

    offset: Tensor
    scale: float = 1.0
    shift: float = 0.0

    def __call__(self, logits: Tensor) -> Tensor:  # [..., C]
        """The logits as they will be."""
        return self.scale * (logits + self.offset) + self.shift


def mean_iou(predicted: Tensor, labels: Tensor, classes: int) -> float:  # [N], [N] int64
    """Mean IoU over the classes before the last one, free; those that nobody has left out."""
    cells = torch.bincount(labels * classes + predicted, minlength=classes * classes)
    matrix = cells.view(classes, classes).double()
    hit = matrix.diag()
    union = matrix.sum(0) + matrix.sum(1) - hit
    return float((hit / union)[:-1][union[:-1] > 0].mean())


def best_offsets(logits: Tensor, labels: Tensor) -> Tensor:  # [N, C], [N] int64 -> [C]
    """Offsets of the best mean IoU: class by class, three times round, free stays 0.

    Only one column changes at a time, so what the others say is kept: the best of them is asked
    once a class.
    """
    classes = logits.shape[1]
    offsets = torch.zeros(classes)
    for _ in range(_ROUNDS):
        for c in range(classes - 1):
            moved = logits + offsets
            moved[:, c] = -torch.inf
            best, winner = moved.max(1)
            own = logits[:, c] + offsets[c]
            scores = {}
            for step in (0.0, *_OFFSETS):
                predicted = torch.where(own + step > best, c, winner)
                scores[step] = mean_iou(predicted, labels, classes)
            offsets[c] += max(scores, key=lambda step: (scores[step], -abs(step)))
    return offsets


def best_confidence(logits: Tensor, labels: Tensor) -> tuple[float, float]:
    """Scale and shift with which the winner's sigmoid is likeliest (Platt), [N, C], [N] int64."""
    best, winner = logits.double().max(1)
    right = (winner == labels).double()
    mean, deviation = best.mean(), best.std().clamp(min=1e-6)
    x = (best - mean) / deviation
    slope, level = (torch.zeros((), dtype=torch.float64, requires_grad=True) for _ in range(2))
    optimiser = torch.optim.LBFGS([slope, level], max_iter=_STEPS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        value = F.binary_cross_entropy_with_logits(slope * x + level, right)
        value.backward()
        return value

    optimiser.step(loss)
    scale = float(slope.detach() / deviation)
    shift = float(level.detach() - scale * mean)
    if scale <= 0:
        raise ModelError("the higher the logit of the winning class, the more often it is wrong")
    return scale, shift


def calibration_of(logits: Tensor, labels: Tensor) -> Calibration:
    """All of it, of labelled voxels [N, C], [N] int64.

    Raises:
        ModelError: the logits say nothing.
    """
    offsets = best_offsets(logits, labels)
    return Calibration(offsets, *best_confidence(logits + offsets, labels))


def calibration_error(logits: Tensor, labels: Tensor) -> float:
    """Expected calibration error of the winner's sigmoid, in 15 bins of equal width; 0 is best."""
    best, winner = logits.max(1)
    confidence = torch.sigmoid(best.double())
    right = (winner == labels).double()
    bins = (confidence * _BINS).long().clamp(max=_BINS - 1)
    count = torch.bincount(bins, minlength=_BINS)
    gap = torch.bincount(bins, right - confidence, minlength=_BINS).abs()
    return float(gap.sum() / count.sum())


@torch.no_grad()
def fold(network: Alocc, calibration: Calibration) -> float:
    """Put a calibration into the weights of a bird's-eye network.

    The voxel features move by a constant, and what else looks at them is told: the flow head's
    first layer inside the grid exactly, at its edge and in the match of the maps it is not.

    Returns:
        The largest error of the offsets: there are as many features as there are, which may be
        one too few.

    Raises:
        ModelError: the network has no layer with a bias there.
    """
    v, head = network.variant, network.alocc_head
    if v.volumetric:
        raise ModelError(f"{v.name} has no bias before its class embeddings")
    embeddings = head.class_embeddings().double()  # [C, V]
    wanted = calibration.offset.double() + calibration.shift / calibration.scale
    move = torch.linalg.lstsq(embeddings, wanted[:, None]).solution[:, 0]
    network.final_conv.bias += move.repeat_interleave(v.grid.shape[2]).to(network.final_conv.bias)
    if v.flow:
        first = head.flow_post_conv[0]
        taps = first.weight[:, -v.voxel_channels :].double().sum((2, 3, 4))  # the match comes first
        first.bias -= (taps @ move).to(first.bias)
    last = head.mask_embed[-1]
    if not isinstance(last, nn.Linear):
        raise ModelError(f"{v.name} does not end its class embeddings with a linear layer")
    last.weight *= calibration.scale
    last.bias *= calibration.scale
    return float((embeddings @ move - wanted).abs().max() * calibration.scale)


def drawn_voxels(
    frames: Iterable[tuple[Tensor, Tensor]],  # [C, V] logits, [V] uint8 labels
    points: int,
    ignored: int,
    random: np.random.Generator,
) -> tuple[Tensor, Tensor]:  # [N, C], [N] int64
    """So many labelled voxels of each frame."""
    logits, labels = [], []
    for said, truth in frames:
        known = (truth != ignored).nonzero()[:, 0]
        chosen = known[torch.from_numpy(random.permutation(len(known))[:points])]
        logits.append(said[:, chosen].T.float())
        labels.append(truth[chosen].long())
    return torch.cat(logits), torch.cat(labels)
