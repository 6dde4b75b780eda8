# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""The few things that several processes do together; with one process they do nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class World:
    """Which of how many processes this is.

    Attributes:
        rank: this process, from 0.
        size: how many there are.
        local_rank: this process on its machine; the CUDA device it takes.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0


ALONE = World()


@contextmanager
def joined(device_type: str) -> Iterator[World]:
    """The world that torchrun describes in the environment, joined for as long as the block runs;
    alone without torchrun. NCCL between CUDA devices, gloo between CPUs.
    """
    if "WORLD_SIZE" not in os.environ:
        yield ALONE
        return
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    if device_type == "cuda":
        torch.cuda.set_device(local_rank)  # what NCCL takes where nobody says which
    dist.init_process_group("nccl" if device_type == "cuda" else "gloo")
    try:
        yield World(dist.get_rank(), dist.get_world_size(), local_rank)
    finally:
        dist.destroy_process_group()


def together() -> bool:
    """Whether there is more than one process."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def mean_over_ranks(value: Tensor) -> Tensor:
    """The mean of every process's ``value``, without gradient."""
    if not together():
        return value.detach()
    total = value.detach().clone()
    dist.all_reduce(total)
    return total / dist.get_world_size()


def any_rank(flag: bool, device: torch.device) -> bool:
    """Whether ``flag`` is set in any process."""
    if not together():
        return flag
    value = torch.tensor(float(flag), device=device)
    dist.all_reduce(value, op=dist.ReduceOp.MAX)
    return bool(value)


def wait_for_all() -> None:
    """Return when every process has come here."""
    if together():
        dist.barrier()
