# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""A recording published again, in its own time: what rosbag2 does, where there is no rosbag2."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock

from alocc_ros.bags.reader import CAMERA_INFO_TYPE, IMAGE_TYPES, KNOWN_TYPES, Bag, Record
from alocc_ros.errors import BagError
from alocc_ros.outputs import is_latched
from alocc_ros.ros.definitions import is_installed, message_class
from alocc_ros.ros.encoder import time as time_message
from alocc_ros.stream.video import VIDEO_TYPES

CLOCK = "/clock"
_PICTURE_TYPES = (*IMAGE_TYPES, *VIDEO_TYPES)
_CAMERA_TYPES = (*_PICTURE_TYPES, CAMERA_INFO_TYPE)
_DEPTH = 10
_ACK_TIMEOUT = 2.0  # s
_POLL = 0.02  # s
# A subscriber of images also subscribes to poses and camera infos, which are found a moment later.
_SETTLE = 0.7  # s
# A longer pause is one of the recorder's clock, not of the vehicle: sim time before the first
# /clock, a converter that logs at zero. It is jumped over, as nobody waits for years.
MAX_GAP = 60 * 1_000_000_000  # ns
_LAST_TIME = (1 << 31) * 1_000_000_000  # ns
_KEPT_GAP = 100_000_000  # ns of it that are waited
# Between two laps: what is still in transit must arrive before the clock jumps back.
_PAUSE = 0.2  # s


@dataclass
class PlaybackStatistics:
    """What was played.

    Attributes:
        messages: how many, without the clock's.
        images: how many of them.
        laps: whole passes.
        behind: s, how much too late the latest message was.
    """

    messages: int = 0
    images: int = 0
    laps: int = 0
    behind: float = 0.0


