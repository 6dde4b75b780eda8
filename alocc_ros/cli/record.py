# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""``alocc record``: writes topics into a bag, for machines without rosbag2."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from alocc_ros.cli._values import positive
from alocc_ros.errors import OutputError
from alocc_ros.words import counted

if TYPE_CHECKING:
    from rclpy.executors import Executor

    from alocc_ros.ros.recorder import TopicRecorder

_LOOK = 0.2  # s, how long a new topic or a signal may go unnoticed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``alocc record``."""
    parser.add_argument(
        "topics",
        nargs="*",
        metavar="TOPIC",
        help="default: what the node publishes, /tf, /tf_static and /diagnostics",
    )
    parser.add_argument(
        "-o", "--output", type=Path, required=True, help="recording to write, .mcap"
    )
    parser.add_argument(
        "--seconds", type=positive, metavar="S", help="end after so long (else with Ctrl-C)"
    )


def run(args: argparse.Namespace) -> int:
    """Runs the command."""
    _check_output(args.output)
    # A signal only asks: what has been received is written, and things end in their order.
    asked: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: asked.append(number))

    import rclpy
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.signals import SignalHandlerOptions

    from alocc_ros.bags.reader import topic_name
    from alocc_ros.ros import transport
    from alocc_ros.ros.recorder import DEFAULT_TOPICS, TopicRecorder

    if news := transport.prepare().news:
        print(news, file=sys.stderr)
    rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
    executor = SingleThreadedExecutor()
    try:
        node = rclpy.create_node("alocc_record")
        executor.add_node(node)
        topics = list(dict.fromkeys(map(topic_name, args.topics))) or DEFAULT_TOPICS
        recorder = TopicRecorder(node, args.output, topics)
        end = time.monotonic() + args.seconds if args.seconds else float("inf")
        try:
            _receive(recorder, executor, lambda: bool(asked) or time.monotonic() >= end)
        except BaseException:
            recorder.discard()
            raise
        problems = recorder.problems()
        recorder.finish()
    finally:
        executor.shutdown()
        rclpy.try_shutdown()
    return _account(recorder, problems)


def _check_output(output: Path) -> None:
    """Before anything is received that could then not be kept."""
    if output.suffix != ".mcap":
        raise OutputError(f"-o {output}: the recording's name must end in .mcap")
    if output.exists():
        raise OutputError(f"-o {output} is there already: remove it, or write elsewhere")
    if not output.parent.is_dir():
        raise OutputError(f"cannot write {output}: there is no folder {output.parent}")


def _receive(recorder: TopicRecorder, executor: Executor, stopping: Callable[[], bool]) -> None:
    from rich.console import Console

    console = Console(stderr=True)
    with console.status("waiting for topics") as status:
        scanned = 0.0
        while not stopping():
            if time.monotonic() - scanned >= _LOOK:
                scanned = time.monotonic()
                recorder.scan()
                number = len(recorder.subscribed)
                status.update(f"{recorder.counts.total()} messages on {number} topics; Ctrl-C ends")
            executor.spin_once(timeout_sec=_LOOK)


def _account(recorder: TopicRecorder, problems: list[str]) -> int:
    for topic, count in sorted(recorder.counts.items()):
        print(f"{count:7d}  {topic}")
    for problem in problems:
        print(f"alocc: warning: {problem}", file=sys.stderr)
    if recorder.dropped:
        print(
            "alocc: warning: left out, for the disk is too slow: "
            f"{counted(recorder.dropped, 'message')}",
            file=sys.stderr,
        )
    if not recorder.counts.total():
        print(f"alocc: nothing came, so there is no {recorder.path}", file=sys.stderr)
        return 1
    print(f"{recorder.path}: {counted(recorder.counts.total(), 'message')}")
    return 0
