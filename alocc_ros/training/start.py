# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""The weights that training begins with: random ones, and whatever fits of other networks'."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from alocc_ros.errors import CheckpointError, ParameterError
from alocc_ros.network.model import Alocc
from alocc_ros.network.weights_file import some

_BACKBONE = "img_backbone."
# BEVDet's name of the depth network, and ours.
_BEVDET_DEPTH, _DEPTH = "img_view_transformer.depth_net.", "depth_net."
# The last layer of the depth network, and the two that recurrent networks have in its place.
_DEPTH_LAYER = "depth_net.depth_conv.4."
_DEPTH_LAYERS = ("depth_net.depth_head.", "depth_net.depth_head2.")


@dataclass(frozen=True)
class StartReport:
    """Which weights of a file went into the network.

    Attributes:
        matched: by part of the network (``img_backbone``): how many of how many tensors.
        other_shape: names that both have, with different shapes; left as they were.
        unused: names that only the file has.
        flipped_channels: the first convolution's channels were put from red first to blue first.
    """

    matched: Mapping[str, tuple[int, int]]
    other_shape: tuple[str, ...]
    unused: tuple[str, ...]
    flipped_channels: bool

    def lines(self, most: int = 10) -> list[str]:
        """For people; of many names the first ``most``."""
        parts = [f"{part} {here} of {of}" for part, (here, of) in self.matched.items()]
        text = [f"weights taken over: {', '.join(parts)}"]
        if self.flipped_channels:
            text.append("ImageNet weights: first convolution turned from RGB to BGR")
        if self.other_shape:
            text.append(f"of another shape, left random: {some(self.other_shape, most)}")
        if self.unused:
            text.append(f"in the file, not in the network: {some(self.unused, most)}")
        return text


def spread_classes(network: Alocc) -> None:
    """Class embeddings that begin apart. With torch's own first values, which the reference has,
    they all but coincide (cosines of 0.85), and hundreds of steps later still do.
    """
    head = network.alocc_head
    for embed in (head.mask_embed, head.mask_embed2):
        *hidden, last = (m for m in embed if isinstance(m, nn.Linear))
        for layer in hidden:
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        nn.init.kaiming_normal_(last.weight, nonlinearity="linear")
        for layer in (*hidden, last):
            nn.init.zeros_(layer.bias)


def initialise(network: Alocc) -> None:
    """First values that training from nothing needs, where torch's own are not the ones."""
    for module in network.img_backbone.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    if network.variant.inter_object:
        # Side copies begin at the eight neighbours: cell (ku, kv) is moved by (ku - 1, kv - 1).
        offsets = network.depth_net.depth2occ_inter_bias_net
        nn.init.zeros_(offsets.weight)
        cells = [(u - 1.0, v - 1.0) for u in range(3) for v in range(3)]
        with torch.no_grad():
            offsets.bias.copy_(torch.tensor(cells).flatten())


def load_matching(
    network: Alocc,
    weights: Mapping[str, Tensor],
    channel_order: str,
    fresh: Sequence[str] = (),
) -> StartReport:
    """Copy every tensor that the network has under the same name in the same shape.

    Takes networks of this family, BEVDet's (backbone and neck have its names; its depth network's
    ``img_view_transformer.depth_net`` is tried against ours), and a bare
    ResNet as torchvision names it. That one saw red first, so for a network that sees
    blue first the channels of its first convolution are flipped. What begins with a name
    in ``fresh`` is not taken: classes, say, that are other ones. Both last layers of a recurrent
    network's depth begin as the one of a network that has one.

    Raises:
        CheckpointError: nothing fits, or nothing begins with a name in ``fresh``.
    """
    for prefix in fresh:
        others = {n: v for n, v in weights.items() if not n.startswith(prefix)}
        if len(others) == len(weights):
            raise CheckpointError(f"no tensor begins with {prefix!r}: {some(tuple(weights))}")
        weights = others
    bare = "conv1.weight" in weights and "layer1.0.conv1.weight" in weights
    if bare:
        weights = {_BACKBONE + name: value for name, value in weights.items()}
    flipped = bare and channel_order == "bgr"
    if flipped:
        first = _BACKBONE + "conv1.weight"
        weights = {**weights, first: weights[first].flip(1)}
    if not any(n.startswith(_DEPTH) for n in weights):
        weights = {
            _DEPTH + n.removeprefix(_BEVDET_DEPTH) if n.startswith(_BEVDET_DEPTH) else n: v
            for n, v in weights.items()
        }
    own = network.state_dict()
    if network.variant.recurrent and not any(n.startswith(_DEPTH_LAYERS) for n in weights):
        last = {n: v for n, v in weights.items() if n.startswith(_DEPTH_LAYER)}
        others = {n: v for n, v in weights.items() if n not in last}
        named = {n.replace(_DEPTH_LAYER, to): v for n, v in last.items() for to in _DEPTH_LAYERS}
        weights = others | named
    fitting = {n: v for n, v in weights.items() if n in own and v.shape == own[n].shape}
    if not fitting:
        raise CheckpointError(
            f"no tensor fits {network.variant.name}; the file has {some(tuple(weights))}"
        )
    network.load_state_dict({**own, **fitting})
    parts = dict.fromkeys(name.partition(".")[0] for name in own)
    return StartReport(
        {
            part: (
                sum(n.startswith(f"{part}.") for n in fitting),
                sum(n.startswith(f"{part}.") for n in own),
            )
            for part in parts
        },
        tuple(n for n in weights if n in own and n not in fitting),
        tuple(n for n in weights if n not in own),
        flipped,
    )


def freeze(network: nn.Module, names: Sequence[str]) -> list[nn.Module]:
    """The parts of these names, whose parameters learn no more.

    Raises:
        ParameterError: there is no such part, or nothing is left to train.
    """
    parts = dict(network.named_modules())
    unknown = [n for n in names if n not in parts]
    if unknown:
        known = ", ".join(name for name, _ in network.named_children())
        raise ParameterError(
            f"frozen: the network has no {', '.join(unknown)}; its parts are {known}, and theirs "
            "(depth_net.depth_conv)"
        )
    frozen = [parts[n].requires_grad_(False) for n in names]
    if not any(p.requires_grad for p in network.parameters()):
        raise ParameterError("frozen: every part is, so there is nothing to train")
    return frozen
