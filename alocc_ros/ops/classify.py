# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Class scores to labels (spec sections 10 and 12)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from alocc_ros.ops import native
from alocc_ros.ops.derived import derived, frozen_conv
from alocc_ros.ops.mode import fast

# Rows a step: scores of 16 k voxels x 18 classes are 1.2 MB.
_ROWS = 1 << 14


def labels_twin(logits: Tensor, first: int = 0) -> Tensor:  # [rows, classes] -> [rows] uint8
    """The class with the highest sigmoid, the first one among equals, counted from ``first``.

    BUG-COMPAT: of the sigmoid, not of the logit. In float32 it saturates at 1 from a logit of
    about 16.6 on, and ties then go to the lowest class; the published scores were made so.
    """
    return (torch.sigmoid(logits).argmax(-1) + first).to(torch.uint8)


def labels(logits: Tensor, first: int = 0) -> Tensor:  # [rows, classes] -> [rows] uint8
    """The same, a few rows at a time."""
    if not (fast() and native.available(logits)):
        return labels_twin(logits, first)
    rows, classes = logits.shape
    logits = logits.contiguous()
    out = torch.empty(rows, dtype=torch.uint8)
    lib = native.library()

    def some_rows(begin: int, end: int) -> None:
        for start in range(begin, end, _ROWS):
            stop = min(start + _ROWS, end)
            score = torch.sigmoid(logits[start:stop])
            lib.argmax_rows(
                native.pointer(score),
                native.pointer(out[start:stop]),
                *map(native.i64, (classes, first, 0, stop - start)),
            )

    native.parallel(some_rows, rows, grain=_ROWS)
    return out


def merged_conv(
    raise_conv: nn.Conv2d,  # C -> V * heights, channel = v * heights + z
    matrix: Tensor,  # [W, V]
    made_of: tuple[Tensor, ...],
    heights: int,
) -> nn.Conv2d:  # C -> heights * W, channel = z * W + w
    """The convolution to voxel features and a product with each of them as ONE convolution: no
    activation stands between the two. With the class embeddings for ``matrix`` the logits come
    out of it, and there are fewer of them than features; with the identity the features
    themselves do, in the memory order of voxels. Cached until the convolution's weights or
    those that ``matrix`` is ``made_of`` change.
    """

    def make() -> nn.Conv2d:
        features = matrix.shape[1]
        weight = raise_conv.weight.unflatten(0, (features, heights)).double()
        bias = raise_conv.bias.view(features, heights).double()
        m = matrix.double()
        return frozen_conv(
            raise_conv,
            torch.einsum("wv,vzcij->zwcij", m, weight).flatten(0, 1),
            (m @ bias).T.flatten(),
        )

    sources = (raise_conv.weight, raise_conv.bias, *made_of)
    return derived(raise_conv, sources, "merged", make)
