# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Topics into an MCAP file: what rosbag2 does, where there is no rosbag2.

The bytes are written as they arrive, by a thread of their own, so that a slow disk does not keep
messages waiting. The file gets its name when it is whole; what a recorder that was killed leaves
(``OUT.mcap.partial``) can be read as far as it goes.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

import alocc_ros
from alocc_ros.bags.writer import Recorder
from alocc_ros.errors import AloccError, OutputError
from alocc_ros.outputs import OUTPUTS
from alocc_ros.ros.definitions import definition, message_class
from alocc_ros.ros.topics import qos_problems

NODE = "/alocc_node"
# Without those that are large and only there to be looked at.
OUTPUT_TOPICS = tuple(
    f"{NODE}/{output.name}"
    for output in OUTPUTS
    if output.node and not (output.is_absolute or output.per_camera or output.parameter)
)
DEFAULT_TOPICS = (*OUTPUT_TOPICS, "/tf", "/tf_static", "/diagnostics")

_DEPTH = 100
_CHUNK_BYTES, _CHUNK_SECONDS = 4 << 20, 1.0  # what a power failure may cost
_MOST_QUEUED = 256 << 20  # bytes


class _Message(NamedTuple):
    topic: str
    type: str
    log_time: int  # ns
    data: bytes


class TopicRecorder:
    """A recording that is being made; ``scan`` now and then, and spin its node.

    Attributes:
        path: of the file that will be.
        counts: messages by topic.
        dropped: messages for which the disk was too slow.
    """

    def __init__(
        self,
        node: Node,
        path: Path,
        topics: Sequence[str] = DEFAULT_TOPICS,
        now: Callable[[], int | None] = time.time_ns,
    ) -> None:
        """Begins the file; nothing is subscribed to before the first ``scan``.

        Args:
            node: what subscribes.
            path: of the file; nothing is there before ``finish``.
            topics: absolute names; they need not be there yet.
            now: ns, the time under which a message is recorded; None: not known yet, the
                message gets the first time that is.

        Raises:
            OutputError: the file cannot be written.
        """
        self.path, self._node, self._topics, self._now = path, node, tuple(topics), now
        self.counts: Counter[str] = Counter()
        self.dropped = 0
        self._types: dict[str, str] = {}
        self._profiles: dict[str, QoSProfile] = {}
        self._subscriptions: list = []
        self._unstamped: list[_Message] = []
        self._failure: AloccError | None = None
        self._queued_bytes, self._lock = 0, threading.Lock()
        self._queue: queue.Queue[_Message | None] = queue.Queue()
        metadata = {"source": "ROS 2 topics", "alocc_ros": alocc_ros.__version__}
        self._file = Recorder(path.with_name(path.name + ".partial"), metadata)
        self._definitions: dict[str, str] = {}
        self._thread = threading.Thread(target=self._write, name="alocc record", daemon=True)
        self._thread.start()

    @property
    def subscribed(self) -> frozenset[str]:
        """Topics that have publishers and are received."""
        return frozenset(self._types)

    def scan(self) -> None:
        """Subscribes to the topics that have publishers by now.

        Raises:
            ParameterError: a message type is not installed here.
            OutputError: the file could not be written.
        """
        if self._failure is not None:
            raise self._failure
        for topic in self._topics:
            publishers = self._node.get_publishers_info_by_topic(topic)
            if topic in self._types or not publishers:
                continue
            kind = publishers[0].topic_type
            self._definitions[kind] = definition(kind)
            self._types[topic] = kind
            self._profiles[topic] = _compatible_qos([p.qos_profile for p in publishers])
            self._subscriptions.append(
                self._node.create_subscription(
                    message_class(kind),
                    topic,
                    self._callback_for(topic, kind),
                    self._profiles[topic],
                    raw=True,
                )
            )

    def problems(self) -> list[str]:
        """Why there is nothing of some topics, one sentence each."""
        found = []
        for topic in self._topics:
            if self.counts[topic]:
                continue
            if topic not in self._types:
                found.append(f"nobody publishes {topic}")
                continue
            reasons = qos_problems(self._node, topic, self._profiles[topic])
            found += reasons or [f"nothing came on {topic}"]
        return found

    def finish(self) -> None:
        """Ends the recording; if nothing came, there is no file.

        Raises:
            OutputError: it could not be written.
        """
        self._stop()
        if self._failure is not None:
            self._file.discard()
            raise self._failure
        if not self.counts.total():
            self._file.discard()
            return
        try:
            self._file.publish(self.path)
        except BaseException:
            self._file.discard()
            raise

    def discard(self) -> None:
        """Ends it without a file."""
        self._stop()
        self._file.discard()

    def _stop(self) -> None:
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions.clear()
        self._release(time.time_ns())
        self._queue.put(None)
        self._thread.join()

    def _callback_for(self, topic: str, kind: str) -> Callable[[bytes], None]:
        return lambda data: self._on_message(topic, kind, data)

    def _on_message(self, topic: str, kind: str, data: bytes) -> None:
        now = self._now()
        if now is None:
            self._unstamped.append(_Message(topic, kind, 0, data))
        else:
            self._release(now)
            self._enqueue(_Message(topic, kind, now, data))

    def _release(self, now: int) -> None:
        """Enqueues what came before the time was known."""
        for message in self._unstamped:
            self._enqueue(message._replace(log_time=now))
        self._unstamped.clear()

    def _enqueue(self, message: _Message) -> None:
        with self._lock:
            if self._queued_bytes > _MOST_QUEUED:
                self.dropped += 1
                return
            self._queued_bytes += len(message.data)
        self.counts[message.topic] += 1
        self._queue.put(message)

    def _write(self) -> None:
        """The writer thread."""
        size, since = 0, time.monotonic()
        while (message := self._queue.get()) is not None:
            with self._lock:
                self._queued_bytes -= len(message.data)
            if self._failure is not None:
                continue
            try:
                self._file.write_bytes(*message, self._definitions[message.type])
                size += len(message.data)
                if size >= _CHUNK_BYTES or time.monotonic() - since >= _CHUNK_SECONDS:
                    self._file.end_frame()
                    size, since = 0, time.monotonic()
            except OutputError as error:
                self._failure = error
            except Exception as error:  # mcap's own
                self._failure = OutputError(f"cannot write {self.path}: {error}")
        with contextlib.suppress(OutputError):
            if self._failure is None and size:
                self._file.end_frame()


def _compatible_qos(published: Sequence[QoSProfile]) -> QoSProfile:
    """Of a subscription that is compatible with every publisher, and gets what they keep."""
    reliable = all(p.reliability == ReliabilityPolicy.RELIABLE for p in published)
    latched = all(p.durability == DurabilityPolicy.TRANSIENT_LOCAL for p in published)
    return QoSProfile(
        depth=_DEPTH,
        reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        durability=(DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE),
    )
