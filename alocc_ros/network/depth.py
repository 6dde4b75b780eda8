# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Depth network: where the surfaces are along each pixel's ray, and what they look like
(paper section 3.2; docs/network.md sections 4 and 5).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alocc_ros.network.variants import Variant
from alocc_ros.ops.conv import conv_bn
from alocc_ros.ops.depth_net import camera_gates

_ASPP_DILATIONS = (1, 6, 12, 18)
_ASPP_CHANNELS = 96
# Side offsets: the network's numbers times this, clamped to these, are input-image pixels.
OFFSET_SCALE, OFFSET_LIMIT = 4.0, 8.0


class DepthPrediction(NamedTuple):
    """What the depth network says of every pixel of the stride-16 feature.

    Attributes:
        depth: [N, D, h, w] probability of the surface at each bin.
        fill: [N, L, h, w] in [0, 1], share of a surface's mass that each bin behind inherits.
        context: [N, C, h, w] what is there.
        side_weight, side_offset: [N, 27, h, w] in [0, 1], [N, 18, h, w] pixels; None for variants
            without inter-object lifting.
        history: [N, D, h, w] logits of where the surface is, for what is remembered; None without
            recurrent fusion.
        surface: [N, h, w] int64 bins that a LiDAR measured, -1: none, where they are mixed in
            behind intra-object lifting; None: not there.
    """

    depth: Tensor
    fill: Tensor
    context: Tensor
    side_weight: Tensor | None
    side_offset: Tensor | None
    history: Tensor | None = None
    surface: Tensor | None = None


class Gates(NamedTuple):
    """What the cameras' geometry does to the feature; constant while the rig is.

    Attributes:
        depth, context: [N, C, 1, 1] in [0, 1], of the two branches.
    """

    depth: Tensor
    context: Tensor


class CameraMlp(nn.Module):
    """27 numbers of a camera -> a channel vector."""

    def __init__(self, channels: int, inputs: int = 27) -> None:
        super().__init__()
        self.fc1 = nn.Linear(inputs, channels)
        self.fc2 = nn.Linear(channels, channels)

    def forward(self, camera: Tensor) -> Tensor:  # [N, 27] -> [N, C]
        return self.fc2(F.relu(self.fc1(camera)))


class SqueezeExcite(nn.Module):
    """Channel gates computed from the camera instead of the image."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv_reduce = nn.Conv2d(channels, channels, 1)
        self.conv_expand = nn.Conv2d(channels, channels, 1)

    def gate(self, camera: Tensor) -> Tensor:  # [N, C] -> [N, C, 1, 1]
        """What each channel is multiplied with."""
        hidden = F.relu(self.conv_reduce(camera[..., None, None]))
        return torch.sigmoid(self.conv_expand(hidden))

    def forward(self, x: Tensor, gate: Tensor) -> Tensor:  # [N, C, h, w], [N, C, 1, 1]
        return x * gate.to(x.dtype)


class CameraGates(nn.Module):
    """What the cameras' geometry does to the feature, by two networks of three layers."""

    def __init__(self, net: DepthNet) -> None:
        super().__init__()
        # A tuple, so that modules keep their one name; of the net itself, because training over
        # several processes puts another norm in the place of its own.
        self._net = (net,)

    @property
    def _layers(self) -> tuple[nn.Module, tuple[tuple[CameraMlp, SqueezeExcite], ...]]:
        (net,) = self._net
        return net.bn, ((net.depth_mlp, net.depth_se), (net.context_mlp, net.context_se))

    def forward(self, camera: Tensor) -> Gates:  # [N, 27], see CameraGeometry.camera_vector
        norm, branches = self._layers
        # BatchNorm carries the scale of raw focal lengths and crops.
        camera = norm(camera.to(norm.weight.dtype))
        return Gates(*(se.gate(mlp(camera)) for mlp, se in branches))

    @torch.no_grad()
    def prepared(self) -> PreparedGates:
        """The same with constants folded."""
        norm, branches = self._layers
        scale = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
        shift = norm.bias.double() - norm.running_mean.double() * scale
        layers = []
        for mlp, se in branches:
            first, second = mlp.fc1, mlp.fc2
            reduce, expand = (
                (c.weight.flatten(1).double(), c.bias.double())
                for c in (se.conv_reduce, se.conv_expand)
            )
            bias = first.bias.double() + first.weight.double() @ shift
            layers.append(
                (
                    (first.weight.double() * scale, bias),
                    # No activation stands between the last layer and the reduction.
                    (
                        reduce[0] @ second.weight.double(),
                        reduce[0] @ second.bias.double() + reduce[1],
                    ),
                    expand,
                )
            )
        return PreparedGates(
            [
                (torch.stack([w.T for w, _ in both]), torch.stack([b for _, b in both]))
                for both in zip(*layers, strict=True)
            ]
        )


