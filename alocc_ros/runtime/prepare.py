# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Weights made ready once: folded, merged, split, packed; constants worked out.

``prepare`` returns another network that computes the same. It belongs to no device: it can be
moved, exported and compiled. ``pack_for_cpu`` then puts the weights into the order that this
processor's kernels want; ``cast`` changes the precision, and ``pack_for_gpu`` also puts the kernels
of a GPU in. None changes the network that it was given, and what needs no change is shared.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._pytree import tree_map

from alocc_ros.network.depth import DepthNet, PreparedGates
from alocc_ros.network.encoder import BEVNeck, VoxelNeck
from alocc_ros.network.heads import PreparedClassifier, PreparedFlowHead
from alocc_ros.network.model import Alocc
from alocc_ros.network.plan import empty_plan
from alocc_ros.network.recurrent import (
    PreparedRecurrentFusion,
    PreparedTime,
    RecurrentLayers,
    SceneFusion,
)
from alocc_ros.network.temporal import AheadHistoryFusion, ProjectedHistoryFusion
from alocc_ros.ops import native
from alocc_ros.ops.conv import FoldedConv, cpu
from alocc_ros.ops.conv.gpu import GpuConv
from alocc_ros.ops.library import fused_form, rounded_form
from alocc_ros.ops.upsample import SplitConv
from alocc_ros.runtime.fused import fuse_steps


@torch.no_grad()
def prepare(network: Alocc) -> Alocc:
    """The network for inference: BatchNorm is part of the convolutions, class embeddings are
    constants, temporal fusion works on projected features, voxel levels are multiplied before they
    are upsampled.
    """
    ready, v = shallow_copy(network).eval(), network.variant
    _prepare_gates(ready.depth_net)
    _fold(ready)
    if v.recurrent:
        layers = RecurrentLayers(*(getattr(ready, name) for name in RecurrentLayers._fields))
        ready.fusion = PreparedRecurrentFusion(v, layers, ready.fusion.embed)
        ready.scene = SceneFusion(v, layers.scene_his_func_after_vox_his, prepared=True)
        del ready.history_keyframe_time_conv, ready.history_keyframe_cat_conv
        del ready.his_stream_offset_net
    elif v.history:
        time_conv = ready.history_keyframe_time_conv[0]
        ready.fusion = ProjectedHistoryFusion(v, time_conv, ready.history_keyframe_cat_conv[0])
        # The projected form has their weights; nothing calls these any more.
        del ready.history_keyframe_time_conv, ready.history_keyframe_cat_conv
    head = ready.alocc_head
    embeddings = head.class_embeddings().detach()
    ready.classify = PreparedClassifier(v, getattr(ready, "final_conv", None), embeddings)
    if not v.volumetric:
        del ready.final_conv
    if v.flow:
        ready.flow_head = PreparedFlowHead(v, head.flow_post_conv[0], head.flow_predicter)
        ready.flow_head.to(embeddings.device)
    if v.volumetric:
        _split_neck(ready)
    return ready.requires_grad_(False)


# What a processor with bfloat16 computes in it; the last, pointwise layers of the depth network,
# whose results are probabilities, stay float32, and so does all that is not convolution.
_BF16_PARTS = (
    *("img_backbone", "img_neck", "depth_net", "pre_process"),
    *("img_bev_encoder_backbone", "img_bev_encoder_neck"),
)


@torch.no_grad()
def pack_for_cpu(prepared: Alocc, dtype: torch.dtype = torch.float32, cameras: int = 6) -> Alocc:
    """The same with every convolution in the form that is fastest on this processor.

    Which one that is depends on the input of each convolution; so the shapes are found by running
    the network once without numbers. With ``torch.bfloat16`` the convolutions that see images and
    volumes compute in it; the network takes, remembers and returns float32.
    """
    packed = shallow_copy(prepared)
    if native.library() is not None:  # the general forms of these need more time or memory
        if not packed.variant.volumetric:
            _split_neck(packed)
        _sum_ahead(packed)
    shapes = input_shapes(packed, cameras)
    replaced: dict[FoldedConv, FoldedConv] = {}
    for parent, name, conv, path in _convolutions(packed):
        if conv not in replaced and path in shapes:
            part, *within = path.split(".")
            head = part == "depth_net" and conv.weight.shape[2:].numel() == 1 and len(within) < 3
            kind = dtype if part in _BF16_PARTS and not head else torch.float32
            replaced[conv] = cpu.pack(conv, shapes[path], kind)
            if kind != torch.float32 and part == "img_bev_encoder_neck":
                # Between its convolutions stand operators of this package.
                replaced[conv].register_forward_hook(_to_float32)
        setattr(parent, name, replaced.get(conv, conv))
    if dtype != torch.float32:
        for part in _BF16_PARTS:
            packed.get_submodule(part).register_forward_hook(_to_float32)
    return packed


def _to_float32(_: nn.Module, inputs: object, output: Any) -> Any:
    return tree_map(
        lambda x: x.float() if isinstance(x, Tensor) and x.is_floating_point() else x, output
    )


@torch.no_grad()
def cast(prepared: Alocc, dtype: torch.dtype) -> Alocc:
    """The same in another precision, still of torch's own operators.

    Convolutions and matrices, activations and what is remembered are of that type; geometry stays
    float64, biases behind products float32, and so do the cameras' gates, whose input is raw focal
    lengths. Operators of this package compute in float32 and round.
    """
    ready = shallow_copy(prepared)
    if dtype == ready.dtype:
        return ready
    ready.dtype = dtype
    for module in ready.modules():
        if isinstance(module, (PreparedGates, PreparedTime)):
            continue
        if (operator := getattr(module, "operator", None)) is not None:
            module.operator = rounded_form(operator)
        every = isinstance(module, FoldedConv)
        for name, value in module.named_buffers(recurse=False):
            if value.dtype == torch.float32 and (every or value.dim() > 1):
                setattr(module, name, value.to(dtype))
    return ready


