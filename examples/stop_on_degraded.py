# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Lets /cmd_vel_in through to /cmd_vel while occupancy can be trusted, and stops the robot else.

    python3 examples/stop_on_degraded.py

A node that is late, gone or hung stops the robot as well, and so do bad flags, of which
docs/integrations/safety.md says what they mean.
"""

from __future__ import annotations

import contextlib
import time

import rclpy
from geometry_msgs.msg import Twist
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node

from alocc_ros.msg import FrameStatus, FrameStatusStamped

STOP = FrameStatus.DEGRADED | FrameStatus.RESET | FrameStatus.RANDOM_WEIGHTS
OLDEST = 1.0  # s between the images and now, and between two results


class Gate(Node):
    """Between the planner and the robot."""

    def __init__(self) -> None:
        super().__init__("stop_on_degraded")
        self.declare_parameter("stop_flags", STOP)
        self.declare_parameter("oldest", OLDEST)
        self._status: FrameStatusStamped | None = None
        self._arrived = 0.0  # monotonic: a clock of a simulation may stand still
        self._robot = self.create_publisher(Twist, "cmd_vel", 1)
        self.create_subscription(Twist, "cmd_vel_in", self._drive, 1)
        self.create_subscription(FrameStatusStamped, "/alocc_node/status", self._take, 1)
        self.create_timer(0.1, self._guard)

    def _take(self, message: FrameStatusStamped) -> None:
        self._status, self._arrived = message, time.monotonic()

    def _reason(self) -> str:
        """Why the robot must stand; "": it may drive."""
        if self._status is None:
            return "no status yet"
        stamp = rclpy.time.Time.from_msg(self._status.header.stamp)
        age = (self.get_clock().now() - stamp).nanoseconds * 1e-9
        silent, oldest = time.monotonic() - self._arrived, self.get_parameter("oldest").value
        if not -0.1 < age < oldest or silent > oldest:
            return f"the newest result is {age:.1f} s old and came {silent:.1f} s ago"
        status = self._status.status
        if status.flags & self.get_parameter("stop_flags").value:
            return status.degraded or status.reset or f"flags {status.flags}"
        return ""

    def _drive(self, wanted: Twist) -> None:
        self._robot.publish(wanted if not self._reason() else Twist())

    def _guard(self) -> None:
        if reason := self._reason():  # also while no planner says anything
            self.get_logger().warning(f"stop: {reason}", throttle_duration_sec=1.0)
            self._robot.publish(Twist())


if __name__ == "__main__":
    rclpy.init()
    with contextlib.suppress(KeyboardInterrupt, ExternalShutdownException):
        rclpy.spin(Gate())
