# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""A look at how good the network is by now: ``alocc evaluate`` on a few scenes, between steps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from alocc_ros.datasets.infos import open_dataset
from alocc_ros.distributed import World
from alocc_ros.evaluation.evaluate import Task, evaluate
from alocc_ros.evaluation.network import AS_IN_TRAINING, network_predictor
from alocc_ros.evaluation.scoring import scoring_of
from alocc_ros.network.model import Alocc
from alocc_ros.pipeline import Pipeline
from alocc_ros.records import ModelRecord


def evaluator(
    root: Path, split: str, record: ModelRecord, max_scenes: int, world: World
) -> Callable[[Alocc], dict[str, float]]:
    """Scores of a network on the first scenes of a split; all processes share the scenes.

    Raises:
        DataError: no such split, or files are missing.
    """
    dataset = open_dataset(root)
    task = Task(dataset.root, dataset.split(split)[: max_scenes or None], scoring_of(record))
    task.scoring.check_model(record)

    def evaluated(network: Alocc) -> dict[str, float]:
        pipeline = Pipeline(network, record, AS_IN_TRAINING, backend="eager")
        report = evaluate(task, network_predictor(pipeline), world=world)
        totals = [result.as_dict() for result in report.results.values()]
        return {
            name: value
            for total in totals
            for name, value in total.items()
            if isinstance(value, float)
        }

    return evaluated
