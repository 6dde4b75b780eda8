# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Whose stamps can be believed: where the rig is in time is what most of its cameras say.

One camera cannot move the rig. An image whose stamp does not fit the other cameras' is a *stray*:
it waits beside its queue, harms nobody, and

* joins its queue if the others catch up with it within ``timeout_ns``;
* takes the rig with it once most of the cameras that send have strayed to the same time, as when a
  bag loops or is continued elsewhere;
* is dropped and counted otherwise.

What fits depends on the camera's own history. A stamp that goes on where the camera's last one
was, by the caller's clock or by one frame period, may be as far from the others as the queues can
bridge. One that does not may not be further ahead than a set may spread.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection

from alocc_ros.stream.camera_queue import STRAYED, CameraQueue, QueuedImage
from alocc_ros.stream.collector_config import CollectorConfig

_STEPS = 2  # from image to image, that make a stray's stamps credible


class Timeline:
    """Judges images by the other cameras. The work depends on the number of cameras only."""

    def __init__(
        self, config: CollectorConfig, anchor: CameraQueue, queues: Collection[CameraQueue]
    ) -> None:
        self._config, self._anchor, self._queues = config, anchor, queues
        self.has_strays = False

    def change(self, config: CollectorConfig) -> None:
        """Judges by other bounds from now on."""
        self._config = config

    def fits(self, queue: CameraQueue, waiting: QueuedImage, now_ns: int) -> bool:
        """Whether an image goes on where the rig is."""
        own = queue.last_base
        if own is not None and waiting.base <= own:
            return False
        others = self._others(queue, now_ns)
        if not others:
            return True
        between = _middle(others)
        middle = between.last_base
        waited = max(now_ns - between.last_arrival, 0)
        periods = sorted(q.period for q in others if q.period) or [queue.period or 0]
        period = periods[len(periods) // 2]
        jitter = self._config.max_spread_ns
        steady = own is not None and waiting.base - own <= jitter + max(
            period + period // 2, now_ns - queue.last_arrival
        )
        ahead = jitter
        if steady and queue is self._anchor:
            ahead += self._config.timeout_ns + 2 * period  # further, its sets would close early
        elif steady:
            ahead += self._config.silent_after_ns
        behind = self._config.silent_after_ns
        if period:  # an older image has no partners: their queues are not that long
            bridged = (self._config.max_queue - 1) * period
            behind = min(behind, max(self._config.time_jump_ns, bridged))
        return middle - behind <= waiting.base <= middle + ahead + (waited if steady else 0)

    def stray(self, queue: CameraQueue, waiting: QueuedImage) -> None:
        """Puts an image that does not fit aside."""
        self.has_strays = True
        queue.stray = waiting
        queue.strays.append(waiting)
        most = self._config.max_queue
        while len(queue.strays) > max(most // 2, 1):
            queue.strays.popleft()
            queue.drop(STRAYED)

    def catch_up(self, now_ns: int) -> list[tuple[CameraQueue, QueuedImage]]:
        """Takes out the strays that the others have caught up with, and drops old ones."""
        found = []
        self.has_strays = False
        enough = min(_STEPS, self._config.max_queue // 2 - 1)
        for queue in self._queues:
            if not queue.strays:
                continue
            others, newest = self._others(queue, now_ns), queue.last_base
            kept = []
            before, steps = None, 0
            for waiting in queue.strays:
                age = now_ns - waiting.arrival
                behind = newest is not None and waiting.base <= newest
                near = others and not behind and self._is_near(waiting, others)
                # One behind others is believed only if those lead up to it: it must not be right by
                # chance, but a camera that has come back must be seen.
                steps = steps + 1 if before and self._goes_on(queue, before, waiting) else 0
                steady = before is None or steps >= enough
                if near and steady and age <= self._config.timeout_ns:
                    found.append((queue, waiting))
                    newest = waiting.base
                elif age > self._config.silent_after_ns:
                    queue.drop(STRAYED)
                else:
                    kept.append(waiting)
                before = waiting
            queue.strays = deque(kept)
            self.has_strays = self.has_strays or bool(queue.strays)
        return found

    def departed(self, now_ns: int, latest: CameraQueue) -> list[CameraQueue]:
        """The cameras that have gone where ``latest`` has, if they are most of the rig."""
        here = latest.stray
        sending = [q for q in self._queues if self._sends(q, now_ns)]
        period = latest.period or 0
        reach = self._config.time_jump_ns + self._config.max_spread_ns + 2 * period
        gone = [
            q
            for q in sending
            if q.stray is not None
            and abs(q.stray.base - here.base) <= reach + abs(q.stray.arrival - here.arrival)
        ]
        return gone if 2 * len(gone) > len(sending) else []

    def _goes_on(self, queue: CameraQueue, before: QueuedImage, waiting: QueuedImage) -> bool:
        passed = waiting.arrival - before.arrival + (queue.period or 0)
        return 0 < waiting.base - before.base <= passed + self._config.max_spread_ns

    def _is_near(self, waiting: QueuedImage, others: Collection[CameraQueue]) -> bool:
        return abs(waiting.base - _middle(others).last_base) <= self._config.max_spread_ns

    def _others(self, queue: CameraQueue, now_ns: int) -> list[CameraQueue]:
        return [
            q
            for q in self._queues
            if q is not queue
            and q.last_base is not None
            and q.stray is None
            and self._sends(q, now_ns)
        ]

    def _sends(self, queue: CameraQueue, now_ns: int) -> bool:
        heard = queue.last_arrival
        if queue.stray is not None:
            heard = queue.stray.arrival
        return heard is not None and now_ns - heard <= self._config.silent_after_ns


def _middle(queues: Collection[CameraQueue]) -> CameraQueue:
    """The one with the (upper) median of the newest stamps."""
    return sorted(queues, key=lambda q: q.last_base)[len(queues) // 2]
