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
