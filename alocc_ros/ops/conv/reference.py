# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Convolution, BatchNorm, residual and ReLU as three modules."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


def conv_bn_reference(
    x: Tensor,  # [B, C, ...]
    conv: nn.Module,
    bn: nn.Module | None = None,
    relu: bool = False,
    residual: Tensor | None = None,  # as the result
) -> Tensor:  # [B, C', ...]
    """``relu(bn(conv(x)) + residual)``."""
    y = conv(x)
    if bn is not None:
        y = bn(y)
    if residual is not None:
        y = y + residual
    return F.relu(y) if relu else y
