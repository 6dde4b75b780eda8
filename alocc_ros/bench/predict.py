# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""What a frame will cost on a GPU that is not here: launches, bytes, operations, roofline.

The network that the graph runner captures runs on the meta device. Of each call is known what it
reads and writes and how many multiplications it does; a kernel takes at least as long as the slower
of the two. Nothing is measured: real kernels reach 40 to 80 % of a roofline.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from alocc_ros.bench.launches import VIEWS
from alocc_ros.bench.operations import operations, untouched
from alocc_ros.bench.stages import timing_parts
from alocc_ros.errors import ParameterError
from alocc_ros.network.model import Alocc
from alocc_ros.network.plan import packed_size, unpack
from alocc_ros.network.state import KEYFRAME_PARTS
from alocc_ros.network.variants import Variant
from alocc_ros.ops.library import launches_of
from alocc_ros.runtime.prepare import pack_for_gpu, prepare


@dataclass(frozen=True)
class Gpu:
    """Rates of a GPU, as its maker states them.

    Attributes:
        name: of the product.
        products: FLOP/s of tensor cores on half precision with float32 sums, dense.
        vectors: FLOP/s of the other cores in float32.
        memory: byte/s.
        launch: s between two kernels of a CUDA graph.
    """

    name: str
    products: float
    vectors: float
    memory: float
    launch: float = 1.0e-6


# From the makers' data sheets (dense rates, boost clocks).
GPUS = {
    "sm_87": Gpu("Jetson AGX Orin 64 GB", 42.5e12, 5.3e12, 204.8e9, 3.0e-6),
    "sm_89": Gpu("GeForce RTX 4090", 165.2e12, 82.6e12, 1008e9),
    "sm_90": Gpu("H100 SXM", 989e12, 67e12, 3350e9),
    "sm_120": Gpu("GeForce RTX 5090", 209.5e12, 104.8e12, 1792e9),
}


@dataclass(frozen=True)
class Call:
    """One call of torch in a frame.

    Attributes:
        part: of the network.
        name: of the operator.
        launches: kernels that it starts.
        moved: bytes that it reads and writes, each tensor once.
        products, vectors: operations on tensor cores, and on the others.
    """

    part: str
    name: str
    launches: int
    moved: int
    products: float
    vectors: float

    def seconds(self, gpu: Gpu) -> float:
        """The roofline's time, and the gaps between kernels."""
        work = max(
            self.moved / gpu.memory, self.products / gpu.products, self.vectors / gpu.vectors
        )
        return work + self.launches * gpu.launch


@dataclass
class Prediction:
    """Calls of one key frame of a network in half precision, state carried.

    Attributes:
        variant: its name.
        calls: in the order in which they run.
        weights, state: bytes of the network, and of one stream's buffers.
    """

    variant: str
    calls: list[Call] = field(default_factory=list)
    weights: int = 0
    state: int = 0

    def seconds(self, gpu: Gpu) -> float:
        """Of a frame."""
        return sum(call.seconds(gpu) for call in self.calls)

    @property
    def launches(self) -> dict[str, int]:
        """Kernels by part."""
        counted: Counter[str] = Counter()
        for call in self.calls:
            counted[call.part] += call.launches
        return dict(counted)


def gpu_of(target: str) -> Gpu:
    """Rates of the best known GPU of a compute capability.

    Raises:
        ParameterError: none is known.
    """
    if target not in GPUS:
        known = ", ".join(f"{k} ({g.name})" for k, g in GPUS.items())
        raise ParameterError(f"--predict {target}: there are {known}")
    return GPUS[target]


@torch.no_grad()
def predict(variant: Variant, dtype: torch.dtype = torch.float16, cameras: int = 6) -> Prediction:
    """Count a key frame as the graph runner captures it."""
    with torch.device("meta"):
        core = pack_for_gpu(prepare(Alocc(variant)), dtype)
    images = torch.empty(cameras, 3, *variant.input_size, dtype=dtype, device="meta")
    images = images.contiguous(memory_format=torch.channels_last)
    size = packed_size(cameras, 1, variant.history)
    packed = torch.empty(size, dtype=torch.float64, device="meta")
    state, out = core.empty_state(cameras=cameras), core.empty_state(cameras=cameras)
    found = Prediction(variant.name)
    tensors = [*core.parameters(), *core.buffers()]
    found.weights = sum(_size(t) for t in {id(t): t for t in tensors}.values())
    for name, tensor in state._asdict().items():
        # Two copies of what key frames renew; features in two slots, and at both ends of the graph.
        copies = 2 if name in KEYFRAME_PARTS else 4
        found.state += 0 if tensor is None else copies * _size(tensor)
    recorder = _Recorder()
    with recorder, timing_parts(core, recorder.ran):
        plan = unpack(packed, cameras, 1, variant.history)
        recorder.ran("plan")
        core(images, plan, state, out)
    recorder.ran("output")
    found.calls = recorder.calls
    return found


def predictions(variants: Sequence[Variant]) -> str:
    """A Markdown table of networks in half precision on all GPUs that are known."""
    lines = [
        "| network | launches | GB moved | GFLOP | weights + state MiB | "
        + " | ".join(f"{gpu.name} ms" for gpu in GPUS.values())
        + " |",
        "|---|" + "---:|" * (4 + len(GPUS)),
    ]
    for variant in variants:
        p = predict(variant)
        moved, work = sum(c.moved for c in p.calls), sum(c.products + c.vectors for c in p.calls)
        row = [variant.name, str(sum(p.launches.values())), f"{moved / 1e9:.2f}"]
        row += [f"{work / 1e9:.0f}", f"{(p.weights + p.state) / 2**20:.0f}"]
        row += [f"{1e3 * p.seconds(gpu):.2f}" for gpu in GPUS.values()]
        lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines)


class _Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []
        self._waiting: list[tuple[str, int, int, float, float]] = []

    def ran(self, part: str) -> None:
        """What has been called since the last part was this one's."""
        self.calls += [Call(part, *call) for call in self._waiting]
        self._waiting = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if name in VIEWS:
            return result
        tensors = [t for t in tree_leaves((args, kwargs, result)) if isinstance(t, Tensor)]
        once = {id(t): t for t in tensors}.values()
        launches = launches_of(func, args)
        products, vectors = operations(func, args, kwargs or {}, result)
        moved = sum(_size(t) for t in once) - untouched(func, args)
        self._waiting.append((name, 1 if launches is None else launches, moved, products, vectors))
        return result


def _size(tensor: Tensor) -> int:
    # What is expanded is read once.
    strides = zip(tensor.shape, tensor.stride(), strict=True)
    return math.prod(n for n, s in strides if s != 0) * tensor.element_size()
