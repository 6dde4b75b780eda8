# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""``alocc soak``: a bag in a loop and a seeded stream of faults into the node, for hours.

Exits with 1 if something that must hold does not; after Ctrl-C with 130 and the table so far.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from pathlib import Path

from alocc_ros.cli._values import number_within, positive, whole_number_from


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``alocc soak``."""
    parser.add_argument(
        "bag", type=Path, nargs="?", help="ROS 2 bag: folder, .mcap or .db3; else one is drawn"
    )
    parser.add_argument(
        "--hours", type=number_within(0.001, 1000.0, "hours"), default=2.0, help="of faults (2)"
    )
    parser.add_argument("--rate", type=positive, default=1.0, help="times real time (1)")
    parser.add_argument(
        "--seed", type=whole_number_from(0), default=0, help="other seed, other faults"
    )
    parser.add_argument(
        "--model", default="", help="of the node; else a tiny network with random weights"
    )
    parser.add_argument("--random-weights", action="store_true", help="run without trained weights")
    parser.add_argument("--device", default="cpu", help="of the node: cpu, cuda or auto (cpu)")
    parser.add_argument("--json", action="store_true", help="the table for programs, on stdout")


def run(args: argparse.Namespace) -> int:
    """Runs the command."""
    from rich.console import Console
    from rich.table import Table

    from alocc_ros.cli._progress import telling
    from alocc_ros.ros.soak.report import report
    from alocc_ros.ros.soak.run import Setup, soak

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # no orphans
    setup = Setup(
        3600 * args.hours,
        args.bag,
        args.rate,
        args.seed,
        args.model,
        args.random_weights,
        args.device,
    )
    with telling() as tell:
        outcome = soak(setup, tell)
    found = report(setup, outcome)
    table = Table(title=found.title)
    for column in ("", "measured", "wanted", ""):
        table.add_column(column)
    for row in found.rows:
        table.add_row(
            row.name, row.value, row.required, {True: "yes", False: "NO"}.get(row.holds, "")
        )
    console = Console(stderr=args.json)
    console.print(table)
    for line in outcome.slow:
        console.print(f"slow, at {line}")
    console.print(", ".join(f"{k} {v}" for k, v in found.environment.items()), style="dim")
    if args.json:
        json.dump(found.as_json(), sys.stdout, indent=1)
        print()
    if outcome.interrupted:
        return 130
    return 0 if found.holds else 1
