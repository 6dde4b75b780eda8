# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Subscriptions that find out the type on their topic, and diagnose why nothing comes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import monotonic
from typing import Any

from message_filters import Subscriber
from rclpy.node import Node
from rclpy.qos import (
    HistoryPolicy,
    QoSCompatibility,
    QoSProfile,
    ReliabilityPolicy,
    qos_check_compatible,
)
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.topic_endpoint_info import TopicEndpointInfo

try:
    from rclpy.event_handler import SubscriptionEventCallbacks, UnsupportedEventTypeError
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks, UnsupportedEventTypeError


def best_effort(depth: int) -> QoSProfile:
    """QoS of a subscription that is compatible with any publisher."""
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST, depth=depth, reliability=ReliabilityPolicy.BEST_EFFORT
    )


class Topic:
    """One topic, subscribed to as soon as its type is known.

    Everything but the counters is to be used from the executor's thread.

    Attributes:
        name: as configured; remapping has the last word.
        type: of the subscription, such as ``sensor_msgs/msg/Image``; "" while there is none.
        problem: why messages of a publisher cannot come in, naming it; else "".
        doubled: who publishes, if it is more than one; else "".
        publishers: how many there are.
        received, lost: messages; ``lost`` as far as the middleware noticed, if it is asked.
        last_arrival: of the newest message, on the clock ``time.monotonic``; None before it.
    """

    def __init__(
        self,
        node: Node,
        name: str,
        types: Mapping[str, type],
        callback: Callable[[Any], None],
        depth: int,
        *,
        count_lost: bool = False,
        advice: Callable[[str], str] = lambda kind: "",
    ) -> None:
        """Subscribes at once if there is only one possible type.

        Args:
            node: what subscribes.
            name: of the topic.
            types: message classes by type name; the type of the publishers decides.
            callback: gets every message, in the executor's thread.
            depth: messages that may wait for the executor; overridable, like reliability, by
                the parameters ``qos_overrides.<topic>.subscription.*``.
            count_lost: ask the middleware what it loses, which costs the executor time.
            advice: what to do about a publisher of another type, by its name.
        """
        self.name = name if name.startswith(("/", "~")) else f"/{name}"
        self.type = self.problem = self.doubled = ""
        self.publishers = self.received = self.lost = 0
        self.last_arrival: float | None = None
        self._node, self._types, self._callback = node, dict(types), callback
        self._qos, self._count_lost = best_effort(depth), count_lost
        self._advice = advice
        self._subscriber: Subscriber | None = None
        if len(self._types) == 1:
            self._subscribe(*self._types)
        self.scan()

    @property
    def resolved(self) -> str:
        """The topic's name after remapping."""
        return self._node.resolve_topic_name(self.name)

    def scan(self) -> None:
        """Looks who publishes; subscribes, or again if the type is another one now."""
        found = self._node.get_publishers_info_by_topic(self.name)
        self.publishers = len(found)
        self.doubled = ""
        if len(found) > 1:
            names = ", ".join(sorted(map(_node_name, found)))
            self.doubled = f"{len(found)} publish {self.resolved}: {names}"
        problems = qos_problems(self._node, self.name, self._qos)
        usable = [p for p in found if p.topic_type in self._types]
        if usable and self.type not in {p.topic_type for p in usable}:
            self.close()
            self._subscribe(usable[0].topic_type)
        for publisher in found:
            if publisher.topic_type not in self._types:
                problems.append(
                    f"{_node_name(publisher)} publishes {publisher.topic_type} on {self.resolved}, "
                    f"not {' or '.join(self._types)}{self._advice(publisher.topic_type)}"
                )
        self.problem = "; ".join(problems)

    def close(self) -> None:
        """Ends the subscription."""
        if self._subscriber is not None:
            self._node.destroy_subscription(self._subscriber.sub)
            self._subscriber, self.type = None, ""

    def _subscribe(self, type_name: str) -> None:
        arguments = (self._node, self._types[type_name], self.name)
        options = {
            "qos_profile": self._qos,
            "qos_overriding_options": QoSOverridingOptions.with_default_policies(),
        }
        # The default callbacks would cost the executor time for what scan() tells better.
        on_lost = self._on_lost if self._count_lost else None
        events = SubscriptionEventCallbacks(message_lost=on_lost, use_default_callbacks=False)
        try:
            subscriber = Subscriber(*arguments, event_callbacks=events, **options)
        except UnsupportedEventTypeError:  # some middlewares do not count what they lose
            subscriber = Subscriber(*arguments, **options)
        subscriber.registerCallback(self._on_message)
        self._subscriber, self.type = subscriber, type_name

    def _on_message(self, message: Any) -> None:
        self.received += 1
        self.last_arrival = monotonic()
        self._callback(message)

    def _on_lost(self, event: Any) -> None:
        self.lost = event.total_count


def qos_problems(node: Node, topic: str, requested: QoSProfile) -> list[str]:
    """Publishers on ``topic`` that a subscription with the QoS ``requested`` gets nothing from."""
    problems = []
    for publisher in node.get_publishers_info_by_topic(topic):
        fits, reason = qos_check_compatible(publisher.qos_profile, requested)
        if fits == QoSCompatibility.ERROR:
            name = node.resolve_topic_name(topic)
            problems.append(
                f"incompatible QoS of {_node_name(publisher)} on {name}: {reason.strip()}"
            )
    return problems


def clock_problems(node: Node) -> list[str]:
    """Why a node that lives in simulated time has none, or too much of it."""
    if not node.get_parameter("use_sim_time").value:
        return []
    clocks = node.get_publishers_info_by_topic("/clock")
    if not clocks:
        return ["use_sim_time is set, but nobody publishes /clock"]
    if len(clocks) > 1:
        names = ", ".join(sorted(map(_node_name, clocks)))
        return [f"{len(clocks)} publish /clock, and time jumps between them: {names}"]
    return []


def _node_name(publisher: TopicEndpointInfo) -> str:
    """Node and publisher become known separately."""
    if "UNKNOWN" in publisher.node_name:
        return "a publisher"
    return f"{publisher.node_namespace.rstrip('/')}/{publisher.node_name}"