class Player:
    """Publishes the topics of a bag and ``/clock``.

    The bytes go out as they were recorded. ``/tf_static`` and ``grid_info`` are latched and
    complete from the beginning, whatever part of the bag is played. Pauses of the recording that
    are longer than ``MAX_GAP`` are jumped over.
    """

    def __init__(
        self,
        node: Node,
        bag: Bag,
        topics: list[str],
        *,
        rate: float = 1.0,
        start: float = 0.0,  # s into the recording
        clock_rate: float = 100.0,  # Hz of wall time; 0: no clock
        best_effort: bool = False,
        renamed: Mapping[str, str] = MappingProxyType({}),
        say: Callable[[str], None] = print,
        change: Callable[[Record], bytes | None] | None = None,
    ) -> None:
        """Makes the publishers; ``renamed`` tells other names for topics, or for what is under one.

        ``say`` gets what people should know while it plays; ``change`` tells what goes out in
        place of a message's bytes, None: nothing. It may call ``offer``.

        Raises:
            BagError: the bag has none of the topics, or nothing after ``start``.
        """
        if unknown := [t for t in topics if t not in bag.types]:
            raise BagError(
                f"bag {bag.path} has no topic {', '.join(unknown)}; "
                f"it has {', '.join(sorted(bag.types))}"
            )
        self._bag, self._rate, self._node = bag, rate, node
        self._change = change
        latched = [t for t in topics if is_latched(t)]
        self._topics = [t for t in topics if t not in latched]
        self._names = {topic: new_name(topic, renamed) for topic in self._topics}
        self._publishers = {topic: self._publisher(topic, best_effort) for topic in self._topics}
        self._images = [t for t in self._topics if bag.types[t] in _PICTURE_TYPES]
        first = next(bag.messages(self._topics), None)
        if first is None:
            raise BagError(f"bag {bag.path} has no messages on {', '.join(topics)}")
        self._start = round(start * 1e9)
        self._say = say
        self._reported: set[tuple[float, float]] = set()
        self._clock = node.create_publisher(Clock, CLOCK, 10) if clock_rate > 0 else None
        self._tick = round(rate * 1e9 / clock_rate) if clock_rate > 0 else 0  # ns of the bag
        for topic in latched:
            self._latch(topic, new_name(topic, renamed))

    def wait(self, timeout: float) -> list[str]:
        """Waits until every image topic has a subscriber; returns those that have none.

        In a recording without images, until any topic has one.
        """
        deadline = time.monotonic() + timeout
        while True:
            subscribed = {t for t, p in self._publishers.items() if p.get_subscription_count()}
            missing = [t for t in self._images or self._topics if t not in subscribed]
            if not missing or (subscribed and not self._images) or time.monotonic() >= deadline:
                break
            time.sleep(_POLL)
        if timeout > 0 and subscribed:
            time.sleep(_SETTLE)
        return missing if self._images or not subscribed else []

    def play(self, statistics: PlaybackStatistics) -> None:
        """One pass; ``statistics`` are kept up to date meanwhile.

        Raises:
            BagError: the bag is damaged, or there is nothing after ``start``.
        """
        if statistics.laps:
            time.sleep(_PAUSE)
        begin_wall = time.monotonic()
        played = 0
        for position, stamp, record in self._events():
            due = begin_wall + (position - self._start) * 1e-9 / self._rate
            delay = due - time.monotonic()
            if delay > 0:
                time.sleep(delay)
            if record is None:
                self._clock.publish(Clock(clock=time_message(stamp)))
                continue
            statistics.behind = max(statistics.behind, -delay)
            data = record.data if self._change is None else self._change(record)
            played += 1
            if data is None:
                continue
            self._publishers[record.topic].publish(data)
            statistics.messages += 1
            statistics.images += record.topic in self._images
        if played == 0:
            raise BagError(f"bag {self._bag.path} has no messages so far from its beginning")
        statistics.laps += 1

    def offer(self, *, best_effort: bool) -> None:
        """Offers images and camera infos with another reliability from now on."""
        for topic in self._topics:
            if self._bag.types[topic] in _CAMERA_TYPES:
                self._node.destroy_publisher(self._publishers[topic])
                self._publishers[topic] = self._publisher(topic, best_effort)

    def finish(self) -> None:
        """Waits until what was published has arrived, for a moment at most."""
        deadline = time.monotonic() + _ACK_TIMEOUT
        for publisher in self._publishers.values():
            left = max(deadline - time.monotonic(), 0.0)
            publisher.wait_for_all_acked(Duration(seconds=left))

    def _events(self) -> Iterator[tuple[int, int, Record | None]]:
        """(ns into the playing, ns, message or None for the clock); in order.

        The clock does not outlive the bag, and jumps where the recording does.
        """
        begin = previous = tick = None  # ns of the bag; the first message's, less the gaps
        jumped = False
        for record in self._bag.messages(self._topics):
            stamp = record.log_time
            if begin is None:
                begin = previous = stamp
            if stamp - previous > MAX_GAP:
                if stamp - begin >= self._start:
                    self._report_gap((previous - begin) * 1e-9, (stamp - previous) * 1e-9)
                begin += stamp - previous - _KEPT_GAP
                tick, jumped = None, True
            previous = stamp
            if stamp - begin < self._start:
                continue
            if tick is None:
                # Of a bag that is played from later on, the clock begins where the playing does.
                tick = stamp if jumped else min(begin + self._start, stamp)
            while self._clock is not None and tick <= stamp:
                if 0 <= tick < _LAST_TIME:  # what /clock can hold
                    yield tick - begin, tick, None
                tick += self._tick
            yield stamp - begin, stamp, record

    def _report_gap(self, at: float, length: float) -> None:
        """Both in s; said once, not in every lap."""
        if (at, length) not in self._reported:
            self._reported.add((at, length))
            after = at + 0.5e-9 * _KEPT_GAP
            self._say(
                f"{_duration(length)} without a message, {at:.2f} s after the first one, are "
                f"jumped over; --start {after:.2f} leaves out what comes before"
            )

    def _publisher(self, topic: str, best_effort: bool) -> Publisher:
        kind = self._bag.types[topic]
        qos = QoSProfile(depth=_DEPTH)
        if best_effort and kind in _CAMERA_TYPES:
            qos.reliability = ReliabilityPolicy.BEST_EFFORT
        return self._node.create_publisher(message_class(kind), self._names[topic], qos)

    def _latch(self, topic: str, name: str) -> None:
        records = list(self._bag.messages([topic]))
        latched = QoSProfile(
            depth=max(len(records), 1), durability=DurabilityPolicy.TRANSIENT_LOCAL
        )
        kind = message_class(self._bag.types[topic])
        publisher = self._node.create_publisher(kind, name, latched)
        for record in records:
            publisher.publish(record.data)


def _duration(seconds: float) -> str:
    """In words that people take in."""
    for unit, length in (("years", 365.25 * 86400), ("days", 86400), ("hours", 3600)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def new_name(topic: str, renamed: Mapping[str, str]) -> str:
    """``topic`` after renaming: of ``{"/a": "/b"}``, ``/a/x`` becomes ``/b/x``."""
    for old, new in renamed.items():
        if topic == old or topic.startswith(f"{old}/"):
            return new + topic.removeprefix(old)
    return topic


def playable(bag: Bag) -> tuple[list[str], list[str]]:
    """Topics that can be played, and those whose message types are not installed here."""
    known = sorted(topic for topic, kind in bag.types.items() if kind in KNOWN_TYPES)
    here = [topic for topic in known if is_installed(bag.types[topic])]
    return here, [topic for topic in known if topic not in here]
