# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Ways to run a network: one protocol, one function that knows their names."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor

from alocc_ros.errors import DeviceError
from alocc_ros.network.model import Alocc, Measured, Output, RigConstants
from alocc_ros.network.plan import FramePlan, PlanTensors
from alocc_ros.runtime.prepare import pack_for_cpu, prepare
from alocc_ros.runtime.reference import with_reference_operators
from alocc_ros.runtime.state import StreamState

# "eager": prepared weights and the fastest operators of the device, one call after the other.
# "reference": the network as trained, every operator in its obvious form.
BACKENDS = ("eager", "reference")
_FORMER_NAMES = {"twin": "reference"}


class Runner(Protocol):
    """A network on a device; streams bring their own state.

    Attributes:
        device: where it runs; images are to lie there.
        core: the network that runs.
    """

    device: torch.device
    core: Alocc

    def new_state(self, samples: int = 1, cameras: int = 6) -> StreamState:
        """Buffers of a stream (or of several that step together)."""
        ...

    def step(
        self,
        images: Tensor,  # [B * N, 3, H, W] on the runner's device
        plan: FramePlan,
        state: StreamState,
        measured: Measured | None = None,
    ) -> Output:
        """One frame. If it raises, the state is as it was."""
        ...


class EagerRunner:
    """Calls the network; the definition of what every other runner does."""

    def __init__(self, core: Alocc) -> None:
        self.core = core
        self.device = core.device

    def new_state(self, samples: int = 1, cameras: int = 6) -> StreamState:
        """See ``Runner``."""
        return StreamState(self.core, samples, cameras)

    def step(
        self,
        images: Tensor,
        plan: FramePlan,
        state: StreamState,
        measured: Measured | None = None,
    ) -> Output:
        """See ``Runner``."""
        tensors = plan.tensors(self.device)
        with inference():
            output, _ = self.core(
                images,
                tensors,
                state.reading(plan),
                state.writing(plan),
                plan.keyframe,
                self._rig(plan, tensors, state),
                measured,
            )
        state.advance(plan)
        return output

    def _rig(self, plan: FramePlan, tensors: PlanTensors, state: StreamState) -> RigConstants:
        if state.rig is None or not torch.equal(state.rig[0], plan.rig):
            constants = self.core.calibrate(tensors, nodes=self.device.type != "cpu")
            state.rig = plan.rig, constants
        return state.rig[1]


def make_runner(network: Alocc, backend: str = "eager") -> Runner:
    """The runner of that name for a network, on the device where its weights lie.

    Raises:
        DeviceError: there is no such backend.
    """
    backend = check_backend(backend)
    if backend == "reference":
        return EagerRunner(with_reference_operators(network))
    core = prepare(network)
    if core.device.type == "cpu":
        core = pack_for_cpu(core)
    return EagerRunner(core)


def check_backend(backend: str) -> str:
    """The name as it is now.

    Raises:
        DeviceError: there is no such backend.
    """
    backend = _FORMER_NAMES.get(backend, backend)
    if backend not in BACKENDS:
        raise DeviceError(f"unknown backend {backend!r}; there are {', '.join(BACKENDS)}")
    return backend


@contextlib.contextmanager
def inference() -> Iterator[None]:
    """No gradients, and float32 that is float32 (no TF32)."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    try:
        with torch.no_grad():
            yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before
