# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""A network whose dense segments are engines; the operators of this package run between them.

What the modules here return are the engines' own buffers, which the next call overwrites. They
allocate nothing and wait for nothing, so that a whole frame can be captured as one CUDA graph.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn

from alocc_ros.errors import DeviceError
from alocc_ros.network.depth import DepthNet, DepthPrediction, Gates
from alocc_ros.network.heads import Classified
from alocc_ros.network.model import Alocc
from alocc_ros.runtime.cache import Cache, hardware, package_version, software, weights_digest
from alocc_ros.runtime.export import OPSET, Segment, segments, to_onnx
from alocc_ros.runtime.precision import dtype_of
from alocc_ros.runtime.prepare import pack_for_gpu
from alocc_ros.runtime.quantisation import TENSORRT, Quantisation, Ranges
from alocc_ros.runtime.tensorrt import Toolkit, find_toolkit

log = logging.getLogger(__name__)


class Engine(Protocol):
    """Computes a segment, between buffers that stay where they are.

    Attributes:
        inputs, outputs: contiguous buffers by name; inputs that do not matter may be missing.
    """

    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]

    def __call__(self) -> None:
        """Reads the inputs, writes the outputs, in the order of torch's current stream."""
        ...


# Makes a segment's engine, which may take the buffers as inputs of their names; None: the segment
# stays as it is.
EngineFor = Callable[[Segment, Mapping[str, Tensor]], Engine | None]


def tensorrt_core(
    prepared: Alocc,
    identity: str,
    precision: str,
    device: torch.device,
    cameras: int = 6,
    cache: Cache | None = None,
    ranges: Ranges | None = None,
) -> Alocc:
    """``pack_for_gpu`` with engines of TensorRT for one sample, built or out of the cache.

    Args:
        prepared: as ``prepare`` made it, on that device.
        identity: ``identity_of`` the network that it was made of.
        precision: of engines and of all else; as ``check_precision`` returned it.
        device: the GPU.
        cameras: of the rig.
        cache: where engines are kept; None: this user's.
        ranges: of these weights' activations: the image segment is in int8.

    Raises:
        DeviceError: there is no TensorRT, no such GPU, or an engine cannot be built or loaded.
        ParameterError: what writes ONNX is missing.
    """
    toolkit = find_toolkit()
    target = toolkit.target_of(device)
    cache = cache or Cache()

    def engine_for(segment: Segment, shared: Mapping[str, Tensor]) -> Engine | None:
        if not segment.dense:
            return None
        with torch.cuda.device(device):  # TensorRT builds for the current one
            _, data = built(segment, identity, toolkit, target, hardware(device), cache)
            return toolkit.load(data, device, shared)

    quantisation = None if ranges is None else Quantisation(ranges, TENSORRT)
    return pack_for_tensorrt(prepared, engine_for, cameras, precision, quantisation)


def identity_of(network: Alocc) -> str:
    """Under which what is built of a network is kept: the network as it was loaded.

    Prepared on a GPU it may differ in the last bit from what ``alocc export --build-only`` prepared
    on a CPU.
    """
    return hashlib.sha256(f"{network.variant}\n{weights_digest(network)}".encode()).hexdigest()


def graph_of(
    segment: Segment, identity: str, cache: Cache, make: Callable[[], bytes] | None = None
) -> bytes:
    """A segment as ONNX, out of the cache if it is there.

    Args:
        segment: of a network.
        identity: ``identity_of`` that network.
        cache: where to look, and to keep.
        make: does the same as ``to_onnx(segment)``.

    Raises:
        DeviceError, ParameterError: see ``to_onnx``.
    """
    exporters = {name: package_version(name) for name in ("onnx", "onnxscript")}
    if segment.quantisation is not None:
        exporters["onnxruntime"] = package_version("onnxruntime")
    key = software() | _about(segment) | exporters | {"network": identity, "opset": str(OPSET)}
    return cache.get_or_make("onnx", key, make or partial(to_onnx, segment))


def built(
    segment: Segment,
    identity: str,
    toolkit: Toolkit,
    target: str,
    where: Mapping[str, str],
    cache: Cache,
) -> tuple[bytes, bytes]:
    """A segment as ONNX and as engine, both out of the cache if they are there.

    Args:
        segment: of a network.
        identity: ``identity_of`` that network.
        toolkit: what builds.
        target: compute capability, e.g. SM89.
        where: what ``hardware`` says of the GPU; empty for one that is not here.
        cache: where to look, and to keep.

    Raises:
        DeviceError: the engine cannot be built.
        ParameterError: the packages that write ONNX are missing.
    """
    graph, here = graph_of(segment, identity, cache), software()
    # The graph says all that our own code decides.
    engine_key = {name: here[name] for name in ("torch", "cuda", "triton", "machine")}
    engine_key |= _about(segment) | dict(where) | {"target": target, toolkit.name: toolkit.version}
    engine_key["graph"] = hashlib.sha256(graph).hexdigest()

    def make() -> bytes:
        start = time.perf_counter()
        data = toolkit.build(graph, target, tf32=segment.precision == "tf32")
        seconds = time.perf_counter() - start
        log.info("%s built %s for %s in %.1f s", toolkit, segment.name, target, seconds)
        return data

    return graph, cache.get_or_make("engine", engine_key, make)


