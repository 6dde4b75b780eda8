# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""A bar for work that tells (what, how much is done, of how much)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def bars() -> Iterator[Callable[[str, int, int], None]]:
    """One bar after the other on stderr, if that is a terminal."""
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
