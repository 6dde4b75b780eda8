# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""A window into the network: parity looks at intermediate values, the benchmark at the clock.

``observe("stage", value)`` costs one context lookup when nobody looks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from torch import Tensor

# A value, or a function that makes it (called only by those who want the numbers).
Lazy = Tensor | Callable[[], Tensor]
Observer = Callable[[str, Lazy], None]

_observer: ContextVar[Observer | None] = ContextVar("alocc_observer", default=None)


@contextmanager
def observing(observer: Observer) -> Iterator[None]:
    """Within this block ``observer(stage, value)`` sees every stage in the order it is done."""
    token = _observer.set(observer)
    try:
        yield
    finally:
        _observer.reset(token)


def observe(stage: str, value: Lazy) -> None:
    """Tell whoever looks that ``stage`` is done."""
    observer = _observer.get()
    if observer is not None:
        observer(stage, value)
