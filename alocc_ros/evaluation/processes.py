# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""The processes that ``torchrun`` started, as far as an evaluation needs them.

Only plain bytes travel between them, over gloo: no GPU is needed, and nothing is unpickled.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np

from alocc_ros.errors import ParameterError

# The last process may be hours behind the first.
_PATIENCE = timedelta(days=7)


@dataclass(frozen=True)
class Processes:
    """This process among its likes.

    Attributes:
        rank: of this one; 0 is the one that speaks.
        count: how many there are.
        group: of torch.distributed; None if there is only one.
    """

    rank: int = 0
    count: int = 1
    group: Any = None

    def agree(self, value: Any) -> Any:
        """What rank 0 has, by all; anything that JSON can say."""
        if self.group is None:
            return value
        import torch
        import torch.distributed as dist

        text = json.dumps(value).encode() if self.rank == 0 else b""
        size = torch.tensor([len(text)])
        dist.broadcast(size, src=0, group=self.group)
        content = _tensor(text, int(size))
        dist.broadcast(content, src=0, group=self.group)
        return json.loads(content.numpy().tobytes())

    def gather(self, content: bytes) -> list[bytes]:
        """What each process has, in order of rank, to all of them."""
        if self.group is None:
            return [content]
        import torch
        import torch.distributed as dist

        sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(self.count)]
        dist.all_gather(sizes, torch.tensor([len(content)]), group=self.group)
        longest = max(1, max(int(size) for size in sizes))
        padded = [torch.zeros(longest, dtype=torch.uint8) for _ in range(self.count)]
        dist.all_gather(padded, _tensor(content, longest), group=self.group)
        return [p[: int(s)].numpy().tobytes() for p, s in zip(padded, sizes, strict=True)]


def _tensor(content: bytes, size: int) -> Any:
    import torch

    padded = np.zeros(size, np.uint8)
    padded[: len(content)] = np.frombuffer(content, np.uint8)
    return torch.from_numpy(padded)


@contextlib.contextmanager
def started() -> Iterator[Processes]:
    """The processes of this run: those of ``torchrun``, or this one alone.

    Raises:
        ParameterError: there should be others, but there is no way to find them.
    """
    if os.environ.get("WORLD_SIZE", "1") == "1":
        yield Processes()
        return
    import torch.distributed as dist

    ours = not dist.is_initialized()
    if ours:
        try:
            dist.init_process_group("gloo", timeout=_PATIENCE)
        except (ValueError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise ParameterError(
                f"WORLD_SIZE says {os.environ['WORLD_SIZE']} processes, but they cannot find each "
                f"other: {reason}; start them with torchrun"
            ) from error
    try:
        group = dist.new_group(backend="gloo", timeout=_PATIENCE)
        yield Processes(dist.get_rank(), dist.get_world_size(), group)
    finally:
        if ours:
            dist.destroy_process_group()
