# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Occupancy and flow heads (paper sections 3.3 and 3.5; docs/network.md sections 10 and 11)."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alocc_ros.network.temporal import Warp
from alocc_ros.network.variants import Variant
from alocc_ros.ops.conv import FoldedConv, conv_bn
from alocc_ros.ops.correlation import TAPS, correlation
from alocc_ros.ops.flow_head import FLOW_BINS, decode_flow_reference, dense_flow, sparse_flow

# The flow head's bird's-eye map: mean of the voxel slices z = 3..8 (0.2 to 2.6 m).
FLOW_SLICES = slice(3, 9)
_FLOW_COST_CHANNELS = 24
# Where flow is wanted of moving classes only: one voxel in so many gets one at most.
_FLOW_SHARE = 8


class AloccHead(nn.Module):
    """Class prototypes, and the layers of the flow head.

    There is no decoder: each class is one embedding, so the logits of all classes are one matrix
    product with constants. Query 0 is a noise slot, dropped before labels.
    """

    def __init__(self, variant: Variant) -> None:
        super().__init__()
        width = variant.voxel_channels
        self.query_feat = nn.Embedding(variant.queries, width)
        self.post_norm = nn.LayerNorm(width)
        self.mask_embed = _mlp(width, width)
        # Only the image-semantics loss of training uses this one.
        self.mask_embed2 = _mlp(width, variant.context_channels)
        if variant.flow:
            inputs = width + _FLOW_COST_CHANNELS
            # "volum" is how the official state_dict spells it.
            self.cost_volum_net = nn.Sequential(
                nn.Conv2d(TAPS * TAPS, _FLOW_COST_CHANNELS, 3, padding=1),
                nn.BatchNorm2d(_FLOW_COST_CHANNELS),
            )
            self.flow_post_conv = nn.Sequential(nn.Conv3d(inputs, width, 3, padding=1), nn.ReLU())
            self.flow_predicter = nn.Sequential(
                nn.Conv3d(width, 2 * width, 1), nn.ReLU(), nn.Conv3d(2 * width, 2 * FLOW_BINS, 1)
            )

    def class_embeddings(self) -> Tensor:  # [Q - 1, V]
        """What a voxel feature is compared with, of each class."""
        return self.mask_embed(self.post_norm(self.query_feat.weight))[1:]

    def image_embeddings(self) -> Tensor:  # [Q - 1, C]
        """What a lifted image feature is compared with, in the image-semantics loss."""
        return self.mask_embed2(self.post_norm(self.query_feat.weight))[1:]


class Classified(NamedTuple):
    """What is said of every voxel.

    Attributes:
        logits: [B, Y, X, Z, Q - 1].
        voxels: [B, V, Y, X, Z]; None where only the logits are made.
        labels: [B, Y, X, Z] uint8, where they are made in the same pass; None: not yet.
    """

    logits: Tensor
    voxels: Tensor | None
    labels: Tensor | None = None


class Classifier(nn.Module):
    """Encoder feature to class logits and voxel features."""

    def __init__(self, variant: Variant, final_conv: nn.Module | None, head: AloccHead) -> None:
        super().__init__()
        # A tuple, so that the modules keep the one name that the state_dict has for them.
        self._parts = (final_conv, head)
        self._heights = variant.grid.shape[2]

    def forward(self, merged: Tensor) -> Classified:  # [B, C, Y, X] or [B, V, Y, X, Z]
        """Logits and voxels.

        Channel c * Z + z of a bird's-eye map is channel c at height z. Heights come first in
        memory there: putting them last would cost a copy and another one of the gradient.
        """
        final_conv, head = self._parts
        if final_conv is None:
            rising = merged.permute(0, 1, 4, 2, 3)
        else:
            rising = conv_bn(merged, final_conv).unflatten(1, (-1, self._heights))
        embeddings = head.class_embeddings()
        logits = embeddings.expand(len(rising), -1, -1) @ rising.flatten(2)
        logits = logits.unflatten(2, rising.shape[2:])  # [B, Q - 1, Z, Y, X]
        return Classified(logits.permute(0, 3, 4, 2, 1), rising.permute(0, 1, 3, 4, 2))


