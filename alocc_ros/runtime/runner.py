# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Ways to run a network: one protocol, one function that knows their names."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from alocc_ros.errors import DeviceError
from alocc_ros.network.model import Alocc, Measured, Output, RigConstants, Seen
from alocc_ros.network.plan import FramePlan, PlanTensors
from alocc_ros.runtime.graph import GraphRunner
from alocc_ros.runtime.precision import beside_int8, check_precision, dtype_of, inference
from alocc_ros.runtime.prepare import cast, pack_for_cpu, pack_for_gpu, prepare
from alocc_ros.runtime.reference import with_reference_operators
from alocc_ros.runtime.state import StreamState

# "auto": graph where there is a GPU and Triton, else eager.
# "eager": prepared weights and the fastest operators of the device, one call after the other.
# "reference": the network as trained, every operator in its obvious form.
# "compiled": torch.compile of the whole network, without kernels of ours.
# "graph": our kernels and cuDNN's, a frame as one CUDA graph.
# "tensorrt": the same with TensorRT engines in the place of the convolutions.
# "emulated": what the graph runs, its buffers and its precision, called on a CPU: slow, to see what
# half precision does.
BACKENDS = ("auto", "eager", "reference", "compiled", "graph", "tensorrt", "emulated")
_FORMER_NAMES = {"twin": "reference"}


class Runner(Protocol):
    """A network on a device; streams bring their own state.

    Attributes:
        device: where it runs; images are to lie there.
        core: the network that runs.
        backend, precision: what it is.
        reason: why it is not what was asked for, one line; "" if it is.
        sees: whether there is ``see``.
        recalls: whether there is ``recall``.
        concurrent: whether streams may step at the same time, each in a thread and with a state of
            its own.
    """

    device: torch.device
    core: Alocc
    backend: str
    precision: str
    reason: str
    sees: bool
    recalls: bool
    concurrent: bool

    def new_state(self, samples: int = 1, cameras: int = 6, early: bool = False) -> StreamState:
        """Buffers of a stream (or of several that step together); ``early``: it will ``see`` and
        ``recall`` what it can.
        """
        ...

    def see(self, image: Tensor, state: StreamState, camera: int, key: object) -> None:
        """Does for one image, ahead of its frame, all that needs no other.

        Args:
            image: [1, 3, H, W] on the runner's device.
            state: keeps the features until the next image of that camera.
            camera: of the N.
            key: the image's own; a frame that is to use the features must name it.
        """
        ...

    def recall(self, plan: FramePlan, state: StreamState) -> None:
        """Sums up what is remembered, ahead of the frame's images.

        Args:
            plan: of the frame; of it motion, ages and ``keyframe`` count. A frame whose own plan
                has others, or that finds the state changed, makes its sum itself.
            state: of the stream; keeps the sum for the next frame.

        Raises:
            TemporalMemoryError: the frame has no past, or the state not what the plan looks at.
            DeviceError: the runner has no such sum.
        """
        ...

    def step(
        self,
        images: Tensor,  # [B * N, 3, H, W] on the runner's device, without those of ``seen``
        plan: FramePlan,
        state: StreamState,
        measured: Measured | None = None,
        seen: Mapping[int, object] | None = None,
    ) -> Output:
        """One frame. If it raises, the state is as it was.

        Args:
            images: in the order of the cameras.
            plan: of the frame.
            state: of the stream.
            measured: LiDAR depth.
            seen: by camera, the key of the image that ``see`` was given of it; there are no
                ``images`` of these cameras.

        Raises:
            TemporalMemoryError: the state has not what the plan looks at, or another image's
                features than ``seen`` says.
        """
        ...


class EagerRunner:
    """Calls the network; the definition of what every other runner does."""

    def __init__(
        self, core: Alocc, backend: str = "eager", precision: str = "fp32", reason: str = ""
    ) -> None:
        self.core, self.device = core, core.device
        self.backend, self.precision, self.reason = backend, precision, reason
        # In int8 the image network is a graph for all cameras at once.
        self.sees, self.concurrent = precision != "int8", True
        self.recalls = core.fusion.recalls

    def new_state(self, samples: int = 1, cameras: int = 6, early: bool = False) -> StreamState:
        """See ``Runner``."""
        return StreamState(self.core, samples, cameras)

    def see(self, image: Tensor, state: StreamState, camera: int, key: object) -> None:
        """See ``Runner``."""
        if not self.sees:
            raise DeviceError(f"{self.backend} in {self.precision} sees all images at once")
        state.mark_seen(camera, None)
        with inference(self.precision):
            state.store_seen([camera], self.core.see(image.to(self.core.dtype)))
        state.mark_seen(camera, key)

    def recall(self, plan: FramePlan, state: StreamState) -> None:
        """See ``Runner``."""
        if not self.recalls:
            raise DeviceError(f"{self.backend} in {self.precision} has no sum to make ahead")
        reading, out, tensors = (
            state.look_back(plan),
            state.writing(plan),
            plan.tensors(self.device),
        )
        with inference(self.precision):
            state.store_recalled(self.core.fusion.recall(reading, tensors, out, plan.keyframe))
        state.recalled_of = state.sum_key(plan)

    def step(
        self,
        images: Tensor,
        plan: FramePlan,
        state: StreamState,
        measured: Measured | None = None,
        seen: Mapping[int, object] | None = None,
    ) -> Output:
        """See ``Runner``."""
        tensors, recalled = plan.tensors(self.device), state.take_recalled(plan, self.recalls)
        with inference(self.precision):
            output, _ = self.core(
                self._looked_at(images.to(self.core.dtype), state, seen or {}),
                tensors,
                state.reading(plan),
                state.writing(plan),
                plan.keyframe,
                self._rig(plan, tensors, state),
                measured,
                recalled,
            )
        state.advance(plan)
        return output

    def _looked_at(
        self, images: Tensor, state: StreamState, seen: Mapping[int, object]
    ) -> Tensor | Seen:
        if not seen:
            return images
        others = state.unseen(seen, len(images))
        if others:
            state.store_seen(others, self.core.see(images))
        return state.seen

    def _rig(self, plan: FramePlan, tensors: PlanTensors, state: StreamState) -> RigConstants:
        if state.rig is None or not torch.equal(state.rig[0], plan.rig):
            constants = self.core.calibrate(tensors, nodes=self.device.type != "cpu")
            state.rig = plan.rig, constants
        return state.rig[1]