def _about(segment: Segment) -> dict[str, str]:
    """What a segment is, as key."""
    shapes, how = json.dumps(segment.inputs), segment.quantisation
    about = {"segment": segment.name, "precision": segment.precision, "shapes": shapes}
    if how is not None:
        about |= {"int8": how.target.name, "calibration": how.ranges.digest}
    return about


def pack_for_tensorrt(
    core: Alocc,
    engine_for: EngineFor,
    cameras: int = 6,
    precision: str = "fp16",
    quantisation: Quantisation | None = None,
) -> Alocc:
    """``pack_for_gpu``, with engines for the segments that have one, for one sample."""
    dtype = dtype_of(precision)
    packed = pack_for_gpu(core, dtype)
    outputs: dict[str, Tensor] = {}  # of the engines so far: later ones read them where they lie
    calls: dict[str, _Call] = {}
    for segment in segments(core, cameras, precision, quantisation):
        engine = engine_for(segment, outputs)
        if engine is not None:
            calls[segment.name] = _Call(segment, engine, dtype)
            outputs |= engine.outputs
    if "image" in calls:
        packed.img_backbone, packed.img_neck = _Backbone(calls["image"]), PassedNeck()
    if "depth" in calls:
        packed.depth_net = _Depth(calls["depth"], packed.depth_net)
    if "volume" in calls:
        packed.pre_process = _Single(calls["volume"])
    if "encode" in calls:
        packed.img_bev_encoder_backbone = nn.Identity()
        packed.img_bev_encoder_neck = nn.Identity()
        packed.classify = _Encode(calls["encode"])
        if packed.variant.flow:
            packed.flow_map = _Made(calls["encode"], "flow_map")
    if "cost" in calls:
        packed.flow_cost = _Single(calls["cost"])
    if "flow" in calls:
        # The engine begins with the cost; the match passes where the cost did.
        packed.flow_cost, packed.flow_head = nn.Identity(), _Flow(calls["flow"])
    return packed


class _Call(nn.Module):
    """An engine as a function of tensors."""

    def __init__(self, segment: Segment, engine: Engine, dtype: torch.dtype) -> None:
        super().__init__()
        self._segment, self._engine, self._dtype = segment, engine, dtype

    def forward(self, *values: Tensor | None) -> dict[str, Tensor]:
        given = [v for v in values if v is not None]
        for (name, shape), value in zip(self._segment.inputs.items(), given, strict=True):
            if tuple(value.shape) != shape:
                raise DeviceError(
                    f"the engine {self._segment.name} was built for {name} {list(shape)}, "
                    f"not {list(value.shape)}: engines have one sample and a fixed rig"
                )
            buffer = self._engine.inputs.get(name)
            if buffer is not None and not _same(buffer, value):
                buffer.copy_(value)
        self._engine()
        return {name: self.output(name) for name in self._segment.outputs}

    def output(self, name: str) -> Tensor:
        """What the last call made, in the network's type."""
        made = self._engine.outputs[name]
        return made.to(self._dtype) if made.is_floating_point() else made


class _Backbone(nn.Module):
    def __init__(self, call: _Call) -> None:
        super().__init__()
        self.call = call

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The stereo feature, and for both levels what the neck makes of them."""
        made = self.call(images)
        return made["c2"], made["feature"], made["feature"]


class PassedNeck(nn.Module):
    """In the place of a neck whose feature the backbone has made already."""

    def forward(self, feature: Tensor, same: Tensor) -> Tensor:
        return feature


class _Depth(nn.Module):
    # What the engine does not have: gates, and layers that recurrent fusion calls.
    _KEPT = ("gates", "gate_net", "depth_his_fusion_post_layer")

    def __init__(self, call: _Call, depth_net: DepthNet) -> None:
        super().__init__()
        self.call = call
        for name, child in depth_net.named_children():
            if name in self._KEPT:
                self.add_module(name, child)

    def forward(self, feature: Tensor, gates: Gates, cost: Tensor | None) -> DepthPrediction:
        made = self.call(feature, *gates, cost)
        return DepthPrediction(**{"side_weight": None, "side_offset": None} | made)


class _Single(nn.Module):
    def __init__(self, call: _Call) -> None:
        super().__init__()
        self.call = call

    def forward(self, x: Tensor) -> Tensor:
        (made,) = self.call(x).values()
        return made


class _Encode(nn.Module):
    def __init__(self, call: _Call) -> None:
        super().__init__()
        self.call = call

    def forward(self, volume: Tensor) -> Classified:
        made = self.call(volume)
        return Classified(made["logits"], made.get("voxels"))


class _Made(nn.Module):
    """What an engine has already made beside the argument."""

    def __init__(self, call: _Call, name: str) -> None:
        super().__init__()
        self.call, self._name = call, name

    def forward(self, voxels: Tensor, out: Tensor | None = None) -> Tensor:
        return self.call.output(self._name)


class _Flow(nn.Module):
    def __init__(self, call: _Call) -> None:
        super().__init__()
        self.call = call

    def forward(self, match: Tensor, voxels: Tensor, labels: Tensor) -> tuple[Tensor, None]:
        return self.call(match, voxels, labels)["flow"], None


def _same(buffer: Tensor, value: Tensor) -> bool:
    """Whether a value already lies in the buffer."""
    return (
        value.data_ptr() == buffer.data_ptr()
        and value.dtype == buffer.dtype
        and value.stride() == buffer.stride()
    )
