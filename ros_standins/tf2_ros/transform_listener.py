# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Fills a buffer from /tf and /tf_static."""

from __future__ import annotations

from threading import Thread

from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from tf2_msgs.msg import TFMessage

from .buffer import Buffer

DEFAULT_TF_TOPIC = "/tf"
DEFAULT_STATIC_TF_TOPIC = "/tf_static"


class TransformListener:
    """Subscribes for ``buffer`` on ``node``; lives as long as it is referred to.

    With ``spin_thread`` the node is spun by a thread of the listener; then nobody else may.
    """

    def __init__(
        self,
        buffer: Buffer,
        node: Node,
        *,
        spin_thread: bool = False,
        qos: QoSProfile | int | None = None,
        static_qos: QoSProfile | int | None = None,
        tf_topic: str = DEFAULT_TF_TOPIC,
        tf_static_topic: str = DEFAULT_STATIC_TF_TOPIC,
        static_only: bool = False,
    ) -> None:
        latched = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.buffer = buffer
        self.node = node
        # Reentrant: a callback of the node that waits for a transform must not keep it away.
        self.group = ReentrantCallbackGroup()
        self.tf_sub = None
        if not static_only:
            self.tf_sub = node.create_subscription(
                TFMessage,
                tf_topic,
                self.callback,
                100 if qos is None else qos,
                callback_group=self.group,
            )
        self.tf_static_sub = node.create_subscription(
            TFMessage,
            tf_static_topic,
            self.static_callback,
            latched if static_qos is None else static_qos,
            callback_group=self.group,
        )
        self.executor: SingleThreadedExecutor | None = None
        if spin_thread:
            self.executor = SingleThreadedExecutor(context=node.context)
            self.executor.add_node(node)
            # No reference to self: the thread would keep the listener alive for ever.
            self.dedicated_listener_thread = Thread(target=_spin, args=(self.executor,))
            self.dedicated_listener_thread.start()

    def __del__(self) -> None:
        if getattr(self, "executor", None) is not None:
            self.executor.shutdown()
            self.dedicated_listener_thread.join()
        if hasattr(self, "tf_static_sub"):
            self.unregister()

    def unregister(self) -> None:
        """Ends both subscriptions."""
        if self.tf_sub is not None:
            self.node.destroy_subscription(self.tf_sub)
        self.node.destroy_subscription(self.tf_static_sub)

    def callback(self, data: TFMessage) -> None:
        """A message of /tf."""
        for transform in data.transforms:
            self.buffer.set_transform(transform, "default_authority")

    def static_callback(self, data: TFMessage) -> None:
        """A message of /tf_static."""
        for transform in data.transforms:
            self.buffer.set_transform_static(transform, "default_authority")


def _spin(executor: SingleThreadedExecutor) -> None:
    try:
        executor.spin()
    except ExternalShutdownException:
        return
