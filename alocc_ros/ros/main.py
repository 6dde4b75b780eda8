# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""The program ``alocc_node``."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence

from alocc_ros.ros import transport

_LOOK_PERIOD = 0.1  # s, how long a signal may go unnoticed while nothing happens


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the node until a signal ends it (0); 2 if it cannot be started."""
    # rclpy's own handlers end the context under the executor's feet: a message that is just being
    # taken becomes an error, and a wake-up that gets lost leaves an idle node waiting for ever.
    # Here a signal only asks, the loop looks, and things end in the order they were made.
    asked: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):  # a launch file's Ctrl-C arrives twice
        signal.signal(number, lambda number, _: asked.append(number))
    way = transport.prepare()  # before Fast DDS is loaded
    try:
        import rclpy
        from rclpy.signals import SignalHandlerOptions

        from alocc_ros.ros.executor import GuardedExecutor
        from alocc_ros.ros.node import AloccNode
    except ModuleNotFoundError as error:
        print(
            f"alocc_node: error: the Python package {error.name!r} is not there; "
            "`alocc doctor` says how to get it",
            file=sys.stderr,
        )
        return 2

    rclpy.init(args=arguments, signal_handler_options=SignalHandlerOptions.NO)
    node = AloccNode()
    transport.close_segments()
    executor = GuardedExecutor(on_failure=node.report_failure, on_limit=node.fail)
    executor.add_node(node)
    try:
        if way.news:
            node.get_logger().info(way.news)
        if way.remedy:
            node.get_logger().warning(f"{way.reason}; {way.remedy}")
        if not asked and not node.start():
            return 2
        while not asked:
            executor.spin_once(timeout_sec=_LOOK_PERIOD)
    finally:
        executor.shutdown(timeout_sec=_LOOK_PERIOD)
        node.destroy_node()
        rclpy.try_shutdown()
    if node.is_stuck:
        # Everything of ROS is gone; the interpreter's own end would wait for the network, or crash.
        sys.stdout.flush()
        os._exit(0)
    return 0


if __name__ == "__main__":
    sys.exit(main())
