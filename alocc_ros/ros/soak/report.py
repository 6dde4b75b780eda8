# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""The table of a soak."""

from __future__ import annotations

from statistics import median

from alocc_ros.ros import transport
from alocc_ros.ros.benchmark.report import Report, Row, environment
from alocc_ros.ros.soak.faults import KINDS
from alocc_ros.ros.soak.footprint import HANDLES, MEMORY, SEGMENTS, SHARED, THREADS
from alocc_ros.ros.soak.run import GIVEN_UP, SLOW, Outcome, Setup, failures

WARM = 600.0  # s; before, memory and the rest may grow
_MOST_GROWTH = 0.02


def report(setup: Setup, outcome: Outcome) -> Report:
    """What was found beside what is wanted."""
    minutes = outcome.seconds / 60
    source = setup.bag.name if setup.bag else "a drawn street"
    title = (
        f"{minutes:.1f} minutes of {source} in a loop at {setup.rate:g} times its speed "
        f"({minutes * setup.rate / 60:.2f} hours of it), "
        f"{setup.model or 'a tiny network'} on {setup.device}, "
        f"faults of seed {setup.seed}{', interrupted' if outcome.interrupted else ''}"
    )
    rows = [*_counts(outcome), *_footprint(outcome), *_recoveries(outcome)]
    return Report(title, rows, environment(transport.decide(), setup.device))


def _counts(outcome: Outcome) -> list[Row]:
    outcomes, made = outcome.outcomes, sum(int(outcome.sets.get(k, 0)) for k in _MADE)
    done = sum(outcomes.values())
    broken = failures(outcome.callbacks)
    return [
        Row("sets put together", str(made)),
        Row("sets in", str(outcome.offered), str(made), outcome.offered == made),
        Row("- processed", str(outcomes["processed"])),
        Row("- superseded by a newer one", str(outcomes["superseded"])),
        Row("- ignored at a reset or the end of a lap", str(outcomes["ignored"])),
        *(Row(f"- failed: {why}", str(n)) for why, n in failures(outcome.sets).items()),
        Row("- together", str(done), str(outcome.offered), done == outcome.offered),
        Row("sets lost", str(outcome.offered - done), "0", outcome.offered == done),
        Row("results received", str(outcome.published), str(outcomes["processed"]),
            outcome.published == outcomes["processed"]),
        Row("callbacks that failed", _listed(broken), "0", not broken),
        Row("exit code of the node", str(outcome.exit_code), "0", outcome.exit_code == 0),
    ]  # fmt: skip


_MADE = ("complete", "partial")


def _footprint(outcome: Outcome) -> list[Row]:
    footprint = outcome.footprint
    if not footprint.samples:
        return []
    is_warm = outcome.seconds >= 2 * WARM
    first, last = footprint.change(MEMORY, WARM)
    growth = last / first - 1.0
    rows = [
        Row("memory of the node once warm, MiB", _mebibytes(first, last)),
        Row("- growth", f"{100 * growth:+.2f} %",
            f"at most {100 * _MOST_GROWTH:g} %" if is_warm else "",
            growth <= _MOST_GROWTH if is_warm else None),
    ]  # fmt: skip
    for quantity in (THREADS, HANDLES, SEGMENTS):
        first, last = footprint.change(quantity, WARM)
        most = max(value for _, value in footprint.samples[quantity])
        rows.append(
            Row(
                f"{quantity} once warm",
                f"{first}, at the end {last}, at most {most}",
                "not more at the end" if is_warm else "",
                last <= first if is_warm else None,
            )
        )
    first, last = footprint.change(SHARED, WARM)
    left = len(outcome.left)
    return [
        *rows,
        Row("shared memory that the node has touched, MiB", _mebibytes(first, last)),
        Row("segments left behind at the end", str(left), "0", left == 0),
    ]


def _mebibytes(first: int, last: int) -> str:
    return f"{first / 2**20:.0f}, at the end {last / 2**20:.0f}"


def _recoveries(outcome: Outcome) -> list[Row]:
    rows = []
    for kind in KINDS:
        times = outcome.recoveries.get(kind, [])
        if not times:
            continue
        slowest = max(times)
        text = f"{slowest:.2f}" if slowest < GIVEN_UP else f"not within {GIVEN_UP:g}"
        rows.append(
            Row(
                f"recovery from {kind}, {len(times)} times, median / slowest, s",
                f"{median(times):.2f} / {text}",
                f"at most {SLOW:g}",
                slowest <= SLOW,
            )
        )
    return rows


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{n} {why}" for why, n in counts.items()) or "0"