class PreparedGates(nn.Module):
    """The same, both networks at once. Float32 whatever the network is."""

    def __init__(self, layers: Sequence[tuple[Tensor, Tensor]]) -> None:
        super().__init__()
        self.operator = camera_gates
        for i, (matrix, bias) in enumerate(layers):
            self.register_buffer(f"matrix{i}", matrix.float(), persistent=False)  # [2, C, C']
            self.register_buffer(f"bias{i}", bias[:, None].float(), persistent=False)

    def forward(self, camera: Tensor) -> Gates:
        first, second, third = (
            (getattr(self, f"matrix{i}"), getattr(self, f"bias{i}")) for i in range(3)
        )
        gates = self.operator(camera, *first, *second, *third)
        return Gates(gates[0], gates[1])


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a skip; the skip's convolution, if any, is handed in."""

    def __init__(self, inputs: int, channels: int, downsample: nn.Module | None = None) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = downsample

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        y = conv_bn(x, self.conv1, self.bn1, relu=True)
        return conv_bn(y, self.conv2, self.bn2, relu=True, residual=skip)


class _AsppBranch(nn.Module):
    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        kernel, padding = (1, 0) if dilation == 1 else (3, dilation)
        self.atrous_conv = nn.Conv2d(
            channels, _ASPP_CHANNELS, kernel, padding=padding, dilation=dilation, bias=False
        )
        self.bn = nn.BatchNorm2d(_ASPP_CHANNELS)


