# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""``alocc train``: train a network on nuScenes, or on anything in its format."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from rich.console import Console

    from alocc_ros.distributed import World
    from alocc_ros.training.config import TrainingConfig
    from alocc_ros.training.trainer import Report, Trainer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("--model", help="model record, such as alocc_2d_mini")
    parser.add_argument(
        "--data",
        type=Path,
        action="append",
        required=True,
        metavar="ROOT",
        help="data set: its folder, or an info file (.pkl); may be repeated, scores are of the "
        "first one",
    )
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the run")
    parser.add_argument("--config", type=Path, help="settings, such as another run's config.yaml")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="change a setting"
    )
    parser.add_argument(
        "--settings",
        action=_ShowSettings,
        nargs=0,
        help="print every setting, its default and its meaning, and exit",
    )
    parser.add_argument("--steps", type=int, help="the same as --set steps=N")
    parser.add_argument(
        "--weights",
        metavar="MODEL",
        help="start from whatever fits of these: a name, a file, or the folder of a run",
    )
    parser.add_argument(
        "--fresh",
        action="append",
        default=[],
        metavar="PREFIX",
        help="but not of tensors whose names begin so; may be repeated",
    )
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda (default: auto)")


class _ShowSettings(argparse.Action):
    """As ``--help``: nothing else need be given."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        """Prints them and ends the program."""
        from alocc_ros.training.settings import as_text

        print(as_text())
        parser.exit()


def run(args: argparse.Namespace) -> int:
    """Train; alone, or as one of torchrun's processes."""
    from alocc_ros.runtime.device import keep_freed_memory, resolve_device

    device = resolve_device(args.device)
    keep_freed_memory()
    import torch

    from alocc_ros.distributed import process_group

    torch.backends.cudnn.benchmark = True  # sizes stay the same: the fastest way is worth a search

    config = _config(args)
    with process_group(device.type) as world:
        if device.type == "cuda" and world.size > 1:
            device = resolve_device(f"cuda:{world.local_rank}")
        _train(args, config, device, world)
    return 0


def _config(args: argparse.Namespace) -> TrainingConfig:
    from alocc_ros.errors import OutputError, ParameterError
    from alocc_ros.training import checkpoint
    from alocc_ros.training.config import TrainingConfig

    if args.fresh and args.weights is None:
        raise ParameterError("--fresh says what not to take of --weights, which are not given")
    written = args.output / "config.yaml"
    if args.resume:
        if args.config or args.weights:
            raise ParameterError("--resume goes on with the run's own settings and weights")
        if not written.is_file():
            raise OutputError(f"{args.output}: no run to resume, there is no config.yaml")
        config = TrainingConfig.read(written)
    else:
        if checkpoint.latest(args.output / "checkpoints") is not None:
            raise OutputError(f"{args.output} holds a run: --resume it, or choose another --output")
        if args.config is None and args.model is None:
            raise ParameterError("say what to train: --model NAME, or --config FILE")
        config = TrainingConfig.read(args.config) if args.config else TrainingConfig(args.model)
    values = {"model": args.model, "steps": args.steps}
    config = config.with_values({n: v for n, v in values.items() if v is not None})
    return config.changed(args.set)


