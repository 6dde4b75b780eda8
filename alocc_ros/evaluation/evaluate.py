# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Whole scenes through a predictor, in order, and all of their frames scored.

Scenes are dealt out to the processes there are. Every scene has accumulators of its own, which
are merged in the order of scenes, so the numbers do not depend on who did what.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from alocc_ros.datasets.samples import Sample, Scene
from alocc_ros.datasets.truth import check_present, missing_files, missing_images, read_truth
from alocc_ros.distributed import SINGLE_PROCESS, World
from alocc_ros.errors import AloccError, ModelError
from alocc_ros.evaluation.scoring import (
    Results,
    Scores,
    Scoring,
    add_frame,
    check_prediction,
    ray_origins,
)
from alocc_ros.evaluation.store import Rays, ResultStore, pack, unpack
from alocc_ros.evaluation.true_boxes import Boxes, true_objects
from alocc_ros.files import whole_file
from alocc_ros.metrics.rays import Hits, ray_directions, raycast
from alocc_ros.objects.tracking import ObjectTracker
from alocc_ros.types import Occupancy

# Called with a scene, it forgets what came before and gives what predicts the scene's samples,
# which come one after the other.
Predictor = Callable[[Scene], Callable[[Sample], Occupancy]]
OnTodo = Callable[[Sequence[Scene]], None]
OnFrame = Callable[[Scene, int], None]


@dataclass(frozen=True)
class Task:
    """What is to be evaluated.

    Attributes:
        root: folder of the data set.
        scenes: in the order in which they are merged.
        scoring: the benchmark.
        reference_exact: with the accidents of the reference's metrics.
        scored: False: there is no truth, only rays are wanted.
        keep_rays: keep where the predictions' rays end, for a submission.
        images, lidar: the predictor looks at images, or LiDAR points, so they must be there.
        boxes: what objects are scored against, by the sample's token.
        is_kept: whether all else that is wanted of a scene is there; where not, it is done again.
    """

    root: Path
    scenes: tuple[Scene, ...]
    scoring: Scoring
    reference_exact: bool = False
    scored: bool = True
    keep_rays: bool = False
    images: bool = True
    lidar: bool = False
    boxes: Boxes = field(default_factory=dict)
    is_kept: Callable[[Scene], bool] = lambda scene: True

    def scores(self) -> Scores:
        """Empty accumulators."""
        return self.scoring.scores(self.reference_exact) if self.scored else {}


@dataclass(frozen=True)
class Report:
    """The scores of an evaluation.

    Attributes:
        benchmark: its name.
        frames: how many there were.
        results: by kind, ``voxels``, ``rays`` and ``objects``, of all scenes together.
        scenes: the same of each scene alone, by name.
        mapping: empty, or which classes stood for which (``Scoring.mapping``).
    """

    benchmark: str
    frames: int
    results: Results
    scenes: Mapping[str, Results]
    mapping: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "benchmark": self.benchmark,
            **self.mapping,
            "frames": self.frames,
            "scores": {kind: result.as_dict() for kind, result in self.results.items()},
            "scenes": {
                name: {kind: _totals(result.as_dict()) for kind, result in results.items()}
                for name, results in self.scenes.items()
            },
        }

    def table(self) -> str:
        """For people."""
        tables = [result.table() for result in self.results.values()]
        for words in self.mapping.values():
            tables.append(
                f"classes mapped by name from {words['from']} to {words['to']}; not in any mean: "
                f"{', '.join(words['not scored']) or 'none'}"
            )
        return "\n\n".join(tables)


def evaluate(
    task: Task,
    predictor: Predictor,
    *,
    world: World = SINGLE_PROCESS,
    folder: ResultStore | None = None,
    restart: bool = False,
    on_todo: OnTodo = lambda todo: None,
    on_frame: OnFrame = lambda scene, frames: None,
) -> Report:
    """Does it; every process gets the report.

    Args:
        task: what to do.
        predictor: is called with each scene, and what it gives with each of its samples.
        world: the processes that share the work.
        folder: what was done before is taken from it, and what gets done goes there. Rank 0
            decides, so the others need not see the same disk; only rays are not sent.
        restart: forget what was done before.
        on_todo: told once which scenes this process will do.
        on_frame: told after each frame: the scene, and how many of its frames are done.

    Raises:
        AloccError: files are missing (all of them are named before work begins), or cannot be
            read, or the predictions do not fit the benchmark. Scenes that are done are kept.
    """
    todo = _pending(task, world, folder, restart)
    mine = todo[world.rank :: world.size]
    on_todo(mine)
    packed: dict[str, bytes] = {}
    with ThreadPoolExecutor(1, thread_name_prefix="alocc-scores") as scorer:
        for scene in mine:
            packed[scene.name], rays = _scene(task, scene, predictor, scorer, on_frame)
            if folder is not None:
                folder.keep(scene, packed[scene.name], rays)
    return _report(task, _all_packed(task, packed, todo, world, folder))


def _pending(task: Task, world: World, folder: ResultStore | None, restart: bool) -> list[Scene]:
    """Scenes that are not done; all processes agree on them, or fail together."""
    plan: dict[str, Any] = {}
    if world.rank == 0:
        try:
            _check_files(task)
            if folder is not None:
                folder.prepare(restart)
            plan["todo"] = [s.name for s in task.scenes if not _is_done(task, s, folder)]
        except AloccError as error:
            world.broadcast({"error": str(error)})
            raise
    plan = world.broadcast(plan)
    if "error" in plan:
        raise AloccError(plan["error"])
    return [scene for scene in task.scenes if scene.name in set(plan["todo"])]


