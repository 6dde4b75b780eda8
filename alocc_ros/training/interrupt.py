# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""SIGINT and SIGTERM end a run after the step in progress, with a checkpoint."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

# Ctrl-C reaches the processes of a launcher twice: from the terminal, and passed on.
_SAME_SIGNAL = 2.0  # s


class StopRequest:
    """Whether a signal came."""

    requested = False


@contextmanager
def graceful_stop() -> Iterator[StopRequest]:
    """Within the block a first signal sets ``requested``; a second one, two seconds later or
    more, is not that patient.

    Raises:
        KeyboardInterrupt: at the second signal.
    """
    stop = StopRequest()
    first = 0.0

    def request(*_: object) -> None:
        nonlocal first
        if not stop.requested:
            first = time.monotonic()
        elif time.monotonic() - first > _SAME_SIGNAL:
            raise KeyboardInterrupt
        stop.requested = True

    before = {s: signal.signal(s, request) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
