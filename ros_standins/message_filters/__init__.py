# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Stand-in for message_filters: chains of callbacks, and synchronisers by stamp.

The synchronisers keep upstream's rules, the weak ones too: this package does not use them for
its cameras (see alocc_ros/stream/collector.py), other people's code may.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Sequence
from typing import Any

from rclpy.clock import ROSClock
from rclpy.duration import Duration
from rclpy.logging import get_logger
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.time import Time

__all__ = [
    "ApproximateTimeSynchronizer",
    "Cache",
    "SimpleFilter",
    "Subscriber",
    "TimeSynchronizer",
]


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


class Cache(SimpleFilter):
    """The last ``cache_size`` messages of a filter, by stamp."""

    def __init__(
        self, f: SimpleFilter | None = None, cache_size: int = 1, allow_headerless: bool = False
    ) -> None:
        super().__init__()
        self.cache_size = cache_size
        self.allow_headerless = allow_headerless
        self.cache_msgs: list[Any] = []
        self.cache_times: list[Time] = []
        if f is not None:
            self.connectInput(f)

    def connectInput(self, f: SimpleFilter) -> None:
        """Takes its messages from ``f``."""
        self.incoming_connection = f.registerCallback(self.add)

    def add(self, msg: Any) -> None:
        """Keeps a message, and hands it on."""
        stamp = _stamp(msg, self.allow_headerless, "message_filters_cache")
        if stamp is None:
            return
        place = len(self.cache_times)
        while place and self.cache_times[place - 1] > stamp:
            place -= 1
        self.cache_times.insert(place, stamp)
        self.cache_msgs.insert(place, msg)
        if len(self.cache_msgs) > self.cache_size:
            del self.cache_msgs[0], self.cache_times[0]
        self.signalMessage(msg)

    def getInterval(self, from_stamp: Time, to_stamp: Time) -> list[Any]:
        """Messages from one stamp to another, both included."""
        assert from_stamp <= to_stamp
        pairs = zip(self.cache_msgs, self.cache_times, strict=True)
        return [msg for msg, stamp in pairs if from_stamp <= stamp <= to_stamp]

    def getElemAfterTime(self, stamp: Time) -> Any:
        """The oldest message at or after ``stamp``, or None."""
        pairs = zip(self.cache_msgs, self.cache_times, strict=True)
        return next((msg for msg, time in pairs if time >= stamp), None)

    def getElemBeforeTime(self, stamp: Time) -> Any:
        """The newest message at or before ``stamp``, or None."""
        pairs = zip(reversed(self.cache_msgs), reversed(self.cache_times), strict=True)
        return next((msg for msg, time in pairs if time <= stamp), None)

    def getLatestTime(self) -> Time | None:
        """The newest stamp, or None."""
        return self.cache_times[-1] if self.cache_times else None

    getLastestTime = getLatestTime  # the name that upstream had first  # noqa: N815

    def getOldestTime(self) -> Time | None:
        """The oldest stamp, or None."""
        return self.cache_times[0] if self.cache_times else None

    def getLast(self) -> Any:
        """The newest message, or None."""
        return self.cache_msgs[-1] if self.cache_msgs else None


class TimeSynchronizer(SimpleFilter):
    """Calls back with one message of every filter once all have one of the same stamp."""

    def __init__(self, fs: Sequence[SimpleFilter], queue_size: int) -> None:
        super().__init__()
        self.queue_size = queue_size
        self.lock = threading.Lock()
        self.connectInput(fs)

    def connectInput(self, fs: Sequence[SimpleFilter]) -> None:
        """Takes its messages from ``fs``."""
        self.queues: list[dict[int, Any]] = [{} for _ in fs]
        self.input_connections = [
            f.registerCallback(self.add, queue, i)
            for i, (f, queue) in enumerate(zip(fs, self.queues, strict=True))
        ]

    def add(self, msg: Any, my_queue: dict[int, Any], my_queue_index: int | None = None) -> None:
        """A message of one filter."""
        with self.lock:
            self._keep(msg, Time.from_msg(msg.header.stamp).nanoseconds, my_queue)
            for stamp in sorted(set.intersection(*(set(q) for q in self.queues))):
                self.signalMessage(*(queue.pop(stamp) for queue in self.queues))

    def _keep(self, msg: Any, stamp: int, queue: dict[int, Any]) -> None:
        queue[stamp] = msg
        while len(queue) > self.queue_size:
            del queue[min(queue)]


class ApproximateTimeSynchronizer(TimeSynchronizer):
    """As ``TimeSynchronizer``, for stamps less than ``slop`` seconds apart."""

    def __init__(
        self,
        fs: Sequence[SimpleFilter],
        queue_size: int,
        slop: float,
        allow_headerless: bool = False,
    ) -> None:
        super().__init__(fs, queue_size)
        self.slop = Duration(seconds=slop)
        self.allow_headerless = allow_headerless

    def add(self, msg: Any, my_queue: dict[int, Any], my_queue_index: int | None = None) -> None:
        """A message of one filter."""
        stamp = _stamp(msg, self.allow_headerless, "message_filters_approx")
        if stamp is None:
            return
        now, slop = stamp.nanoseconds, self.slop.nanoseconds
        with self.lock:
            self._keep(msg, now, my_queue)
            if now not in my_queue:
                return  # the queue is full of newer ones
            choices = [
                [now]
                if queue is my_queue
                else sorted((s for s in queue if abs(s - now) <= slop), key=lambda s: abs(s - now))
                for queue in self.queues
            ]
            for chosen in itertools.product(*choices):
                if max(chosen) - min(chosen) < slop:
                    pairs = zip(self.queues, chosen, strict=True)
                    self.signalMessage(*(queue.pop(s) for queue, s in pairs))
                    return


def _stamp(msg: Any, allow_headerless: bool, logger: str) -> Time | None:
    stamp = getattr(getattr(msg, "header", None), "stamp", None)
    if stamp is not None:
        return stamp if hasattr(stamp, "nanoseconds") else Time.from_msg(stamp)
    if allow_headerless:
        return ROSClock().now()
    get_logger(logger).warning("a message without a stamp was dropped (allow_headerless is off)")
    return None
