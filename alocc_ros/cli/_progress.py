# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""What is going on, on stderr: a bar, or a line."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

_PERIOD = 60.0  # s between two lines where there is no terminal


@contextlib.contextmanager
def telling() -> Iterator[Callable[[str], None]]:
    """A line that changes, or without a terminal a line a minute."""
    from rich.console import Console

    console = Console(stderr=True)
    if console.is_terminal:
        with console.status("") as status:
            yield status.update
        return
    told = -_PERIOD

    def tell(text: str) -> None:
        nonlocal told
        if time.monotonic() >= told + _PERIOD:
            told = time.monotonic()
            print(text, file=sys.stderr, flush=True)

    yield tell


@contextlib.contextmanager
def bars() -> Iterator[Callable[[str, int, int], None]]:
    """One bar after the other, if there is a terminal, for work that tells (what, done, of all)."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda what, done, total: None
        return
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("")

        def on_progress(what: str, done: int, total: int) -> None:
            progress.update(task, description=what, completed=done, total=total)

        yield on_progress
