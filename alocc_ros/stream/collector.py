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

Each image is used at most once, sets come out with strictly growing stamps, and whatever
enters is accounted for: received = used + dropped + queued, drops by reason.

Two clocks: stamps order the images; ``now_ns``, whatever clock the caller chooses (receive
time, simulated time, log time of a bag), drives timeouts. They are never compared.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

from alocc_ros.errors import ParameterError
from alocc_ros.types import CAMERAS, CameraImage, CameraSet

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


@dataclass(frozen=True)
class CollectorConfig:
    """How images become sets. Times in nanoseconds.

    Attributes:
        cameras: the rig, in the order in which cameras stand in for a dead anchor.
        anchor: the camera whose stamp is the stamp of the set.
        offsets_ns: by camera, its expected stamp minus the anchor's; 0 where not named. With
            unknown offsets the nearest images are taken, which is right as long as every
            true offset is well below half a frame period.
        max_spread_ns: largest distance between two base times of a set. The six nuScenes
            cameras are spread over 42.6 ms of an 83.3 ms period; sets that mix two cycles
            begin at 73 ms, so 55 ms tells them apart.
        timeout_ns: how long after its arrival an anchor image waits for the others.
        min_cameras: sets with fewer images are dropped; None means all of ``cameras``, that
            is, no partial sets.
        max_queue: images held per camera; the oldest goes when it is full.
        silent_after_ns: a camera that sent nothing for so long is not waited for.
        time_jump_ns: a stamp (or ``now_ns``) further back than this means that time itself
            jumped, as when a bag loops; less is an image out of order, and two of those in a
            row from one camera are a jump as well.
    """

    cameras: tuple[str, ...] = CAMERAS
    anchor: str = "cam_front"
    offsets_ns: Mapping[str, int] = field(default_factory=dict)
    max_spread_ns: int = 55_000_000
    timeout_ns: int = 100_000_000
    min_cameras: int | None = None
    max_queue: int = 8
    silent_after_ns: int = 1_500_000_000
    time_jump_ns: int = 150_000_000

    def __post_init__(self) -> None:
        problems = []
        if not self.cameras or len(set(self.cameras)) != len(self.cameras):
            problems.append(f"cameras must be distinct names, at least one: {self.cameras}")
        if self.anchor not in self.cameras:
            problems.append(f"anchor {self.anchor!r} is none of the cameras {self.cameras}")
        if unknown := sorted(set(self.offsets_ns) - set(self.cameras)):
            problems.append(f"offsets_ns names unknown cameras {unknown}")
        if self.offsets_ns.get(self.anchor, 0) != 0:
            problems.append(f"offsets_ns of the anchor {self.anchor!r} must be 0")
        for name in ("max_spread_ns", "timeout_ns", "silent_after_ns", "time_jump_ns"):
            if getattr(self, name) <= 0:
                problems.append(f"{name} must be positive, is {getattr(self, name)}")
        if not 1 <= self.required <= len(self.cameras):
            problems.append(f"min_cameras must be in 1..{len(self.cameras)}, is {self.min_cameras}")
        if self.max_queue < 2:
            problems.append(f"max_queue must be at least 2, is {self.max_queue}")
        if problems:
            raise ParameterError("collector: " + "; ".join(problems))

    @property
    def required(self) -> int:
        """Number of images that a set needs at least."""
        return len(self.cameras) if self.min_cameras is None else self.min_cameras


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


class _Waiting(NamedTuple):
    base: int  # ns, stamp minus the camera's expected offset
    arrival: int  # ns on the caller's clock
    image: CameraImage


