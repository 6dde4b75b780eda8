# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Recorded grids against the ground truth at the stamp of each, not of the nearest key frame."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from alocc_ros.bags.reader import Bag
from alocc_ros.bags.results import RecordedGrids, recorded_grids
from alocc_ros.datasets.truth import Truth
from alocc_ros.errors import BagError
from alocc_ros.evaluation.scoring import Results, Scores, Scoring, add_frame, check_prediction
from alocc_ros.ros.demo.street import Street
from alocc_ros.ros.recorder import NODE
from alocc_ros.types import Occupancy


@dataclass(frozen=True)
class Pair:
    """A result and its truth."""

    prediction: Occupancy
    truth: Truth


@dataclass(frozen=True)
class Scored:
    """Scores of all results, and some of them to be looked at.

    Attributes:
        results: by kind.
        stamps: ns, of all results.
        model: as the recording names it.
        random_weights: whether they were.
        pairs: at most as many as were asked for, in order of time.
    """

    results: Results
    stamps: tuple[int, ...]
    model: str
    random_weights: bool
    pairs: tuple[Pair, ...]


def score(
    recording: Path,
    street: Street,
    scoring: Scoring,
    pairs: int,
    on_progress: Callable[[str], None],
) -> Scored:
    """Scores every grid of the node that is in the recording.

    Args:
        recording: as ``drive`` leaves it.
        street: what was played.
        scoring: what counts.
        pairs: how many to keep, spread evenly.
        on_progress: told how far it is.

    Raises:
        BagError: the recording holds no grids of the node, or is damaged.
        ModelError: the grids are of other voxels or classes.
    """
    totals = scoring.scores()
    with Bag(recording) as bag:
        recorded = _of_node(bag)
        stamps = tuple(stamp for stamp, _ in recorded)
        kept = set(_spread(stamps, pairs))
        street.scene  # noqa: B018  made once, before several threads want it

        def one(grid: tuple[int, Callable[[], Occupancy]]) -> tuple[Scores, Pair]:
            stamp, read = grid
            prediction = read()
            check_prediction(prediction, scoring, f"{recording} at {stamp} ns")
            truth, origins = street.truth(stamp, scoring.labels)
            scores = scoring.scores()
            add_frame(scores, scoring, prediction, truth, origins)
            return scores, Pair(prediction, truth)

        found = []
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # many small operations: a thread a result does more
        try:
            with ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as pool:
                for number, (scores, pair) in enumerate(pool.map(one, recorded), start=1):
                    for name, total in totals.items():
                        total.merge(scores[name].state())
                    if pair.prediction.stamp in kept:
                        found.append(pair)
                    on_progress(f"results are scored: {number} of {len(stamps)}")
        finally:
            torch.set_num_threads(threads)
        return Scored(
            {name: total.result() for name, total in totals.items()},
            stamps,
            recorded.info.model,
            recorded.info.random_weights,
            tuple(found),
        )


def _of_node(bag: Bag) -> RecordedGrids:
    for recorded in recorded_grids(bag):
        if recorded.name == NODE:
            return recorded
    raise BagError(f"bag {bag.path} holds no voxels of {NODE}")


def _spread(stamps: tuple[int, ...], number: int) -> list[int]:
    places = np.linspace(0, len(stamps) - 1, min(number, len(stamps))).round().astype(int)
    return [stamps[place] for place in places]
