# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""What the network remembers from frame to frame, as tensors of static shape."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class State(NamedTuple):
    """State of B streams; which parts a network has is its variant's affair.

    Attributes:
        history: what temporal fusion keeps, in the form of the fusion module (network/temporal.py).
        stereo: [B * N, C2, H/4, W/4] feature of the reference frame's images.
        flow_bev: [B, V, Y, X] mean voxel feature of the reference frame.
    """

    history: Tensor | None = None
    stereo: Tensor | None = None
    flow_bev: Tensor | None = None
