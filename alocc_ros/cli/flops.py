# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""``alocc flops``: count the network's operations, part by part."""

from __future__ import annotations

import argparse
import json
import sys

from alocc_ros.cli._models import FIVE, add_variant_arguments, variant_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add_variant_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Print GFLOP by part and parameters of each network, as the paper defines it."""
    from rich.console import Console
    from rich.table import Table

    from alocc_ros.bench.flops import count_as_written, parameters

    names = args.model or list(FIVE)
    variants = [variant_of(name, args.shape) for name in names]
    counted = {v.name: count_as_written(v) for v in variants}
    size = {v.name: parameters(v) for v in variants}
    parts = list(dict.fromkeys(p for c in counted.values() for p in c))
    table = Table(title="GFLOP a frame (convolutions and matrix products, multiply-add = 2)")
    table.add_column("part", no_wrap=True)
    for name in counted:
        table.add_column(name.removeprefix("alocc_"), justify="right", no_wrap=True)
    for part in parts:
        cells = (f"{c[part] / 1e9:.1f}" if part in c else "" for c in counted.values())
        table.add_row(part, *cells)
    table.add_section()
    table.add_row("total", *(f"{sum(c.values()) / 1e9:.1f}" for c in counted.values()))
    table.add_row("parameters, M", *(f"{n / 1e6:.2f}" for n in size.values()))
    Console(stderr=args.json).print(table)
    if args.json:
        report = {
            name: {
                "gflop": {p: f / 1e9 for p, f in c.items()},
                "total_gflop": sum(c.values()) / 1e9,
                "parameters": size[name],
            }
            for name, c in counted.items()
        }
        json.dump(report, sys.stdout, indent=1)
        print()
    return 0
