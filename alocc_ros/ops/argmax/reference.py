# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Class scores to labels by their definition."""

from __future__ import annotations

import torch
from torch import Tensor


def occupancy_argmax_reference(
    logits: Tensor,  # [B, Y, X, ..., classes]
    first: int,  # classes before this one are no answer
) -> Tensor:  # [B, Y, X, ...] uint8, X before Y in memory
    """The class with the highest sigmoid, the first one among equals.

    BUG-COMPAT: of the sigmoid, not of the logit. In float32 it saturates at 1 from a logit of
    about 16.6 on, and ties then go to the lowest class; the published scores were made so.
    """
    labels = torch.sigmoid(logits[..., first:]).argmax(-1) + first
    return users_order(labels.to(torch.uint8))


def classify_reference(
    voxels: Tensor,  # [B, Y, X, ..., V]
    classes: Tensor,  # [V, classes], one column each
    first: int,  # classes before this one are no answer
) -> tuple[Tensor, Tensor]:  # logits [..., classes], labels [...] uint8
    """How alike each voxel feature and each class are, and the class that is most alike."""
    logits = voxels @ classes
    return logits, occupancy_argmax_reference(logits, first)


def users_order(labels: Tensor) -> Tensor:  # [B, Y, X, ...]
    """The same in the memory order that users want, [B, X, Y, ...]."""
    if labels.dim() < 3:
        return labels
    return labels.transpose(1, 2).contiguous().transpose(1, 2)
