# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Camera streams with their own phases in, complete camera sets out.

The rule. A set belongs to one image of the *anchor* camera. Every image has a *base time*,
its stamp minus the expected offset of its camera; a set takes from each other camera the
image whose base time is nearest to the anchor's, as long as all base times of the set lie
within ``max_spread_ns``. The set closes

* as soon as every camera has an image that a later one cannot beat: it is not before the
  anchor, or it is within half a frame period of it, or its successor is already here;
* or as soon as no camera can contribute any more (each has sent something later);
* or ``timeout_ns`` after the anchor's arrival, with what is there.

Cameras that have been silent for ``silent_after_ns`` while others sent are not waited for, so
one dead camera costs ``timeout_ns`` of latency only until it is known to be dead.

A dead anchor does not silence the output: once it is ``timeout_ns`` overdue, the first camera
of ``cameras`` whose oldest image has waited ``timeout_ns`` stands in for it; once the anchor
counts as silent, the first camera that is not silent stands in without that wait. The anchor
takes over again with its first image.

A camera whose stamps do not fit the others' loses its own images and nobody else's; while it
does so it is not waited for, and if it is the anchor, another one stands in (``timeline``).

Each image is used at most once, sets come out with strictly growing stamps, and whatever
enters is accounted for: received = used + dropped + queued, drops by reason.

Two clocks: stamps order the images; ``now_ns``, whatever clock the caller chooses (receive
time, simulated time, log time of a bag), drives timeouts. They are never compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from alocc_ros.errors import ParameterError
from alocc_ros.stream.camera_queue import (
    DUPLICATE,
    INCOMPLETE,
    LEFT_OVER,
    OUT_OF_ORDER,
    QUEUE_FULL,
    RESET,
    STRAYED,
    TIME_JUMP,
    TOO_LATE,
    UNMATCHED,
    ZERO_STAMP,
    CameraQueue,
    CameraStatistics,
    QueuedImage,
    nearest,
)
from alocc_ros.stream.collector_config import CollectorConfig
from alocc_ros.stream.timeline import Timeline
from alocc_ros.types import CameraImage, CameraSet


@dataclass(frozen=True)
class CollectorStatistics:
    """A snapshot of what came in and what became of it.

    Attributes:
        cameras: by name.
        complete, partial: sets handed out.
        incomplete: sets dropped because they had fewer than ``min_cameras`` images.
        time_jumps: how often stamps or the clock went back.
        last_spread: ns between the first and last stamp of the last set handed out.
    """

    cameras: Mapping[str, CameraStatistics]
    complete: int
    partial: int
    incomplete: int
    time_jumps: int
    last_spread: int


