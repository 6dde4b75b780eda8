# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Which of its two forms an operator takes: the obvious twin or the fast exact one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch

_twins: ContextVar[bool] = ContextVar("alocc_twins", default=False)


@contextmanager
def twins() -> Iterator[None]:
    """Within this block every operator runs its slow obvious form."""
    token = _twins.set(True)
    try:
        yield
    finally:
        _twins.reset(token)


def forced() -> bool:
    """True inside ``twins()``."""
    return _twins.get()


def fast() -> bool:
    """True where the fast form may run: not inside ``twins()`` and nobody asks for gradients.

    The fast forms fold weights and write into buffers, so they have no gradient. Nor where
    torch.compile looks on: it makes its own fast form, and of the obvious one.
    """
    if torch.compiler.is_compiling():
        return False
    return not _twins.get() and not torch.is_grad_enabled()
