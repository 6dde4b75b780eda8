# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Image neck: the two coarse levels merged into one stride-16 feature (docs/network.md section
3).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from alocc_ros.ops.conv import conv_bn


class _Conv(nn.Module):
    """A convolution under the name ``conv``, as the official state_dict spells it."""

    def __init__(self, channels: int, out: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, out, kernel, padding=kernel // 2)


class ImageNeck(nn.Module):
    """1x1 laterals on C4 and C5, nearest upsampling, sum, 3x3; no norm, no activation."""

    def __init__(self, c4: int, c5: int, channels: int) -> None:
        super().__init__()
        self.lateral_convs = nn.ModuleList([_Conv(c4, channels, 1), _Conv(c5, channels, 1)])
        self.fpn_convs = nn.ModuleList([_Conv(channels, channels, 3)])

    def forward(self, c4: Tensor, c5: Tensor) -> Tensor:  # [N, C4, h, w], [N, C5, h/2, w/2]
        coarse = conv_bn(c5, self.lateral_convs[1].conv)
        coarse = F.interpolate(coarse, size=c4.shape[2:], mode="nearest")
        merged = conv_bn(c4, self.lateral_convs[0].conv, residual=coarse)
        return conv_bn(merged, self.fpn_convs[0].conv)  # [N, C, h, w]
