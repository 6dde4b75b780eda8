# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""The soak: node and player as processes of their own, faults one after the other, and a count.

A fault begins, lasts, ends; then the node has recovered with the first result that is neither
degraded nor without a memory. Only then comes the next one, so that every delay has one cause.
"""

from __future__ import annotations

import os
import random
import re
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alocc_ros.bags.frames import preset_of
from alocc_ros.bags.reader import Bag
from alocc_ros.bags.sample import write_sample
from alocc_ros.errors import AloccError
from alocc_ros.ros import transport
from alocc_ros.ros.benchmark.processes import NODE, Listener, Process, listening
from alocc_ros.ros.soak.faults import PLAYED, PLAYER, RESET, Fault, stream
from alocc_ros.ros.soak.footprint import Footprint
from alocc_ros.ros.soak.player import PLAYING

SLOW = 3.0  # s, that a recovery may take
GIVEN_UP = 30.0  # s, after which a fault counts as never recovered from
_START = 120.0  # s, for a process to be there
_SETTLE = 30.0  # s, for what is in transit after the last image
_POLL = 0.1  # s
_SAMPLE = 2.0  # s between two looks at the node's footprint
_REPORT = 0.5  # s between two diagnostics
# The recording that is drawn if none is given.
_SECONDS, _IMAGES_PER_SECOND, _WIDTH, _HEIGHT = 20.0, 4.0, 704, 396


@dataclass(frozen=True)
class Setup:
    """What is done.

    Attributes:
        seconds: of faults.
        bag: recording; None: a small one is drawn.
        rate: times real time.
        seed: of the faults.
        model: name or file; empty: the tiny network of ``alocc benchmark --node``.
        random_weights: of the node.
        device: of the node.
    """

    seconds: float
    bag: Path | None = None
    rate: float = 1.0
    seed: int = 0
    model: str = ""
    random_weights: bool = False
    device: str = "cpu"


@dataclass
class Outcome:
    """What has happened.

    Attributes:
        seconds: from the first result until the last fault was over.
        recoveries: s by kind of fault; inf: not within ``GIVEN_UP``.
        slow: faults whose recovery took longer than ``SLOW``, with what results said meanwhile.
        sets: the node's own counts, by key of its diagnostics.
        callbacks: its failed callbacks, likewise.
        offered, outcomes: sets in, and what became of them.
        published: results that were received.
        footprint: of the node.
        of_killed: segments of players that were killed.
        left: segments that are there although all have ended.
        exit_code: of the node.
        interrupted: by Ctrl-C.
    """

    seconds: float = 0.0
    recoveries: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    slow: list[str] = field(default_factory=list)
    sets: dict[str, str] = field(default_factory=dict)
    callbacks: dict[str, str] = field(default_factory=dict)
    offered: int = 0
    outcomes: dict[str, int] = field(default_factory=dict)
    published: int = 0
    footprint: Footprint | None = None
    of_killed: set[str] = field(default_factory=set)
    left: list[str] = field(default_factory=list)
    exit_code: int | None = None
    interrupted: bool = False


def soak(setup: Setup, progress: Callable[[str], None]) -> Outcome:
    """Runs it; Ctrl-C ends it with what there is so far.

    Raises:
        AloccError: a process does not start.
    """
    transport.prepare()
    domain = int(os.environ.get("ROS_DOMAIN_ID") or random.randint(1, 100))
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    outcome = Outcome()
    with ExitStack() as resources:
        bag = setup.bag
        if bag is None:
            progress("a recording is drawn")
            folder = resources.enter_context(tempfile.TemporaryDirectory(prefix="alocc_soak_"))
            bag = Path(folder) / "street.mcap"
            write_sample(bag, _SECONDS, _IMAGES_PER_SECOND, _WIDTH, _HEIGHT)
        listener = resources.enter_context(listening(domain))
        environment = {
            "OMP_WAIT_POLICY": "passive", **os.environ, "ROS_DOMAIN_ID": str(domain)
        }  # fmt: skip
        node = resources.enter_context(
            Process(*_node(setup, bag), environment=environment, with_errors=True)
        )
        _Soak(setup, bag, listener, node, environment, outcome, progress).run()
        if not node.ended:
            node.interrupt()
        outcome.exit_code = node.program.returncode
        # This process still has its own; what a killed player leaves, the next program frees.
        own = Footprint(os.getpid())
        own.sample()
        outcome.left = sorted(set(outcome.footprint.left()) - own.seen - outcome.of_killed)
    return outcome


def _node(setup: Setup, bag: Path) -> list[str]:
    with Bag(bag) as opened:
        preset = preset_of(opened).name
    parameters = {
        "model": setup.model or "benchmark",
        "random_weights": str(setup.random_weights).lower(),
        "device": setup.device,
        "preset": preset,
        "use_sim_time": "true",
        "diagnostics_period": _REPORT,
    }
    given = [a for name, value in parameters.items() for a in ("-p", f"{name}:={value}")]
    # A bag that loops makes TF warn at every lap.
    program = "alocc_ros.ros.main" if setup.model else "alocc_ros.ros.benchmark.node"
    return ["-m", program, "--ros-args", "--log-level", "error", *given]


class _Soak:
    """One run: what is alive, and what was seen of it."""

    def __init__(
        self,
        setup: Setup,
        bag: Path,
        listener: Listener,
        node: Process,
        environment: dict[str, str],
        outcome: Outcome,
        progress: Callable[[str], None],
    ) -> None:
        from std_srvs.srv import Trigger

        from alocc_ros.msg import FrameStatus, FrameStatusStamped

        self._setup, self._bag, self._environment = setup, bag, environment
        self._listener, self._node, self._outcome = listener, node, outcome
        self._progress = progress
        self._bad = FrameStatus.DEGRADED | FrameStatus.RESET
        self._last_good = 0.0  # monotonic
        self._said: Counter[str] = Counter()  # by results since the last fault has ended
        self._next_sample = 0.0
        self._doing = "the node starts"
        self._player: Process | None = None
        self._not_players: set[str] = set()  # segments of the node and of this process
        self._footprint = outcome.footprint = Footprint(node.program.pid)
        self._begin = 0.0
        listener.node.create_subscription(FrameStatusStamped, f"{NODE}/status", self._on_status, 10)
        self._reset = listener.node.create_client(Trigger, f"{NODE}/reset")

    def run(self) -> None:
        """Until the time is over, the node has ended, or Ctrl-C."""
        try:
            try:
                self._until(lambda: bool(self._listener.statuses.values("sets")), _START)
                before = Footprint(self._node.program.pid)
                before.sample()
                self._not_players = before.seen
                self._start_player()
                if not self._until(lambda: self._last_good > 0.0, _START):
                    raise AloccError(f"the node gives no results: {self._last_words()}")
                self._begin = time.monotonic()
                self._strike_until(self._begin + self._setup.seconds)
            except KeyboardInterrupt:
                self._outcome.interrupted = True
            if self._begin:
                self._outcome.seconds = time.monotonic() - self._begin
            try:
                self._settle()
            except KeyboardInterrupt:
                self._outcome.interrupted = True
            self._count()
        finally:
            self._end_player()

    def _end_player(self) -> None:
        if self._player is not None:
            self._player.close()
            self._player = None

    def _strike_until(self, end: float) -> None:
        with Bag(self._bag) as bag:
            cameras = list(preset_of(bag).used_cameras)
        for fault in stream(self._setup.seed, cameras):
            self._doing = f"{fault.kind} {fault.camera}".strip()
            self._start(fault)
            self._live(fault.seconds, end)
            over = self._finish(fault)
            self._doing += ", recovering"
            self._said.clear()
            recovered = self._until(lambda since=over: self._last_good > since, GIVEN_UP)
            if self._node.ended:
                return
            passed = self._last_good - over if recovered else float("inf")
            self._outcome.recoveries[fault.kind].append(passed)
            if passed > SLOW:
                said = ", ".join(f"{n} {what}" for what, n in self._said.items()) or "nothing"
                self._outcome.slow.append(
                    f"{over - self._begin:.0f} s: {fault}: {passed:.1f} s, results said: {said}"
                )
            self._doing = "no fault"
            self._live(fault.pause, end)
            if time.monotonic() >= end:
                return

    def _start(self, fault: Fault) -> None:
        if fault.kind in PLAYED:
            self._tell_player(fault, True)
        elif fault.kind == PLAYER:
            player = Footprint(self._player.program.pid)
            player.sample()
            self._outcome.of_killed |= player.seen - self._not_players
            self._player.program.kill()
            self._end_player()
        elif fault.kind == RESET:
            self._reset.call_async(self._reset.srv_type.Request())

    def _finish(self, fault: Fault) -> float:
        """Ends the cause of a fault; when it had ended, monotonic."""
        over = time.monotonic()
        if fault.kind in PLAYED:
            self._tell_player(fault, False)
        elif fault.kind == PLAYER:
            self._start_player()
            over = time.monotonic()
        return over

    def _start_player(self) -> None:
        command = ["-m", "alocc_ros.ros.soak.player", str(self._bag)]
        self._player = Process(
            *command, "--rate", str(self._setup.rate), environment=self._environment,
            with_errors=True,
        )  # fmt: skip
        player = self._player
        if not self._until(lambda: PLAYING in player.output or player.ended, _START):
            raise AloccError("the player does not start")
        if player.ended and not self._node.ended:
            raise AloccError(f"the player has ended: {player.output.strip()}")

    def _tell_player(self, fault: Fault, begins: bool) -> None:
        if self._player.ended:
            raise AloccError(f"the player has ended: {self._player.output.strip()}")
        self._player.program.stdin.write(fault.command(begins).encode() + b"\n")
        self._player.program.stdin.flush()

    def _live(self, seconds: float, end: float) -> None:
        self._until(lambda: False, min(seconds, end - time.monotonic()))

    def _until(self, holds: Callable[[], bool], seconds: float) -> bool:
        """Receives until something holds, the node has ended, or the time is over."""
        end = time.monotonic() + seconds
        while not (done := holds()) and time.monotonic() < end and not self._node.ended:
            self._listener.spin(min(_POLL, max(end - time.monotonic(), 0.0)))
            self._look()
        return done

    def _look(self) -> None:
        if time.monotonic() < self._next_sample:
            return
        self._next_sample = time.monotonic() + _SAMPLE
        if self._begin:
            self._footprint.sample()
        passed = time.monotonic() - self._begin if self._begin else 0.0
        sets, outcomes = self._listener.statuses, self._listener.statuses.outcomes()
        slowest = max((s for all_ in self._outcome.recoveries.values() for s in all_), default=0.0)
        self._progress(
            f"{passed:.0f} of {self._setup.seconds:.0f} s: {sets.number('sets', 'offered')} sets, "
            f"{outcomes['processed']} processed, {outcomes['superseded']} superseded, "
            f"{sum(map(len, self._outcome.recoveries.values()))} faults, slowest recovery "
            f"{slowest:.1f} s; {self._doing}"
        )

    def _settle(self) -> None:
        """Ends the playing, and waits for what is in transit."""
        self._end_player()
        statuses = self._listener.statuses
        before, deadline = -1, time.monotonic() + _SETTLE
        while not self._node.ended and time.monotonic() < deadline:
            self._listener.spin(3 * _REPORT)
            published = self._listener.counts["status"]
            # What was reported before the last image does not count.
            if statuses.is_done and published == before == statuses.outcomes()["processed"]:
                break
            before = published

    def _count(self) -> None:
        """Takes the counts over."""
        statuses, outcome = self._listener.statuses, self._outcome
        outcome.sets = dict(statuses.values("sets"))
        outcome.callbacks = dict(statuses.values("callbacks"))
        outcome.offered = statuses.number("sets", "offered")
        outcome.outcomes = statuses.outcomes()
        outcome.published = self._listener.counts["status"]

    def _last_words(self) -> str:
        lines = [line for line in self._node.output.splitlines() if line.strip()]
        return lines[-1] if lines else "it says nothing"

    def _on_status(self, message: Any) -> None:
        status = message.status
        if status.flags & self._bad:
            self._said[f"{status.degraded or 'complete'} / {status.reset or 'remembers'}"] += 1
        else:
            self._last_good = time.monotonic()


def failures(values: dict[str, str]) -> dict[str, int]:
    """Counts by reason, of a part of the diagnostics."""
    found = {re.fullmatch(r"failed: (.*)", key): value for key, value in values.items()}
    return {match[1]: int(value) for match, value in found.items() if match}
