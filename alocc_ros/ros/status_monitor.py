# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Diagnostic statuses of the nodes that are running, received from outside."""

from __future__ import annotations

from collections.abc import Mapping
from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus

# A status of our node has one of these after its name; see diagnostics.py.
_MORE = 1.0  # s after the first status
_PARTS = ("camera ", "sets", "network", "node")


def statuses(seconds: float, first_within: float = 0.0) -> Mapping[str, DiagnosticStatus]:
    """The newest status of each part of each node of ours, after listening for ``seconds``.

    As long as there is none, it goes on for ``first_within`` seconds, and then for one more, so
    that all parts and nodes can say theirs.

    By name, such as ``/alocc_node: camera cam_front``, sorted.
    """
    import rclpy
    from diagnostic_msgs.msg import DiagnosticArray
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.signals import SignalHandlerOptions

    from alocc_ros.ros import transport
    from alocc_ros.ros.diagnostics import HARDWARE_ID

    transport.prepare()
    context = rclpy.Context()
    rclpy.init(args=[], context=context, signal_handler_options=SignalHandlerOptions.NO)
    found: dict[str, DiagnosticStatus] = {}

    def receive(message: DiagnosticArray) -> None:
        for status in message.status:
            _, _, part = status.name.partition(": ")
            if status.hardware_id == HARDWARE_ID and part.startswith(_PARTS):
                found[status.name] = status

    try:
        node = rclpy.create_node("alocc_doctor", context=context)
        node.create_subscription(DiagnosticArray, "/diagnostics", receive, 10)
        executor = SingleThreadedExecutor(context=context)
        executor.add_node(node)
        begin = monotonic()
        end, last = begin + seconds, begin + max(seconds, first_within)
        while (left := (end if found else last) - monotonic()) > 0:
            none_before = not found
            executor.spin_once(timeout_sec=left)
            if found and none_before:
                end = max(end, monotonic() + _MORE)
        executor.shutdown()
    finally:
        context.try_shutdown()
    return dict(sorted(found.items()))
