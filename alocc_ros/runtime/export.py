# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""The dense segments of a prepared network as modules of their own, for ONNX and what reads it.

Between them lie the operators of this package (stereo, lifting, temporal fusion, matching), which
no exchange format has. The whole core can be exported too, with ``torch.export``: it is one graph
of tensors with static shapes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from alocc_ros.network.depth import Gates
from alocc_ros.network.model import Alocc
from alocc_ros.ops.library import general_form
from alocc_ros.runtime.prepare import shallow_copy

_OPSET = 18


@dataclass(frozen=True)
class Segment:
    """A part of a network that consists of torch's own operators.

    Attributes:
        name: image, depth, volume, encode or flow.
        module: takes and returns tensors.
        inputs: names and shapes of what it takes, float32 (labels: uint8).
        outputs: names of what it returns.
    """

    name: str
    module: nn.Module
    inputs: dict[str, tuple[int, ...]]
    outputs: tuple[str, ...]

    def example(self, device: torch.device | str = "cpu") -> tuple[Tensor, ...]:
        """Inputs of the right shapes: uniform noise in [0, 1), labels 0."""
        return tuple(
            torch.zeros(shape, dtype=torch.uint8, device=device)
            if name == "labels"
            else torch.rand(shape, device=device)
            for name, shape in self.inputs.items()
        )


class _Image(nn.Module):
    def __init__(self, core: Alocc) -> None:
        super().__init__()
        self.backbone, self.neck = core.img_backbone, core.img_neck

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        c2, c4, c5 = self.backbone(images)
        return c2, self.neck(c4, c5)


class _Depth(nn.Module):
    def __init__(self, core: Alocc) -> None:
        super().__init__()
        self.depth_net = core.depth_net

    def forward(
        self, feature: Tensor, depth_gate: Tensor, context_gate: Tensor, cost: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        prediction = self.depth_net(feature, Gates(depth_gate, context_gate), cost)
        return tuple(t for t in prediction if t is not None)


class _Encode(nn.Module):
    def __init__(self, core: Alocc) -> None:
        super().__init__()
        self.encoder, self.neck = core.img_bev_encoder_backbone, core.img_bev_encoder_neck
        self.classify, self.flow_map = core.classify, getattr(core, "flow_map", None)

    def forward(self, volume: Tensor) -> tuple[Tensor, ...]:
        logits, voxels = self.classify(self.neck(self.encoder(volume)))
        return (logits,) if self.flow_map is None else (logits, voxels, self.flow_map(voxels))


class _Flow(nn.Module):
    def __init__(self, core: Alocc) -> None:
        super().__init__()
        self.cost, self.head = core.flow_cost, core.flow_head

    def forward(self, match: Tensor, voxels: Tensor, labels: Tensor) -> Tensor:
        return self.head(self.cost(match), voxels, labels)[0]


def with_general_operators(core: Alocc) -> Alocc:
    """The network with the general form of every operator: torch's own operators only."""
    general = shallow_copy(core)
    for module in general.modules():
        if (operator := getattr(module, "operator", None)) is not None:
            module.operator = general_form(operator)
    return general


def segments(core: Alocc, cameras: int = 6) -> list[Segment]:
    """The segments of a prepared network in the order in which they run."""
    core, v = with_general_operators(core), core.variant
    (height, width), (rows, columns) = v.input_size, v.feature_size
    x, y, z = v.lift_cells
    mid = v.image_channels
    gate = (cameras, mid, 1, 1)
    depth = {"feature": (cameras, mid, rows, columns), "depth_gate": gate, "context_gate": gate}
    if v.stereo:
        depth["cost"] = (cameras, v.depth_bins, height // 4, width // 4)
    more = ("side_weight", "side_offset") if v.inter_object else ()
    more += ("history",) if v.recurrent else ()
    cells = (y, x, z) if v.volumetric else (y, x)
    volume = {"volume": (1, v.context_channels, *cells)}
    encoded = ("logits", "voxels", "flow_map") if v.flow else ("logits",)
    found = [
        Segment("image", _Image(core), {"images": (cameras, 3, height, width)}, ("c2", "feature")),
        Segment("depth", _Depth(core), depth, ("depth", "fill", "context", *more)),
    ]
    if v.pre_process:
        found.append(Segment("volume", core.pre_process, volume, ("volume_out",)))
    found.append(Segment("encode", _Encode(core), volume, encoded))
    if v.flow:
        x, y, z = v.grid.shape
        inputs = {
            "match": (1, core.flow_match.taps, y // 2, x // 2),
            "voxels": (1, v.voxel_channels, y, x, z),
            "labels": (1, y, x, z),
        }
        found.append(Segment("flow", _Flow(core), inputs, ("flow",)))
    return found


@torch.no_grad()
def export_onnx(segment: Segment, path: str | Path) -> None:
    """Write a segment as ONNX. Needs the packages onnx and onnxscript."""
    torch.onnx.export(
        segment.module.eval(),
        segment.example(),
        str(path),
        input_names=list(segment.inputs),
        output_names=list(segment.outputs),
        opset_version=_OPSET,
        dynamo=True,
        verbose=False,
    )
