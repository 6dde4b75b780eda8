# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""``alocc parity``: is this build of the network, on this machine, the paper's network?"""

from __future__ import annotations

import argparse
import json
import sys

from alocc_ros.cli._models import add_backend_arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("--golden", required=True, metavar="DIR", help="folder of golden vectors")
    parser.add_argument("--variant", action="append", help="only this one; may be repeated")
    parser.add_argument("--device", default="cpu", help="auto, cpu, cuda, cuda:N (default: cpu)")
    add_backend_arguments(parser, backend="eager")
    parser.add_argument("--json", action="store_true", help="machine-readable result")


def run(args: argparse.Namespace) -> int:
    """Print a table a variant; 0 if everything is within tolerance, else 1."""
    from rich.console import Console
    from rich.table import Table

    from alocc_ros.bench import parity
    from alocc_ros.errors import ModelError
    from alocc_ros.runtime.device import keep_freed_memory, resolve_device
    from alocc_ros.runtime.precision import check_precision
    from alocc_ros.runtime.runner import check_backend

    keep_freed_memory()
    backend = check_backend(args.backend)
    device = resolve_device(args.device)
    precision = check_precision(args.precision, backend, device)
    golden = parity.open_golden(args.golden)
    names = args.variant
    if names is None:
        names, unknown = golden.known()
        if unknown:
            print(f"skipped, not known here: {', '.join(unknown)}", file=sys.stderr)
    if not names:
        raise ModelError(f"{golden.folder} has vectors of no network that is known here")
    for name in names:
        golden.entry(name)
    console = Console(stderr=args.json)
    what = {"device": str(device), "backend": backend, "precision": precision}
    report: dict[str, object] = {**what, "variants": {}}
    all_passed = True
    for name in names:
        with console.status(f"{name}: running the recorded frames"):
            results = list(parity.compare(golden, name, device, backend, precision))
        passed = all(r.passed for r in results)
        all_passed &= passed
        report["variants"][name] = {"passed": passed, "results": parity.as_json(results)}
        frames = ", ".join(map(str, golden.manifest["frames"]))
        table = Table(title=f"{name} on {', '.join(what.values())}: worst of frames {frames}")
        for column in ("stage", "frame", "max abs", "relative", "agree", ""):
            justify = "left" if column == "stage" else "right"
            table.add_column(column, justify=justify, no_wrap=True)
        for stage, r in parity.summary(results).items():
            agreement = f"{r.agreement:.4%}" if stage in ("labels", "flow") else ""
            error = "" if stage == "labels" else f"{r.max_abs:.2e}"
            relative = "" if stage == "labels" else f"{r.relative:.1e}"
            verdict = "[green]ok[/]" if r.passed else "[red bold]FAIL[/]"
            table.add_row(stage, str(r.frame), error, relative, agreement, verdict)
        console.print(table)
    report["passed"] = all_passed
    if args.json:
        json.dump(report, sys.stdout, indent=1)
        print()
    return 0 if all_passed else 1
