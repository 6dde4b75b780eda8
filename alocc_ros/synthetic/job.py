# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""All scenes of a recipe, by one or several processes; goes on where it was stopped."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Event
from pathlib import Path

import torch

from alocc_ros.errors import OutputError
from alocc_ros.synthetic.nuscenes import Recipe, is_written, prepare, write_scene, write_tables

# (turns done, turns in all); a turn is six images.
OnProgress = Callable[[int, int], None]


def synthesise(
    root: Path,
    recipe: Recipe,
    *,
    device: str = "cpu",
    jobs: int = 1,
    on_progress: OnProgress = lambda done, total: None,
) -> None:
    """Writes the nuScenes folder ``root``.

    Raises:
        OutputError: the folder holds something else, or cannot be written.
    """
    prepare(root, recipe)
    missing = [n for n in range(recipe.scenes) if not is_written(root, n)]
    total, done = recipe.scenes * recipe.turns, (recipe.scenes - len(missing)) * recipe.turns
    on_progress(done, total)
    if jobs <= 1 or len(missing) <= 1:
        for number in missing:

            def on_turn() -> None:
                nonlocal done
                done += 1
                on_progress(done, total)

            write_scene(root, recipe, number, device=device, on_turn=on_turn)
    else:
        _share(root, recipe, missing, device, jobs, lambda n: on_progress(done + n, total))
    write_tables(root, recipe)


def _share(
    root: Path,
    recipe: Recipe,
    numbers: list[int],
    device: str,
    jobs: int,
    on_turns: Callable[[int], None],
) -> None:
    """Deals the scenes out to processes."""
    context = multiprocessing.get_context("spawn")  # a fork would inherit torch's threads
    turns, stop = context.Value("q", 0), context.Event()
    pool = ProcessPoolExecutor(jobs, context, _begin, (turns, stop))
    try:
        running = {pool.submit(_one, root, recipe, n, device) for n in numbers}
        while running:
            finished, running = wait(running, timeout=0.5, return_when=FIRST_COMPLETED)
            on_turns(turns.value)
            for future in finished:
                future.result()
    except BrokenProcessPool as error:
        raise OutputError(
            f"a process that wrote {root} was ended, perhaps for want of memory; "
            "start the same command again, with fewer jobs"
        ) from error
    finally:
        stop.set()
        pool.shutdown(wait=True, cancel_futures=True)


_turns: Synchronized
_stop: Event


def _begin(turns: Synchronized, stop: Event) -> None:
    global _turns, _stop
    _turns, _stop = turns, stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent says when to stop
    torch.set_num_threads(1)  # many small operations: more threads only wait for each other


class _StoppedError(Exception):
    """The parent wants no more."""


def _one(root: Path, recipe: Recipe, number: int, device: str) -> None:
    def on_turn() -> None:
        if _stop.is_set():
            raise _StoppedError
        with _turns.get_lock():
            _turns.value += 1

    write_scene(root, recipe, number, device=device, on_turn=on_turn)
