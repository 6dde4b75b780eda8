# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Publishers for /tf and /tf_static."""

from __future__ import annotations

from collections.abc import Iterable

from geometry_msgs.msg import TransformStamped
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from tf2_msgs.msg import TFMessage


class TransformBroadcaster:
    """Sends transforms that change over time."""

    def __init__(self, node: Node, qos: QoSProfile | int = 100) -> None:
        self.pub_tf = node.create_publisher(TFMessage, "/tf", qos)

    def sendTransform(self, transform: TransformStamped | Iterable[TransformStamped]) -> None:
        """Publishes one transform or several in one message."""
        self.pub_tf.publish(TFMessage(transforms=_listed(transform)))


class StaticTransformBroadcaster:
    """Sends transforms that stay.

    Each call replaces what late subscribers get: send all transforms of a node at once.
    """

    def __init__(self, node: Node, qos: QoSProfile | int | None = None) -> None:
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.pub_tf = node.create_publisher(
            TFMessage, "/tf_static", latched if qos is None else qos
        )

    def sendTransform(self, transform: TransformStamped | Iterable[TransformStamped]) -> None:
        """Publishes one transform or several in one message."""
        self.pub_tf.publish(TFMessage(transforms=_listed(transform)))


def _listed(transform: TransformStamped | Iterable[TransformStamped]) -> list[TransformStamped]:
    return [transform] if isinstance(transform, TransformStamped) else list(transform)
