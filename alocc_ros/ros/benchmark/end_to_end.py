# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""The node end to end: cameras (or a bag that loops), node and listener, each a process.

Each counts its part: the cameras what they sent, the node (its /diagnostics) what it received
and what became of it, the listener what was published, the kernel memory and time.
"""

from __future__ import annotations

import json
import os
import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from alocc_ros.bags.frames import preset_of
from alocc_ros.bags.reader import Bag
from alocc_ros.errors import AloccError
from alocc_ros.ros import transport
from alocc_ros.ros.benchmark.processes import (
    Listener,
    Process,
    Usage,
    listening,
    machine_processor,
)
from alocc_ros.ros.benchmark.report import Report, Row, environment
from alocc_ros.ros.worker import EARLY, STAGES
from alocc_ros.types import CAMERAS

_MOST_ADDED = 40.0  # ms
_LEAST_RATE = {"exact": 5.0, "fast": 10.0, "gpu": 12.0}  # Hz, on two cores
_MOST_GROWTH = 0.02
_COLD = 100  # results; before, memory may still grow
_START = 120.0  # s, for a process to be there
_SETTLE = 30.0  # s, for what is in transit after the last image
_POLL = 0.5  # s


@dataclass(frozen=True)
class Setup:
    """What is measured.

    Attributes:
        seconds: of the cameras' time, or of a bag's playing.
        raw: rgb8 instead of JPEG.
        decode: as the node's parameter.
        bag: played in a loop instead of the cameras.
        rate: Hz of the cameras, or times real time of the bag.
        model: with random weights, on ``device``; empty: the tiny network of this benchmark.
        early: as the node's parameter.
    """

    seconds: float = 60.0
    raw: bool = False
    decode: str = "exact"
    bag: Path | None = None
    rate: float = 12.0
    model: str = ""
    device: str = "cpu"
    early: bool = False

    @property
    def is_timed(self) -> bool:
        """Whether the required speeds are for this: JPEG cameras and the tiny network."""
        return self.bag is None and not self.raw and not self.model


@dataclass(frozen=True)
class _Sent:
    """What the source of the images has sent.

    Attributes:
        sent: images.
        sets: that they make; None: unknown.
        seconds: in which they were sent.
        details: more rows of the report.
    """

    sent: int
    sets: int | None
    seconds: float
    details: list[Row]
    image_bytes: float = 0.0


def measure(setup: Setup, progress: Callable[[str], None]) -> Report:
    """Runs the measurement.

    Raises:
        AloccError: a process does not start or does not do its part.
    """
    middleware = transport.prepare()
    domain = random.randint(1, 100)  # so that no robot nearby is disturbed
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    children = dict(os.environ, ROS_DOMAIN_ID=str(domain))
    with listening(domain) as listener, Process(*_node(setup), environment=children) as node:
        progress("the node starts")
        deadline = time.monotonic() + _START
        while not listener.statuses.values("sets"):
            if node.ended or time.monotonic() > deadline:
                raise AloccError("the node does not start")
            listener.spin(_POLL)
        with Process(*_source(setup), environment=children) as source:
            usage, sender = Usage(node), Usage(source)
            begin, machine = time.monotonic(), machine_processor()
            sent = _watch(setup, listener, (usage, sender), source, node, progress)
            others = machine_processor() - machine - usage.processor - sender.processor
            seconds = time.monotonic() - begin
    rows = [
        *_rows_of_counts(setup, sent, listener),
        *_rows_of_times(setup, sent, listener),
        *_rows_of_usage(usage, sender, others, seconds, listener.statuses.outcomes()["processed"]),
        *sent.details,
    ]
    return Report(_title(setup, sent), rows, environment(middleware, setup.device))


def _node(setup: Setup) -> list[str]:
    parameters = {
        "model": setup.model or "benchmark",
        "random_weights": "true",
        "device": setup.device,
        "decode": setup.decode,
        "early": str(setup.early).lower(),
        "diagnostics_period": _POLL,
        "use_sim_time": str(setup.bag is not None).lower(),
    }
    if setup.bag is not None:
        with Bag(setup.bag) as bag:
            parameters["preset"] = preset_of(bag).name
    given = [a for name, value in parameters.items() for a in ("-p", f"{name}:={value}")]
    # A bag that loops makes TF warn at every lap.
    level = ["--log-level", "warn" if setup.bag is None else "error"]
    program = "alocc_ros.ros.main" if setup.model else "alocc_ros.ros.benchmark.node"
    return ["-m", program, "--ros-args", *level, *given]


def _source(setup: Setup) -> list[str]:
    if setup.bag is None:
        command = ["-m", "alocc_ros.ros.benchmark.cameras", "--seconds", str(setup.seconds)]
        return [*command, "--rate", str(setup.rate), *(["--raw"] if setup.raw else [])]
    play = ["-m", "alocc_ros.cli.main", "play", str(setup.bag), "--loop"]
    return [*play, "--rate", str(setup.rate), "--wait", str(_START)]


def _watch(
    setup: Setup,
    listener: Listener,
    usages: tuple[Usage, ...],
    source: Process,
    node: Process,
    progress: Callable[[str], None],
) -> _Sent:
    """Listens until the source is done and the node has nothing left; what was sent."""
    begin: float | None = None
    deadline = time.monotonic() + _START
    while True:
        listener.spin(_POLL)
        if node.ended:
            raise AloccError(f"the node ended with exit code {node.program.returncode}")
        if setup.bag is None and source.output.endswith("\n"):
            break
        if source.ended:
            raise AloccError("what sends the images has ended before its time")
        for usage in usages:
            usage.sample()
        if begin is None:
            if time.monotonic() > deadline:
                raise AloccError("the node makes no set of the images that are sent")
            if listener.statuses.number("sets", "offered") == 0:
                continue
            begin = time.monotonic()
        passed = time.monotonic() - begin
        progress(f"{passed:.0f} of {setup.seconds:.0f} s: {_progress_text(listener)}")
        if setup.bag is not None and passed >= setup.seconds:
            source.interrupt()
            break
    before, deadline = -1, time.monotonic() + _SETTLE
    while time.monotonic() < deadline:
        offered, done = (
            listener.statuses.number("sets", "offered"),
            sum(listener.statuses.outcomes().values()),
        )
        if before == offered == done:
            break
        before = offered
        listener.spin(3 * _POLL)
    return _parse_report(setup, source.output)


def _parse_report(setup: Setup, output: str) -> _Sent:
    """What the source has printed about itself.

    Raises:
        AloccError: it has not.
    """
    if setup.bag is None:
        report = json.loads(output)
        late = Row("images too late by, p99, ms", f"{report['late_p99_ms']:.1f}")
        return _Sent(report["images"], report["sets"], report["seconds"], [late], report["bytes"])
    played = re.search(r"(\d+) images in (\d+) whole laps", output)
    if played is None:
        raise AloccError(f"the player does not tell what it played, but {output!r}")
    return _Sent(int(played[1]), None, setup.seconds, [Row("whole laps", played[2])])


def _progress_text(listener: Listener) -> str:
    outcomes = listener.statuses.outcomes()
    offered = listener.statuses.number("sets", "offered")
    return f"{offered} sets, {outcomes['processed']} processed, {outcomes['superseded']} superseded"


def _title(setup: Setup, sent: _Sent) -> str:
    if setup.bag is not None:
        what = f"{setup.bag} in a loop at {setup.rate:g} times its speed"
    else:
        kind = f"{'rgb8' if setup.raw else 'JPEG'} of {sent.image_bytes / 1e3:.0f} kB"
        what = f"six cameras, 1600x900 at {setup.rate:g} Hz, {kind}"
    network = f", {setup.model} on {setup.device}" if setup.model else ""
    early = ", early" if setup.early else ""
    return f"{what}, decode: {setup.decode}{early}{network}"


def _rows_of_counts(setup: Setup, sent: _Sent, listener: Listener) -> list[Row]:
    received = sum(listener.statuses.number(f"camera {camera}", "received") for camera in CAMERAS)
    offered, outcomes = listener.statuses.number("sets", "offered"), listener.statuses.outcomes()
    failed, done = outcomes["failed"] + outcomes["ignored"], sum(outcomes.values())
    # A machine may be too small for 311 MB/s of raw images; what comes then must still add up.
    live = setup.bag is None
    all_of_it = live and not setup.raw
    rows = [
        Row("images sent", str(sent.sent)),
        Row(
            "images received",
            str(received),
            "all" if all_of_it else "",
            received == sent.sent if all_of_it else None,
        ),
        Row(
            "sets put together",
            str(offered),
            str(sent.sets) if all_of_it else "",
            offered == sent.sets if all_of_it else None,
        ),
        Row("- processed", str(outcomes["processed"])),
        Row("- superseded by a newer one", str(outcomes["superseded"])),
        # When a bag begins anew, a set of its end may find its poses forgotten.
        Row("- failed", str(failed), *(("0", failed == 0) if live else ())),
        Row("- together", str(done), str(offered), done == offered),
    ]
    published, processed = listener.counts["status"], outcomes["processed"]
    return [*rows, Row("results published", str(published), str(processed), published == processed)]


def _rows_of_times(setup: Setup, sent: _Sent, listener: Listener) -> list[Row]:
    network = listener.statuses.values("network")

    def both(stage: str) -> str:
        return " / ".join(network.get(f"{stage}_{p}_ms", "-") for p in ("p50", "p95"))

    rate = listener.statuses.number("sets", "processed") / sent.seconds
    least = _LEAST_RATE[setup.decode]
    added = float(network.get("added_p95_ms", "nan"))
    timed = setup.is_timed
    return [
        Row(
            "results a second",
            f"{rate:.2f}",
            f"at least {least:g} on 2 cores" if timed else "",
            rate >= least if timed else None,
        ),
        Row(
            "added latency, p50 / p95 of the last 200, ms",
            both("added"),
            f"p95 at most {_MOST_ADDED:g}" if timed else "",
            added <= _MOST_ADDED if timed else None,
        ),
        *(Row(f"- {stage}", both(stage)) for stage, _ in STAGES if stage != "added"),
        Row("from the anchor's stamp to publish", both("latency")),
        *(
            Row(f"images {name} ahead of their set", network.get(f"early: {name}", "-"))
            for name, _ in EARLY[: 3 if setup.early else 0]
        ),
    ]


def _rows_of_usage(
    usage: Usage, sender: Usage, others: float, seconds: float, results: int
) -> list[Row]:
    is_warm = results >= _COLD
    mebibytes = [size / 2**20 for _, size in usage.memory]
    return [
        Row("memory of the node, MiB", f"{mebibytes[0]:.0f}, at the end {mebibytes[-1]:.0f}"),
        Row(
            "- growth once warm",
            f"{100 * usage.growth:+.2f} %",
            f"less than {100 * _MOST_GROWTH:g} %" if is_warm else "",
            usage.growth < _MOST_GROWTH if is_warm else None,
        ),
        Row("- growth of what sends the images", f"{100 * sender.growth:+.2f} %"),
        Row("cores used by the node", f"{usage.processor / seconds:.2f}"),
        Row("- by what sends the images", f"{sender.processor / seconds:.2f}"),
        Row("- by everything else here", f"{others / seconds:.2f}"),
    ]
