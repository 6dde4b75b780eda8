# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""``alocc play``: publishes a bag, for machines without rosbag2."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path
from types import FrameType

from alocc_ros.cli._values import not_negative, positive
from alocc_ros.words import counted


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``alocc play``."""
    parser.add_argument("bag", type=Path, help="ROS 2 bag: folder, .mcap or .db3")
    parser.add_argument("--rate", type=positive, default=1.0, help="times real time (1)")
    parser.add_argument("--loop", action="store_true", help="again and again, until Ctrl-C")
    parser.add_argument(
        "--start",
        "--start-offset",
        type=not_negative,
        default=0.0,
        metavar="S",
        help="seconds to leave out",
    )
    parser.add_argument(
        "--clock", type=not_negative, default=100.0, metavar="HZ", help="rate of /clock, 0: none"
    )
    parser.add_argument(
        "--topics",
        nargs="+",
        metavar="TOPIC",
        help="only these; else all that the node or `alocc run` takes or gives",
    )
    parser.add_argument(
        "--remap",
        nargs="+",
        type=_renaming,
        default=[],
        metavar="OLD:=NEW",
        help="publish a topic, or all under a name, as another",
    )
    parser.add_argument(
        "--wait",
        type=not_negative,
        default=5.0,
        metavar="S",
        help="wait so long for somebody to want the images, or anything if there are none (5)",
    )
    parser.add_argument(
        "--best-effort", action="store_true", help="publish images as cameras do, not reliably"
    )


def run(args: argparse.Namespace) -> int:
    """Runs the command; asked to end by Ctrl-C, SIGTERM or a launch file, it has done its work."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _end)
    try:
        _play(args)
    except KeyboardInterrupt:
        print("asked to end", flush=True)
    return 0


def _end(number: int, frame: FrameType | None) -> None:
    """Ends things in their order, and once: a Ctrl-C under launch can arrive twice."""
    for other in (signal.SIGINT, signal.SIGTERM):
        signal.signal(other, signal.SIG_IGN)
    raise KeyboardInterrupt


def _play(args: argparse.Namespace) -> None:
    import rclpy
    from rclpy.signals import SignalHandlerOptions

    from alocc_ros.bags.reader import Bag, topic_name
    from alocc_ros.ros import transport
    from alocc_ros.ros.player import PlaybackStatistics, Player, playable

    statistics = PlaybackStatistics()
    with Bag(args.bag) as bag:
        topics, unknown = playable(bag)
        if unknown:
            print(f"no such messages are built here: {', '.join(unknown)}", file=sys.stderr)
        topics = [topic_name(t) for t in args.topics] if args.topics else topics
        if news := transport.prepare().news:
            print(news, file=sys.stderr)
        # Signals must come as KeyboardInterrupt, not as a context that is gone; and what is
        # terminated without a word leaves its shared memory behind.
        rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
        try:
            node = rclpy.create_node("alocc_play")
            transport.close_segments()
            player = Player(
                node,
                bag,
                topics,
                rate=args.rate,
                start=args.start,
                clock_rate=args.clock,
                best_effort=args.best_effort,
                renamed=dict(args.remap),
                say=lambda text: print(text, file=sys.stderr, flush=True),
            )
            if alone := player.wait(args.wait):
                print(f"nobody has subscribed to {', '.join(alone)}", file=sys.stderr)
            player.play(statistics)
            while args.loop:
                player.play(statistics)
            player.finish()
        finally:
            if statistics.messages:
                print(
                    f"played {counted(statistics.messages, 'message')}, "
                    f"{counted(statistics.images, 'image')} in "
                    f"{counted(statistics.laps, 'whole lap')}, "
                    f"late by {1e3 * statistics.behind:.0f} ms at most"
                )
            rclpy.try_shutdown()


def _renaming(text: str) -> tuple[str, str]:
    old, separator, new = text.partition(":=")
    if not (separator and old.strip("/") and new.strip("/")):
        raise argparse.ArgumentTypeError(f"must look like /old:=/new, got {text!r}")
    return f"/{old.strip('/')}", f"/{new.strip('/')}"
