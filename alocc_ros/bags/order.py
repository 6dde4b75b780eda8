# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""The images of a recording in the order in which they were taken.

Recordings are read in the order of recording, which is about that of the header stamps. A few
images are held back to put right what came a little late. Converters that write one topic after
the other are beyond that: there each topic is read by itself, and the streams are merged by stamp.
"""

from __future__ import annotations

import heapq
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice

from alocc_ros.types import CameraImage

WINDOW = 4  # images a camera that are held back
_JUMP = 150_000_000  # ns; stamps that go back further begin anew, as when a bag loops


class StampOrder:
    """Puts images in order as far as the window reaches, and notes what came later than that.

    Attributes:
        late: by camera, how many images came too late to be put in order.
        latest: by camera, ns that the latest of them was behind.
    """

    def __init__(self) -> None:
        self.late: dict[str, int] = defaultdict(int)
        self.latest: dict[str, int] = defaultdict(int)

    def sort(self, images: Iterable[CameraImage], window: int) -> Iterator[CameraImage]:
        """``images`` by stamp, holding back ``window`` of them.

        Stamps of a camera that go back, as in a bag that loops, begin a new order.
        """
        waiting: list[tuple[int, int, CameraImage]] = []
        recent: dict[str, deque[int]] = defaultdict(lambda: deque(maxlen=3))
        handed_out = 0
        for serial, image in enumerate(images):
            before = recent[image.camera]
            # Three, so that one stamp far in the future does not make a jump of the next.
            if len(before) == 3 and image.stamp < min(before) - _JUMP:
                yield from _emptied(waiting)
                handed_out = 0
            before.append(image.stamp)
            if image.stamp < handed_out:
                self.late[image.camera] += 1
                behind = handed_out - image.stamp
                self.latest[image.camera] = max(self.latest[image.camera], behind)
            heapq.heappush(waiting, (image.stamp, serial, image))
            if len(waiting) > window:
                handed_out, _, first = heapq.heappop(waiting)
                yield first
        yield from _emptied(waiting)


class StampClock:
    """The time that the collector is told where images come as fast as they are read.

    It goes on as the stamps do. A stamp that goes far back is believed when the next one goes with
    it, as in a bag that loops: one wrong stamp would make everything that waits seem late.
    """

    def __init__(self) -> None:
        self._now = 0
        self._before: int | None = None
        self._suspect: int | None = None

    def at(self, stamp: int) -> int:
        """ns since the first image, at the image with this stamp (ns)."""
        before, suspect, self._suspect = self._before, self._suspect, None
        if before is None:
            self._before = stamp
            return self._now
        if suspect is not None and abs(stamp - suspect) < abs(stamp - before):
            before = suspect
        elif stamp < before - _JUMP:
            self._suspect = stamp
            return self._now
        self._now += max(stamp - before, 0)
        self._before = stamp
        return self._now


def in_order(
    order: StampOrder,
    topics: Mapping[str, str],
    read: Callable[[Iterable[str]], Iterator[CameraImage]],
    *,
    apart: bool,
    begin_again: Callable[[], None] = lambda: None,
) -> Iterator[CameraImage]:
    """The images of all cameras by stamp.

    Args:
        order: notes what cannot be put in order.
        topics: the cameras by topic; each has images.
        read: the images on some topics, in the order of recording.
        apart: the topics are known to be out of step: read each by itself at once.
        begin_again: called where what was read is read a second time.
    """
    window = WINDOW * len(topics)
    if not apart:
        images = read(topics)
        first = list(islice(images, window))
        # A camera that is not among them was written elsewhere, or begins later: both are right
        # with the topics read apart, which only takes longer.
        if len(first) < window or {image.camera for image in first} == set(topics.values()):
            yield from order.sort(_chained(first, images), window)
            return
        begin_again()
    streams = [order.sort(read([topic]), WINDOW) for topic in topics]
    yield from heapq.merge(*streams, key=lambda image: image.stamp)


def _chained(first: list[CameraImage], rest: Iterator[CameraImage]) -> Iterator[CameraImage]:
    first.reverse()
    while first:  # not kept longer than needed
        yield first.pop()
    yield from rest


def _emptied(waiting: list[tuple[int, int, CameraImage]]) -> Iterator[CameraImage]:
    while waiting:
        yield heapq.heappop(waiting)[2]
