# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""A bag played into the node over DDS, in real time, and the node's outputs recorded.

Player and node are the programs that anybody would start, as processes of their own; the
recorder is in this one.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from rosgraph_msgs.msg import Clock

from alocc_ros.bags.reader import CAMERA_INFO_TYPE, IMAGE_TYPES, TF_TYPE, Bag
from alocc_ros.errors import AloccError
from alocc_ros.msg import FrameStatusStamped
from alocc_ros.ros import transport
from alocc_ros.ros.benchmark.processes import Process, Statuses
from alocc_ros.ros.benchmark.report import environment
from alocc_ros.ros.player import CLOCK
from alocc_ros.ros.recorder import NODE, TopicRecorder

_PLAYED = (*IMAGE_TYPES, CAMERA_INFO_TYPE, TF_TYPE)  # all that the node takes
_POLL = 0.2  # s
_DISCOVERY = 1.5  # s, in which whoever else is on the graph is found
_START = 300.0  # s, for the node to listen on a machine that is busy
_SETTLE = 120.0  # s, for what is in transit after the last image
_REPORT = 0.25  # s between two diagnostics
# Any of these settles already which participants are discovered.
_DISCOVERY_VARIABLES = (
    "ROS_AUTOMATIC_DISCOVERY_RANGE",
    "ROS_DISCOVERY_SERVER",
    "ROS_LOCALHOST_ONLY",
    "ROS_STATIC_PEERS",
)

OnProgress = Callable[[str], None]


@dataclass
class DriveResult:
    """What the node made of the bag.

    Attributes:
        recording: the file; None if nothing was published.
        latencies: s by stamp (ns) of each result: from the image until it was here.
        sets: how many camera sets were put together.
        outcomes: how many of them were processed, superseded, ignored, failed.
        seconds: of the bag.
        environment: hardware and versions.
        node_output: what the node has printed.
    """

    recording: Path | None
    latencies: dict[int, float]
    sets: int
    outcomes: dict[str, int]
    seconds: float
    environment: dict[str, str] = field(default_factory=dict)
    node_output: str = ""


def drive(
    bag: Path, recording: Path, model: str, on_progress: OnProgress, *, random_weights: bool = False
) -> DriveResult:
    """Plays the bag and records the outputs.

    Args:
        bag: to play.
        recording: file to write; one that exists is replaced.
        model: a name, or a file.
        on_progress: told what is going on.
        random_weights: of the node.

    Raises:
        AloccError: another node is there, a process does not start or ends too early.
    """
    with Bag(bag) as opened:
        topics = sorted(t for t, kind in opened.types.items() if kind in _PLAYED)
        stamps = [record.log_time for record in opened.messages(topics)]
    middleware = transport.prepare()
    if not any(os.environ.get(name) for name in _DISCOVERY_VARIABLES):
        os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    with _listening() as (node, executor):
        exclusive = _ExclusiveUse(node)
        deadline = time.monotonic() + _DISCOVERY
        while time.monotonic() < deadline:
            executor.spin_once(timeout_sec=_POLL)
            exclusive.check(ours=0)
        recorder = TopicRecorder(node, recording, now=(arrivals := _Arrivals(node)).now)
        statuses = Statuses(node)
        monitor = _Monitor(executor, recorder, statuses, exclusive, on_progress)
        try:
            # The player waits until the node listens, so both may start at the same time.
            with _program(*_node(model, random_weights)) as program:
                with _program(*_player(bag), "--topics", *topics) as player:
                    monitor.until(lambda: player.ended, program)
                    if player.program.returncode:
                        raise AloccError(f"the bag cannot be played: {_last_line(player)}")
                monitor.finish(program)
                node_output = program.output
        except BaseException:
            recorder.discard()
            raise
        recorder.finish()
    return DriveResult(
        recording if recorder.counts[f"{NODE}/voxels"] else None,
        arrivals.latencies,
        statuses.number("sets", "offered"),
        statuses.outcomes(),
        (stamps[-1] - stamps[0]) / 1e9,
        environment(middleware, "auto"),
        node_output,
    )


@contextmanager
def _listening() -> Iterator[tuple[Node, SingleThreadedExecutor]]:
    """A node on the graph of this shell, in a context of its own."""
    context = rclpy.Context()
    rclpy.init(args=[], context=context, signal_handler_options=SignalHandlerOptions.NO)
    executor = SingleThreadedExecutor(context=context)
    try:
        node = rclpy.create_node("alocc_demo", context=context)
        executor.add_node(node)
        yield node, executor
    finally:
        executor.shutdown()
        context.try_shutdown()


