# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""What the network remembers from frame to frame, as tensors of static shape."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from alocc_ros.errors import TemporalMemoryError


class State(NamedTuple):
    """State of B streams; which parts a network has is its variant's affair.

    Attributes:
        history: what temporal fusion keeps, in the form of the fusion module (network/temporal.py,
            network/recurrent.py).
        stereo: [B * N, C2, H/4, W/4] feature of the reference frame's images.
        flow_bev: [B, V, Y, X] mean voxel feature of the reference frame.
        geometry: [B * N, D, h, w] logits of where surfaces are, of recurrent variants, as the next
            two.
        motion: [B, Y, X, Z, 3] voxels, how far from here things were a key frame before.
        scene: [B, C, C + 1] what the scene layer has learned since the start.
    """

    history: Tensor | None = None
    stereo: Tensor | None = None
    flow_bev: Tensor | None = None
    geometry: Tensor | None = None
    motion: Tensor | None = None
    scene: Tensor | None = None


# Parts that only key frames renew; the others belong to the frame that is looked back at.
KEYFRAME_PARTS = ("history", "geometry", "motion", "scene")


def stored(value: Tensor, out: Tensor | None) -> Tensor:
    """A part of the new state: in its buffer if there is one; without gradient."""
    value = value.detach()
    return value.clone(memory_format=torch.contiguous_format) if out is None else out.copy_(value)


def check_part(held: Tensor | None, shape: tuple[int, ...], name: str, what: str) -> None:
    """Raises TemporalMemoryError unless a part of the state has the shape that is expected."""
    if held is None or tuple(held.shape) != tuple(shape):
        found = "nothing" if held is None else list(held.shape)
        raise TemporalMemoryError(f"{name} remembers {what} {list(shape)}, the state holds {found}")