class PreparedClassifier(nn.Module):
    """The same with the class embeddings as constants.

    No activation stands between the convolution to voxel features and the product with the
    embeddings: where nobody wants the features, both are ONE convolution. Channels come last in
    memory.
    """

    def __init__(
        self,
        variant: Variant,
        final_conv: FoldedConv | None,  # C -> V * heights, channel = v * heights + z
        embeddings: Tensor,  # [Q - 1, V]
    ) -> None:
        super().__init__()
        self._heights = variant.grid.shape[2]
        self.conv = None
        if final_conv is not None:
            matrix = torch.eye(variant.voxel_channels) if variant.flow else embeddings
            self.conv = _merged_conv(final_conv, matrix.to(embeddings), self._heights)
        features = final_conv is None or variant.flow
        classes = embeddings.T if features else None
        self.register_buffer("classes", classes, persistent=False)

    def forward(self, merged: Tensor) -> Classified:
        """As ``Classifier``; voxels are None where only the logits are made."""
        rows = self.rows(merged)
        if self.classes is None:
            return Classified(rows, None)
        return Classified(rows @ self.classes, rows.permute(0, 4, 1, 2, 3))

    def rows(self, merged: Tensor) -> Tensor:  # [B, Y, X, Z, V or Q - 1]
        """Features of voxels, or their logits where nobody wants the features."""
        if self.conv is None:
            return merged.permute(0, 2, 3, 4, 1)
        return self.conv(merged).unflatten(1, (self._heights, -1)).permute(0, 3, 4, 1, 2)


class FlowMap(nn.Module):
    """The bird's-eye map that is matched: [B, V, Y, X, Z] -> [B, V, Y, X]."""

    def forward(self, voxels: Tensor, out: Tensor | None = None) -> Tensor:
        """Into ``out``, if there is one."""
        # Over rows of channels, the order in which prepared voxels lie in memory.
        rows = voxels.detach().permute(0, 2, 3, 4, 1)[:, :, :, FLOW_SLICES]
        if out is None:
            return rows.mean(3).permute(0, 3, 1, 2)
        torch.mean(rows, 3, out=out.permute(0, 2, 3, 1))
        return out