class CompiledRunner(EagerRunner):
    """The same through torch.compile, as one graph for each kind of frame."""

    def __init__(self, core: Alocc, precision: str = "fp32") -> None:
        super().__init__(core, "compiled", precision)
        self.sees = self.recalls = self.concurrent = False
        self._state_of = core  # states are the network's, compiled or not
        self.core = torch.compile(core, fullgraph=True, dynamic=False)

    def new_state(self, samples: int = 1, cameras: int = 6, early: bool = False) -> StreamState:
        """See ``Runner``."""
        return StreamState(self._state_of, samples, cameras)


class Choice(NamedTuple):
    """What a backend and a precision mean on a device.

    Attributes:
        backend, precision: never ``auto``.
        reason: why it is not the fastest way; "" if it is, or was asked for.
    """

    backend: str
    precision: str
    reason: str


def choose(backend: str, precision: str, device: torch.device) -> Choice:
    """``auto`` takes what there is; what was asked for by its name is an error where it cannot be.

    Raises:
        DeviceError: no such backend or precision, or not here.
    """
    backend, reason = check_backend(backend), ""
    if backend == "auto":
        reason = why_no_graph(device)
        backend = "eager" if reason else "graph"
        reason = reason if device.type == "cuda" else ""
    elif backend in ("graph", "tensorrt") and (problem := why_no_graph(device)):
        raise DeviceError(f"backend {backend}: {problem}; use auto or eager")
    elif backend == "emulated" and device.type != "cpu":
        raise DeviceError("backend emulated: it is for a CPU; a GPU runs graph itself")
    return Choice(backend, check_precision(precision, backend, device), reason)


def make_runner(network: Alocc, backend: str = "auto", precision: str = "auto") -> Runner:
    """The runner of that name for a network, on the device where its weights lie.

    Raises:
        DeviceError: see ``choose``; an engine cannot be built.
    """
    device = network.device
    backend, precision, reason = choose(backend, precision, device)
    if backend == "reference":
        return EagerRunner(with_reference_operators(network), backend)
    core, rest = prepare(network), beside_int8(precision, backend)
    dtype, ranges = dtype_of(rest), None
    if precision == "int8":
        from alocc_ros.runtime.calibration import find_ranges  # what few need, and slow to import

        ranges = find_ranges(network)
    if backend in ("graph", "emulated"):
        return GraphRunner(pack_for_gpu(core, dtype), cast(core, dtype), precision, backend)
    if backend == "tensorrt":
        from alocc_ros.runtime.engines import identity_of, tensorrt_core  # likewise

        packed = tensorrt_core(core, identity_of(network), rest, device, ranges=ranges)
        return GraphRunner(packed, cast(core, dtype), precision, backend)
    if ranges is not None:
        from alocc_ros.runtime.engines import identity_of  # likewise
        from alocc_ros.runtime.int8 import int8_core

        return EagerRunner(int8_core(core, identity_of(network), ranges), backend, precision)
    if device.type == "cpu" and backend == "eager":
        return EagerRunner(pack_for_cpu(core, dtype), backend, precision)
    core = cast(core, dtype)
    if backend == "compiled":
        return CompiledRunner(core, precision)
    return EagerRunner(core, backend, precision, reason)


def why_no_graph(device: torch.device) -> str:
    """Why our kernels cannot run on a device; "" if they can."""
    if device.type != "cuda":
        return "it needs a CUDA device"
    if importlib.util.find_spec("triton") is None:
        return "it needs Triton (pip install triton)"
    return ""


def check_backend(backend: str) -> str:
    """The name as it is now.

    Raises:
        DeviceError: there is no such backend.
    """
    backend = _FORMER_NAMES.get(backend, backend)
    if backend not in BACKENDS:
        raise DeviceError(f"unknown backend {backend!r}; there are {', '.join(BACKENDS)}")
    return backend
