# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Parts of a prepared network whose many small steps are one kernel each on a GPU; ``pack_for_gpu``
puts them in the place of the others.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alocc_ros.network.depth import (
    OFFSET_LIMIT,
    OFFSET_SCALE,
    DepthNet,
    DepthPrediction,
    Gates,
)
from alocc_ros.network.geometry_fusion import surface
from alocc_ros.network.heads import Classified, PreparedClassifier
from alocc_ros.network.model import Alocc
from alocc_ros.network.neck import ImageNeck
from alocc_ros.ops.argmax import classify
from alocc_ros.ops.conv import FoldedConv, conv_bn
from alocc_ros.ops.correlation import matching_maps
from alocc_ros.ops.depth_net import depth_answer, gate_feature
from alocc_ros.ops.library import fused_form
from alocc_ros.ops.recurrent import gated_mix


def fuse_steps(network: Alocc) -> set[FoldedConv]:
    """Put them into a prepared network.

    Returns:
        Convolutions whose bias is added elsewhere.
    """
    variant, unbiased = network.variant, set()
    unbiased.add(_merge_laterals(network))
    network.img_neck = FusedNeck(network.img_neck)
    if not variant.volumetric:
        unbiased.add(network.img_bev_encoder_neck.conv[0].move_bias())
    if variant.stereo:
        first, _, last, _ = network.depth_net.cost_volumn_net
        network.depth_net.cost_volumn_net[0] = of_shares(first)
        unbiased |= {network.depth_net.cost_volumn_net[0], last}
    network.depth_net = FusedDepthNet(network.depth_net)
    if variant.recurrent:
        net = network.depth_net
        network.geometry.mix = FusedLogitsMix(net.depth_his_fusion_post_layer.gate_net)
        network.lift.mix = FusedGeometryMix(net.gate_net)
    if network.classify.classes is not None:
        network.classify = FusedClassifier(network.classify, variant.skip_classes)
    if variant.flow:
        network.flow_match.maps = FusedMaps()
        convs = network.alocc_head.cost_volum_net
        convs[0] = of_shares(convs[0])
        unbiased.add(convs[0])
        if variant.flow_everywhere:
            head = network.flow_head
            unbiased |= {head.deep, head.flat}  # that of ``deep`` is zero
            head.bias = head.flat.bias[: variant.voxel_channels].clone()
    return unbiased


def of_shares(conv: FoldedConv) -> FoldedConv:
    """A convolution of numbers whose sum over channels is 1 everywhere, without a bias: the middle
    tap, which is never outside, adds it.
    """
    weight = conv.weight.clone()
    weight[:, :, conv.padding[0], conv.padding[1]] += conv.bias[:, None]
    return conv.like(weight, torch.zeros_like(conv.bias))


def _merge_laterals(network: Alocc) -> FoldedConv:
    """The bias of the fine lateral convolution of the image neck is a matter of the coarse one, as
    nearest upsampling repeats it.
    """
    fine, coarse = (holder.conv for holder in network.img_neck.lateral_convs)
    network.img_neck.lateral_convs[1].conv = coarse.like(coarse.weight, coarse.bias + fine.bias)
    return fine


def _joined(*convs: FoldedConv) -> FoldedConv:
    """Convolutions of the same input as one."""
    return convs[0].like(torch.cat([c.weight for c in convs]), torch.cat([c.bias for c in convs]))


class FusedNeck(ImageNeck):
    """The image neck with the fine level's product added to the upsampled coarse one in place."""

    def __init__(self, neck: ImageNeck) -> None:
        nn.Module.__init__(self)  # the layers are those of ``neck``
        for name, child in neck.named_children():
            self.add_module(name, child)

    def forward(self, c4: Tensor, c5: Tensor) -> Tensor:
        """See ``ImageNeck``."""
        fine, coarse = (holder.conv for holder in self.lateral_convs)
        merged = F.interpolate(conv_bn(c5, coarse), size=c4.shape[2:], mode="nearest")
        merged = merged.contiguous(memory_format=torch.channels_last)  # as it is already
        rows = merged.permute(0, 2, 3, 1).view(-1, merged.shape[1])
        rows.addmm_(c4.permute(0, 2, 3, 1).flatten(0, 2), fine.weight.flatten(1).T)
        return conv_bn(merged, self.fpn_convs[0].conv)