class _ExclusiveUse:
    """Checks that no other node of that name and no other clock is on the graph."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def check(self, ours: int) -> None:
        """Looks at the graph.

        Args:
            ours: 1 if the node and a clock may be there, which are those of this demo; else 0.

        Raises:
            AloccError: there is another one.
        """
        number = os.environ.get("ROS_DOMAIN_ID") or "0"
        other = 42 if number != "42" else 43
        advice = f"end it, or take another domain: ROS_DOMAIN_ID={other} alocc demo"
        found = self._node.get_node_names_and_namespaces()
        if [f"{space.rstrip('/')}/{name}" for name, space in found].count(NODE) > ours:
            raise AloccError(f"another {NODE} is there, on ROS domain {number}: {advice}")
        if self._node.count_publishers(CLOCK) > ours:
            raise AloccError(f"something else is played on ROS domain {number}: {advice}")


def _node(model: str, random_weights: bool) -> list[str]:
    parameters = {
        "model": model,
        "random_weights": str(random_weights).lower(),
        "use_sim_time": "true",
        "diagnostics_period": _REPORT,
    }
    given = [a for name, value in parameters.items() for a in ("-p", f"{name}:={value}")]
    return ["-m", "alocc_ros.ros.main", "--ros-args", *given]


def _player(bag: Path) -> list[str]:
    return ["-m", "alocc_ros.cli.main", "play", str(bag), "--wait", str(_START)]


def _program(*command: str) -> Process:
    # Idle threads that spin take the time of those that work: there are more programs here than
    # a small machine has cores.
    environment = {"OMP_WAIT_POLICY": "passive", **os.environ}
    return Process(*command, environment=environment, with_errors=True)


class _Monitor:
    """Receives what is published, and reports progress."""

    def __init__(
        self,
        executor: SingleThreadedExecutor,
        recorder: TopicRecorder,
        statuses: Statuses,
        exclusive: _ExclusiveUse,
        on_progress: OnProgress,
    ) -> None:
        self._executor, self._recorder = executor, recorder
        self._statuses, self._exclusive, self._on_progress = statuses, exclusive, on_progress

    def until(self, holds: Callable[[], bool], program: Process) -> None:
        """Receives until something holds.

        Raises:
            AloccError: the node has ended, or there is another one, seen only now.
        """
        while not holds():
            self._exclusive.check(ours=1)
            if program.ended:
                raise AloccError(f"the node has ended: {_last_line(program)}")
            self._recorder.scan()
            self._on_progress(self._state())
            self._spin(_POLL)

    def finish(self, program: Process) -> None:
        """Receives until the node has processed all that it was sent, and the results have arrived.

        Raises:
            AloccError: it does not get done.
        """
        # Reports from before the last image must not count.
        fresh_from, deadline = time.monotonic() + 3 * _REPORT, time.monotonic() + _SETTLE

        def is_done() -> bool:
            if time.monotonic() > deadline:
                raise AloccError("the node does not get done with its last camera set")
            return time.monotonic() > fresh_from and self._statuses.is_done

        self.until(is_done, program)
        self._spin(3 * _REPORT)

    def _spin(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._executor.spin_once(timeout_sec=left)

    def _state(self) -> str:
        if not self._statuses.values("sets"):
            return "the node starts"
        outcomes, sets = self._statuses.outcomes(), self._statuses.number("sets", "offered")
        if not sets:
            return "the player starts"
        results, left_out = outcomes["processed"], outcomes["superseded"]
        return f"the bag is played: {sets} camera sets, {results} results, {left_out} superseded"


def _last_line(program: Process) -> str:
    lines = [line.strip() for line in program.output.splitlines() if line.strip()]
    return lines[-1] if lines else "it says nothing"


class _Arrivals:
    """Arrival times of results, on the clock that is played."""

    def __init__(self, node: Node) -> None:
        self.latencies: dict[int, float] = {}
        self._offset: int | None = None  # ns, from the steady clock to the one that is played
        node.create_subscription(Clock, CLOCK, self._on_clock, 10)
        node.create_subscription(FrameStatusStamped, f"{NODE}/status", self._on_status, 10)

    def now(self) -> int | None:
        """ns; continues when the bag, and with it its clock, has ended. None before the first."""
        return None if self._offset is None else time.monotonic_ns() + self._offset

    def _on_clock(self, message: Any) -> None:
        offset = _ns(message.clock) - time.monotonic_ns()
        # Of the clock message with the least delay.
        self._offset = offset if self._offset is None else max(self._offset, offset)

    def _on_status(self, message: Any) -> None:
        now, stamp = self.now(), _ns(message.header.stamp)
        if now is not None:
            self.latencies[stamp] = (now - stamp) / 1e9


def _ns(time_message: Any) -> int:
    return time_message.sec * 1_000_000_000 + time_message.nanosec
