# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""TF as it comes in: into the buffer, and a note of when each dynamic transform was measured.

The buffer interpolates between any two measurements, however far they are apart, and does not
tell how far that was.
"""

from __future__ import annotations

import threading
from bisect import bisect_left, insort
from collections.abc import Sequence

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.subscription import Subscription
from tf2_msgs.msg import TFMessage
from tf2_ros import Buffer, TransformListener

from alocc_ros.errors import PoseError, StampError
from alocc_ros.stream.conversions import check_transform, frame_name
from alocc_ros.stream.skips import Skips, bad_transform

# Stamps that go back further than this have begun anew; bags carry poses half a second ahead.
JUMP = 1_000_000_000  # ns
_STATIC_QOS = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)
_HISTORY = 10_000_000_000  # ns, as long as the buffer remembers


class StampedTransformListener(TransformListener):
    """Fills the buffer, and keeps the stamps of its dynamic transforms.

    Clears both when the stamps of a transform go back, as in a bag that loops: the buffer notices
    that by the clock only, and only with simulated time; what it has would keep it from taking
    what comes.
    """

    def __init__(
        self,
        buffer: Buffer,
        node: Node,
        *,
        topics: Sequence[str] = ("/tf",),
        static_topics: Sequence[str] = ("/tf_static",),
        skips: Skips | None = None,
    ) -> None:
        """Subscribes to the topics; ``skips`` takes note of what cannot be used."""
        self._lock = threading.Lock()
        self._skips = Skips() if skips is None else skips
        self._parents: dict[str, str] = {}  # of each frame, the newest
        self._stamps: dict[tuple[str, str], list[int]] = {}  # by (parent, child), sorted
        self._static: set[tuple[str, str]] = set()
        super().__init__(buffer, node)
        self._more: list[Subscription] = []
        if tuple(topics) != ("/tf",) or tuple(static_topics) != ("/tf_static",):
            # Not every release lets these be named.
            super().unregister()
            self.tf_sub, *more = (
                node.create_subscription(TFMessage, t, self.callback, 100) for t in topics
            )
            self.tf_static_sub, *more_static = (
                node.create_subscription(TFMessage, t, self.static_callback, _STATIC_QOS)
                for t in static_topics
            )
            self._more = [*more, *more_static]

    def unregister(self) -> None:
        """Ends all subscriptions."""
        for subscription in getattr(self, "_more", []):
            self.node.destroy_subscription(subscription)
        super().unregister()

    def _usable(self, data: TFMessage, topic: str) -> TFMessage:
        """Without the transforms that cannot be used, which are counted."""
        good = []
        for entry in data.transforms:
            try:
                check_transform(entry, static=topic == "/tf_static")
                good.append(entry)
            except (PoseError, StampError) as error:
                parent, child = frame_name(entry.header.frame_id), frame_name(entry.child_frame_id)
                self._skips.add(topic, bad_transform(parent, child), str(error))
        return data if len(good) == len(data.transforms) else TFMessage(transforms=good)

    def callback(self, data: TFMessage) -> None:
        """A message of /tf, in the executor's thread."""
        data = self._usable(data, "/tf")
        with self._lock:
            for entry in data.transforms:
                stamp = entry.header.stamp.sec * 1_000_000_000 + entry.header.stamp.nanosec
                parent, child = frame_name(entry.header.frame_id), frame_name(entry.child_frame_id)
                self._add_stamp(parent, child, stamp)
        super().callback(data)

    def static_callback(self, data: TFMessage) -> None:
        """A message of /tf_static, in the executor's thread."""
        data = self._usable(data, "/tf_static")
        with self._lock:
            for entry in data.transforms:
                parent, child = frame_name(entry.header.frame_id), frame_name(entry.child_frame_id)
                self._parents[child] = parent
                self._static.add((parent, child))
        super().static_callback(data)

    def _add_stamp(self, parent: str, child: str, stamp: int) -> None:
        stamps = self._stamps.get((parent, child))
        if stamps and stamp < stamps[-1] - JUMP:
            self.buffer.clear()
            self._stamps.clear()
        stamps = self._stamps.setdefault((parent, child), [])
        self._parents[child] = parent
        if not stamps or stamp > stamps[-1]:
            stamps.append(stamp)
        elif stamps[bisect_left(stamps, stamp)] != stamp:
            insort(stamps, stamp)
        half = len(stamps) // 2
        if stamps[half] < stamps[-1] - _HISTORY:
            del stamps[:half]

    def chain(self, target: str, source: str) -> dict[tuple[str, str], list[int]]:
        """The transforms (parent, child) between two frames, with their stamps in ns.

        A static transform has none. Of frames that are not linked, the way to their two roots.
        """
        with self._lock:
            return {
                edge: [] if edge in self._static else list(self._stamps.get(edge, []))
                for edge in self._ancestry(target) ^ self._ancestry(source)
            }

    def _ancestry(self, frame: str) -> set[tuple[str, str]]:
        """The transforms (parent, child) from a frame up to its root."""
        edges: set[tuple[str, str]] = set()
        while frame in self._parents and (self._parents[frame], frame) not in edges:
            edges.add((self._parents[frame], frame))
            frame = self._parents[frame]
        return edges
