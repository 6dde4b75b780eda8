# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Temporal fusion of the lifted volume with the remembered ones (paper 3.4; spec section 8)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from alocc_ros.errors import TemporalMemoryError
from alocc_ros.network.memory import Memory
from alocc_ros.network.observe import observe
from alocc_ros.network.variants import Variant
from alocc_ros.ops import history as ops
from alocc_ros.ops.mode import fast


def fuse_history(
    volume: Tensor,  # [1, C, Y, X, Z] now
    memory: Memory | None,
    previous_T_current: Tensor,  # [4, 4] metres, grid frame now -> at the memory's key frame
    elapsed: float,  # seconds since that key frame
    time_conv: nn.Sequential,
    cat_conv: nn.Sequential,
    variant: Variant,
    keep: bool,
    recycle: Memory | None = None,
) -> tuple[Tensor, Tensor | None, Tensor, bool]:
    """Warp the remembered slots to now and merge them with the present.

    The whole buffer is warped by one step and stored so: a slot k key frames old has been
    resampled k times, which is what the weights have seen.

    Returns:
        fused [1, C, Y, X, Z]; new history [Y, X, Z, T * C] (None unless ``keep``); new ages [T];
        whether the history is embedded.
    """
    slots, embedded = variant.history, fast() and not time_conv.training
    current = volume[0]
    motion = ops.index_motion(
        previous_T_current, variant.grid.lower, variant.lift_step, not variant.volumetric
    )
    if memory is None:
        ages = torch.zeros(slots)
    else:
        _check(memory, volume, variant, embedded)
        ages = memory.ages + elapsed
    new_ages = torch.cat([torch.zeros(1), ages[:-1]])

    if embedded:
        out = None if recycle is None else recycle.history
        rows = ops.embed(current, time_conv)
        if memory is None:
            fused, history = ops.fuse_first(rows, slots, time_conv, cat_conv, keep, out)
        else:
            fused, history = ops.fuse(
                rows, memory.history, ages, motion, time_conv, cat_conv, keep, out
            )
        observe("history/fused", lambda: _flat(fused[None], variant))
        return fused[None], history, new_ages, True

    if memory is None:
        past = current.expand(slots, *current.shape)
    else:
        past = memory.history.unflatten(3, (slots, -1)).permute(3, 4, 0, 1, 2)
    fused, warped, timed = ops.fuse_twin(current, past, ages, motion, time_conv, cat_conv)
    # The reference keeps its buffer as [1, T * C, (Z,) Y, X].
    observe("history/sampled_history", lambda: _zyx(warped.flatten(0, 1)[None], variant))
    observe("history/time_conv", lambda: _zyx(timed, variant))
    observe("history/fused", lambda: _flat(fused[None], variant))
    history = None
    if keep:
        slots_now = torch.cat([current[None], warped[:-1]]).detach()
        history = slots_now.permute(2, 3, 4, 0, 1).flatten(3).contiguous()
    return fused[None], history, new_ages, False


def _check(memory: Memory, volume: Tensor, variant: Variant, embedded: bool) -> None:
    _, channels, y_size, x_size, z_size = volume.shape
    shape = (y_size, x_size, z_size, variant.history * channels)
    if memory.history is None or tuple(memory.history.shape) != shape:
        had = "nothing" if memory.history is None else tuple(memory.history.shape)
        raise TemporalMemoryError(f"{variant.name} remembers {shape}, the memory holds {had}")
    if memory.embedded != embedded:
        made, wanted = (
            ("the fast form", "the twin") if memory.embedded else ("the twin", "the fast form")
        )
        raise TemporalMemoryError(
            f"this memory was made by {made} of temporal fusion and {wanted} is running; "
            "start with an empty memory"
        )


def _flat(x: Tensor, variant: Variant) -> Tensor:
    return x if variant.volumetric else x[..., 0]


def _zyx(x: Tensor, variant: Variant) -> Tensor:  # [..., Y, X, Z] -> [..., Z, Y, X]
    return x.permute(0, 1, 4, 2, 3) if variant.volumetric else x[..., 0]
