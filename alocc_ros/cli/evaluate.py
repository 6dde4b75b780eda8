# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""``alocc evaluate``: the scores of a model on nuScenes, or on anything in its format."""

from __future__ import annotations

import argparse
import functools
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alocc_ros.cli._models import add_model_arguments, find_model, load_network
from alocc_ros.cli._predictions import Keeper, Pages, Predictions, both
from alocc_ros.cli._progress import scene_bar
from alocc_ros.datasets.infos import open_dataset
from alocc_ros.datasets.samples import Dataset, Scene
from alocc_ros.datasets.truth import check_present, missing_files
from alocc_ros.distributed import World, process_group
from alocc_ros.errors import OutputError, ParameterError
from alocc_ros.evaluation.evaluate import Predictor, Report, Task, evaluate, write_report
from alocc_ros.evaluation.scoring import SCORINGS, Scoring, find_scoring, scoring_of
from alocc_ros.evaluation.store import ResultStore
from alocc_ros.evaluation.submission import check_about, write_submission
from alocc_ros.evaluation.true_boxes import boxes_of
from alocc_ros.files import component
from alocc_ros.metrics.sums import text_table
from alocc_ros.words import counted

if TYPE_CHECKING:
    from alocc_ros.pipeline import Pipeline
    from alocc_ros.records import ModelRecord

