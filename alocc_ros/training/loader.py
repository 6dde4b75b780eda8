# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""The batches of one process, prepared by torch's loader in processes of its own."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from alocc_ros.errors import AloccError
from alocc_ros.training.samples import Preparation, TrainingFrame
from alocc_ros.training.streams import Streams, Visit


class VisitBatches:
    """A batch sampler: this process's visits, batch by batch.

    Attributes:
        streams: visits of all slots.
        slots: of this process, for each batch of a step.
        first, last: steps, ``last`` excluded.
    """

    def __init__(
        self, streams: Streams, slots: Sequence[Sequence[int]], first: int, last: int
    ) -> None:
        self.streams, self.slots, self.first, self.last = streams, slots, first, last

    def __iter__(self) -> Iterator[list[Visit]]:
        for visits in self.streams.steps(self.first):
            if visits[0].step == self.last:
                return
            for slots in self.slots:
                yield [visits[s] for s in slots]


def frame_loader(
    preparation: Preparation, batches: VisitBatches, workers: int, device: torch.device
) -> DataLoader:
    """Batches of frames on the host, for ``raise_errors`` to look at.

    Args:
        preparation: makes a frame of a visit.
        batches: which visits.
        workers: loader processes, but not more than cores; 0: none.
        device: where the frames will go.
    """
    workers = min(workers, os.cpu_count() or 1)
    return DataLoader(
        _FramesOrErrors(preparation),
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=list,
        pin_memory=device.type == "cuda",
        worker_init_fn=_init_worker if workers else None,
    )


def raise_errors(batch: Sequence[TrainingFrame | AloccError]) -> Sequence[TrainingFrame]:
    """The batch, if it is whole.

    Raises:
        AloccError: a frame could not be prepared.
    """
    for frame in batch:
        if isinstance(frame, AloccError):
            raise frame
    return batch


def end_workers(batches: Iterator[Any]) -> None:
    """Ends the processes of a loader that is not read to its end.

    An error keeps the iterator alive until Python exits, which then ends the processes under the
    feet of torch's own watch over them, with a traceback after the one line that says what is
    wrong. torch has no public name for this; without processes there is nothing to end.
    """
    end = getattr(batches, "_shutdown_workers", None)
    if end is not None:
        end()


class _FramesOrErrors(Dataset):
    """Frames; an error of ours travels as a value, as the loader would bury it in a traceback."""

    def __init__(self, preparation: Preparation) -> None:
        self._preparation = preparation

    def __getitem__(self, visit: Visit) -> TrainingFrame | AloccError:
        try:
            return self._preparation[visit]
        except AloccError as error:
            return error


def _init_worker(_: int) -> None:
    """A loader process computes with one thread, and leaves stopping to its parent: Ctrl-C and
    torchrun end whole process groups, but the step in progress still needs its frames.
    """
    torch.set_num_threads(1)
    os.setpgrp()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # by this its parent ends it