class Aspp(nn.Module):
    """Parallel dilated convolutions and a global average, concatenated."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        for i, dilation in enumerate(_ASPP_DILATIONS):
            self.add_module(f"aspp{i + 1}", _AsppBranch(channels, dilation))
        self.global_avg_pool = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, _ASPP_CHANNELS, 1, bias=False),
            nn.BatchNorm2d(_ASPP_CHANNELS),
        )
        width = _ASPP_CHANNELS * (len(_ASPP_DILATIONS) + 1)
        self.conv1 = nn.Conv2d(width, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:  # [N, C, h, w]
        branches = (self.aspp1, self.aspp2, self.aspp3, self.aspp4)
        parts = [conv_bn(x, b.atrous_conv, b.bn, relu=True) for b in branches]
        pool = self.global_avg_pool
        mean = conv_bn(pool[0](x), pool[1], pool[2], relu=True)
        parts.append(mean.expand(-1, -1, *x.shape[2:]))
        return self.dropout(conv_bn(torch.cat(parts, 1), self.conv1, self.bn1, relu=True))


class DepthNet(nn.Module):
    """Camera-aware depth distribution, occlusion lengths, context and side copies."""

    def __init__(self, variant: Variant) -> None:
        super().__init__()
        mid, bins = variant.image_channels, variant.depth_bins
        self.bn = nn.BatchNorm1d(27)
        self.reduce_conv = nn.Sequential(nn.Conv2d(mid, mid, 3, padding=1), nn.BatchNorm2d(mid))
        self.depth_mlp, self.context_mlp = CameraMlp(mid), CameraMlp(mid)
        self.depth_se, self.context_se = SqueezeExcite(mid), SqueezeExcite(mid)
        self.gates: nn.Module = CameraGates(self)
        self.context_conv = nn.Conv2d(mid, variant.context_channels, 1)
        inputs, skip = mid, None
        if variant.stereo:
            # "volumn" is how the official state_dict spells it.
            self.cost_volumn_net = nn.Sequential(
                nn.Conv2d(bins, bins, 3, 2, 1),
                nn.BatchNorm2d(bins),
                nn.Conv2d(bins, bins, 3, 2, 1),
                nn.BatchNorm2d(bins),
            )
            inputs = mid + bins
            # BUG-COMPAT: ONE skip convolution serves both branches and stands twice in the
            # state_dict; tied here so that training keeps it one.
            skip = nn.Conv2d(inputs, mid, 1)
        if variant.inter_object:
            self.depth2occ_inter_weight_net = nn.Conv2d(mid, 27, 1)
            self.depth2occ_inter_bias_net = nn.Conv2d(mid, 18, 1)
        self.depth_conv = nn.Sequential(
            BasicBlock(inputs, mid, skip),
            BasicBlock(mid, mid),
            BasicBlock(mid, mid),
            Aspp(mid),
        )
        # The last layer has another name where there are two of them.
        if variant.recurrent:
            self.depth_head, self.depth_head2 = (nn.Conv2d(mid, bins, 1) for _ in range(2))
            self.gate_net = _gate_net(bins)
            self.depth_his_fusion_post_layer = nn.Module()
            self.depth_his_fusion_post_layer.gate_net = _gate_net(bins)
        else:
            self.depth_conv.append(nn.Conv2d(mid, bins, 1))
        self.occ_conv = nn.Sequential(
            BasicBlock(inputs, mid, skip),
            BasicBlock(mid, mid),
            BasicBlock(mid, mid),
            nn.Conv2d(mid, variant.intra_length, 1),
        )

    def forward(
        self,
        feature: Tensor,  # [N, 256, h, w] stride-16 image feature
        gates: Gates,
        cost: Tensor | None,  # [N, D, H/4, W/4] stereo cost volume
    ) -> DepthPrediction:
        reduced = conv_bn(feature, *self.reduce_conv, relu=True)
        seen = self.context_se(reduced, gates.context)
        context = conv_bn(seen, self.context_conv)
        where = self.depth_se(reduced, gates.depth)

        side_weight = side_offset = None
        if hasattr(self, "depth2occ_inter_weight_net"):
            side_weight = torch.sigmoid(conv_bn(where, self.depth2occ_inter_weight_net))
            offset = conv_bn(where, self.depth2occ_inter_bias_net) * OFFSET_SCALE
            side_offset = offset.clamp(-OFFSET_LIMIT, OFFSET_LIMIT)
        if cost is not None:
            where = torch.cat([where, self.match(cost)], 1)

        seen, fill = self.branches(where)
        history = None
        if hasattr(self, "depth_head2"):
            logits, history = conv_bn(seen, self.depth_head), conv_bn(seen, self.depth_head2)
        else:
            logits = conv_bn(seen, self.depth_conv[4])
        fill = conv_bn(fill, self.occ_conv[3])
        probability = torch.softmax(logits, 1)
        return DepthPrediction(
            probability, torch.sigmoid(fill), context, side_weight, side_offset, history
        )

    def match(self, cost: Tensor) -> Tensor:  # [N, D, H/4, W/4] -> [N, D, h, w]
        """The stereo cost volume as a part of the feature."""
        matched = conv_bn(cost, *self.cost_volumn_net[:2])
        return conv_bn(matched, *self.cost_volumn_net[2:])

    def branches(self, x: Tensor) -> tuple[Tensor, Tensor]:  # [N, C (+ D), h, w]
        """What the last layers make depths and lengths of, [N, C, h, w] each."""
        shared = self.depth_conv[0].downsample
        skip = x if shared is None else conv_bn(x, shared)
        depth, fill = self.depth_conv[0](x, skip), self.occ_conv[0](x, skip)
        for block in (1, 2):
            depth = self.depth_conv[block](depth, depth)
            fill = self.occ_conv[block](fill, fill)
        return self.depth_conv[3](depth), fill


def gate_logit(net: nn.Sequential, x: Tensor) -> Tensor:  # [N, 2 * bins, h, w] -> [N, 1, h, w]
    """What a sigmoid makes a gate of."""
    return conv_bn(conv_bn(x, net[0], relu=True), net[2])


def _gate_net(bins: int) -> nn.Sequential:  # for ``gate_logit``
    return nn.Sequential(nn.Conv2d(2 * bins, bins, 1), nn.ReLU(), nn.Conv2d(bins, 1, 1))