class _Stream:
    """The queue of one camera, ordered by stamp, and its counters."""

    def __init__(self, camera: str, offset: int) -> None:
        self.camera = camera
        self.offset = offset
        self.queue: deque[_Waiting] = deque()
        self.received = 0
        self.used = 0
        self.dropped: Counter[str] = Counter()
        self.last_drop = ""
        self.last_before_jump: int | None = None
        self.forget()

    def forget(self) -> None:
        """Drops what was learned from the stamps (not the counters)."""
        self.last_stamp: int | None = None
        self.last_arrival: int | None = None
        self.intervals: deque[int] = deque(maxlen=2)
        self.suspect = False

    @property
    def period(self) -> int | None:
        """The shorter of the last two intervals, so that one lost image changes nothing."""
        return min(self.intervals, default=None)

    def drop(self, reason: str, number: int = 1) -> None:
        if number:
            self.dropped[reason] += number
            self.last_drop = reason

    def drop_head(self, reason: str) -> None:
        self.queue.popleft()
        self.drop(reason)

    def drop_all(self, reason: str) -> None:
        self.drop(reason, len(self.queue))
        self.queue.clear()

    def observe(self, stamp: int, now_ns: int) -> None:
        if self.last_stamp is not None:
            self.intervals.append(stamp - self.last_stamp)
        self.last_stamp = stamp
        self.last_arrival = now_ns
        self.suspect = False


