# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""``alocc run``: occupancy and flow of a recorded bag."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import hashlib
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from alocc_ros.cli._models import add_model_arguments, find_model, load_network
from alocc_ros.cli._motion import add_motion_arguments, of_pictures
from alocc_ros.cli._values import whole_number_from
from alocc_ros.errors import OutputError, ParameterError, PresetError
from alocc_ros.stream.preset import load_preset, preset_names
from alocc_ros.types import CAMERAS

if TYPE_CHECKING:
    from alocc_ros.bags.frames import FrameSource
    from alocc_ros.bags.job import Job, JobStatistics
    from alocc_ros.pipeline import Pipeline
    from alocc_ros.records import ModelRecord


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``alocc run``."""
    parser.add_argument(
        "bag", type=Path, help="ROS 2 bag: folder, .mcap or .db3; or a folder of pictures or films"
    )
    parser.add_argument(
        "-o", "--output", type=Path, required=True, help="recording to write, .mcap"
    )
    add_model_arguments(parser)
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--preset",
        metavar="NAME",
        help=f"topics and frames: {', '.join(preset_names())} (default: the one that fits)",
    )
    where.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="topics and frames from a YAML file; of pictures the rig file (`alocc rig example`)",
    )
    parser.add_argument("--calibration", type=Path, help="rig YAML, or folder of camera_info YAMLs")
    parser.add_argument("--grid-frame", help="TF frame of the grid (models of the LiDAR frame)")
    parser.add_argument(
        "--max-frames", type=whole_number_from(1), metavar="N", help="stop after so many frames"
    )
    parser.add_argument("--npz", type=Path, metavar="DIR", help="also write one NPZ a frame")
    parser.add_argument(
        "--overlay", type=Path, metavar="DIR", help="also write one picture a frame"
    )
    parser.add_argument("--with-images", action="store_true", help="copy the input images as well")
    parser.add_argument(
        "--strict",
        action="store_true",
        help="make an error of each message that cannot be used, which else is left out",
    )
    add_motion_arguments(parser)
    parser.add_argument("--restart", action="store_true", help="do not resume an earlier run")


def run(args: argparse.Namespace) -> int:
    """Runs the command."""
    if args.config and args.config.suffix not in {".yaml", ".yml"}:
        raise PresetError(f"--config {args.config}: expected a file that ends in .yaml")
    _check_output(args.output, args.bag)
    pictures = of_pictures(args)
    chosen = args.config or args.preset
    preset = load_preset(chosen) if chosen and not pictures else None

    from alocc_ros.bags.frames import FrameSource, preset_of
    from alocc_ros.bags.job import process
    from alocc_ros.bags.reader import Bag
    from alocc_ros.stream.skips import Skips

    record, weights_file = find_model(args)
    if record.frame != "ego" and not args.grid_frame:
        raise ParameterError(
            f"{record.name} sees in the {record.frame} frame: "
            "say with --grid-frame what TF calls that"
        )
    with pictures or Bag(args.bag) as bag:
        preset = pictures.preset if pictures else preset or preset_of(bag)
        with _waiting("reading poses and cameras"):
            early: list[str] = []  # not before it is known whether the bag is refused
            skips = Skips(early.append, strict=args.strict)
            source = FrameSource(bag, preset, args.calibration, args.grid_frame, skips)
        for text in early:
            _warn(text)
        skips.say = _warn
        with _waiting(f"loading {record.name}"):
            pipeline, weights = _pipeline(args, record, weights_file)
        pipeline.preprocessor.say = _warn
        job = _job(args, source, record, weights, bag.identity(), preset)
        total = min(source.expected, args.max_frames or source.expected)
        with _progress(total) as on_stage, _stop_on_interrupt() as stopping:
            statistics = process(job, source, pipeline, on_stage, stopping)
        _print_summary(preset.name, job, source, pipeline, statistics)
        for warning in filter(None, (bag.warning, *source.warnings)):
            _warn(warning)
        if pictures and pictures.is_one_set:
            _warn(
                "one picture a camera: the network remembers nothing, and sees less than in a drive"
            )
        if record.lidar_depth:
            _warn(
                f"{record.name} was trained with LiDAR depth, and `alocc run` gives it none: it "
                "sees worse than published"
            )
    return 130 if statistics.interrupted else 0


def _check_output(output: Path, bag: Path) -> None:
    """Before an hour of work, and before anything of the user's is overwritten."""
    if output.suffix != ".mcap":
        raise OutputError(f"-o {output}: the recording's name must end in .mcap")
    if output.is_dir():
        raise OutputError(f"-o {output}: there is a folder of that name")
    if not output.parent.is_dir():
        raise OutputError(f"cannot write {output}: there is no folder {output.parent}")
    place, source = output.resolve(), bag.resolve()
    if place == source or place.parent == source:
        raise OutputError(f"-o {output}: that is in the bag itself, which is never written to")


def _pipeline(
    args: argparse.Namespace, record: ModelRecord, weights_file: Path | None
) -> tuple[Pipeline, str]:
    """The pipeline, and where its weights come from in a few words."""
    from alocc_ros.pipeline import Pipeline

    network, weights = load_network(record, weights_file, args.device, args.seed)
    pipeline = Pipeline(
        network=network,
        record=record,
        grid_frame=args.grid_frame,
        random_weights=weights_file is None,
        backend=args.backend,
        precision=args.precision,
    )
    if pipeline.runner.reason:
        _warn(f"backend {pipeline.runner.backend}: {pipeline.runner.reason}")
    return pipeline, weights


