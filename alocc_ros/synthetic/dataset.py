# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Data sets and bags of synthetic scenes, written by one or several processes.

A run that was stopped goes on where it was.
"""

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
from alocc_ros.synthetic.nuscenes.folder import is_written, prepare_folder
from alocc_ros.synthetic.nuscenes.scene_writer import write_scene
from alocc_ros.synthetic.nuscenes.spec import DatasetSpec
from alocc_ros.synthetic.nuscenes.tables import write_tables

# (what is being written, how much of it is done, of how much)
OnProgress = Callable[[str, int, int], None]


def write_dataset(
    root: Path,
    spec: DatasetSpec,
    device: str = "cpu",
    jobs: int = 1,
    on_progress: OnProgress = nothing,
) -> None:
    """Writes the nuScenes folder ``root``, on ``jobs`` processes.

    Raises:
        OutputError: the folder holds something else, or cannot be written.
    """
    prepare_folder(root, spec)
    missing = [n for n in range(spec.scenes) if not is_written(root, n)]
    total, done = spec.scenes * spec.cycles, (spec.scenes - len(missing)) * spec.cycles

    def on_cycles(count: int) -> None:
        on_progress("images", done + count, total)

    on_cycles(0)
    if jobs > 1 and len(missing) > 1:
        _write_in_parallel(root, spec, missing, device, jobs, on_cycles)
    else:
        count = itertools.count(1)
        with _single_thread():
            for number in missing:
                on_cycle = partial(_count, count, on_cycles)
                write_scene(root, spec, number, device=device, on_cycle=on_cycle)
    write_tables(root, spec)


def write_bags(
    out: Path,
    spec: DatasetSpec,
    device: str = "cpu",
    jobs: int = 1,
    on_progress: OnProgress = nothing,
) -> None:
    """Writes a bag for each scene into ``out``; the data set they are made of is not kept.

    Raises:
        OutputError: the folder holds something else, or cannot be written.
    """
    prepare_folder(out, spec)
    if all(bag_file(out, name).exists() for name in spec.names()):
        return
    root = out / ".nuscenes"
    write_dataset(root, spec, device, jobs, on_progress)
    _convert(root, out, on_progress)
    shutil.rmtree(root)


def write_both(
    out: Path,
    spec: DatasetSpec,
    device: str = "cpu",
    jobs: int = 1,
    on_progress: OnProgress = nothing,
) -> None:
    """Writes ``out/nuscenes`` and, made of it, ``out/bags``.

    Raises:
        OutputError: the folder holds something else, or cannot be written.
    """
    write_dataset(out / "nuscenes", spec, device, jobs, on_progress)
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
def _single_thread() -> Iterator[None]:
    """Many small operations: more threads only wait for each other, at several times the cost."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _count(count: Iterator[int], on_cycles: Callable[[int], None]) -> None:
    on_cycles(next(count))


def _write_in_parallel(
    root: Path,
    spec: DatasetSpec,
    numbers: list[int],
    device: str,
    jobs: int,
    on_cycles: Callable[[int], None],
) -> None:
    """Deals the scenes out to processes."""
    context = multiprocessing.get_context("spawn")  # a fork would inherit torch's threads
    cycles, stop = context.Value("q", 0), context.Event()
    pool = ProcessPoolExecutor(jobs, context, _start_worker, (cycles, stop))
    try:
        running = {pool.submit(_write_one, root, spec, n, device) for n in numbers}
        while running:
            finished, running = wait(running, timeout=0.5, return_when=FIRST_COMPLETED)
            on_cycles(cycles.value)
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


_cycles: Synchronized
_stop: Event


def _start_worker(cycles: Synchronized, stop: Event) -> None:
    global _cycles, _stop
    _cycles, _stop = cycles, stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent says when to stop
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)  # see _single_thread


def _end_with_parent() -> None:
    """A parent that was killed says nothing any more; its processes would write on, and wait."""
    multiprocessing.parent_process().join()
    os._exit(1)


class _StoppedError(Exception):
    """The parent wants no more."""


def _write_one(root: Path, spec: DatasetSpec, number: int, device: str) -> None:
    def on_cycle() -> None:
        if _stop.is_set():
            raise _StoppedError
        with _cycles.get_lock():
            _cycles.value += 1

    write_scene(root, spec, number, device=device, on_cycle=on_cycle)
