# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""A training run on disk: whole or not there.

A checkpoint is a folder ``step-00001000`` with the state that all processes share and a file
for each slot's memory. It is written under another name, flushed to the disk and renamed, so a
process that is killed at any moment leaves the previous checkpoint as it was. Files hold
tensors and plain values; reading them runs nothing.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from alocc_ros.distributed import World, barrier
from alocc_ros.errors import CheckpointError, OutputError
from alocc_ros.network.checkpoint import read_torch_file, require_safe_torch
from alocc_ros.network.state import KEYFRAME_PARTS
from alocc_ros.training.forward import SlotMemory

_STATE = "state.pt"
_NAME = re.compile(r"step-(\d{8})")


def save(
    folder: Path,
    step: int,
    state: Mapping[str, Any],
    memories: Mapping[int, SlotMemory | None],  # by slot, of this process
    world: World,
    keep: int,
) -> Path:
    """Write checkpoint ``step``; every process calls this. Older ones beyond ``keep`` go away."""
    target = folder / f"step-{step:08d}"
    if target.exists():  # the same step of the same run is the same checkpoint
        return target
    scratch = folder / f".{target.name}.part"
    if world.rank == 0:
        _remove(scratch)  # of a run that was killed here
        scratch.mkdir(parents=True)
    barrier()
    for slot, memory in memories.items():
        _write(scratch / f"slot-{slot:05d}.pt", _plain(memory))
    if world.rank == 0:
        _write(scratch / _STATE, dict(state))
    barrier()
    if world.rank == 0:
        _flush(scratch)
        os.replace(scratch, target)
        _flush(folder)
        for old in _all(folder)[:-keep]:
            _remove(old)
    barrier()
    return target


def latest(folder: Path) -> Path | None:
    """The newest whole checkpoint, if there is one."""
    found = _all(folder)
    return found[-1] if found else None


def load_state(checkpoint: Path) -> dict[str, Any]:
    """What all processes share.

    Raises:
        CheckpointError: damaged, or not a checkpoint.
    """
    return _read(checkpoint / _STATE)


def load_memories(
    checkpoint: Path, slots: Sequence[int], device: torch.device
) -> dict[int, SlotMemory | None]:
    """The memories of some slots.

    Raises:
        CheckpointError: damaged, or there is no such slot.
    """
    memories = {}
    for slot in slots:
        values = _read(checkpoint / f"slot-{slot:05d}.pt")
        if values is not None:
            names = {"flow_bev", "truth", *KEYFRAME_PARTS}
            moved = {n: values[n].to(device) for n in names if values.get(n) is not None}
            values = SlotMemory(**{**values, **moved})
        memories[slot] = values
    return memories


def _all(folder: Path) -> list[Path]:
    return sorted(p for p in folder.glob("step-*") if _NAME.fullmatch(p.name))


def _plain(memory: SlotMemory | None) -> dict[str, Any] | None:
    """Tensors of their own: a view would take what it is a view of along."""
    if memory is None:
        return None
    return {n: None if t is None else t.clone() for n, t in vars(memory).items()}


def _remove(folder: Path) -> None:
    """Of a link only the link: what it leads to is somebody else's."""
    if folder.is_symlink():
        folder.unlink()
    elif folder.exists():
        shutil.rmtree(folder)


def _write(path: Path, value: Any) -> None:
    try:
        with path.open("wb") as file:
            torch.save(value, file)
            file.flush()
            os.fsync(file.fileno())
    except (OSError, RuntimeError) as error:  # torch makes the second of the first
        cause = error if isinstance(error, OSError) else error.__context__
        reason = getattr(cause, "strerror", None) or " ".join(str(error).split())[:200]
        raise OutputError(f"cannot write {path}: {reason}") from error


def _read(path: Path) -> Any:
    require_safe_torch(path)
    try:
        return read_torch_file(path)
    except CheckpointError as error:
        raise CheckpointError(
            f"{path}: not a whole part of a checkpoint ({error}); "
            "delete that checkpoint to go on from the one before"
        ) from error


def _flush(folder: Path) -> None:
    """Names reach the disk too."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
