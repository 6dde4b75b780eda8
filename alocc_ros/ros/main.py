# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""The program ``alocc_node``."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence

from alocc_ros.ros import transport


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the node until a signal ends it (0); 2 if it cannot be started."""
    way = transport.prepare()  # before Fast DDS is loaded
    try:
        import rclpy
        from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor

        from alocc_ros.ros.node import AloccNode
    except ModuleNotFoundError as error:
        print(
            f"alocc_node: error: the Python package {error.name!r} is not there; "
            "`alocc doctor` says how to get it",
            file=sys.stderr,
        )
        return 2

    rclpy.init(args=arguments)
    node = AloccNode()
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        if way.remedy:
            node.get_logger().warning(f"{way.reason}; {way.remedy}")
        if not node.start():
            return 2
        executor.spin()
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        # A launch file's Ctrl-C arrives twice; the second must not end the cleaning up.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        executor.shutdown()
        node.destroy_node()
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
