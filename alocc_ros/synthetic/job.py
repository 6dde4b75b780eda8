# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""All scenes of a recipe, by one or several processes; goes on where it was stopped."""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Event
from pathlib import Path

import torch

from alocc_ros.datasets.convert import convert_scene
from alocc_ros.datasets.nuscenes import NuScenes
from alocc_ros.datasets.tables import nothing
from alocc_ros.errors import OutputError
from alocc_ros.synthetic.nuscenes import Recipe, is_written, prepare, write_scene, write_tables

# (what is being written, how much of it is done, of how much)
OnProgress = Callable[[str, int, int], None]


def write_dataset(
    root: Path,
    recipe: Recipe,
    device: str = "cpu",
    jobs: int = 1,
    on_progress: OnProgress = nothing,
) -> None:
    """Writes the nuScenes folder ``root``, on ``jobs`` processes.

    Raises:
        OutputError: the folder holds something else, or cannot be written.
    """
    prepare(root, recipe)
    missing = [n for n in range(recipe.scenes) if not is_written(root, n)]
    total, done = recipe.scenes * recipe.turns, (recipe.scenes - len(missing)) * recipe.turns

    def on_turns(turns: int) -> None:
        on_progress("images", done + turns, total)

    on_turns(0)
    if jobs > 1 and len(missing) > 1:
        _share(root, recipe, missing, device, jobs, on_turns)
    else:
        count = itertools.count(1)
        with _one_thread():
            for number in missing:
                on_turn = partial(_next, count, on_turns)
                write_scene(root, recipe, number, device=device, on_turn=on_turn)
    write_tables(root, recipe)


def write_bags(
    out: Path,
    recipe: Recipe,
    device: str = "cpu",
    jobs: int = 1,
    on_progress: OnProgress = nothing,
) -> None:
    """Writes a bag for each scene into ``out``; the data set they are made of is not kept.

    Raises:
        OutputError: the folder holds something else, or cannot be written.
    """
    prepare(out, recipe)
    if all(bag_file(out, name).exists() for name in recipe.names()):
        return
    root = out / ".nuscenes"
    write_dataset(root, recipe, device, jobs, on_progress)
    _convert(root, out, on_progress)
    shutil.rmtree(root)


def write_both(
    out: Path,
    recipe: Recipe,
    device: str = "cpu",
    jobs: int = 1,
    on_progress: OnProgress = nothing,
) -> None:
    """Writes ``out/nuscenes`` and, made of it, ``out/bags``.

    Raises:
        OutputError: the folder holds something else, or cannot be written.
    """
    write_dataset(out / "nuscenes", recipe, device, jobs, on_progress)
    _convert(out / "nuscenes", out / "bags", on_progress)


def bag_file(folder: Path, scene: str) -> Path:
    """Where ``write_bags`` puts a scene."""
    return folder / f"{scene}.mcap"


def _convert(root: Path, folder: Path, on_progress: OnProgress) -> None:
    dataset = NuScenes(root)
    for scene in dataset.scenes:
        path = bag_file(folder, scene.name)
        if not path.exists():
            convert_scene(dataset, scene, path, "openocc", on_progress=on_progress)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Many small operations: more threads only wait for each other, at several times the cost."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _next(count: Iterator[int], on_turns: Callable[[int], None]) -> None:
    on_turns(next(count))


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
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)  # see _one_thread


def _end_with_parent() -> None:
    """A parent that was killed says nothing any more; its processes would write on, and wait."""
    multiprocessing.parent_process().join()
    os._exit(1)


class _StoppedError(Exception):
    """The parent wants no more."""


def _one(root: Path, recipe: Recipe, number: int, device: str) -> None:
    def on_turn() -> None:
        if _stop.is_set():
            raise _StoppedError
        with _turns.get_lock():
            _turns.value += 1

    write_scene(root, recipe, number, device=device, on_turn=on_turn)
