# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Truth mixed into what the network works with at first (paper, section 3.4).

Lifting with a depth that is still noise, and matching features that are still noise, teach the
later parts nothing; so they get the truth, and less and less of it (``schedule.Phases``).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from alocc_ros.training.losses import IGNORED


def with_true_depth(
    probability: Tensor,  # [N, D, h, w]
    bins: Tensor,  # [N, h, w] int64, -1: nothing measured
    share: float,
) -> Tensor:  # [N, D, h, w]
    """The depth to lift: ``share`` of the measured bin where there is one."""
    if share == 0:
        return probability
    known = (bins >= 0)[:, None]
    measured = F.one_hot(bins.clamp(min=0), probability.shape[1]).permute(0, 3, 1, 2)
    mixed = share * measured.to(probability) + (1 - share) * probability
    return torch.where(known, mixed, probability)


def occupancy_map(
    labels: Tensor,  # [Y, X, Z] uint8
    classes: int,
    slices: slice,
) -> Tensor:  # [classes + 1, Y, X]
    """Shares of the classes over some heights, as a bird's-eye map to match; the last channel is
    what nobody has labelled.
    """
    index = torch.where(labels == IGNORED, classes, labels)[:, :, slices].long()
    return F.one_hot(index, classes + 1).float().mean(2).permute(2, 0, 1)


def mixed_match(
    predicted: Tensor,  # [taps, ...] softmax over displacements
    true: Tensor,  # likewise, of the true occupancy
    share: float,
) -> Tensor:
    """The two matches mixed before their softmax: scores are logarithms up to a constant."""
    if share == 0:
        return predicted
    return torch.softmax((1 - share) * predicted.log() + share * true.log(), 0)
