# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""``python -m alocc_ros.ros.soak.player BAG``: a bag in a loop; faults come in on stdin.

A line on stdin begins or ends a fault (``Fault.command``). Prints ``playing`` once the node
listens.
"""

from __future__ import annotations

import argparse
import queue
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import rclpy
from rclpy.signals import SignalHandlerOptions

from alocc_ros.bags.frames import preset_of
from alocc_ros.bags.reader import Bag, Record, topic_name
from alocc_ros.ros import transport
from alocc_ros.ros.player import PlaybackStatistics, Player, playable
from alocc_ros.ros.soak.faults import QOS, Changes, Fault, parse_command
from alocc_ros.stream.preset import Preset

PLAYING = "playing"
_WAIT = 60.0  # s


class Playing:
    """A player whose messages change as the faults say."""

    def __init__(self, bag: Bag, preset: Preset, rate: float) -> None:
        """Makes the publishers of a bag."""
        topics = {
            name: tuple(topic_name(t) for t in (camera.image, camera.camera_info) if t)
            for name, camera in preset.used_cameras.items()
        }
        self._changes = Changes(topics, preset.base_frame)
        self._commands: queue.SimpleQueue[tuple[Fault, bool]] = queue.SimpleQueue()
        names, _ = playable(bag)
        self._player = Player(
            rclpy.create_node("soak_player"), bag, names, rate=rate, change=self._changed
        )

    def run(self) -> None:
        """Plays until Ctrl-C."""
        threading.Thread(target=self._read_commands, daemon=True).start()
        if silent := self._player.wait(_WAIT):
            print(f"nobody has subscribed to {', '.join(silent)}", file=sys.stderr)
        print(PLAYING, flush=True)
        statistics = PlaybackStatistics()
        while True:
            self._player.play(statistics)

    def _read_commands(self) -> None:
        for line in sys.stdin:
            self._commands.put(parse_command(line))

    def _changed(self, record: Record) -> bytes | None:
        while not self._commands.empty():
            fault, begins = self._commands.get()
            self._changes.take(fault, begins)
            if fault.kind == QOS:
                self._player.offer(best_effort=self._changes.best_effort)
        return self._changes(record)


def main(arguments: Sequence[str] | None = None) -> int:
    """The program."""
    parser = argparse.ArgumentParser()
    parser.add_argument("bag", type=Path)
    parser.add_argument("--rate", type=float, default=1.0)
    args = parser.parse_args(arguments)
    transport.prepare()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with Bag(args.bag) as bag:
        rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
        try:
            Playing(bag, preset_of(bag), args.rate).run()
        except KeyboardInterrupt:
            return 130
        finally:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it is ending
            rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
