# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Stand-in for message_filters: chains of callbacks.

Without synchronisers: this package has its own rule for its cameras, see
alocc_ros/stream/collector.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.node import Node
from rclpy.qos import QoSProfile

__all__ = ["SimpleFilter", "Subscriber"]


class SimpleFilter:
    """Something that has output; ``registerCallback`` says who wants it."""

    def __init__(self) -> None:
        self.callbacks: dict[int, tuple[Callable[..., None], tuple[Any, ...]]] = {}

    def registerCallback(self, cb: Callable[..., None], *args: Any) -> int:
        """``cb`` will be called with the output, followed by ``args``."""
        connection = len(self.callbacks)
        self.callbacks[connection] = (cb, args)
        return connection

    def signalMessage(self, *msg: Any) -> None:
        """Hands the output on."""
        for callback, args in list(self.callbacks.values()):
            callback(*msg, *args)


class Subscriber(SimpleFilter):
    """The messages of a topic: takes a node and what ``Node.create_subscription`` takes."""

    def __init__(
        self,
        node: Node,
        msg_type: type,
        topic: str,
        *args: Any,
        qos_profile: QoSProfile | int = 10,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        self.node = node
        self.topic = topic
        self.sub = node.create_subscription(
            msg_type, topic, self.callback, *args, qos_profile=qos_profile, **kwargs
        )

    def callback(self, msg: Any) -> None:
        """A message came."""
        self.signalMessage(msg)

    def getTopic(self) -> str:
        """The topic as it was given."""
        return self.topic

    def __getattr__(self, key: str) -> Any:
        if key == "sub":  # not made yet
            raise AttributeError(key)
        return getattr(self.sub, key)
