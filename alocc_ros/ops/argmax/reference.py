# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Class scores to labels by their definition."""

from __future__ import annotations

import torch
from torch import Tensor


def occupancy_argmax_reference(
    logits: Tensor,  # [..., classes]
    first: int,  # number of the first class
) -> Tensor:  # [...] uint8, of [B, Y, X, ...] X before Y in memory
    """The class with the highest sigmoid, the first one among equals, counted from ``first``.

    BUG-COMPAT: of the sigmoid, not of the logit. In float32 it saturates at 1 from a logit of
    about 16.6 on, and ties then go to the lowest class; the published scores were made so.
    """
    return users_order((torch.sigmoid(logits).argmax(-1) + first).to(torch.uint8))


def users_order(labels: Tensor) -> Tensor:  # [B, Y, X, ...]
    """The same in the memory order that users want, [B, X, Y, ...]."""
    if labels.dim() < 3:
        return labels
    return labels.transpose(1, 2).contiguous().transpose(1, 2)


def classify_reference(
    voxels: Tensor,  # [..., V]
    classes: Tensor,  # [V, classes], one column each
    skip: int,  # leading classes that are no label
) -> tuple[Tensor, Tensor]:  # logits [..., classes], labels [...] uint8
    """How alike each voxel feature and each class are, and the class that is most alike."""
    logits = voxels @ classes
    return logits, occupancy_argmax_reference(logits[..., skip:], skip)


def evenly_spaced(rows: Tensor) -> bool:  # [..., C]
    """Whether the last axis lies side by side in memory and all rows at one distance, as in a
    contiguous tensor or in some columns of one.
    """
    sizes, strides = rows.shape[:-1], rows.stride()[:-1]
    axes = [(n, s) for n, s in zip(sizes, strides, strict=True) if n != 1]
    follow = zip(axes, axes[1:], strict=False)
    even = all(stride == size * below for (_, stride), (size, below) in follow)
    return even and (rows.stride(-1) == 1 or rows.shape[-1] == 1)