def _check_files(task: Task) -> None:
    samples = [sample for scene in task.scenes for sample in scene.samples]
    missing: list[Path] = []
    if task.scored:
        missing += missing_files(
            task.root, samples, task.scoring.labels, camera_mask=task.scoring.masked
        )
    if task.images:
        missing += missing_images(samples)
    if task.lidar:
        missing += [s.lidar.path for s in samples if not s.lidar.path.is_file()]
    check_present(missing, f"{task.root}, which this evaluation reads,", task.root)


def _is_done(task: Task, scene: Scene, folder: ResultStore | None) -> bool:
    if folder is None or folder.done(scene) is None or not task.is_kept(scene):
        return False
    return not task.keep_rays or folder.has_rays(scene)


def _scene(
    task: Task, scene: Scene, predictor: Predictor, scorer: ThreadPoolExecutor, on_frame: OnFrame
) -> tuple[bytes, Rays | None]:
    """One scene; while the predictor works on a frame, the one before is scored."""
    scores, ends, tracker = task.scores(), [], ObjectTracker()
    with_rays = task.scoring.rays or task.keep_rays
    origins = ray_origins(scene) if with_rays else [None] * len(scene.samples)
    predict = predictor(scene)
    before: Future[None] | None = None
    for number, sample in enumerate(scene.samples, 1):
        prediction = task.scoring.translated(predict(sample))
        check_prediction(prediction, task.scoring, sample.name)
        if before is not None:
            before.result()
        before = scorer.submit(
            _score, task, scores, sample, prediction, origins[number - 1], ends, tracker
        )
        on_frame(scene, number)
    if before is not None:
        before.result()
    state = {kind: accumulator.state() for kind, accumulator in scores.items()}
    return pack(state), _concatenated(ends) if task.keep_rays else None


def _score(
    task: Task,
    scores: Scores,
    sample: Sample,
    prediction: Occupancy,
    origins: np.ndarray | None,
    ends: list[tuple[np.ndarray, ...]],
    tracker: ObjectTracker,
) -> None:
    hits: Hits | None = None
    try:
        if task.scored:
            truth = read_truth(
                task.root, sample, task.scoring.labels, camera_mask=task.scoring.masked
            )
            hits = add_frame(scores, task.scoring, prediction, truth, origins)
            if "objects" in scores:
                boxes = true_objects(task.boxes[sample.token], sample, truth.classes)
                objects = tracker.step(prediction)
                scores["objects"].update(
                    objects, prediction.labels, boxes, truth.labels, truth.mask_camera
                )
        if task.keep_rays:
            ends.append(_ray_ends(prediction, hits, origins))
    except AloccError as error:
        raise type(error)(f"{sample.name}: {error}") from error


def _ray_ends(
    prediction: Occupancy, hits: Hits | None, origins: np.ndarray
) -> tuple[np.ndarray, ...]:
    """Class, distance and flow at the end of every ray, in the challenge's precision."""
    if prediction.flow is None:
        raise ModelError("the prediction has no flow, which the challenge wants")
    if hits is None:
        free, grid = prediction.classes.free, prediction.grid
        hits = raycast(prediction.labels, origins, ray_directions(), free, grid)
    labels, flow = hits.take(prediction.labels), hits.take(prediction.flow)
    return labels, hits.distance.astype(np.float16), flow.astype(np.float16)


def _concatenated(ends: Sequence[tuple[np.ndarray, ...]]) -> Rays:
    counts = np.array([len(labels) for labels, _, _ in ends])
    return Rays(counts, *(np.concatenate(part) for part in zip(*ends, strict=True)))


def _all_packed(
    task: Task,
    packed: dict[str, bytes],
    todo: list[Scene],
    world: World,
    folder: ResultStore | None,
) -> dict[str, bytes]:
    """The counts of every scene, to every process: those of before are with rank 0."""
    if world.rank == 0 and folder is not None:
        for scene in task.scenes:
            if scene.name not in packed and (content := folder.done(scene)) is not None:
                packed[scene.name] = content
    if world.size == 1:
        return packed
    arrays = {name: np.frombuffer(content, np.uint8) for name, content in packed.items()}
    everything: dict[str, bytes] = {}
    for content in world.all_gather(pack({"scenes": arrays})):
        scenes = unpack(content).get("scenes", {})
        everything |= {name: array.tobytes() for name, array in scenes.items()}
    if world.rank == 0 and folder is not None:
        for scene in todo:
            if folder.done(scene) is None:
                folder.keep(scene, everything[scene.name], None)
    return everything


def _report(task: Task, packed: Mapping[str, bytes]) -> Report:
    total, scenes = task.scores(), {}
    for scene in task.scenes:
        alone = task.scores()
        for kind, state in unpack(packed[scene.name]).items():
            alone[kind].merge(state)
            total[kind].merge(state)
        scenes[scene.name] = {kind: one.result() for kind, one in alone.items()}
    return Report(
        task.scoring.name,
        sum(len(scene.samples) for scene in task.scenes),
        {kind: one.result() for kind, one in total.items()},
        scenes,
        task.scoring.mapping(),
    )


def _totals(result: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in result.items() if not isinstance(value, dict)}


def write_report(path: Path, report: Report, identity: Mapping[str, Any]) -> None:
    """Writes the report as JSON.

    Raises:
        OutputError: it cannot be written; nothing is left behind.
    """
    content = {"about": dict(identity), **report.as_dict()}
    with whole_file(path) as scratch:
        scratch.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
