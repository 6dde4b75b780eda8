# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Image backbone: ResNet-50 with the stride in the 3x3 convolution (docs/network.md section 2)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from alocc_ros.ops.conv import conv_bn


class Bottleneck(nn.Module):
    """1x1, 3x3 (stride), 1x1 times four, with a projected skip where the shape changes."""

    def __init__(self, channels: int, width: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.downsample = None
        if stride != 1 or channels != 4 * width:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels, 4 * width, 1, stride, bias=False), nn.BatchNorm2d(4 * width)
            )

    def forward(self, x: Tensor) -> Tensor:  # [N, C, h, w] -> [N, 4 * width, h', w']
        y = conv_bn(x, self.conv1, self.bn1, relu=True)
        y = conv_bn(y, self.conv2, self.bn2, relu=True)
        skip = x if self.downsample is None else conv_bn(x, *self.downsample)
        return conv_bn(y, self.conv3, self.bn3, relu=True, residual=skip)


class ResNet(nn.Module):
    """Stem and four stages; state_dict names of torchvision, no classifier."""

    def __init__(self, width: int, blocks: tuple[int, int, int, int]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        channels = width
        for stage, count in enumerate(blocks):
            inner = width * 2**stage
            layers = [Bottleneck(channels, inner, 1 if stage == 0 else 2)]
            layers += [Bottleneck(4 * inner, inner) for _ in range(count - 1)]
            self.add_module(f"layer{stage + 1}", nn.Sequential(*layers))
            channels = 4 * inner

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # [N, 3, H, W]
        """C2 [N, 256, H/4, W/4] (the stereo feature), C4 [N, 1024, H/16, ..], C5 [N, 2048, ..]."""
        c2 = self.first_stage(images)
        c4 = self.layer3(self.layer2(c2))
        return c2, c4, self.layer4(c4)

    def first_stage(self, images: Tensor) -> Tensor:
        """C2 alone."""
        x = conv_bn(images, self.conv1, self.bn1, relu=True)
        return self.layer1(F.max_pool2d(x, 3, 2, 1))