class FusedDepthNet(DepthNet):
    """The depth network with gates, concatenation and a bias in one kernel, and all that stands
    behind its last convolutions in another; convolutions of the same input are one.
    """

    def __init__(self, net: DepthNet) -> None:
        nn.Module.__init__(self)  # the layers are those of ``net``
        for name, child in net.named_children():
            self.add_module(name, child)
        bins = len(net.occ_conv[3].bias)
        self.last = net.depth_conv[4] if len(net.depth_conv) > 4 else None
        if self.last is None:
            self.last = _joined(net.depth_head, net.depth_head2)
            del self.depth_head, self.depth_head2
            bins = len(self.last.bias) // 2
        else:
            bins = len(self.last.bias)
            del self.depth_conv[4]
        self._bins, self._weights, self.sides = bins, 0, None
        if hasattr(net, "depth2occ_inter_weight_net"):
            pair = net.depth2occ_inter_weight_net, net.depth2occ_inter_bias_net
            self.sides, self._weights = _joined(*pair), len(pair[0].bias)
            del self.depth2occ_inter_weight_net, self.depth2occ_inter_bias_net
        self._gate, self._answer = fused_form(gate_feature), fused_form(depth_answer)

    def forward(self, feature: Tensor, gates: Gates, cost: Tensor | None) -> DepthPrediction:
        """See ``DepthNet``."""
        reduced = conv_bn(feature, *self.reduce_conv, relu=True)
        matched = bias = None
        if cost is not None:
            matched, bias = self.match(cost), self.cost_volumn_net[2].bias
        seen, where = self._gate(reduced, gates.context, gates.depth, matched, bias)
        context = conv_bn(seen, self.context_conv)
        depth, fill = self.branches(where)
        logits, fill = conv_bn(depth, self.last), conv_bn(fill, self.occ_conv[3])
        sides = None
        if self.sides is not None:
            sides = conv_bn(where[:, : reduced.shape[1]], self.sides)
        probability, fill, weight, offset = self._answer(
            logits, fill, sides, self._bins, self._weights, OFFSET_SCALE, OFFSET_LIMIT
        )
        if sides is None:
            weight = offset = None
        history = logits[:, self._bins :] if logits.shape[1] > self._bins else None
        return DepthPrediction(probability, fill, context, weight, offset, history)


class _GatedMix(nn.Module):
    """``gated_mix`` with the layers of a gate."""

    def __init__(self, gate_net: nn.Sequential) -> None:
        super().__init__()
        first, last = gate_net[0], gate_net[2]
        for name, value in (
            ("matrix1", first.weight.flatten(1).T.contiguous()),
            ("offset1", first.bias),
            ("matrix2", last.weight.flatten()),
            ("offset2", last.bias),
        ):
            self.register_buffer(name, value, persistent=False)
        self.operator = gated_mix

    def mix(self, remembered: Tensor, now: Tensor, mixed: Tensor | None, shares: bool) -> Tensor:
        layers = (self.matrix1, self.offset1, self.matrix2, self.offset2)
        return self.operator(remembered, now, mixed, *layers, shares)


class FusedLogitsMix(_GatedMix):
    """``LogitsMix`` as one kernel."""

    def forward(self, warped: Tensor, logits: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        fused = self.mix(warped, logits, None, shares=False)
        if known is logits:
            return fused, fused
        return fused, self.mix(warped, logits, known, shares=False)


class FusedGeometryMix(_GatedMix):
    """``GeometryMix`` as one kernel."""

    def forward(self, geometry: Tensor, prediction: DepthPrediction) -> Tensor:
        mixed = None
        if prediction.surface is not None:
            mixed = surface(geometry, prediction.surface)
        return self.mix(prediction.history, geometry, mixed, shares=True)


class FusedClassifier(nn.Module):
    """Logits and labels of voxel features in one pass."""

    def __init__(self, prepared: PreparedClassifier, skip: int) -> None:
        super().__init__()
        self.prepared, self._skip = prepared, skip
        self.operator = classify

    def forward(self, merged: Tensor) -> Classified:
        rows = self.prepared.rows(merged)
        logits, labels = self.operator(rows, self.prepared.classes, self._skip)
        return Classified(logits, rows.permute(0, 4, 1, 2, 3), labels)


class FusedMaps(nn.Module):
    """``MatchingMaps`` as one kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.operator = matching_maps

    def forward(self, bev: Tensor, previous: Tensor, motion: Tensor) -> Tensor:
        return self.operator(bev, previous, motion)