class FrameCollector:
    """Turns the images of N cameras into camera sets (the rule: see the module).

    Not thread-safe; call it from one thread or under one lock. The work per image depends on
    the number of cameras, never on the length of the queues.
    """

    def __init__(self, config: CollectorConfig | None = None) -> None:
        self.config = config or CollectorConfig()
        self._streams = {
            name: _Stream(name, self.config.offsets_ns.get(name, 0)) for name in self.config.cameras
        }
        self._anchor = self._streams[self.config.anchor]
        self._complete = self._partial = self._incomplete = self._time_jumps = 0
        self._last_spread = 0
        self._forget()

    def add(self, image: CameraImage, now_ns: int) -> list[CameraSet]:
        """Takes one image in; returns the sets that are closed now, oldest first.

        An image that cannot be used is counted with its reason, never raised: one bad
        message must not stop the stream.

        Raises:
            ParameterError: the image is of a camera that is not in the rig.
        """
        stream = self._streams.get(image.camera)
        if stream is None:
            raise ParameterError(
                f"image of camera {image.camera!r}, the rig has {', '.join(self._streams)}"
            )
        self._set_clock(now_ns)
        # After a pause of all cameras nobody counts as dead: each gets its time to come back.
        pause = self.config.silent_after_ns // 2
        if self._last_arrival is None or now_ns - self._last_arrival > pause:
            self._begin = now_ns
        self._last_arrival = now_ns
        stream.received += 1
        refusal = self._refusal(stream, image.stamp, now_ns)
        if refusal:
            stream.drop(refusal)
        else:
            stream.queue.append(_Waiting(image.stamp - stream.offset, now_ns, image))
            if len(stream.queue) > self.config.max_queue:
                stream.drop_head(QUEUE_FULL)
        return self._collect(now_ns)

    def poll(self, now_ns: int) -> list[CameraSet]:
        """The sets whose timeout has passed; call it from a timer while no image comes."""
        self._set_clock(now_ns)
        return self._collect(now_ns)

    def flush(self) -> list[CameraSet]:
        """The end of a bag: closes every set with what is there and empties the queues."""
        sets = self._collect(self._now or 0, flush=True)
        for stream in self._streams.values():
            stream.drop_all(UNMATCHED)
        return sets

    def reset(self) -> None:
        """Drops everything queued and begins anew; the counters go on."""
        for stream in self._streams.values():
            stream.drop_all(RESET)
            stream.forget()
            stream.last_before_jump = None
        self._forget()

    @property
    def statistics(self) -> CollectorStatistics:
        """A snapshot of the counters."""
        return CollectorStatistics(
            cameras={
                s.camera: CameraStatistics(
                    received=s.received,
                    used=s.used,
                    queued=len(s.queue),
                    dropped=dict(s.dropped),
                    last_stamp=s.last_stamp,
                    last_arrival=s.last_arrival,
                    last_drop=s.last_drop,
                )
                for s in self._streams.values()
            },
            complete=self._complete,
            partial=self._partial,
            incomplete=self._incomplete,
            time_jumps=self._time_jumps,
            last_spread=self._last_spread,
        )

    # What may enter ---------------------------------------------------------------------

    def _refusal(self, stream: _Stream, stamp: int, now_ns: int) -> str:
        """Why the image may not enter the queue, or "". Notices time jumps."""
        if stamp <= 0:
            return ZERO_STAMP
        if self._is_left_over(stream, stamp, now_ns):
            return LEFT_OVER
        if stream.last_stamp is not None and stamp <= stream.last_stamp:
            if stamp == stream.last_stamp:
                return DUPLICATE
            if stream.last_stamp - stamp <= self.config.time_jump_ns and not stream.suspect:
                stream.suspect = True
                return OUT_OF_ORDER
            self._jump(now_ns)
        stream.observe(stamp, now_ns)
        if self._newest is None or stamp > self._newest:
            self._newest = stamp
        if self._last_base is not None and stamp - stream.offset <= self._last_base:
            return TOO_LATE
        return ""

    def _is_left_over(self, stream: _Stream, stamp: int, now_ns: int) -> bool:
        """Whether this image was still under way when another camera's stamps went back.

        The streams of a looping bag do not turn round at the same instant. Taking such an
        image in would make the next one of its camera look like a second jump, which would
        throw away the beginning of the new lap.
        """
        return (
            stream.last_stamp is None
            and stream.last_before_jump is not None
            and stamp > stream.last_before_jump
            and now_ns - self._jumped <= self.config.timeout_ns
            and (self._newest is None or stamp > self._newest + self.config.time_jump_ns)
        )

    def _set_clock(self, now_ns: int) -> None:
        if self._now is not None and now_ns < self._now - self.config.time_jump_ns:
            self._jump(now_ns)
        self._now = now_ns

    def _jump(self, now_ns: int) -> None:
        """Time went back: nothing that is queued can belong to what comes."""
        for stream in self._streams.values():
            stream.drop_all(TIME_JUMP)
            if stream.last_stamp is not None:
                stream.last_before_jump = stream.last_stamp
            stream.forget()
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

    # What comes out ---------------------------------------------------------------------

    def _collect(self, now_ns: int, flush: bool = False) -> list[CameraSet]:
        sets = []
        while (reference := self._reference(now_ns, flush)) is not None:
            head = reference.queue[0]
            for stream in self._streams.values():
                self._prune(stream, head.base)
            chosen = self._choose(head.base)
            if not (
                flush
                or now_ns - head.arrival >= self.config.timeout_ns
                or self._is_closed(head.base, chosen, now_ns)
            ):
                break
            closed = self._close(head, chosen)
            if closed is not None:
                sets.append(closed)
        return sets

    def _reference(self, now_ns: int, flush: bool) -> _Stream | None:
        """The stream whose oldest image the next set is built around, if there is one."""
        if self._begins_a_set(self._anchor):
            return self._anchor
        overdue = now_ns - self._since(self._anchor) - (self._anchor.period or 0)
        if overdue < self.config.timeout_ns and not flush:
            return None
        others = [s for s in self._streams.values() if s is not self._anchor]
        if self._is_silent(self._anchor, now_ns):
            live = next((s for s in others if not self._is_silent(s, now_ns)), None)
            if live is not None and self._begins_a_set(live):
                return live
        for stream in others:
            if not stream.queue:
                continue
            waited = now_ns - stream.queue[0].arrival >= self.config.timeout_ns
            if (waited or flush) and self._begins_a_set(stream):
                return stream
        return None

    def _begins_a_set(self, stream: _Stream) -> bool:
        """Whether the oldest image lies past the last set; drops those that do not.

        An image within half a period of the last set belongs to that set's cycle: it came
        too late for it, or another camera stood in for this one.
        """
        reach = self.config.max_spread_ns
        if stream.period is not None:
            reach = min(reach, stream.period // 2)
        while stream.queue:
            if self._last_base is None or stream.queue[0].base > self._last_base + reach:
                return True
            stream.drop_head(UNMATCHED)
        return False

    def _since(self, stream: _Stream) -> int:
        """When the camera last sent something, or when waiting for it began."""
        return max(self._begin, stream.last_arrival or self._begin)

    def _is_silent(self, stream: _Stream, now_ns: int) -> bool:
        return now_ns - self._since(stream) > self.config.silent_after_ns

    def _prune(self, stream: _Stream, base: int) -> None:
        """Leaves at the head the last image up to ``base``; later sets want no older one.

        Images nearer to the last set than to this one go too: they were late for that one
        and would mix two cycles in this one. Every image is dropped once, so this is O(1)
        per image however long the queue is.
        """
        queue = stream.queue
        while len(queue) > 1 and queue[1].base <= base:
            stream.drop_head(UNMATCHED)
        if self._last_base is not None:
            while queue and 2 * queue[0].base <= self._last_base + base:
                stream.drop_head(UNMATCHED)

    def _choose(self, base: int) -> dict[str, _Waiting]:
        """By camera, the image for the set at ``base``: most cameras, then nearest.

        After ``_prune`` only the first two images of a queue can be the right one.
        """
        spread = self.config.max_spread_ns
        options = {
            name: [w for w in islice(stream.queue, 2) if abs(w.base - base) <= spread]
            for name, stream in self._streams.items()
        }
        nearest = _nearest(options, base, base - spread, base + spread)
        bases = [w.base for w in nearest.values()]
        if max(bases) - min(bases) <= spread:
            return nearest
        begins = {w.base for ways in options.values() for w in ways if w.base <= base}
        windows = [_nearest(options, base, begin, begin + spread) for begin in sorted(begins)]
        return min(
            windows, key=lambda ways: (-len(ways), sum(abs(w.base - base) for w in ways.values()))
        )

    def _is_closed(self, base: int, chosen: Mapping[str, _Waiting], now_ns: int) -> bool:
        """Whether nothing that is still to come can improve the set."""
        all_chosen = all_passed = True
        for name, stream in self._streams.items():
            if self._is_silent(stream, now_ns):
                continue
            passed = any(w.base >= base for w in islice(stream.queue, 2))
            all_passed = all_passed and passed
            if name not in chosen:
                all_chosen = False
            elif not passed:
                # The next image comes one period later, beyond the anchor's time.
                period = stream.period
                if period is None or 2 * (base - chosen[name].base) > period:
                    all_chosen = False
        return all_chosen or all_passed

    def _close(self, head: _Waiting, chosen: Mapping[str, _Waiting]) -> CameraSet | None:
        """Takes the chosen images out of the queues and hands them out, if there are enough."""
        enough = len(chosen) >= self.config.required
        missing = {
            name: self._why_missing(stream, head.base)
            for name, stream in self._streams.items()
            if enough and name not in chosen
        }
        for name, waiting in chosen.items():
            stream = self._streams[name]
            while stream.queue[0] is not waiting:
                stream.drop_head(UNMATCHED)
            stream.queue.popleft()
            if enough:
                stream.used += 1
            else:
                stream.drop(INCOMPLETE)
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

    def _why_missing(self, stream: _Stream, base: int) -> str:
        if stream.last_stamp is None:
            if stream.last_drop == ZERO_STAMP:
                return f"no usable image: {ZERO_STAMP}"
            return "never seen" if stream.received == 0 else "no image since time began anew"
        last = stream.last_stamp - stream.offset
        if base - last > self.config.timeout_ns:
            return f"no image for {(base - last) / 1e9:.2f} s"
        bases = [last, *(w.base for w in islice(stream.queue, 2))]
        away = min(abs(b - base) for b in bases)
        return (
            f"nearest image {away / 1e6:.0f} ms away, "
            f"sets may spread over {self.config.max_spread_ns / 1e6:.0f} ms"
        )


def _nearest(
    options: Mapping[str, list[_Waiting]], base: int, begin: int, end: int
) -> dict[str, _Waiting]:
    """By camera, the option nearest to ``base`` among those in ``[begin, end]``."""
    out = {}
    for name, ways in options.items():
        inside = [w for w in ways if begin <= w.base <= end]
        if inside:
            out[name] = min(inside, key=lambda w: abs(w.base - base))
    return out
