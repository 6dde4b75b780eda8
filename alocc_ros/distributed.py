# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Everything about ``torch.distributed``: the processes of torchrun, for training and evaluation.

With one process nothing here communicates, and every function returns what it was given. torch is
imported by what needs it, so that a command line can be parsed without it.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np

from alocc_ros.errors import ParameterError

if TYPE_CHECKING:
    import torch
    from rich.console import Console
    from torch import Tensor

# Of the group that exchanges results: the last process may be hours behind the first.
_RESULTS_TIMEOUT = timedelta(days=7)


@dataclass(frozen=True)
class World:
    """Which of how many processes this is.

    Attributes:
        rank: of this process, from 0; rank 0 is the one that prints and writes.
        size: number of processes.
        local_rank: of this process on its machine; the CUDA device it takes.
        results_group: gloo group for plain bytes between hosts, patient; None with one process.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    results_group: Any = None

    def console(self) -> Console:
        """Of stderr; silent in all processes but rank 0."""
        from rich.console import Console

        return Console(stderr=True, quiet=self.rank > 0)

    def broadcast(self, value: Any) -> Any:
        """Rank 0's ``value`` in every process; anything that JSON can say, nothing is unpickled."""
        if self.results_group is None:
            return value
        import torch
        import torch.distributed as dist

        text = json.dumps(value).encode() if self.rank == 0 else b""
        size = torch.tensor([len(text)])
        dist.broadcast(size, src=0, group=self.results_group)
        content = _padded(text, int(size))
        dist.broadcast(content, src=0, group=self.results_group)
        return json.loads(content.numpy().tobytes())

    def all_gather(self, content: bytes) -> list[bytes]:
        """Every process's ``content``, in order of rank, in every process."""
        if self.results_group is None:
            return [content]
        import torch
        import torch.distributed as dist

        sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
        dist.all_gather(sizes, torch.tensor([len(content)]), group=self.results_group)
        longest = max(1, max(int(size) for size in sizes))
        padded = [torch.zeros(longest, dtype=torch.uint8) for _ in range(self.size)]
        dist.all_gather(padded, _padded(content, longest), group=self.results_group)
        return [p[: int(s)].numpy().tobytes() for p, s in zip(padded, sizes, strict=True)]


SINGLE_PROCESS = World()


@contextmanager
def process_group(device_type: str = "cpu") -> Iterator[World]:
    """The processes that torchrun describes in the environment, connected while the block runs;
    without torchrun this process alone.

    Args:
        device_type: where the tensors are that are reduced: NCCL for ``cuda``, else gloo.

    Raises:
        ParameterError: there should be others, but there is no way to find them.
    """
    if os.environ.get("WORLD_SIZE", "1") == "1":
        yield SINGLE_PROCESS
        return
    import torch
    import torch.distributed as dist

    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    if device_type == "cuda":
        torch.cuda.set_device(local_rank)  # what NCCL takes where nobody says which
    try:
        dist.init_process_group("nccl" if device_type == "cuda" else "gloo")
    except (ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise ParameterError(
            f"WORLD_SIZE says {os.environ['WORLD_SIZE']} processes, but they cannot find each "
            f"other: {reason}; start them with `alocc launch`"
        ) from error
    before = signal.signal(signal.SIGINT, _interrupt_once)
    try:
        group = dist.new_group(backend="gloo", timeout=_RESULTS_TIMEOUT)
        yield World(dist.get_rank(), dist.get_world_size(), local_rank, group)
    finally:
        dist.destroy_process_group()
        signal.signal(signal.SIGINT, before)


def _interrupt_once(*_: object) -> None:
    """Ctrl-C comes twice, from the terminal and from the launcher that passes it on: the second
    one must not interrupt what the first one has begun to put away.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise KeyboardInterrupt


def is_distributed() -> bool:
    """Whether this process belongs to a process group."""
    import torch.distributed as dist

    return dist.is_available() and dist.is_initialized()


def all_reduce_sum(value: Tensor) -> None:
    """Replace ``value`` by its sum over all processes, in place and without gradient."""
    if is_distributed():
        import torch.distributed as dist

        dist.all_reduce(value)


def mean_over_ranks(value: Tensor) -> Tensor:
    """The mean of every process's ``value``, of the same shape, without gradient."""
    if not is_distributed():
        return value.detach()
    import torch.distributed as dist

    total = value.detach().clone()
    dist.all_reduce(total)
    return total / dist.get_world_size()


def any_rank(flag: bool, device: torch.device) -> bool:
    """Whether ``flag`` is set in any process; ``device`` is where the group reduces."""
    if not is_distributed():
        return flag
    import torch
    import torch.distributed as dist

    value = torch.tensor(float(flag), device=device)
    dist.all_reduce(value, op=dist.ReduceOp.MAX)
    return bool(value)


def barrier() -> None:
    """Return when every process has called this."""
    if is_distributed():
        import torch.distributed as dist

        dist.barrier()


def _padded(content: bytes, size: int) -> Tensor:  # [size] uint8
    import torch

    padded = np.zeros(size, np.uint8)
    padded[: len(content)] = np.frombuffer(content, np.uint8)
    return torch.from_numpy(padded)
