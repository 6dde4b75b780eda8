# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""What the network remembers between key frames, as one value."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, fields, replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from alocc_ros.errors import TemporalMemoryError


@dataclass(frozen=True)
class Memory:
    """State after a key frame; goes back in with the next frame. None resets.

    Attributes:
        history: [Y, X, Z, T * C] lifted features, newest slot first, all resampled to the pose of
            the newest; None for variants without temporal fusion.
        ages: [T] float32 seconds, how old each slot is.
        stereo: [N, C2, H/4, W/4] feature of the key frame's images; None without stereo.
        flow_bev: [1, V, Y, X] mean voxel feature; None without flow.
        embedded: whether ``history`` went through the time convolution's weights already
            (see ops/history.py); such a memory only fits the weights that made it.
    """

    history: Tensor | None
    ages: Tensor
    stereo: Tensor | None = None
    flow_bev: Tensor | None = None
    embedded: bool = True

    def to(self, device: torch.device | str) -> Memory:
        """The same on another device (ages stay on the host)."""
        moved = {n: t.to(device) for n, t in self._tensors().items() if n != "ages"}
        return replace(self, **moved)

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(t.numel() * t.element_size() for t in self._tensors().values())

    def save(self, path: str | Path) -> None:
        """Write as safetensors; the file appears only when it is whole."""
        scratch = Path(f"{path}.partial")
        tensors = {n: t.contiguous() for n, t in self._tensors().items()}
        save_file(tensors, scratch, metadata={"alocc_memory": json.dumps(self.embedded)})
        os.replace(scratch, path)

    @classmethod
    def load(cls, path: str | Path) -> Memory:
        """Read what ``save`` wrote.

        Raises:
            TemporalMemoryError: not such a file.
        """
        try:
            with safe_open(path, framework="pt") as file:
                embedded = json.loads((file.metadata() or {}).get("alocc_memory", "null"))
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError, json.JSONDecodeError) as error:
            raise TemporalMemoryError(f"{path} is not a saved memory: {error}") from error
        names = {f.name for f in fields(cls)} - {"embedded"}
        if not isinstance(embedded, bool) or "ages" not in tensors or not tensors.keys() <= names:
            raise TemporalMemoryError(f"{path} is not a saved memory (tensors: {sorted(tensors)})")
        return cls(**{"history": None, **tensors}, embedded=embedded)

    def _tensors(self) -> dict[str, Tensor]:
        named = {f.name: getattr(self, f.name) for f in fields(self)}
        return {n: t for n, t in named.items() if isinstance(t, Tensor)}