def _train(
    args: argparse.Namespace,
    config: TrainingConfig,
    device: torch.device,
    world: World,
) -> None:
    from alocc_ros import records
    from alocc_ros.distributed import barrier
    from alocc_ros.errors import OutputError
    from alocc_ros.files import make_folder, whole_file
    from alocc_ros.network.checkpoint import read_weights
    from alocc_ros.network.model import Alocc
    from alocc_ros.network.variants import find_variant
    from alocc_ros.training.randomness import seed_everything
    from alocc_ros.training.scores import evaluator
    from alocc_ros.training.source import JoinedSource, NuScenesSource
    from alocc_ros.training.start import initialise, load_matching, spread_classes
    from alocc_ros.training.trainer import Trainer, inter_index_max
    from alocc_ros.words import counted

    console = world.console()
    record = records.find(config.model)
    variant = find_variant(record.variant)
    with console.status(f"reading {', '.join(map(str, args.data))}"):
        sources = [NuScenesSource(d, config.split, record, config.benchmark) for d in args.data]
    source = sources[0] if len(sources) == 1 else JoinedSource(sources)
    seed_everything(config.seed)
    network = Alocc(variant, inter_index_max(variant, config))
    initialise(network)
    if config.spread_classes:
        spread_classes(network)
    taken = ""
    if args.weights is not None:
        path = records.weights_file(args.weights)
        for known in records.load_records().values():
            if known.file == path.name:
                records.verified_sha256(path, known)
        weights = read_weights(path)
        console.print(f"weights of {path}: {weights.source()}", highlight=False)
        report = load_matching(network, weights.tensors, record.channel_order, args.fresh)
        for line in report.lines():
            console.print(line, highlight=False)
        taken = "\n".join([f"from {path}", *report.lines(most=len(weights.tensors))]) + "\n"
    evaluate = None
    if config.evaluate_every:
        evaluate = evaluator(
            args.data[0], config.evaluate_split, record, config.evaluate_scenes, world
        )
    trainer = Trainer(network, record, source, config, args.output, device, world, evaluate)
    if args.resume:
        trainer.resume()
    if world.rank == 0:  # not before everything is known to fit
        make_folder(args.output)
        config.write(args.output / "config.yaml")
        if taken:
            with whole_file(args.output / "start.txt") as scratch:
                scratch.write_text(taken, encoding="utf-8")
        if find_spec("tensorboard") is None:
            console.print(
                'no files for TensorBoard, which is not here (pip install "alocc_ros[train]"); '
                "log.jsonl has the same numbers",
                highlight=False,
                markup=False,
            )
    barrier()
    console.print(
        f"{config.model} on {counted(sum(map(len, source.scenes)), 'key frame')} of "
        f"{counted(len(source.scenes), 'scene')}: steps {trainer.step} to {config.steps}, "
        f"{counted(trainer.slots, 'sample')} each, "
        f"{world.size} x {device}",
        highlight=False,
    )
    console.print(trainer.average_in_words(), highlight=False)
    if not source.has_point_labels:
        console.print(
            "no classes of LiDAR points (nuScenes-lidarseg is not there): pixels learn depth only",
            highlight=False,
        )
    try:
        _fill_volumes(console, trainer)
        with _progress(console, trainer.step, config.steps) as on_step:
            trainer.run(on_step)
    except OSError as error:  # inputs have errors of their own: this is the disk
        place = error.filename or args.output
        raise OutputError(
            f"cannot write {place}: {error.strerror or error}; the last checkpoint is whole, go on "
            "from it with --resume"
        ) from error
    console.print(f"weights: {args.output / 'weights.safetensors'}", highlight=False)
    console.print(trainer.average_in_words(), highlight=False)


def _fill_volumes(console: Console, trainer: Trainer) -> None:
    from rich.progress import Progress

    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("lifting volumes", total=None)

        def on_progress(done: int, of: int) -> None:
            bar.update(task, completed=done, total=of)
            if not console.is_terminal and done % 100 == 0:
                console.print(f"volumes lifted: {done} of {of}", highlight=False)

        trainer.fill_volumes(on_progress)


@contextmanager
def _progress(console: Console, first: int, steps: int) -> Iterator[Callable[[Report], None]]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Remaining())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("starting", total=steps, completed=first)

        told: tuple[str, ...] = ()

        def on_step(report: Report) -> None:
            nonlocal told
            if report.dead and report.dead != told:
                console.print(
                    f"step {report.step}: {', '.join(report.dead)} here, but believed in nowhere "
                    "(no sigmoid above 0.001): such a class does not come back by itself; "
                    "entropy_weight keeps classes alive",
                    highlight=False,
                )
                told = report.dead
            words = f"loss {report.total:.3f}, {report.seconds:.2f} s a step"
            bar.update(task, completed=report.step + 1, description=words)
            if not console.is_terminal and report.step % 100 == 0:
                console.print(f"step {report.step}: {words}", highlight=False)

        yield on_step
