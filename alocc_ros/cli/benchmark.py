# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""``alocc benchmark``: time the network on this machine, part by part, or the node around it."""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alocc_ros.cli._models import (
    FIVE,
    add_backend_arguments,
    add_variant_arguments,
    variant_of,
)

if TYPE_CHECKING:
    from alocc_ros.bench.timing import ReferenceReport, Report


# Networks that a GPU is wanted for: the paper's, and their successor.
_SIX = (*FIVE, "alocc_3d_gf")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N")
    add_backend_arguments(parser)
    parser.add_argument(
        "--method", default="parts", choices=("parts", "reference"),
        help="part by part (default), or frames per second as published ones were counted",
    )  # fmt: skip
    parser.add_argument(
        "--frames", type=int, help="timed frames (default: 10, on CUDA 200; reference: 195)"
    )
    parser.add_argument("--warmup", type=int, help="frames before (default: 3; reference: 5)")
    parser.add_argument("--threads", type=int, help="CPU threads (default: torch's choice)")
    add_variant_arguments(parser)
    side = parser.add_argument_group("side by side (default: the five networks, and alocc_3d_gf)")
    side.add_argument(
        "--compare", type=Path, metavar="DIR",
        help="every way to run each network, cell by cell; DIR/compare.md grows, and the same "
        "command goes on where it was ended",
    )  # fmt: skip
    side.add_argument(
        "--budget", type=float, default=540.0, metavar="S", help="for --compare, seconds (540)"
    )
    side.add_argument(
        "--predict", metavar="SM",
        help="what a frame will cost on a GPU that is not here (sm_87, sm_89, sm_90, sm_120): "
        "launches, bytes, operations, roofline; all: one table of all of them; nothing is measured",
    )  # fmt: skip
    node = parser.add_argument_group(
        "the ROS 2 node",
        "processes of their own, counted between them; with a tiny network, or with --model on "
        "--device; exit code 1: not as it should be",
    )
    what = node.add_mutually_exclusive_group()
    what.add_argument("--node", action="store_true", help="six cameras to results, over DDS")
    what.add_argument("--publish", action="store_true", help="fill and publish large messages")
    node.add_argument("--seconds", type=float, default=60.0, metavar="S", help="how long (60)")
    node.add_argument("--raw", action="store_true", help="rgb8 images instead of JPEG")
    node.add_argument(
        "--decode", default="exact", choices=("exact", "fast", "gpu"), help="of JPEG images"
    )
    node.add_argument(
        "--early", action="store_true", help="images are decoded and seen when they come"
    )
    node.add_argument("--bag", type=Path, help="a bag in a loop instead of the cameras")
    node.add_argument(
        "--rate", type=float, help="Hz of the cameras (12), times real time of the bag (1)"
    )


