# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""SIGINT and SIGTERM end a run after the step in progress, with a checkpoint."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager


class StopRequest:
    """Whether a signal came."""

    requested = False


@contextmanager
def graceful_stop() -> Iterator[StopRequest]:
    """Within the block a first signal sets ``requested``; a second one is not that patient.

    Raises:
        KeyboardInterrupt: at the second signal.
    """
    stop = StopRequest()

    def request(*_: object) -> None:
        if stop.requested:
            raise KeyboardInterrupt
        stop.requested = True

    before = {s: signal.signal(s, request) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
