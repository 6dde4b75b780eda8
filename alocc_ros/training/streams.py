# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Which frame each slot of the global batch sees at each step.

A slot is one stream of frames with its own temporal memory. It goes through sequences in order of
time, one after the other, for ever; its memory is reset where a sequence begins. The slots
share one endless row of shuffled sequences and take every ``slots``-th of it, so it does not
matter which process serves which slot.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from alocc_ros.errors import TrainingError
from alocc_ros.training.randomness import numpy_random

_SHUFFLE = 1  # purpose of the random numbers, see randomness.py


class Visit(NamedTuple):
    """One frame for one slot at one step.

    Attributes:
        step, slot: when and where.
        index: of the frame.
        start: it begins a sequence, so there is no memory.
    """

    step: int
    slot: int
    index: int
    start: bool


class Streams:
    """The visits of all slots, step by step.

    Attributes:
        sequences: frames of each sequence in order of time.
        slots: streams of the global batch.
        seed: decides the shuffles.
    """

    def __init__(self, sequences: Sequence[Sequence[int]], slots: int, seed: int) -> None:
        if not sequences or not all(sequences):
            raise TrainingError("there is nothing to train on: no sequences, or empty ones")
        self.sequences, self.slots, self.seed = sequences, slots, seed

    def steps(self, first: int = 0) -> Iterator[tuple[Visit, ...]]:
        """The visits of every slot from step ``first`` on, without end."""
        frames = [self._frames(slot, first) for slot in range(self.slots)]
        step = first
        while True:
            yield tuple(Visit(step, slot, *next(frame)) for slot, frame in enumerate(frames))
            step += 1

    def _frames(self, slot: int, skip: int) -> Iterator[tuple[int, bool]]:
        element = slot
        while True:
            turn, place = divmod(element, len(self.sequences))
            sequence = self.sequences[self._order(turn)[place]]
            element += self.slots
            if skip >= len(sequence):
                skip -= len(sequence)
                continue
            for i in range(skip, len(sequence)):
                yield sequence[i], i == 0
            skip = 0

    def _order(self, turn: int) -> np.ndarray:
        """The shuffle of that pass over all sequences."""
        return numpy_random(self.seed, _SHUFFLE, turn).permutation(len(self.sequences))
