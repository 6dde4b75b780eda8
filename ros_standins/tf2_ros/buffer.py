# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""The buffer that nodes ask: waits for data, and forgets when time jumps back."""

from __future__ import annotations

import threading
import time as system_time
from collections.abc import Callable

from geometry_msgs.msg import TransformStamped
from rclpy.clock import Clock, JumpThreshold, TimeJump
from rclpy.duration import Duration
from rclpy.logging import get_logger
from rclpy.node import Node
from rclpy.time import Time
from tf2_msgs.srv import FrameGraph

from .buffer_core import BufferCore

_NO_WAIT = Duration()


class Buffer(BufferCore):
    """Keeps transforms for ``cache_time`` (10 s) and answers lookups, waiting if asked to.

    With a node it serves ``tf2_frames`` and watches the node's clock: when that jumps back
    (a bag starts again), everything but static transforms is forgotten.
    """

    def __init__(self, cache_time: Duration | None = None, node: Node | None = None) -> None:
        super().__init__(cache_time)
        self._new_data = threading.Condition()
        if node is not None:
            self.srv = node.create_service(FrameGraph, "tf2_frames", self._frame_graph)
        self.clock = node.get_clock() if node is not None else Clock()
        threshold = JumpThreshold(
            min_forward=None, min_backward=Duration(seconds=-1), on_clock_change=True
        )
        self.jump_handle = self.clock.create_jump_callback(
            threshold, post_callback=self.time_jump_callback
        )

    def set_transform(self, transform: TransformStamped, authority: str) -> None:
        """Adds a transform that holds at its stamp."""
        super().set_transform(transform, authority)
        self._tell()

    def set_transform_static(self, transform: TransformStamped, authority: str) -> None:
        """Adds a transform that holds for all times."""
        super().set_transform_static(transform, authority)
        self._tell()

    def lookup_transform(
        self, target_frame: str, source_frame: str, time: Time, timeout: Duration = _NO_WAIT
    ) -> TransformStamped:
        """Maps points of the source into the target at ``time`` (0: newest).

        Waits up to ``timeout`` for data, then raises what is wrong. The thread that waits must
        not be the one that brings the data.
        """
        self.can_transform(target_frame, source_frame, time, timeout)
        return self.lookup_transform_core(target_frame, source_frame, time)

    def can_transform(
        self,
        target_frame: str,
        source_frame: str,
        time: Time,
        timeout: Duration = _NO_WAIT,
        return_debug_tuple: bool = False,
    ) -> bool | tuple[bool, str]:
        """True if a lookup would succeed; waits up to ``timeout`` for that."""
        answer = self._wait(
            lambda: self.can_transform_core(target_frame, source_frame, time), timeout
        )
        return answer if return_debug_tuple else answer[0]

    def time_jump_callback(self, time_jump: TimeJump) -> None:
        """The clock jumped back, or changed its source."""
        get_logger("tf2_buffer").warning("time jumped back: transforms are forgotten")
        self.clear()

    def _wait(self, look: Callable[[], tuple[bool, str]], timeout: Duration) -> tuple[bool, str]:
        # The wall clock, as upstream: simulated time may stand still.
        end = system_time.monotonic() + timeout.nanoseconds * 1e-9
        with self._new_data:
            while not (answer := look())[0]:
                remaining = end - system_time.monotonic()
                if remaining <= 0.0:
                    break
                self._new_data.wait(remaining)
        return answer

    def _tell(self) -> None:
        with self._new_data:
            self._new_data.notify_all()

    def _frame_graph(
        self, request: FrameGraph.Request, response: FrameGraph.Response
    ) -> FrameGraph.Response:
        response.frame_yaml = self.all_frames_as_yaml()
        return response
