# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Prepared networks as ONNX: their dense segments one by one, or a whole step.

Between the segments lie the operators of this package (stereo, lifting, temporal fusion, matching),
which no exchange format has: what reads segments (TensorRT, see ``engines.py``) leaves them where
they are. A whole step has their general forms, which are torch's own operators.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from alocc_ros.errors import ParameterError
from alocc_ros.network.depth import Gates
from alocc_ros.network.model import Alocc
from alocc_ros.network.plan import packed_size, unpack
from alocc_ros.network.state import State
from alocc_ros.ops.library import general_form
from alocc_ros.runtime.precision import dtype_of
from alocc_ros.runtime.prepare import shallow_copy
from alocc_ros.runtime.quantisation import Quantisation, quantised

OPSET = 18


@dataclass(frozen=True)
class Segment:
    """A part of a network that consists of torch's own operators.

    Attributes:
        name: image, depth, volume, encode, cost or flow.
        module: takes and returns tensors.
        inputs: names and shapes of what it takes, in the order in which the module does.
        outputs: names of what it returns.
        precision: of the weights, and of inputs and outputs (labels: uint8).
        dense: False if it makes a list of some voxels, which TensorRT cannot parse.
        quantisation: how its convolutions become int8, in ONNX only: the module is float32.
    """

    name: str
    module: nn.Module
    inputs: dict[str, tuple[int, ...]]
    outputs: tuple[str, ...]
    precision: str = "fp32"
    dense: bool = True
    quantisation: Quantisation | None = None

    def example(self, device: torch.device | str = "cpu") -> tuple[Tensor, ...]:
        """Inputs of the right shapes and types: uniform noise in [0, 1), labels 0."""
        return tuple(
            torch.zeros(shape, dtype=torch.uint8, device=device)
            if name == "labels"
            else torch.rand(shape, device=device).to(dtype_of(self.precision))
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
        logits, voxels, _ = self.classify(self.neck(self.encoder(volume)))
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


def segments(
    core: Alocc,
    cameras: int = 6,
    precision: str = "fp32",
    quantisation: Quantisation | None = None,
) -> list[Segment]:
    """The segments of a prepared network in the order in which they run: one sample, on the CPU.

    With ``quantisation`` the image segment, most of the convolutions, is in int8 as ONNX.
    """
    # On the CPU wherever the network is: a graph is no affair of a device.
    general = with_general_operators(core)
    seeing = general if quantisation is None else shallow_copy(general).to("cpu")
    core = general.to("cpu", dtype_of(precision))
    v = core.variant
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
    images = {"images": (cameras, 3, height, width)}
    found = [
        Segment(
            "image", _Image(seeing), images, ("c2", "feature"), precision, quantisation=quantisation
        ),
        Segment("depth", _Depth(core), depth, ("depth", "fill", "context", *more), precision),
    ]
    if v.pre_process:
        found.append(Segment("volume", core.pre_process, volume, ("volume_out",), precision))
    found.append(Segment("encode", _Encode(core), volume, encoded, precision))
    if v.flow:
        x, y, z = v.grid.shape
        match = {"match": (1, core.flow_match.taps, y // 2, x // 2)}
        voxels = {"voxels": (1, v.voxel_channels, y, x, z), "labels": (1, y, x, z)}
        if v.flow_everywhere:
            found.append(Segment("flow", _Flow(core), match | voxels, ("flow",), precision))
        else:
            cost = {"cost": (1, len(core.alocc_head.cost_volum_net[0].bias), y, x)}
            found.append(Segment("cost", core.flow_cost, match, ("cost",), precision))
            inputs, answers = cost | voxels, ("flow", "overflow")
            found.append(Segment("flow", core.flow_head, inputs, answers, precision, dense=False))
    return found


class Step(nn.Module):
    """A whole key frame of one sample, all that a stream needs but the planning on the host.

    Attributes:
        inputs: names of what it takes: images, the packed plan (``FramePlan.packed``), and unless
            it is the first frame the parts of the state that the network has (``state_...``).
        outputs: names of what it returns: labels, logits, flow and its overflow where there are
            any, and the parts of the next frame's state (``next_...``).
    """

    def __init__(self, core: Alocc, cameras: int = 6, first: bool = False) -> None:
        super().__init__()
        self.core = with_general_operators(core).cpu()
        self._cameras, self._slots = cameras, core.variant.history
        self._parts = [
            n for n, t in core.empty_state(1, cameras)._asdict().items() if t is not None
        ]
        state = [] if first else [f"state_{name}" for name in self._parts]
        self.inputs = ("images", "plan", *state)
        flow, everywhere = core.variant.flow, core.variant.flow_everywhere
        answers = ("labels", "logits", *(("flow",) if flow else ()))
        answers += () if everywhere else ("flow_overflow",)
        self.outputs = (*answers, *(f"next_{name}" for name in self._parts))

    def forward(self, images: Tensor, plan: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        parts = dict(zip(self._parts, state, strict=True)) if state else None
        held = None if parts is None else State(**parts)
        output, after = self.core(images, unpack(plan, self._cameras, 1, self._slots), held)
        return tuple(t for t in (*output, *after) if t is not None)

    def example(self) -> tuple[Tensor, ...]:
        """Inputs of the right shapes: images and state of noise, a plan of zeros."""
        v, cameras = self.core.variant, self._cameras
        images = torch.rand(cameras, 3, *v.input_size)
        plan = torch.zeros(packed_size(cameras, 1, self._slots), dtype=torch.float64)
        held = self.core.empty_state(1, cameras)
        state = [torch.rand_like(t) for t in held if t is not None] if len(self.inputs) > 2 else []
        return (images, plan, *state)


def to_onnx(part: Segment | Step) -> bytes:
    """A segment or a whole step as one ONNX file with its weights.

    The same network gives the same bytes: neither this machine's paths nor the time are in it.

    Raises:
        ParameterError: the packages onnx and onnxscript are missing, or onnxruntime for int8.
        DeviceError: the ranges for int8 are of another form of the network.
    """
    if isinstance(part, Segment) and part.quantisation is not None:
        plain = replace(part, precision="fp32", quantisation=None)
        return quantised(to_onnx(plain), part.quantisation)
    for package in ("onnx", "onnxscript"):
        if find_spec(package) is None:
            raise ParameterError(f"the package {package} is missing: pip install alocc_ros[export]")
    module = part.module if isinstance(part, Segment) else part
    with torch.no_grad(), _quiet():
        program = torch.onnx.export(
            module.eval(),
            part.example(),
            input_names=list(part.inputs),
            output_names=list(part.outputs),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    proto = program.model_proto
    _strip(proto.graph)
    for function in proto.functions:
        _strip(function)
    return proto.SerializeToString(deterministic=True)


def _strip(graph: Any) -> None:  # onnx.GraphProto or FunctionProto
    """Removes what the exporter notes for its developers: lines of code with their paths."""
    graph.ClearField("doc_string")
    del graph.metadata_props[:]
    for node in graph.node:
        node.ClearField("doc_string")
        del node.metadata_props[:]
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _strip(attribute.g)
    for value in (*graph.value_info, *getattr(graph, "input", ()), *getattr(graph, "output", ())):
        if hasattr(value, "metadata_props"):  # those of a function are names
            del value.metadata_props[:]
            value.ClearField("doc_string")
    for tensor in getattr(graph, "initializer", ()):
        del tensor.metadata_props[:]
        tensor.ClearField("doc_string")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter and its optimizer warn of what is their own affair."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