class MatchingMaps(nn.Module):
    """The maps to match: that of now and the past one moved to the present, at half the size."""

    def __init__(self) -> None:
        super().__init__()
        self.warp = Warp()

    def forward(
        self,
        bev: Tensor,  # [B, V, Y, X]
        previous: Tensor,  # [B, V, Y, X], of the reference frame
        motion: Tensor,  # [B, 3, 4]
    ) -> Tensor:  # [2 * B, V, Y/2, X/2]
        warped = self.warp(previous[..., None], motion)[..., 0]
        half = [s // 2 for s in bev.shape[2:]]
        maps = torch.cat([bev, warped])
        return F.interpolate(maps, size=half, mode="bilinear", align_corners=True)


class FlowMatching(nn.Module):
    """How alike each place now and the places around it before are."""

    def __init__(self) -> None:
        super().__init__()
        self.operator, self.taps = correlation, TAPS * TAPS
        self.maps = MatchingMaps()

    def forward(
        self,
        bev: Tensor,  # [B, V, Y, X]
        previous: Tensor,  # [B, V, Y, X], of the reference frame
        motion: Tensor,  # [B, 3, 4]
    ) -> Tensor:  # [B, TAPS * TAPS, Y/2, X/2]
        return self.operator(*self.maps(bev, previous, motion).chunk(2))


class FlowCost(nn.Module):
    """The match as a feature of every column."""

    def __init__(self, variant: Variant, head: AloccHead) -> None:
        super().__init__()
        self._convs = (head.cost_volum_net,)
        self._size = variant.grid.shape[1::-1]

    def forward(self, match: Tensor) -> Tensor:  # [B, taps, Y/2, X/2] -> [B, 24, Y, X]
        cost = conv_bn(match, *self._convs[0])
        return F.interpolate(cost, size=self._size, mode="bilinear", align_corners=True)


class FlowHead(nn.Module):
    """Velocity of every voxel, or of those of moving classes."""

    def __init__(self, variant: Variant, head: AloccHead) -> None:
        super().__init__()
        self._layers = (head.flow_post_conv[0], head.flow_predicter)
        self.register_buffer("moving", _moving(variant), persistent=False)
        self._everywhere = variant.flow_everywhere

    def forward(
        self,
        cost: Tensor,  # [B, 24, Y, X]
        voxels: Tensor,  # [B, V, Y, X, Z]
        labels: Tensor,  # [B, Y, X, Z] uint8
    ) -> tuple[Tensor, Tensor | None]:  # [B, Y, X, Z, 2] m/s (vx, vy); too many [B]
        where = None if self._everywhere else self.moving[labels.long()]
        # The layers' components are (along y, along x).
        return decode_flow_reference(cost, voxels, *self._layers, where).flip(-1), None


class PreparedFlowHead(nn.Module):
    """The same with static shapes and without storing 176 logits a voxel. Where flow is wanted of
    moving classes only, an eighth of the voxels at most gets one; how many were too many is told.
    """

    def __init__(self, variant: Variant, post_conv: FoldedConv, predict: nn.Sequential) -> None:
        super().__init__()
        self._everywhere = variant.flow_everywhere
        self.operator = dense_flow if variant.flow_everywhere else sparse_flow
        self._capacity = math.prod(variant.grid.shape) // _FLOW_SHARE
        first, last = predict[0], predict[2]
        # Component-major, so that each component's bins lie side by side for the softmax; the last
        # component (along x, vx) first.
        matrix2 = last.weight.flatten(1).unflatten(0, (FLOW_BINS, 2)).transpose(0, 1).flip(0)
        constants = {
            "matrix1": first.weight.flatten(1).T,
            "offset1": first.bias,
            "matrix2": matrix2.flatten(0, 1).T,
            "offset2": last.bias.unflatten(0, (FLOW_BINS, 2)).T.flip(0).flatten(),
        }
        if variant.flow_everywhere:
            constants = {name: value.contiguous() for name, value in constants.items()}
            flat = post_conv.weight[:, :_FLOW_COST_CHANNELS]  # [V, 24, 3, 3, 3]
            self.deep = post_conv.like(
                post_conv.weight[:, _FLOW_COST_CHANNELS:], torch.zeros_like(post_conv.bias)
            )
            ones = (1, 1)
            parts = [flat.sum(-1), flat[..., 1:].sum(-1), flat[..., :2].sum(-1)]
            self.flat = FoldedConv(torch.cat(parts), post_conv.bias.repeat(3), ones, ones, ones)
            # What the operator is to add where ``flat`` does not: see runtime/fused.py.
            self.register_buffer("bias", None, persistent=False)
        else:
            constants["post_weight"] = post_conv.weight.flatten(1).T
            constants["post_bias"] = post_conv.bias
            self.register_buffer("moving", _moving(variant), persistent=False)
        for name, value in constants.items():
            self.register_buffer(name, value.detach(), persistent=False)

    def forward(self, cost: Tensor, voxels: Tensor, labels: Tensor) -> tuple[Tensor, Tensor | None]:
        layers = (self.matrix1, self.offset1, self.matrix2, self.offset2)
        if self._everywhere:
            deep = self.deep(voxels).permute(0, 2, 3, 4, 1)
            shared = self.flat(cost).permute(0, 2, 3, 1)
            return self.operator(deep, shared, self.bias, *layers), None
        where = self.moving[labels.long()]
        return self.operator(
            cost, voxels, where, self.post_weight, self.post_bias, *layers, self._capacity
        )


def mix_true_match(
    predicted: Tensor,  # [B, taps, ...] softmax over displacements
    true: Tensor,  # likewise, of the true occupancy
    share: float,
) -> Tensor:
    """The two matches mixed before their softmax: scores are logarithms up to a constant."""
    return torch.softmax((1 - share) * predicted.log() + share * true.log(), 1)


def _moving(variant: Variant) -> Tensor:  # [256] bool
    """Whether a label is of a class that can move."""
    table = torch.zeros(256, dtype=torch.bool)
    table[list(variant.classes.flow)] = True
    return table


def _merged_conv(
    final_conv: FoldedConv,  # C -> V * heights, channel = v * heights + z
    matrix: Tensor,  # [W, V]
    heights: int,
) -> FoldedConv:  # C -> heights * W, channel = z * W + w
    """The convolution to voxel features and a product with each of them as one convolution. With
    the identity the features themselves come out of it, in the memory order of voxels.
    """
    features, m = matrix.shape[1], matrix.double()
    weight = final_conv.weight.unflatten(0, (features, heights)).double()
    weight = torch.einsum("wv,vzcij->zwcij", m, weight).flatten(0, 1)
    bias = (m @ final_conv.bias.view(features, heights).double()).T.flatten()
    return final_conv.like(weight.to(matrix), bias.to(matrix))


def _mlp(width: int, out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(width, width),
        nn.ReLU(),
        nn.Linear(width, width),
        nn.ReLU(),
        nn.Linear(width, out),
    )
