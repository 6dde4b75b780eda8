# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""A frame as one CUDA graph.

A graph reads and writes the addresses that it was captured with. So a stream has buffers that stay
where they are: the images, the packed plan, the features of the reference frame on the way in and
those of this frame on the way out. Of what key frames renew there are two copies, one read and one
written, so there is one graph for each kind of frame and each of the two. All are captured before
the first frame (kernels are compiled and convolutions tuned while that is done), share one pool of
memory, which is the stream's own, and are replayed on the current CUDA stream. So streams through
one runner may run at the same time, each in a thread and on a CUDA stream of its own; states are
made, that is captured, while none of them runs.

A stream whose images are seen one by one, as they come, has a graph for each camera, and each kind
of frame a second graph that starts from what those left. It also has graphs of the sum over the
remembered volumes alone, and each kind of frame with a past another graph that starts from that.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from alocc_ros.errors import DeviceError
from alocc_ros.network.model import Alocc, Measured, Output, Seen
from alocc_ros.network.plan import FramePlan, PlanTensors, packed_size, unpack
from alocc_ros.network.state import State
from alocc_ros.network.temporal import Fusion
from alocc_ros.runtime.precision import inference
from alocc_ros.runtime.prepare import shallow_copy
from alocc_ros.runtime.state import StreamState

log = logging.getLogger(__name__)

# Runs before a capture: the first compiles, the second finds the fastest convolutions, the third
# has seen all memory that a frame wants.
_WARM_UP = 3


class Entry(NamedTuple):
    """A kind of frame that has a graph of its own.

    Attributes:
        first: the frame begins a sequence.
        keyframe: it renews the state.
        flipped: which of the two copies of the state is read.
        early: it starts from what was seen of single images.
        recalled: it starts from the sum over what is remembered.
    """

    first: bool
    keyframe: bool
    flipped: bool
    early: bool = False
    recalled: bool = False


class Sum(NamedTuple):
    """A kind of that sum; attributes as of ``Entry``."""

    keyframe: bool
    flipped: bool


@dataclass(frozen=True)
class Captured:
    """A graph, and where it leaves its answer; None: in buffers of the state."""

    replay: Callable[[], None]
    output: Output | None