# nuScenes publishes no labels of it.
_WITHOUT_TRUTH = "test"
TRUTH = "truth"  # in the place of a model: its voxels are the labels themselves
# What the table of baselines shows: % and m/s.
_TOTALS = (
    "mIoU", "IoU", "RayIoU", "mAVE_TP", "mAVE", "Occ score",
    "vehicle recall", "vehicle precision", "vehicle velocity error",
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``alocc evaluate``."""
    add_model_arguments(parser, backend="eager")
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        metavar="ROOT",
        help="data set: its folder, or an info file (.pkl)",
    )
    parser.add_argument("--version", help="of its tables (default: v1.0-trainval, or the only one)")
    parser.add_argument("--split", default="val", help="which scenes (default: val)")
    parser.add_argument(
        "--benchmark",
        required=True,
        help=", ".join(SCORINGS),
    )
    parser.add_argument("--max-scenes", type=int, metavar="N", help="only the first N scenes")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="DIR",
        help="where results go (default: evaluation/MODEL-FILE-DIGEST-BENCHMARK-SPLIT)",
    )  # fmt: skip
    parser.add_argument(
        "--baselines", metavar="SPLIT",
        help="also score what the network must beat: itself without memory, and the class that "
        "each voxel most often has in SPLIT (train)",
    )  # fmt: skip
    parser.add_argument(
        "--npz", type=Path, metavar="DIR",
        help="keep each prediction as an NPZ file, for `alocc view DIR --truth ROOT`",
    )  # fmt: skip
    parser.add_argument(
        "--show", type=Path, metavar="DIR",
        help="keep a page of pictures of each: images, prediction, ground truth",
    )  # fmt: skip
    parser.add_argument(
        "--map-classes", action="store_true",
        help="score a model whose classes are all among the benchmark's, by their names",
    )  # fmt: skip
    parser.add_argument(
        "--submission", type=Path, metavar="FILE", help="also write the challenge's file, .gz"
    )
    parser.add_argument(
        "--about", action="append", default=[], metavar="NAME=TEXT",
        help="an entry of the challenge's file, such as team=Robots",
    )  # fmt: skip
    parser.add_argument(
        "--reference-exact", action="store_true", help="with the accidents of the reference's code"
    )
    parser.add_argument(
        "--deterministic", action="store_true",
        help="equal bits on a GPU too, run for run (slower)",
    )  # fmt: skip
    parser.add_argument("--restart", action="store_true", help="do not resume an earlier run")
    parser.add_argument("--json", action="store_true", help="machine-readable result")


def run(args: argparse.Namespace) -> int:
    """Runs the command, alone or as one of torchrun's processes."""
    scoring = find_scoring(args.benchmark)
    about = _about(args.about)
    scored = args.split != _WITHOUT_TRUTH
    if args.max_scenes is not None and args.max_scenes < 1:
        raise ParameterError(f"--max-scenes {args.max_scenes}: must be at least 1")
    if args.submission and not scoring.flow:
        raise ParameterError("--submission: the challenge is about --benchmark openocc")
    if not (scored or args.submission):
        raise ParameterError("--split test has no labels: all one can do is a --submission")
    if args.baselines and not scored:
        raise ParameterError("--baselines: --split test has no labels to score against")
    if args.model == TRUTH:
        return _run_truth(args, scoring)
    record, weights_file = find_model(args)
    if args.map_classes:
        if args.reference_exact:
            raise ParameterError("--map-classes: no published number is of mapped classes")
        scoring = scoring.mapped(record)
    scoring.check_model(record)
    from alocc_ros.evaluation.network import network_predictor

    with process_group() as world:
        dataset = _dataset(args, world)
        task = _task(args, dataset, scoring, scored, lidar=record.lidar_depth)
        in_prior = _prior_scenes(args, dataset, scoring)
        pipeline, weights = _pipeline(args, record, weights_file, world)
        identity = world.broadcast(_identity(args, record.name, weights, dataset, scoring))
        default = default_folder(record, weights_file, weights, args)
        folder = ResultStore(args.output or default, identity)
        predictor, wanted = network_predictor(pipeline), task
        for keeper in _keepers(args, task, weights):
            predictor = keeper.kept(predictor)
            wanted = replace(wanted, is_kept=both(wanted.is_kept, keeper.has))
        report = _evaluated(wanted, predictor, world, folder, args.restart)
        if world.rank == 0:
            if args.submission:
                _submit(args.submission, task, folder, {"method": record.name, **about})
            if scored:
                write_report(folder.path / "scores.json", report, identity)
        reports = {record.name: report}
        for name, place, predictor in _baselines(args, in_prior, task, pipeline, record):
            about_it = {**identity, "predictor": name}
            baseline_store = ResultStore(folder.path / "baselines" / place, about_it)
            # A submission is of the network alone.
            alone = replace(task, keep_rays=False)
            reports[name] = _evaluated(alone, predictor, world, baseline_store, args.restart)
            if world.rank == 0:
                write_report(baseline_store.path / "scores.json", reports[name], about_it)
        if world.rank == 0:
            _print(args, reports, folder, scored)
            for warning in _warnings(scoring, record):
                print(f"alocc: warning: {warning}", file=sys.stderr)
    return 0


def _run_truth(args: argparse.Namespace, scoring: Scoring) -> int:
    """The truth in the network's place: what comes after the network is scored alone."""
    for option in ("baselines", "map_classes", "npz", "random_weights", "show", "submission"):
        if getattr(args, option):
            raise ParameterError(f"--{option.replace('_', '-')}: --model {TRUTH} is no network")
    if args.split == _WITHOUT_TRUTH:
        raise ParameterError(f"--split {args.split} has no labels, so --model {TRUTH} has none")
    from alocc_ros.evaluation.oracle import oracle

    with process_group() as world:
        dataset = _dataset(args, world)
        task = replace(_task(args, dataset, scoring, True, lidar=False), images=False)
        identity = world.broadcast(_identity(args, TRUTH, "", dataset, scoring))
        default = Path("evaluation", "-".join((TRUTH, args.benchmark, args.split)))
        folder = ResultStore(args.output or default, identity)
        report = _evaluated(task, oracle(task.root, scoring), world, folder, args.restart)
        if world.rank == 0:
            write_report(folder.path / "scores.json", report, identity)
            _print(args, {TRUTH: report}, folder, True)
    return 0


def default_folder(
    record: ModelRecord, weights_file: Path | None, weights: str, args: argparse.Namespace
) -> Path:
    """Where results go: another checkpoint of the same model has another folder."""
    name = [record.name]
    if weights_file is None:
        name.append(f"random{args.seed}")
    else:
        file = weights_file.stem
        # Those of runs all have one name: the run's tells more.
        file = weights_file.resolve().parent.name if file in ("weights", "state") else file
        if file.startswith(record.name):
            name = []
        name += [component(file), weights.removeprefix("sha256:")[:8]]
    return Path("evaluation", "-".join((*name, args.benchmark, args.split)))


def _keepers(args: argparse.Namespace, task: Task, weights: str) -> Iterator[Keeper]:
    """What is to be kept of each prediction, beside its scores."""
    if args.npz:
        yield Predictions(args.npz, weights)
    if args.show:
        yield Pages(args.show, weights, task.root, task.scoring if task.scored else None)


def _task(
    args: argparse.Namespace, dataset: Dataset, scoring: Scoring, scored: bool, lidar: bool
) -> Task:
    scenes = dataset.split(args.split)[: args.max_scenes]
    return Task(
        dataset.root,
        scenes,
        scoring,
        args.reference_exact,
        scored,
        keep_rays=args.submission is not None,
        lidar=lidar,
        boxes=boxes_of(dataset, scenes) if scoring.objects else {},
    )


def _prior_scenes(args: argparse.Namespace, dataset: Dataset, scoring: Scoring) -> Sequence[Scene]:
    """The scenes whose classes are counted; what is missing is told before work begins."""
    if not args.baselines:
        return ()
    scenes = dataset.split(args.baselines)
    samples = [sample for scene in scenes for sample in scene.samples]
    missing = missing_files(dataset.root, samples, scoring.labels, camera_mask=scoring.masked)
    check_present(missing, f"{dataset.root}, in which classes are counted,", dataset.root)
    return scenes


def _baselines(
    args: argparse.Namespace,
    in_prior: Sequence[Scene],
    task: Task,
    pipeline: Pipeline,
    record: ModelRecord,
) -> Iterator[tuple[str, str, Predictor]]:
    """What the network is compared with: in words, its folder, and how it predicts."""
    if not args.baselines:
        return
    from alocc_ros.evaluation.baselines import class_prior
    from alocc_ros.evaluation.network import network_predictor

    yield f"{record.name}, no memory", "no-memory", network_predictor(pipeline, remembers=False)

    @functools.cache
    def prior() -> Predictor:  # takes minutes, and is not needed where all scenes are done
        print(f"alocc: counting classes in {counted(len(in_prior), 'scene')}", file=sys.stderr)
        return class_prior(task.root, in_prior, task.scoring).predictor()

    yield f"class prior of {args.baselines}", "class-prior", lambda scene: prior()(scene)


def _pipeline(
    args: argparse.Namespace, record: ModelRecord, weights_file: Path | None, world: World
) -> tuple[Pipeline, str]:
    """The pipeline, and where its weights come from in a few words."""
    device = _device(args.device, world)
    if args.deterministic:
        _make_deterministic()
    network, weights = load_network(record, weights_file, device, args.seed, quiet=world.rank > 0)
    from alocc_ros.evaluation.network import AS_IN_TRAINING
    from alocc_ros.pipeline import Pipeline

    # Models of the LiDAR frame are told before each frame where that is.
    pipeline = Pipeline(
        network, record, AS_IN_TRAINING, backend=args.backend, precision=args.precision
    )
    return pipeline, weights


def _device(name: str, world: World) -> str:
    """Each process of a machine takes a GPU of its own, as far as there are any."""
    import torch

    if world.size > 1 and name in ("auto", "cuda") and torch.cuda.is_available():
        return f"cuda:{world.local_rank % torch.cuda.device_count()}"
    return name


def _make_deterministic() -> None:
    """On a GPU the order of a sum depends on its threads; from now on it does not."""
    import torch

    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.deterministic = True


def _identity(
    args: argparse.Namespace, model: str, weights: str, dataset: Dataset, scoring: Scoring
) -> dict[str, Any]:
    """Everything that the numbers depend on, but for which scenes they are of."""
    from alocc_ros import __version__

    return {
        "alocc_ros": __version__,
        "model": model,
        "weights": weights,
        "benchmark": args.benchmark,
        "data": str(dataset.root.resolve()),
        "tables": dataset.version,
        "split": args.split,
        "scored": args.split != _WITHOUT_TRUTH,
        "reference exact": args.reference_exact,
        "deterministic": args.deterministic,
        "backend": args.backend,
        "precision": args.precision,
        **scoring.mapping(),
    }


def _dataset(args: argparse.Namespace, world: World) -> Dataset:

    with world.console().status("reading tables") as status:

        def on_progress(what: str, done: int, total: int) -> None:
            status.update(f"reading {what}, {100 * done // max(total, 1)} %")

        return open_dataset(args.data, args.version, on_progress)


def _evaluated(
    task: Task, predictor: Predictor, world: World, folder: ResultStore, restart: bool
) -> Report:
    """The evaluation, with a progress bar of the first process."""
    with scene_bar(world) as (on_todo, on_frame):
        try:
            return evaluate(
                task, predictor, world=world, folder=folder,
                restart=restart, on_todo=on_todo, on_frame=on_frame,
            )  # fmt: skip
        except KeyboardInterrupt:
            if world.rank == 0:
                done = sum(folder.done(scene) is not None for scene in task.scenes)
                print(
                    f"alocc: {done} of {len(task.scenes)} scenes are done and kept in "
                    f"{folder.path}; run the same command again to go on",
                    file=sys.stderr,
                )
            raise


def _submit(path: Path, task: Task, folder: ResultStore, about: dict[str, str]) -> None:
    from rich.console import Console

    def scenes() -> Iterator[Any]:
        for scene in task.scenes:
            rays = folder.rays(scene)
            if rays is None:
                raise OutputError(
                    f"{folder.path} has no rays of {scene.name}: for a submission all processes "
                    "must write into one folder"
                )
            yield [sample.token for sample in scene.samples], rays

    with Console(stderr=True).status(f"writing {path}"):
        write_submission(path, scenes(), about)


def _about(entries: Sequence[str]) -> dict[str, str]:
    about = {}
    for entry in entries:
        name, equals, text = entry.partition("=")
        if not equals:
            raise ParameterError(f"--about {entry}: expected NAME=TEXT")
        about[name.strip()] = text.strip()
    check_about(about)
    return about


def _print(
    args: argparse.Namespace,
    reports: Mapping[str, Report],
    folder: ResultStore,
    scored: bool,
) -> None:
    (name, report), *baselines = reports.items()
    if args.json:
        totals = {"baselines": _totals(reports)} if baselines else {}
        json.dump(report.as_dict() | totals, sys.stdout, indent=1, allow_nan=False)
        print()
        return
    if scored:
        print(report.table())
        print()
    print(f"{name} on {report.benchmark}: {counted(report.frames, 'frame')} of "
          f"{counted(len(report.scenes), 'scene')}, split {args.split}")  # fmt: skip
    if baselines:
        totals = _totals(reports)
        columns = list(totals[name])
        print()
        rows = [
            (predictor, *("-" if value is None else value for value in row.values()))
            for predictor, row in totals.items()
        ]
        print(text_table(("", *columns), rows))
        print()
    if args.random_weights:
        print("the weights are random: the scores mean nothing")
    if scored:
        print(f"results  {folder.path / 'scores.json'}")
    if args.submission:
        print(f"submission  {args.submission}")
    if args.npz:
        print(f"predictions  {args.npz}; beside the truth: "
              f"alocc view {args.npz} --truth {args.data}")  # fmt: skip
    if args.show:
        print(f"pages  {args.show}")


def _totals(reports: Mapping[str, Report]) -> dict[str, dict[str, float]]:
    """By predictor, the scores that are one number."""
    return {
        name: {
            score: value
            for result in report.results.values()
            for score, value in result.as_dict().items()
            if score in _TOTALS
        }
        for name, report in reports.items()
    }


def _warnings(scoring: Scoring, record: ModelRecord) -> Iterator[str]:
    own = scoring_of(record)
    if record.supervision == "camera_visible" and own.masked and not scoring.masked:
        yield (
            f"{record.name} was trained on what cameras see; it guesses elsewhere, so this is far "
            f"below what it is published with (--benchmark {own.name})"
        )
    if record.supervision == "all" and scoring.masked and not (own.masked or scoring.objects):
        yield f"{record.name} was trained without the camera mask (--benchmark {own.name})"
