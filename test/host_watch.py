# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Watches the calls of torch for what no captured graph may do."""

from __future__ import annotations

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class HostWatch(TorchDispatchMode):
    """What no captured graph may do: read a number, find indices, copy between devices or from
    lists of numbers.
    """

    FORBIDDEN = frozenset(
        (
            *("_local_scalar_dense", "nonzero", "lift_fresh", "lift", "masked_select", "item"),
            *("is_nonzero", "equal", "linalg_inv_ex", "scalar_tensor"),
        )
    )

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        boolean = name in ("index", "index_put") and any(
            isinstance(t, torch.Tensor) and t.dtype == torch.bool for t in tree_leaves(args[1])
        )
        device = (kwargs or {}).get("device")
        if name in self.FORBIDDEN or boolean or (name == "_to_copy" and device is not None):
            self.found.append(name)
        return func(*args, **(kwargs or {}))