class GraphState(StreamState):
    """State of one stream with buffers at fixed addresses, and the graphs that know these.

    Attributes:
        images: [B * N, 3, H, W], channels last.
        packed: [K] float64 plan on the device.
        staged: [K] the same on the host, page-locked where that means something.
        near, far: features of the reference frame, and of this frame.
        copies: of what key frames renew; one is read, the other written.
        captured: graphs by kind of frame or sum, and by camera those that see one image.
        pool: memory of the graphs, of which one at a time may run; None: there are none.
    """

    def __init__(self, network: Alocc, samples: int = 1, cameras: int = 6) -> None:
        super().__init__(network, samples, cameras)
        v, device = network.variant, network.device
        self.images = torch.zeros(
            (samples * cameras, 3, *v.input_size), dtype=network.dtype, device=device
        ).contiguous(memory_format=torch.channels_last)
        size = packed_size(cameras, samples, v.history)
        self.packed = torch.zeros(size, dtype=torch.float64, device=device)
        self.staged = torch.zeros(size, dtype=torch.float64, pin_memory=device.type == "cuda")
        self.near, self.far = (_features(*self._new_features()) for _ in range(2))
        self.copies = self._new_parts(), self._new_parts()
        for part in (*self.copies[0].values(), *self.copies[1].values()):
            part.zero_()
        self._front, self._back = self.copies
        self._copied = torch.cuda.Event() if device.type == "cuda" else None
        self.captured: dict[Entry | Sum | int, Captured] = {}
        self.pool = torch.cuda.graph_pool_handle() if device.type == "cuda" else None

    @property
    def flipped(self) -> bool:
        """Whether the second copy is the one to read."""
        return self._front is self.copies[1]

    def entry(self, plan: FramePlan, early: bool = False, recalled: bool = False) -> Entry:
        """What kind of frame a plan is of, now."""
        return Entry(plan.first, plan.keyframe, self.flipped, early, recalled)

    def arguments(self, entry: Entry) -> tuple[PlanTensors, State | None, State]:
        """What a graph of that kind reads and writes."""
        samples, slots = self.ages.shape
        plan = unpack(self.packed, len(self.images) // samples, samples, slots)
        front, back = self.copies[::-1] if entry.flipped else self.copies
        reading = None if entry.first else self.near._replace(**front)
        return plan, reading, self.far._replace(**(back if entry.keyframe else {}))

    def load_inputs(self, images: Tensor, plan: FramePlan, seen: Mapping[int, object]) -> list[int]:
        """Images, plan and reference features to where the graphs look; see ``Runner.step``.

        Returns:
            The cameras that ``images`` are of.

        Raises:
            TemporalMemoryError: there is nothing where the plan looks, or not what was ``seen``.
        """
        reading, others = self.reading(plan), self.unseen(seen, len(images))
        if seen:
            for camera, image in zip(others, images, strict=True):
                self.images[camera].copy_(image, non_blocking=True)
        else:
            self.images.copy_(images, non_blocking=True)
        self.load_plan(plan)
        if reading is not None:
            _copy_features(reading, self.near)
        return others

    def load_plan(self, plan: FramePlan) -> None:
        """The plan to where the graphs look."""
        if self._copied is not None:  # the copy before may still be reading the host's buffer
            self._copied.synchronize()
        self.staged.copy_(plan.packed)
        self.packed.copy_(self.staged, non_blocking=True)
        if self._copied is not None:
            self._copied.record()

    def store_outputs(self, plan: FramePlan) -> None:
        """Features of this frame to their slot."""
        _copy_features(self.far, self.writing(plan))

    def _replace_parts(self, tensors: dict[str, Tensor]) -> None:
        for name, tensor in tensors.items():  # where the graphs know them
            self._front[name].copy_(tensor)


class _Forked(NamedTuple):
    """A sum that is being made on the second stream; None: there is none."""

    total: Tensor | None


class _OnSecondStream(Fusion):
    """What needs no image runs beside the image network, on a stream of its own."""

    def __init__(self, fusion: Fusion, device: torch.device) -> None:
        super().__init__()
        self._fusion, self._stream = fusion, torch.cuda.Stream(device)
        self.shapes, self.form, self.recalls = fusion.shapes, fusion.form, fusion.recalls

    def recall(self, state: State | None, plan: PlanTensors, out: State, keyframe: bool) -> _Forked:
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            return _Forked(self._fusion.recall(state, plan, out, keyframe))

    def forward(self, volume: Tensor, recalled: Tensor | _Forked, *rest: Any) -> Any:
        if not isinstance(recalled, _Forked):  # made ahead, on this stream: nothing to wait for
            return self._fusion(volume, recalled, *rest)
        torch.cuda.current_stream().wait_stream(self._stream)
        total = recalled.total
        if total is not None and not torch.cuda.is_current_stream_capturing():
            # Called, not replayed, by several streams: another one's sum must not take its place.
            total.record_stream(torch.cuda.current_stream())
        return self._fusion(volume, total, *rest)


def _features(stereo: Tensor | None, flow_bev: Tensor | None) -> State:
    return State(stereo=stereo, flow_bev=flow_bev)


def _copy_features(source: State, to: State) -> None:
    for theirs, ours in ((source.stereo, to.stereo), (source.flow_bev, to.flow_bev)):
        if theirs is not None:
            ours.copy_(theirs)


class GraphRunner:
    """Replays graphs of a network that was packed for a GPU.

    Without a GPU the same buffers are used and the network is called: that shows that nothing of
    the host stands in the way of a capture.

    Attributes:
        core, device, backend, precision, sees, recalls, concurrent: see ``Runner``.
        reason: why frames are not replayed any more but called; "" while they are.
    """

    def __init__(
        self, core: Alocc, plain: Alocc, precision: str = "fp16", backend: str = "graph"
    ) -> None:
        """Takes the packed network, and the same without kernels of ours to fall back to."""
        self.core, self._plain, self.device = core, plain, core.device
        self._fusion = core.fusion
        self.backend, self.precision, self.reason = backend, precision, ""
        # Engines were built for all cameras at once, and have buffers that all streams share.
        self.sees = self.concurrent = backend != "tensorrt"
        self._captures = self.device.type == "cuda"
        if self._captures:
            self.core = shallow_copy(core)
            self.core.fusion = _OnSecondStream(core.fusion, self.device)

    @property
    def recalls(self) -> bool:
        """See ``Runner``."""
        return self._fusion.recalls and not self.reason

    def new_state(self, samples: int = 1, cameras: int = 6, early: bool = False) -> GraphState:
        """See ``Runner``. On a GPU all graphs are captured."""
        state, keys = GraphState(self.core, samples, cameras), self._kinds(early)
        ahead = [*range(samples * cameras)] if early and self.sees else []
        ahead += [key for key in keys if isinstance(key, Sum)]
        device = torch.cuda.device(self.device) if self._captures else nullcontext()
        with inference(self.precision), device:
            for key in ahead:
                self._part(state, key)()  # makes the buffers
        for key in dict.fromkeys([*keys, *ahead]) if self._captures else ():
            if self.reason:
                break
            self._capture(state, key)
        return state

    def _kinds(self, early: bool) -> list[Entry | Sum]:
        """Of the frames, and the sums ahead of them, that a stream has graphs for."""
        kinds = [(True, True), (False, True), (False, False)]
        entries = [Entry(*kind, flipped) for kind in kinds for flipped in (False, True)]
        if not early:
            return [*entries]
        if self.sees:
            entries += [entry._replace(early=True) for entry in entries]
        if not self.recalls:
            return [*entries]
        with_past = [e for e in entries if not e.first and e.early == self.sees]
        sums = [Sum(e.keyframe, e.flipped) for e in with_past]
        return [*entries, *(e._replace(recalled=True) for e in with_past), *sums]

    def see(self, image: Tensor, state: GraphState, camera: int, key: object) -> None:
        """See ``Runner``; ends the life of the last frame's answer."""
        if not self.sees:
            raise DeviceError(f"{self.backend} in {self.precision} sees all images at once")
        state.mark_seen(camera, None)
        state.images[camera].copy_(image[0], non_blocking=True)
        self._run_part(state, camera)
        state.mark_seen(camera, key)

    def recall(self, plan: FramePlan, state: GraphState) -> None:
        """See ``Runner``; ends the life of the last frame's answer."""
        if not self.recalls:
            raise DeviceError(f"{self.backend} in {self.precision} has no sum to make ahead")
        state.look_back(plan)
        state.load_plan(plan)
        self._run_part(state, Sum(plan.keyframe, state.flipped))
        state.recalled_of = state.sum_key(plan)

    def step(
        self,
        images: Tensor,
        plan: FramePlan,
        state: GraphState,
        measured: Measured | None = None,
        seen: Mapping[int, object] | None = None,
    ) -> Output:
        """See ``Runner``. The answer stays as it is until the stream's next frame, ``see`` or
        ``recall``.

        Frames with LiDAR depth are called, not replayed. Where images are seen one by one, a frame
        of which none was has no graph that starts from a sum.
        """
        wanted = self.recalls and bool(seen) == self.sees
        recalled = state.take_recalled(plan, wanted) is not None
        others = state.load_inputs(images, plan, seen or {})
        if seen:
            for camera in others:
                self._run_part(state, camera)
        entry = state.entry(plan, bool(seen), recalled)
        captured = None if measured is not None else self._graph(state, entry)
        if captured is None:
            with inference(self.precision):
                output = self.call(state, entry, measured)
        else:
            captured.replay()
            output = captured.output
        state.store_outputs(plan)
        state.advance(plan)
        return output

    def call(self, state: GraphState, entry: Entry, measured: Measured | None = None) -> Output:
        """A frame from and to the state's buffers, call by call: what a capture records."""
        plan, reading, writing = state.arguments(entry)
        images: Tensor | Seen | None = state.seen if entry.early else state.images
        core, recalled = self._plain if self.reason else self.core, None
        if entry.recalled:
            recalled = state.recalled
        return core(images, plan, reading, writing, entry.keyframe, None, measured, recalled)[0]

    def _part(self, state: GraphState, key: Sum | int) -> Callable[[], None]:
        """What is done ahead of frames."""
        call = self.call_recall if isinstance(key, Sum) else self.call_see
        return partial(call, state, key)

    def _run_part(self, state: GraphState, key: Sum | int) -> None:
        captured = self._graph(state, key)
        if captured is not None:
            captured.replay()
            return
        with inference(self.precision):
            self._part(state, key)()

    def call_recall(self, state: GraphState, kind: Sum) -> None:
        """Likewise the sum ahead of a frame."""
        plan, reading, writing = state.arguments(Entry(False, *kind))
        state.store_recalled(self._fusion.recall(reading, plan, writing, kind.keyframe))

    def call_see(self, state: GraphState, camera: int) -> None:
        """Likewise what one image is seen by."""
        core = self._plain if self.reason else self.core
        state.store_seen([camera], core.see(state.images[camera : camera + 1]))

    def _graph(self, state: GraphState, key: Entry | Sum | int) -> Captured | None:
        if not self._captures or self.reason:
            return None
        return state.captured.get(key) or self._capture(state, key)

    def _capture(self, state: GraphState, key: Entry | Sum | int) -> Captured | None:
        """The graph of a kind of frame, or of what is done ahead of it; None, and a reason, if
        there is none to be had.
        """
        call: Callable[[], Output | None] = (
            partial(self.call, state, key) if isinstance(key, Entry) else self._part(state, key)
        )
        tuning = torch.backends.cudnn.benchmark
        torch.backends.cudnn.benchmark = True
        try:
            with inference(self.precision), torch.cuda.device(self.device):
                side = torch.cuda.Stream()
                side.wait_stream(torch.cuda.current_stream())
                with torch.cuda.stream(side):
                    for _ in range(_WARM_UP):
                        call()
                torch.cuda.current_stream().wait_stream(side)
                graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(graph, pool=state.pool):
                    output = call()
        except Exception as error:  # of CUDA, cuDNN, Triton, a compiler: there is no common kind
            self.give_up(error)
            return None
        finally:
            torch.backends.cudnn.benchmark = tuning
        state.captured[key] = Captured(graph.replay, output)
        return state.captured[key]

    def give_up(self, error: Exception) -> None:
        """From now on frames are called, without kernels of ours, in the precision of what
        was packed for that (of int8, float16).
        """
        words = " ".join(str(error).split())[:300]
        self.reason = f"no CUDA graph: {type(error).__name__}: {words}"
        log.warning("%s; frames run one call after the other (slower)", self.reason)
