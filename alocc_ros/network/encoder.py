# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Bird's-eye and voxel encoders (docs/network.md sections 7 and 9)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from alocc_ros.ops.conv import conv_bn
from alocc_ros.ops.upsample import merge_levels


class BEVBlock(nn.Module):
    """2-D residual block; where the shape changes the skip is a 3x3 convolution without norm."""

    def __init__(self, inputs: int, channels: int, stride: int, project: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = nn.Conv2d(inputs, channels, 3, stride, 1) if project else None

    def forward(self, x: Tensor) -> Tensor:  # [B, C, Y, X]
        skip = x if self.downsample is None else conv_bn(x, self.downsample)
        y = conv_bn(x, self.conv1, self.bn1, relu=True)
        return conv_bn(y, self.conv2, self.bn2, relu=True, residual=skip)


class _ConvBn(nn.Module):
    def __init__(self, inputs: int, channels: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv3d(inputs, channels, kernel, stride, kernel // 2, bias=False)
        self.bn = nn.BatchNorm3d(channels)


class VoxelBlock(nn.Module):
    """3-D residual block; where the shape changes the skip is a 3x3x3 convolution with norm."""

    def __init__(self, inputs: int, channels: int, stride: int, project: bool) -> None:
        super().__init__()
        self.conv1 = _ConvBn(inputs, channels, 3, stride)
        self.conv2 = _ConvBn(channels, channels, 3)
        self.downsample = _ConvBn(inputs, channels, 3, stride) if project else None

    def forward(self, x: Tensor) -> Tensor:  # [B, C, Y, X, Z]
        skip = x
        if self.downsample is not None:
            skip = conv_bn(x, self.downsample.conv, self.downsample.bn)
        y = conv_bn(x, self.conv1.conv, self.conv1.bn, relu=True)
        return conv_bn(y, self.conv2.conv, self.conv2.bn, relu=True, residual=skip)


class Encoder(nn.Module):
    """Residual stages; the first keeps the resolution, each later one halves it."""

    def __init__(
        self, inputs: int, channels: Sequence[int], blocks: Sequence[int], volumetric: bool
    ) -> None:
        super().__init__()
        block = VoxelBlock if volumetric else BEVBlock
        stages = []
        for i, (width, count) in enumerate(zip(channels, blocks, strict=True)):
            stage = [block(inputs, width, 1 if i == 0 else 2, project=True)]
            stage += [block(width, width, 1, project=False) for _ in range(count - 1)]
            stages.append(nn.Sequential(*stage))
            inputs = width
        self.layers = nn.ModuleList(stages)

    def forward(self, x: Tensor) -> list[Tensor]:  # [B, C, Y, X(, Z)] -> fine to coarse
        levels = []
        for stage in self.layers:
            x = stage(x)
            levels.append(x)
        return levels


class BEVNeck(nn.Module):
    """All levels upsampled and merged by two 3x3 convolutions."""

    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(inputs, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, levels: list[Tensor]) -> Tensor:  # -> [B, C, Y, X]
        merged = merge_levels(levels, self.conv[0], self.conv[1])
        return conv_bn(merged, self.conv[3], self.conv[4], relu=True)


class VoxelNeck(nn.Module):
    """All levels upsampled and merged by one 1x1x1 convolution."""

    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__()
        self.conv = _ConvBn(inputs, channels, 1)

    def forward(self, levels: list[Tensor]) -> Tensor:  # -> [B, C, Y, X, Z]
        return merge_levels(levels, self.conv.conv, self.conv.bn)
