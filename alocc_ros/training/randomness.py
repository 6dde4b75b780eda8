# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Random numbers as a function of where they are used, not of what was drawn before.

Whatever is drawn for a frame depends on the seed, the step, the slot and the purpose only: a
resumed run, another number of processes or of loader workers draws the same.
"""

from __future__ import annotations

import numpy as np
import torch


def _seed(*key: int) -> int:
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1)


def numpy_random(*key: int) -> np.random.Generator:
    """A generator of that key, e.g. (seed, step, slot, purpose)."""
    return np.random.default_rng(np.random.SeedSequence(key))


def torch_random(device: torch.device, *key: int) -> torch.Generator:
    """The same for torch; its numbers differ from device to device."""
    return torch.Generator(device).manual_seed(_seed(*key))


def seed_everything(*key: int) -> None:
    """Torch's own generators (weights at the start, dropout)."""
    torch.manual_seed(_seed(*key))
