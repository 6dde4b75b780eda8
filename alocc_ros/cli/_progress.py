# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""What is going on, on stderr: a bar, or a line."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from alocc_ros.words import counted

if TYPE_CHECKING:
    from alocc_ros.datasets.samples import Scene
    from alocc_ros.distributed import World

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


@contextlib.contextmanager
def scene_bar(
    world: World,
) -> Iterator[tuple[Callable[[Sequence[Scene]], None], Callable[[Scene, int], None]]]:
    """A bar of the first process on a terminal; a line for each scene in a log."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = world.console()
    if not console.is_terminal:
        yield lambda todo: None, lambda scene, frames: _log(console, scene, frames)
        return
    of = f" (process 1 of {world.size})" if world.size > 1 else ""
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("frames"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )
    with progress:
        bar = progress.add_task(f"looking for what is done{of}", total=None)

        def on_todo(todo: Sequence[Scene]) -> None:
            progress.update(bar, total=sum(len(scene.samples) for scene in todo))

        def on_frame(scene: Scene, frames: int) -> None:
            progress.update(bar, advance=1, description=f"{scene.name}{of}")

        yield on_todo, on_frame


def _log(console: Any, scene: Scene, frames: int) -> None:
    if frames == len(scene.samples):
        console.print(f"{scene.name}: {counted(frames, 'frame')}", highlight=False)