def run(args: argparse.Namespace) -> int:
    """Print one table a model, or one of the node."""
    from alocc_ros.errors import ParameterError

    if args.node or args.publish:
        return _node(args)
    if args.predict:
        return _predict(args)
    if args.compare:
        return _compare(args)
    if args.raw or args.bag or args.rate or args.early:
        raise ParameterError("--raw, --early, --bag and --rate go with --node")
    names = args.model or list(FIVE)
    for name in ("frames", "warmup", "threads"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise ParameterError(f"--{name} {value}: must be at least 1")
    variants = [variant_of(name, args.shape) for name in names]
    _check_choices(args)
    if len(names) > 1:
        return _one_process_each(names, args)
    return _one(variants[0], args)


def _predict(args: argparse.Namespace) -> int:
    import torch
    from rich.console import Console
    from rich.table import Table

    from alocc_ros.bench.predict import gpu_of, predict, predictions
    from alocc_ros.runtime.precision import check_precision, dtype_of

    precision = check_precision(args.precision, "graph", torch.device("cuda"))
    console, found = Console(stderr=args.json), []
    if args.predict == "all":
        print(predictions([variant_of(name, args.shape) for name in args.model or _SIX]))
        return 0
    gpu = gpu_of(args.predict)
    for name in args.model or _SIX:
        p = predict(variant_of(name, args.shape), dtype_of(precision))
        title = f"{p.variant} on {gpu.name}, {precision}: predicted, not measured"
        table = Table(title=title)
        table.add_column("part")
        for column in ("launches", "MB moved", "GFLOP", "roofline us"):
            table.add_column(column, justify="right")
        rows = []
        for part, launches in [*p.launches.items(), ("frame", sum(p.launches.values()))]:
            calls = [c for c in p.calls if part in (c.part, "frame")]
            moved = sum(c.moved for c in calls) / 1e6
            work = sum(c.products + c.vectors for c in calls) / 1e9
            time = sum(c.seconds(gpu) for c in calls) * 1e6
            table.add_row(part, str(launches), f"{moved:.0f}", f"{work:.1f}", f"{time:.0f}")
            rows.append(
                {"part": part, "launches": launches, "MB": moved, "GFLOP": work, "us": time}
            )
        console.print(table)
        memory = {"weights": p.weights, "state": p.state}
        console.print(f"weights {p.weights / 2**20:.0f} MiB, state {p.state / 2**20:.0f} MiB")
        found.append({"variant": p.variant, "gpu": gpu.name, "predicted": rows, **memory})
    if args.json:
        json.dump(found, sys.stdout, indent=1)
        print()
    return 0


def _compare(args: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.markdown import Markdown

    from alocc_ros.bench import compare
    from alocc_ros.errors import ParameterError
    from alocc_ros.runtime.device import keep_freed_memory, resolve_device

    if args.budget <= 0:
        raise ParameterError(f"--budget {args.budget}: must be above 0")
    keep_freed_memory()
    variants = [variant_of(name, args.shape) for name in args.model or _SIX]
    backends = None if args.backend == "auto" else [args.backend]
    console = Console(stderr=args.json)

    def progress(text: str) -> None:
        console.print(text, style="dim")

    device = resolve_device(args.device)
    found = compare.compare(variants, device, args.compare, args.budget, backends, progress)
    console.print(Markdown(compare.as_markdown(found)))
    if args.json:
        json.dump(dataclasses.asdict(found), sys.stdout, indent=1)
        print()
    return 0


def _node(args: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.table import Table

    from alocc_ros.errors import ParameterError
    from alocc_ros.records import find
    from alocc_ros.ros.benchmark import end_to_end, publishing
    from alocc_ros.runtime.device import resolve_device

    rate = args.rate or (1.0 if args.bag else 12.0)
    if args.seconds < 3.0 or rate <= 0.0:
        raise ParameterError("--seconds must be at least 3, --rate above 0")
    if len(args.model or ()) > 1:
        raise ParameterError("--node measures one --model")
    model = find(args.model[0]).name if args.model else ""
    device = str(resolve_device(args.device))
    console = Console(stderr=args.json)
    with console.status("") as status:
        if args.publish:
            report = publishing.measure(status.update)
        else:
            setup = end_to_end.Setup(
                args.seconds, args.raw, args.decode, args.bag, rate, model, device, args.early
            )
            report = end_to_end.measure(setup, status.update)
    table = Table(title=report.title)
    for column in ("", "measured", "wanted", ""):
        table.add_column(column)
    for row in report.rows:
        table.add_row(
            row.name, row.value, row.required, {True: "yes", False: "NO"}.get(row.holds, "")
        )
    console.print(table)
    console.print(", ".join(f"{k} {v}" for k, v in report.environment.items()), style="dim")
    if args.json:
        json.dump(report.as_json(), sys.stdout, indent=1)
        print()
    return 0 if report.holds else 1


def _check_choices(args: argparse.Namespace) -> None:
    """Once, and before anything is run."""
    from alocc_ros.runtime.device import resolve_device
    from alocc_ros.runtime.runner import check_backend

    resolve_device(args.device)
    check_backend(args.backend)


def _one(variant: Any, args: argparse.Namespace) -> int:
    from rich.console import Console

    from alocc_ros.runtime.device import keep_freed_memory, resolve_device

    keep_freed_memory()
    import torch

    from alocc_ros.bench.timing import benchmark, benchmark_as_reference

    if args.threads:
        torch.set_num_threads(args.threads)
    device = resolve_device(args.device)
    console = Console(stderr=args.json)
    with console.status(variant.name) as status:

        def progress(text: str) -> None:
            status.update(f"{variant.name}: {text}")

        if args.method == "reference":
            frames, warmup = args.frames or 195, args.warmup or 5
            rate = benchmark_as_reference(
                variant, device, args.backend, args.precision, frames, warmup, progress
            )
        else:
            frames = args.frames or (200 if device.type == "cuda" else 10)
            report = benchmark(
                variant, device, args.backend, args.precision, frames, args.warmup or 3, progress
            )
    if args.method == "reference":
        _print_rate(console, rate)
        found = _rate_as_json(rate)
    else:
        _print(console, report)
        found = _as_json(report)
    if args.json:
        json.dump(found, sys.stdout, indent=1)
        print()
    return 0


def _one_process_each(names: list[str], args: argparse.Namespace) -> int:
    """A process a model: peak memory and warm caches of one must not colour the next."""
    options = ["--device", args.device, "--backend", args.backend, "--method", args.method]
    options += ["--precision", args.precision]
    for name in ("frames", "warmup", "threads"):
        if getattr(args, name) is not None:
            options += [f"--{name}", str(getattr(args, name))]
    if args.shape:
        options += ["--shape", *map(str, args.shape)]
    reports, worst = [], 0
    for name in names:
        command = [sys.executable, "-m", "alocc_ros.cli.main", "benchmark", "--model", name]
        command += options + (["--json"] if args.json else [])
        result = subprocess.run(command, stdout=subprocess.PIPE if args.json else None, text=True)
        worst = max(worst, abs(result.returncode))
        if args.json and result.returncode == 0:
            reports.append(json.loads(result.stdout))
    if args.json:
        json.dump(reports, sys.stdout, indent=1)
        print()
    return worst


def _print(console: Any, report: Report) -> None:
    from rich.table import Table

    rate = report.product_flops / report.product.median / 1e9
    table = Table(
        title=f"{report.variant} on {report.device}, {report.backend}, {report.precision}"
    )
    for column in ("part", "median ms", "p95 ms", "GFLOP", "GFLOP/s"):
        table.add_column(column, justify="left" if column == "part" else "right", no_wrap=True)

    def row(name: str, sample: Any, flops: float) -> None:
        counted = flops >= 1e8  # less is not what the time goes into
        speed = f"{flops / sample.median / 1e9:.0f}" if counted else ""
        amount = f"{flops / 1e9:.1f}" if counted else ""
        table.add_row(name, f"{sample.median * 1e3:.1f}", f"{sample.p95 * 1e3:.1f}", amount, speed)

    for part, sample in report.parts.items():
        row(part, sample, report.flops.get(part, 0.0))
    table.add_section()
    row("frame", report.frame, sum(report.flops.values()))
    row("ResNet-50, six images", report.backbone, report.backbone_flops)
    row("ResNet-50, plain torch", report.plain_backbone, report.backbone_flops)
    row("matrix product (attainable)", report.product, report.product_flops)
    console.print(table)
    backbone_rate = report.backbone_flops / report.backbone.median / 1e9
    console.print(
        f"{1 / report.frame.median:.2f} frames/s; frame / ResNet-50 = [bold]{report.ratio:.2f}[/]; "
        f"ResNet-50 at {backbone_rate / rate:.0%} of the matrix product; "
        f"peak memory {report.peak_bytes / 2**30:.2f} GiB; "
        f"{len(report.frame.times)} frames, {report.threads} threads, random weights"
    )
    console.print(", ".join(f"{k} {v}" for k, v in report.environment.items()), style="dim")


def _print_rate(console: Any, rate: ReferenceReport) -> None:
    console.print(
        f"{rate.variant} on {rate.device}, {rate.backend}, {rate.precision}: "
        f"[bold]{rate.fps:.2f}[/] frames/s as "
        f"the reference counts ({rate.fps_counted_once:.2f} with the last frame counted once; "
        f"median {rate.frame.median * 1e3:.1f} ms, p95 {rate.frame.p95 * 1e3:.1f} ms); "
        f"{len(rate.frame.times)} frames after {rate.warmup}, {rate.threads} threads, "
        f"peak memory {rate.peak_bytes / 2**30:.2f} GiB, random weights"
    )
    console.print(", ".join(f"{k} {v}" for k, v in rate.environment.items()), style="dim")


def _rate_as_json(rate: ReferenceReport) -> dict[str, Any]:
    return {
        "variant": rate.variant,
        "device": rate.device,
        "backend": rate.backend,
        "precision": rate.precision,
        "threads": rate.threads,
        "fps_as_reference": rate.fps,
        "fps": rate.fps_counted_once,
        "median_ms": rate.frame.median * 1e3,
        "p95_ms": rate.frame.p95 * 1e3,
        "frames": len(rate.frame.times),
        "warmup": rate.warmup,
        "peak_gib": rate.peak_bytes / 2**30,
        "environment": rate.environment,
    }


def _as_json(report: Report) -> dict[str, Any]:
    def sample(s: Any, flops: float = 0.0) -> dict[str, float]:
        out = {"median_ms": s.median * 1e3, "p95_ms": s.p95 * 1e3, "runs": len(s.times)}
        if flops:
            out |= {"gflop": flops / 1e9, "gflop_per_s": flops / s.median / 1e9}
        return out

    return {
        "variant": report.variant,
        "device": report.device,
        "backend": report.backend,
        "precision": report.precision,
        "threads": report.threads,
        "frame": sample(report.frame, sum(report.flops.values())),
        "parts": {p: sample(s, report.flops.get(p, 0.0)) for p, s in report.parts.items()},
        "resnet50": sample(report.backbone, report.backbone_flops),
        "resnet50_plain": sample(report.plain_backbone, report.backbone_flops),
        "matrix_product": sample(report.product, report.product_flops),
        "frame_over_resnet50": report.ratio,
        "peak_gib": report.peak_bytes / 2**30,
        "environment": report.environment,
    }