def _job(
    args: argparse.Namespace,
    source: FrameSource,
    record: ModelRecord,
    weights: str,
    bag_identity: dict[str, Any],
    preset: Any,
) -> Job:
    from alocc_ros import __version__
    from alocc_ros.bags.job import Job
    from alocc_ros.bags.outputs import Provenance

    topics = {camera: t.image for camera, t in preset.used_cameras.items()}
    calibration = args.calibration or preset.calibration_file
    return Job(
        output=args.output,
        provenance=Provenance(
            model=record.name,
            weights=weights,
            camera_frames=source.camera_frames,
            image_topics=topics if args.with_images else {},
            base_T_grid=source.base_T_grid,
        ),
        identity={
            "version": __version__,
            "bag": bag_identity,
            "preset": dataclasses.asdict(preset),
            "calibration": _digest(calibration),
            "model": record.name,
            "weights": weights,
            "device": args.device,
            "backend": args.backend,
            "precision": args.precision,
            "grid frame": args.grid_frame,
            "choice of --with-images": args.with_images,
            "choice of --npz": args.npz is not None,
            "choice of --overlay": args.overlay is not None,
            "choice of --strict": args.strict,
        },
        history=None if record.recurrent else record.history,
        max_frames=args.max_frames,
        npz=args.npz,
        overlay=args.overlay,
        restart=args.restart,
    )


def _digest(path: Path | None) -> str | None:
    """Of a calibration file, or of the files in a folder."""
    if path is None:
        return None
    files = sorted(path.glob("*.yaml")) if path.is_dir() else [path]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


# --- what the user sees ----------------------------------------------------------------------


def _warn(text: str) -> None:
    print(f"alocc: warning: {text}", file=sys.stderr)


@contextlib.contextmanager
def _waiting(what: str) -> Iterator[None]:
    from rich.console import Console

    with Console(stderr=True).status(what):
        yield


@contextlib.contextmanager
def _progress(total: int) -> Iterator[Callable[[str, JobStatistics], None]]:
    """A progress bar on stderr, if that is a terminal."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda stage, statistics: None
        return
    progress = Progress(
        TextColumn("{task.description:<22}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )
    with progress:
        task = progress.add_task("", total=total, rate="")

        def on_stage(stage: str, statistics: JobStatistics) -> None:
            recent = [s for t in ("total", "write") for s in statistics.latencies.get(t, [])[-10:]]
            rate = f"{len(recent) / 2 / sum(recent):.2f} frames/s" if recent else ""
            progress.update(task, description=stage, completed=statistics.frames, rate=rate)

        yield on_stage


@contextlib.contextmanager
def _stop_on_interrupt() -> Iterator[Callable[[], bool]]:
    """The first Ctrl-C asks to stop after this frame, the second one stops at once."""
    asked = False

    def ask(number: int, frame: Any) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        print("alocc: stopping after this frame", file=sys.stderr)

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield lambda: asked
    finally:
        signal.signal(signal.SIGINT, before)


def _print_summary(
    preset: str, job: Job, source: FrameSource, pipeline: Pipeline, statistics: JobStatistics
) -> None:
    partial = statistics.frames - statistics.complete
    resumed = f", {statistics.resumed} of them from the run before" if statistics.resumed else ""
    lines = [
        (
            "frames",
            f"{statistics.frames} ({statistics.complete} complete, {partial} partial{resumed})",
        ),
        ("cameras", _cameras(source.cameras)),
        ("missing", _counts(statistics.missing)),
        ("skipped", str(source.skips)),
        ("dropped", _counts(source.drops)),
        ("resets", _counts(pipeline.keyframes.resets)),
        ("latency", _latency(statistics)),
        ("preset", preset),
        ("model", f"{job.provenance.model}, {job.provenance.weights}"),
    ]
    if pipeline.flow_overflow:
        lines.append(("flow", f"none for {pipeline.flow_overflow} moving voxels: too many at once"))
    if pipeline.random_weights:
        lines.append(("", "the weights are random: the output means nothing"))
    if statistics.interrupted:
        lines.append(("stopped", f"{job.partial} holds what is done"))
        lines.append(("", "run the same command again to go on"))
    else:
        size = job.output.stat().st_size / 1e6
        lines.append(("output", f"{job.output} ({size:.1f} MB)"))
    for name, text in lines:
        if text:
            print(f"{name:<8} {text}")


def _cameras(fitted: tuple[str, ...]) -> str:
    """Nothing of a whole rig."""
    absent = [camera for camera in CAMERAS if camera not in fitted]
    return f"{len(fitted)} of {len(CAMERAS)}, without {', '.join(absent)}" if absent else ""


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{number} x {name}" for name, number in sorted(counts.items()))


def _latency(statistics: JobStatistics) -> str:
    total = statistics.latencies.get("total")
    if not total:
        return ""
    p50, p95 = (1e3 * np.percentile(total, q) for q in (50, 95))
    parts = [
        f"{stage} {1e3 * np.median(seconds):.0f}"
        for stage, seconds in statistics.latencies.items()
        if stage != "total"
    ]
    return f"p50 {p50:.0f} ms, p95 {p95:.0f} ms (median ms: {', '.join(parts)})"
