# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Calls of torch that a frame costs on a GPU, counted without one.

The network runs on the meta device, where every operator takes its general form, as it does on a
GPU until it has a kernel there. Each call that would start work counts; views do not.
(Convolutions on the meta device forget the channels-last order, so a ``clone`` each is counted
that no GPU starts.)
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from alocc_ros.bench.stages import timing_parts
from alocc_ros.network.model import Alocc
from alocc_ros.network.plan import empty_plan
from alocc_ros.network.variants import Variant
from alocc_ros.runtime.prepare import prepare

# Calls that start nothing: views, and memory without values.
VIEWS = frozenset(
    (
        *(
            "alias",
            "as_strided",
            "chunk",
            "detach",
            "diagonal",
            "expand",
            "is_same_size",
            "movedim",
        ),
        *("permute", "select", "slice", "split", "split_with_sizes", "squeeze", "t", "transpose"),
        *("unbind", "unflatten", "unsqueeze", "view", "_unsafe_view", "reshape", "_reshape_alias"),
        *("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "as_strided_"),
    )
)


class CallRecorder(TorchDispatchMode):
    """Within this block every call of torch that is not a view is counted.

    Attributes:
        calls: how often, by name.
        total: all of them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name = func.overloadpacket.__name__
        if name not in VIEWS:
            self.calls[name] += 1
        return func(*args, **(kwargs or {}))

    @property
    def total(self) -> int:
        """Of all names."""
        return sum(self.calls.values())


@torch.no_grad()
def count_calls(variant: Variant, cameras: int = 6) -> dict[str, int]:
    """Calls by part of the network of one key frame of a rig at rest, prepared, state carried."""
    with torch.device("meta"):
        core = prepare(Alocc(variant))
    images = torch.empty(cameras, 3, *variant.input_size, device="meta")
    plan = empty_plan(cameras, 1, variant.history, "meta")
    state, out = core.empty_state(cameras=cameras), core.empty_state(cameras=cameras)
    rig = core.calibrate(plan)
    parts: Counter[str] = Counter()
    recorder, done = CallRecorder(), 0

    def ran(part: str) -> None:
        nonlocal done
        parts[part] += recorder.total - done
        done = recorder.total

    with recorder, timing_parts(core, ran):
        core(images, plan, state, out, True, rig)
    ran("output")
    return dict(parts)
