# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Gates and last steps of the depth network by definition."""

from __future__ import annotations

import torch
from torch import Tensor

from alocc_ros.ops.conv import channels_last


def camera_gates_reference(
    camera: Tensor,  # [N, K] what is told of each camera, raw focal lengths among it
    matrix0: Tensor,  # [G, K, C], one network for each gate
    bias0: Tensor,  # [G, 1, C]
    matrix1: Tensor,  # [G, C, C]
    bias1: Tensor,
    matrix2: Tensor,
    bias2: Tensor,
) -> Tensor:  # [G, N, C, 1, 1] in [0, 1], of the matrices' type
    """Three layers: ReLU behind two of them, a sigmoid behind the last."""
    x = camera.to(matrix0.dtype).expand(len(matrix0), -1, -1)
    x = torch.relu(torch.baddbmm(bias0, x, matrix0))
    x = torch.relu(torch.baddbmm(bias1, x, matrix1))
    return torch.sigmoid(torch.baddbmm(bias2, x, matrix2))[..., None, None]


def gate_feature_reference(
    feature: Tensor,  # [N, C, h, w]
    first: Tensor,  # [N, C, 1, 1]
    second: Tensor,  # [N, C, 1, 1]
    beside: Tensor | None,  # [N, D, h, w]
    bias: Tensor | None,  # [D], still to be added to ``beside``
) -> tuple[Tensor, Tensor]:  # [N, C, h, w], [N, C + D, h, w], channels last
    """The feature times the first gate; and times the second, ``beside`` behind it."""
    gated = feature * second
    if beside is not None:
        beside = beside if bias is None else beside + bias.view(-1, 1, 1)
        gated = torch.cat([gated, beside], 1)
    return _last(feature * first), _last(gated)


def depth_answer_reference(
    logits: Tensor,  # [N, at least bins, h, w]; what comes behind the bins is not looked at
    fill: Tensor,  # [N, L, h, w]
    sides: Tensor | None,  # [N, weights + offsets, h, w]
    bins: int,
    weights: int,
    scale: float,  # of offsets, pixels
    limit: float,  # pixels
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What convolutions say, as shares and pixels, channels last: probabilities of the bins
    [N, bins, h, w], shares of fill [N, L, h, w], shares [N, weights, h, w] and offsets in pixels of
    side copies; without ``sides`` the last two have no channels.
    """
    sides = logits[:, :0] if sides is None else sides
    weight, offset = sides[:, :weights], sides[:, weights:]
    return (
        _last(torch.softmax(logits[:, :bins], 1)),
        _last(torch.sigmoid(fill)),
        _last(torch.sigmoid(weight)),
        _last((offset * scale).clamp(-limit, limit)),
    )


def _last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=channels_last(x))
