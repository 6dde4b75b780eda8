# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""The images of one camera that wait for their sets, and the count of what became of them."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from alocc_ros.types import CameraImage

# Why an image was dropped. External monitors match on these words: keep them.
ZERO_STAMP = "stamp is zero or negative"
DUPLICATE = "duplicate stamp"
OUT_OF_ORDER = "out of order"
TOO_LATE = "its set was already closed"
UNMATCHED = "no set needed it"
INCOMPLETE = "its set had too few cameras"
QUEUE_FULL = "queue full"
TIME_JUMP = "queued when time jumped back"
LEFT_OVER = "left over from before time jumped back"
RESET = "collector was reset"
STRAYED = "stamp does not fit the other cameras'"


@dataclass(frozen=True)
class CameraStatistics:
    """One camera's part of the bookkeeping; received = used + dropped + queued.

    Attributes:
        received, used, queued: numbers of images.
        dropped: number by reason (the constants of this module).
        last_stamp: ns, the newest since the last time jump, None if there is none.
        last_arrival: ``now_ns`` of the newest image, None if there is none.
        last_drop: why the most recent dropped image was dropped, or "".
    """

    received: int
    used: int
    queued: int
    dropped: Mapping[str, int]
    last_stamp: int | None
    last_arrival: int | None
    last_drop: str


class QueuedImage(NamedTuple):
    """An image that waits for its set."""

    base: int  # ns, stamp minus the camera's expected offset
    arrival: int  # ns on the caller's clock
    image: CameraImage


def nearest(
    options: Mapping[str, list[QueuedImage]], base: int, begin: int, end: int
) -> dict[str, QueuedImage]:
    """By camera, the option nearest to ``base`` among those in ``[begin, end]``."""
    out = {}
    for name, ways in options.items():
        inside = [w for w in ways if begin <= w.base <= end]
        if inside:
            out[name] = min(inside, key=lambda w: abs(w.base - base))
    return out


class CameraQueue:
    """The images of one camera that wait for their sets, ordered by stamp, and its counters.

    Attributes:
        camera: name out of the rig.
        offset: ns, the expected stamp minus the anchor's.
        images: oldest first.
        received, used: numbers of images.
        dropped: number by reason.
        last_drop: why the most recent dropped image was dropped, or "".
        last_stamp: ns, the newest since the last time jump, None if there is none.
        last_arrival: the caller's clock at the newest image, None if there is none.
        last_before_jump: ns, the newest stamp before the last time jump.
        intervals: ns between the newest stamps.
        suspect: the newest image was out of order; another one in a row is a time jump.
        strays: images whose stamps do not fit the other cameras', oldest first (``timeline``).
        stray: the newest image, if it was one of those; None otherwise.
    """

    def __init__(self, camera: str, offset: int) -> None:
        self.camera = camera
        self.offset = offset
        self.images: deque[QueuedImage] = deque()
        self.strays: deque[QueuedImage] = deque()
        self.received = 0
        self.used = 0
        self.dropped: Counter[str] = Counter()
        self.last_drop = ""
        self.last_before_jump: int | None = None
        self.forget_stamps()

    def forget_stamps(self) -> None:
        """Drops what was learned from the stamps (not the counters)."""
        self.last_stamp: int | None = None
        self.last_arrival: int | None = None
        self.intervals: deque[int] = deque(maxlen=2)
        self.suspect = False
        self.stray: QueuedImage | None = None

    @property
    def last_base(self) -> int | None:
        """``last_stamp`` minus the offset."""
        return None if self.last_stamp is None else self.last_stamp - self.offset

    @property
    def period(self) -> int | None:
        """The shorter of the last two intervals, so that one lost image changes nothing."""
        return min(self.intervals, default=None)

    def drop(self, reason: str, number: int = 1) -> None:
        """Counts images that are not used."""
        if number:
            self.dropped[reason] += number
            self.last_drop = reason

    def drop_oldest(self, reason: str) -> None:
        """Takes the oldest image out of the queue and counts it."""
        self.images.popleft()
        self.drop(reason)

    def drop_all(self, reason: str) -> None:
        """Empties the queue and counts its images."""
        self.drop(reason, len(self.images) + len(self.strays))
        self.images.clear()
        self.strays.clear()

    def observe(self, stamp: int, now_ns: int) -> None:
        """Takes note of a newer stamp."""
        if self.last_stamp is not None:
            self.intervals.append(stamp - self.last_stamp)
        self.last_stamp = stamp
        self.last_arrival = now_ns
        self.suspect = False
        self.stray = None

    @property
    def statistics(self) -> CameraStatistics:
        """A snapshot of the counters."""
        return CameraStatistics(
            received=self.received,
            used=self.used,
            queued=len(self.images) + len(self.strays),
            dropped=dict(self.dropped),
            last_stamp=self.last_stamp,
            last_arrival=self.last_arrival,
            last_drop=self.last_drop,
        )