@torch.no_grad()
def pack_for_gpu(prepared: Alocc, dtype: torch.dtype = torch.float16) -> Alocc:
    """The same as ``cast``, with kernels made for it: the fused form of every operator, small steps
    as one (``fused.py``), epilogues in the convolutions, biases where sums are made anyway.
    """
    packed = shallow_copy(prepared)
    if not packed.variant.volumetric:
        _split_neck(packed)
    _sum_ahead(packed)
    skips = _merge_biases_of_skips(packed) | fuse_steps(packed)
    operators = {
        name: fused_form(module.operator)
        for name, module in packed.named_modules()
        if getattr(module, "operator", None) is not None
    }
    unbiased = {path for *_, conv, path in _convolutions(packed) if conv in skips}
    packed = cast(packed, dtype)
    for name, operator in operators.items():
        packed.get_submodule(name).operator = operator
    replaced: dict[FoldedConv, GpuConv] = {}
    for parent, name, conv, path in _convolutions(packed):
        if conv not in replaced:
            replaced[conv] = GpuConv(conv, bias=path not in unbiased)
        setattr(parent, name, replaced[conv])
    return packed


def _merge_biases_of_skips(network: Alocc) -> set[FoldedConv]:
    """What the convolution of a skip adds, the convolution that it is added to adds as well."""
    skips: set[FoldedConv] = set()
    for module in network.modules():
        skip = getattr(module, "downsample", None)
        if skip is None:
            continue
        name = "conv3" if hasattr(module, "conv3") else "conv2"
        last, holder = getattr(module, name), module
        if not isinstance(last, FoldedConv):  # of voxels: with a norm beside it
            holder, last, name = last, last.conv, "conv"
        skip = next(m for m in skip.modules() if isinstance(m, FoldedConv))
        setattr(holder, name, last.like(last.weight, last.bias + skip.bias))
        skips.add(skip)
    return skips


def shallow_copy(network: Alocc) -> Alocc:
    """Modules of its own, values shared; whether one wants gradients is its own affair."""
    shared = {id(t): t for t in network.buffers()}
    for p in network.parameters():
        shared[id(p)] = nn.Parameter(p.detach(), requires_grad=p.requires_grad)
    return copy.deepcopy(network, shared)


def on_meta(network: Alocc) -> Alocc:
    """Modules of its own, tensors without numbers."""
    tensors = [*network.parameters(), *network.buffers()]
    return copy.deepcopy(network, {id(t): t.detach().to("meta") for t in tensors})


@torch.no_grad()
def input_shapes(prepared: Alocc, cameras: int) -> dict[str, torch.Size]:
    """The shape of the input of every convolution, by the module's path."""
    network, shapes = on_meta(prepared), {}

    def remember(path: str) -> None:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            shapes.setdefault(path, inputs[0].shape)

        network.get_submodule(path).register_forward_pre_hook(hook)

    for *_, path in _convolutions(network):
        remember(path)
    v = network.variant
    images = torch.empty(cameras, 3, *v.input_size, device="meta")
    network(images, empty_plan(cameras, 1, v.history, "meta"))
    return shapes


def _prepare_gates(net: DepthNet) -> None:
    net.gates = net.gates.prepared()
    # Its form has their weights; nothing calls these any more.
    for layer in (net.depth_se, net.context_se):
        del layer.conv_reduce, layer.conv_expand
    del net.bn, net.depth_mlp, net.context_mlp


def _fold(network: Alocc) -> None:
    """Every convolution becomes a folded one, and what it swallowed an identity."""
    folded: dict[nn.Module, FoldedConv] = {}
    for parent in list(network.modules()):
        children = list(parent.named_children())
        for i, (name, child) in enumerate(children):
            if not isinstance(child, (nn.Conv2d, nn.Conv3d)):
                continue
            after = children[i + 1][1] if i + 1 < len(children) else None
            norm = after if isinstance(after, _BatchNorm) else None
            if child not in folded:
                folded[child] = FoldedConv.of(child, norm)
            setattr(parent, name, folded[child])
            if norm is not None:
                setattr(parent, children[i + 1][0], nn.Identity())


def _split_neck(network: Alocc) -> None:
    neck, widths = network.img_bev_encoder_neck, network.variant.encoder_channels
    if isinstance(neck, VoxelNeck):
        neck.conv.conv = SplitConv(neck.conv.conv, widths)
    elif isinstance(neck, BEVNeck):
        neck.conv[0] = SplitConv(neck.conv[0], widths)


def _sum_ahead(network: Alocc) -> None:
    if isinstance(network.fusion, ProjectedHistoryFusion):
        network.fusion = AheadHistoryFusion(network.fusion)


def _convolutions(network: nn.Module) -> list[tuple[nn.Module, str, FoldedConv, str]]:
    """Parent, name, module and path of every folded convolution; shared ones more than once."""
    found = []
    for prefix, parent in network.named_modules(remove_duplicate=False):
        for name, child in parent.named_children():
            if isinstance(child, FoldedConv):
                found.append((parent, name, child, f"{prefix}.{name}" if prefix else name))
    return found