class FrameCollector:
    """Turns the images of N cameras into camera sets (the rule: see the module).

    Not thread-safe; call it from one thread or under one lock. The work per image depends on
    the number of cameras, never on the length of the queues.

    Attributes:
        forming: stamp (ns) of the set that is being put together, as it looks now; None: its anchor
            is not there yet.
    """

    def __init__(self, config: CollectorConfig | None = None) -> None:
        self.config = config or CollectorConfig()
        self._queues = {
            name: CameraQueue(name, self.config.offsets_ns.get(name, 0))
            for name in self.config.cameras
        }
        self._anchor = self._queues[self.config.anchor]
        self._timeline = Timeline(self.config, self._anchor, self._queues.values())
        self._complete = self._partial = self._incomplete = self._time_jumps = 0
        self._last_spread = 0
        self._forget()

    def change(self, config: CollectorConfig) -> None:
        """Other times and numbers from now on; whose images they are of stays.

        Raises:
            ParameterError: other cameras, another anchor or other offsets.
        """
        before = self.config
        if (config.cameras, config.anchor, config.offsets_ns) != (
            *(before.cameras, before.anchor),
            before.offsets_ns,
        ):
            raise ParameterError("a collector cannot be given other cameras, anchor or offsets")
        self.config = config
        self._timeline.change(config)

    def add(self, image: CameraImage, now_ns: int) -> list[CameraSet]:
        """Takes one image in; returns the sets that are closed now, oldest first.

        An image that cannot be used is counted with its reason, never raised: one bad
        message must not stop the stream.

        Raises:
            ParameterError: the image is of a camera that is not in the rig.
        """
        queue = self._queues.get(image.camera)
        if queue is None:
            raise ParameterError(
                f"image of camera {image.camera!r}, the rig has {', '.join(self._queues)}"
            )
        self._set_clock(now_ns)
        # After a pause of all cameras nobody counts as dead: each gets its time to come back.
        pause = self.config.silent_after_ns // 2
        if self._last_arrival is None or now_ns - self._last_arrival > pause:
            self._begin = now_ns
        self._last_arrival = now_ns
        queue.received += 1
        waiting = QueuedImage(image.stamp - queue.offset, now_ns, image)
        reason = self._reason_to_drop(queue, image.stamp, now_ns)
        if reason:
            queue.drop(reason)
        elif self._timeline.fits(queue, waiting, now_ns):
            self._enter(queue, waiting)
        else:
            self._timeline.stray(queue, waiting)
            if departed := self._timeline.departed(now_ns, queue):
                self._follow(departed, now_ns)
        if self._timeline.has_strays:
            for strayed, late in self._timeline.catch_up(now_ns):
                self._enter(strayed, late)
        self._trim(queue)
        return self._collect(now_ns)

    def poll(self, now_ns: int) -> list[CameraSet]:
        """The sets whose timeout has passed; call it from a timer while no image comes."""
        self._set_clock(now_ns)
        if self._timeline.has_strays:
            for strayed, late in self._timeline.catch_up(now_ns):
                self._enter(strayed, late)
        return self._collect(now_ns)

    def flush(self) -> list[CameraSet]:
        """The end of a bag: closes every set with what is there and empties the queues."""
        sets = self._collect(self._now or 0, flush=True)
        for queue in self._queues.values():
            queue.drop_all(UNMATCHED)
        return sets

    def reset(self) -> None:
        """Drops everything queued and begins anew; the counters go on."""
        for queue in self._queues.values():
            queue.drop_all(RESET)
            queue.forget_stamps()
            queue.last_before_jump = None
        self._forget()

    @property
    def statistics(self) -> CollectorStatistics:
        """A snapshot of the counters."""
        return CollectorStatistics(
            cameras={name: queue.statistics for name, queue in self._queues.items()},
            complete=self._complete,
            partial=self._partial,
            incomplete=self._incomplete,
            time_jumps=self._time_jumps,
            last_spread=self._last_spread,
        )

    # What may enter ---------------------------------------------------------------------

    def _reason_to_drop(self, queue: CameraQueue, stamp: int, now_ns: int) -> str:
        """Why the image is of no use whatever the other cameras say, or ""."""
        if stamp <= 0:
            return ZERO_STAMP
        if self._is_left_over(queue, stamp, now_ns):
            return LEFT_OVER
        if queue.last_stamp is not None and stamp <= queue.last_stamp:
            if stamp == queue.last_stamp:
                return DUPLICATE
            if queue.last_stamp - stamp <= self.config.time_jump_ns and not queue.suspect:
                queue.suspect = True
                return OUT_OF_ORDER
        return ""

    def _enter(self, queue: CameraQueue, waiting: QueuedImage) -> None:
        """An image whose stamp can be believed."""
        stamp = waiting.image.stamp
        queue.observe(stamp, waiting.arrival)
        if self._newest is None or stamp > self._newest:
            self._newest = stamp
        if self._last_base is not None and waiting.base <= self._last_base:
            queue.drop(TOO_LATE)
        else:
            queue.images.append(waiting)

    def _follow(self, departed: Sequence[CameraQueue], now_ns: int) -> None:
        """Most cameras have gone to another time, and the rig goes with them."""
        strays = {q.camera: [w for w in q.strays if w.base <= q.stray.base] for q in departed}
        first = min(q.stray.base for q in departed)
        goes_back = any(q.last_base is not None and q.stray.base <= q.last_base for q in departed)
        for queue in departed:
            queue.drop(STRAYED, len(queue.strays) - len(strays[queue.camera]))
            queue.strays.clear()
        if goes_back or (self._last_base is not None and first <= self._last_base):
            self._jump(now_ns)
        for queue in departed:
            for waiting in strays[queue.camera]:
                if queue.last_base is None or waiting.base > queue.last_base:
                    self._enter(queue, waiting)
                else:
                    queue.drop(STRAYED)

    def _trim(self, queue: CameraQueue) -> None:
        while len(queue.images) + len(queue.strays) > self.config.max_queue:
            queue.drop_oldest(QUEUE_FULL)

    def _is_left_over(self, queue: CameraQueue, stamp: int, now_ns: int) -> bool:
        """Whether this image was still under way when another camera's stamps went back.

        The streams of a looping bag do not turn round at the same instant. Taking such an
        image in would make the next one of its camera look like a second jump, which would
        throw away the beginning of the new lap.
        """
        return (
            queue.last_stamp is None
            and queue.last_before_jump is not None
            and stamp > queue.last_before_jump
            and now_ns - self._jumped <= self.config.timeout_ns
            and (self._newest is None or stamp > self._newest + self.config.time_jump_ns)
        )

    def _set_clock(self, now_ns: int) -> None:
        if self._now is not None and now_ns < self._now - self.config.time_jump_ns:
            self._jump(now_ns)
        self._now = now_ns

    def _jump(self, now_ns: int) -> None:
        """Time went back: nothing that is queued can belong to what comes."""
        for queue in self._queues.values():
            queue.drop_all(TIME_JUMP)
            if queue.last_stamp is not None:
                queue.last_before_jump = queue.last_stamp
            queue.forget_stamps()
        self._forget()
        self._jumped = self._begin = self._now = now_ns
        self._time_jumps += 1

    def _forget(self) -> None:
        self._now: int | None = None
        self._jumped = 0  # now_ns of the last time jump
        self._begin = 0  # now_ns of the first image after a pause of the whole rig
        self._last_arrival: int | None = None  # over all cameras
        self._newest: int | None = None  # stamp, over all cameras
        self._last_base: int | None = None  # base time of the last closed set
        self.forming: int | None = None

    # What comes out ---------------------------------------------------------------------

    def _collect(self, now_ns: int, flush: bool = False) -> list[CameraSet]:
        sets, self.forming = [], None
        while (reference := self._reference(now_ns, flush)) is not None:
            head = reference.images[0]
            for queue in self._queues.values():
                self._prune(queue, head.base)
            chosen = self._choose(head.base)
            if not (
                flush
                or now_ns - head.arrival >= self.config.timeout_ns
                or self._is_closed(head.base, chosen, now_ns)
            ):
                self.forming = head.image.stamp
                break
            closed = self._close(head, chosen)
            if closed is not None:
                sets.append(closed)
        return sets

    def _reference(self, now_ns: int, flush: bool) -> CameraQueue | None:
        """The queue whose oldest image the next set is built around, if there is one."""
        if self._begins_a_set(self._anchor):
            return self._anchor
        overdue = now_ns - self._since(self._anchor) - (self._anchor.period or 0)
        if overdue < self.config.timeout_ns and not (flush or self._anchor.stray):
            return None
        others = [q for q in self._queues.values() if q is not self._anchor]
        if self._is_silent(self._anchor, now_ns):
            live = next((q for q in others if not self._is_silent(q, now_ns)), None)
            if live is not None and self._begins_a_set(live):
                return live
        for queue in others:
            if not queue.images:
                continue
            waited = now_ns - queue.images[0].arrival >= self.config.timeout_ns
            if (waited or flush) and self._begins_a_set(queue):
                return queue
        return None

    def _begins_a_set(self, queue: CameraQueue) -> bool:
        """Whether the oldest image lies past the last set; drops those that do not.

        An image within half a period of the last set belongs to that set's cycle: it came
        too late for it, or another camera stood in for this one.
        """
        reach = self.config.max_spread_ns
        if queue.period is not None:
            reach = min(reach, queue.period // 2)
        while queue.images:
            if self._last_base is None or queue.images[0].base > self._last_base + reach:
                return True
            queue.drop_oldest(UNMATCHED)
        return False

    def _since(self, queue: CameraQueue) -> int:
        """When the camera last sent something, or when waiting for it began."""
        return max(self._begin, queue.last_arrival or self._begin)

    def _is_silent(self, queue: CameraQueue, now_ns: int) -> bool:
        """Whether nothing usable is to be expected of a camera now."""
        silent = now_ns - self._since(queue) > self.config.silent_after_ns
        return silent or queue.stray is not None

    def _prune(self, queue: CameraQueue, base: int) -> None:
        """Leaves at the head the last image up to ``base``; later sets want no older one.

        Images nearer to the last set than to this one go too: they were late for that one
        and would mix two cycles in this one. Every image is dropped once, so this is O(1)
        per image however long the queue is.
        """
        images = queue.images
        while len(images) > 1 and images[1].base <= base:
            queue.drop_oldest(UNMATCHED)
        if self._last_base is not None:
            while images and 2 * images[0].base <= self._last_base + base:
                queue.drop_oldest(UNMATCHED)

    def _choose(self, base: int) -> dict[str, QueuedImage]:
        """By camera, the image for the set at ``base``: most cameras, then nearest.

        After ``_prune`` only the first two images of a queue can be the right one.
        """
        spread = self.config.max_spread_ns
        options = {
            name: [w for w in islice(queue.images, 2) if abs(w.base - base) <= spread]
            for name, queue in self._queues.items()
        }
        ways = nearest(options, base, base - spread, base + spread)
        bases = [w.base for w in ways.values()]
        if max(bases) - min(bases) <= spread:
            return ways
        begins = {w.base for ways in options.values() for w in ways if w.base <= base}
        windows = [nearest(options, base, begin, begin + spread) for begin in sorted(begins)]
        return min(
            windows, key=lambda ways: (-len(ways), sum(abs(w.base - base) for w in ways.values()))
        )

    def _is_closed(self, base: int, chosen: Mapping[str, QueuedImage], now_ns: int) -> bool:
        """Whether nothing that is still to come can improve the set."""
        all_chosen = all_passed = True
        for name, queue in self._queues.items():
            if self._is_silent(queue, now_ns):
                continue
            passed = any(w.base >= base for w in islice(queue.images, 2))
            all_passed = all_passed and passed
            if name not in chosen:
                all_chosen = False
            elif not passed:
                # The next image comes one period later, beyond the anchor's time.
                period = queue.period
                if period is None or 2 * (base - chosen[name].base) > period:
                    all_chosen = False
        return all_chosen or all_passed

    def _close(self, head: QueuedImage, chosen: Mapping[str, QueuedImage]) -> CameraSet | None:
        """Takes the chosen images out of the queues and hands them out, if there are enough."""
        enough = len(chosen) >= self.config.required and chosen.keys() >= set(self.config.must_have)
        missing = {
            name: self._why_missing(queue, head.base)
            for name, queue in self._queues.items()
            if enough and name not in chosen
        }
        for name, waiting in chosen.items():
            queue = self._queues[name]
            while queue.images[0] is not waiting:
                queue.drop_oldest(UNMATCHED)
            queue.images.popleft()
            if enough:
                queue.used += 1
            else:
                queue.drop(INCOMPLETE)
        self._last_base = head.base
        if not enough:
            self._incomplete += 1
            return None
        if missing:
            self._partial += 1
        else:
            self._complete += 1
        images = {name: waiting.image for name, waiting in chosen.items()}
        closed = CameraSet(stamp=head.image.stamp, images=images, missing=missing)
        self._last_spread = closed.spread
        return closed

    def _why_missing(self, queue: CameraQueue, base: int) -> str:
        if queue.stray is not None:
            away = (queue.stray.base - base) / 1e9
            return f"stamps {abs(away):.2f} s {'ahead of' if away > 0 else 'behind'} the others"
        if queue.last_stamp is None:
            if queue.last_drop == ZERO_STAMP:
                return f"no usable image: {ZERO_STAMP}"
            return "never seen" if queue.received == 0 else "no image since time began anew"
        last = queue.last_stamp - queue.offset
        if base - last > self.config.timeout_ns:
            return f"no image for {(base - last) / 1e9:.2f} s"
        bases = [last, *(w.base for w in islice(queue.images, 2))]
        away = min(abs(b - base) for b in bases)
        return (
            f"nearest image {away / 1e6:.0f} ms away, "
            f"sets may spread over {self.config.max_spread_ns / 1e6:.0f} ms"
        )
