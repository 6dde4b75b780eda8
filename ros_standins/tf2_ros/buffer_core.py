# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""The tree of frames: which transform held between any two of them at any time.

The rules are those of upstream's C++ core: a frame has one parent at a time, data older than
the newest minus the cache time are forgotten, nothing is extrapolated, time 0 asks for the
newest instant that all links of the way have in common, and static links survive ``clear``.
Plain floats instead of arrays: for one transform numpy is slower.
"""

from __future__ import annotations

import math
import threading
from bisect import bisect_left
from typing import NamedTuple

from geometry_msgs.msg import TransformStamped
from rclpy.duration import Duration
from rclpy.logging import get_logger
from rclpy.time import Time

DEFAULT_CACHE_TIME = 10_000_000_000  # ns
_UNIT_TOLERANCE = 1e-2  # of a quaternion's squared length

Vector = tuple[float, float, float]
Quaternion = tuple[float, float, float, float]  # x, y, z, w


class TransformException(Exception):  # noqa: N818 (upstream's names)
    """Root of the errors of a lookup."""


class LookupException(TransformException):
    """A frame that nobody has ever named."""


class ConnectivityException(TransformException):
    """Both frames are known, but nothing links them."""


class ExtrapolationException(TransformException):
    """The frames are linked, but not at that time."""


class InvalidArgumentException(TransformException):
    """A frame name that no frame can have."""


class TimeoutException(TransformException):
    """Part of the interface; lookups raise the reason instead."""


class _Link(NamedTuple):
    """A frame in its parent: ``parent_p = rotation * p + translation``."""

    parent: str
    translation: Vector
    rotation: Quaternion


class _StaticCache:
    """One link for all times."""

    is_static = True

    def __init__(self, link: _Link) -> None:
        self._link = link

    def at(self, stamp: int) -> _Link:
        return self._link

    def newest(self) -> tuple[None, _Link]:
        return None, self._link

    def clear(self) -> None:
        """Static transforms are sent once only: they stay."""


class _TimeCache:
    """The links of one frame over time."""

    is_static = False

    def __init__(self, length: int) -> None:
        self._length = length
        self._stamps: list[int] = []
        self._links: list[_Link] = []

    def add(self, stamp: int, link: _Link) -> bool:
        stamps = self._stamps
        if stamps and stamp < stamps[-1] - self._length:
            return False
        place = bisect_left(stamps, stamp)
        if place < len(stamps) and stamps[place] == stamp:
            return False
        stamps.insert(place, stamp)
        self._links.insert(place, link)
        old = bisect_left(stamps, stamps[-1] - self._length)
        del stamps[:old], self._links[:old]
        return True

    def at(self, stamp: int) -> _Link | None:
        """The link at ``stamp``; None if there are no data at all."""
        stamps = self._stamps
        if not stamps:
            return None
        place = bisect_left(stamps, stamp)
        if place < len(stamps) and stamps[place] == stamp:
            return self._links[place]
        if len(stamps) == 1:
            raise ExtrapolationException(
                f"requested time {_seconds(stamp)}, but the buffer holds only {_seconds(stamps[0])}"
            )
        if place == len(stamps):
            raise ExtrapolationException(
                f"would need extrapolation into the future: requested time {_seconds(stamp)}, "
                f"but the latest data is at time {_seconds(stamps[-1])}"
            )
        if place == 0:
            raise ExtrapolationException(
                f"would need extrapolation into the past: requested time {_seconds(stamp)}, "
                f"but the earliest data is at time {_seconds(stamps[0])}"
            )
        before, after = self._links[place - 1], self._links[place]
        if before.parent != after.parent:
            return before
        span = stamps[place] - stamps[place - 1]
        return _interpolate(before, after, (stamp - stamps[place - 1]) / span)

    def newest(self) -> tuple[int, _Link] | None:
        return (self._stamps[-1], self._links[-1]) if self._stamps else None

    def clear(self) -> None:
        self._stamps.clear()
        self._links.clear()


class BufferCore:
    """Transforms by time, without ROS communication."""

    def __init__(self, cache_time: Duration | None = None) -> None:
        self._length = DEFAULT_CACHE_TIME if cache_time is None else cache_time.nanoseconds
        self._caches: dict[str, _StaticCache | _TimeCache] = {}
        self._frames: dict[str, None] = {}  # known names, in the order they came
        self._lock = threading.RLock()

    def set_transform(self, transform: TransformStamped, authority: str) -> None:
        """Adds a transform that holds at its stamp; a useless one is logged and dropped."""
        self._set(transform, authority, is_static=False)

    def set_transform_static(self, transform: TransformStamped, authority: str) -> None:
        """Adds a transform that holds for all times."""
        self._set(transform, authority, is_static=True)

    def clear(self) -> None:
        """Forgets everything but the static transforms."""
        with self._lock:
            for cache in self._caches.values():
                cache.clear()

    def lookup_transform_core(
        self, target_frame: str, source_frame: str, time: Time
    ) -> TransformStamped:
        """Maps points of ``source_frame`` into ``target_frame`` at ``time`` (0: newest)."""
        with self._lock:
            stamp, translation, rotation = self._lookup(target_frame, source_frame, _ns(time))
        return _message(stamp, target_frame, source_frame, translation, rotation)

    def can_transform_core(
        self, target_frame: str, source_frame: str, time: Time
    ) -> tuple[bool, str]:
        """(possible, why not)."""
        try:
            with self._lock:
                self._lookup(target_frame, source_frame, _ns(time))
        except TransformException as error:
            return False, str(error)
        return True, ""

    def all_frames_as_yaml(self) -> str:
        """Parent and newest stamp (s) of every frame that has one."""
        lines = []
        with self._lock:
            for frame, cache in self._caches.items():
                newest = cache.newest()
                if newest:
                    stamp = _seconds(newest[0] or 0)
                    lines.append(f"{frame}:\n  parent: '{newest[1].parent}'\n")
                    lines.append(f"  most_recent_transform: {stamp}\n")
        return "".join(lines) or "{}"

    def _set(self, transform: TransformStamped, authority: str, *, is_static: bool) -> None:
        child = transform.child_frame_id.lstrip("/")
        parent = transform.header.frame_id.lstrip("/")
        t, q = transform.transform.translation, transform.transform.rotation
        link = _Link(parent, (t.x, t.y, t.z), (q.x, q.y, q.z, q.w))
        problem = _problem(child, link)
        if problem:
            get_logger("tf2").error(
                f"transform of {child!r} in {parent!r} from {authority!r} ignored: {problem}"
            )
            return
        stamp = transform.header.stamp.sec * 1_000_000_000 + transform.header.stamp.nanosec
        with self._lock:
            if is_static:
                self._caches[child] = _StaticCache(link)
            else:
                cache = self._caches.get(child)
                if cache is None or cache.is_static:
                    cache = self._caches[child] = _TimeCache(self._length)
                if not cache.add(stamp, link):
                    get_logger("tf2").warning(
                        f"transform of {child!r} at {_seconds(stamp)} from {authority!r} "
                        "ignored: too old, or there is one of that time",
                        throttle_duration_sec=10.0,
                    )
                    return
            self._frames.setdefault(parent)
            self._frames.setdefault(child)

    def _check(self, frame: str, what: str) -> None:
        if not isinstance(frame, str):
            raise TypeError(f"{what} must be a str, not {type(frame).__name__}")
        if not frame:
            raise InvalidArgumentException(f"{what} is empty")
        if frame.startswith("/"):
            raise InvalidArgumentException(f"{what} {frame!r} starts with a slash")
        if frame not in self._frames:
            known = ", ".join(self._frames) or "none"
            raise LookupException(f"{what} {frame!r} does not exist; known frames: {known}")

    def _lookup(self, target: str, source: str, stamp: int) -> tuple[int, Vector, Quaternion]:
        self._check(target, "target_frame")
        self._check(source, "source_frame")
        if stamp == 0:
            stamp = self._latest_common(target, source) or 0
        up, reason_up = self._way_to_root(source, stamp)
        down, reason_down = self._way_to_root(target, stamp)
        frames_down = [frame for frame, _ in down]
        for i, (frame, _) in enumerate(up):
            if frame in frames_down:
                t0, q0 = _compose(up[:i])
                t1, q1 = _compose(down[: frames_down.index(frame)])
                inverse = (-q1[0], -q1[1], -q1[2], q1[3])
                difference = (t0[0] - t1[0], t0[1] - t1[1], t0[2] - t1[2])
                return stamp, _rotate(inverse, difference), _product(inverse, q0)
        reason = reason_up or reason_down
        where = f"when looking up the transform from frame {source!r} to frame {target!r}"
        if reason:
            raise ExtrapolationException(f"{reason}, {where}")
        raise ConnectivityException(
            f"no connection: {source!r} and {target!r} are in different trees, {where}"
        )

    def _way_to_root(
        self, frame: str, stamp: int
    ) -> tuple[list[tuple[str, _Link | None]], str | None]:
        """(frame, its link) from ``frame`` upwards; and why the way ended, if for its time."""
        way: list[tuple[str, _Link | None]] = []
        for _ in range(len(self._frames) + 1):
            cache = self._caches.get(frame)
            try:
                link = cache.at(stamp) if cache else None
            except ExtrapolationException as error:
                return [*way, (frame, None)], f"frame {frame!r} {error}"
            way.append((frame, link))
            if link is None:
                return way, None
            frame = link.parent
        raise TransformException(f"the frames form a loop: {' > '.join(f for f, _ in way)}")

    def _latest_common(self, target: str, source: str) -> int | None:
        """None if only static links, or nothing, lie between the two."""
        ways = []
        for frame in (source, target):
            way = []
            while len(way) <= len(self._frames):
                newest = self._caches[frame].newest() if frame in self._caches else None
                way.append((frame, newest[0] if newest else None))
                if newest is None:
                    break
                frame = newest[1].parent
            ways.append(way)
        up, down = ways
        if target == source:
            return up[0][1]
        frames_down = [frame for frame, _ in down]
        for i, (frame, _) in enumerate(up):
            if frame in frames_down:
                stamps = [s for _, s in up[:i] + down[: frames_down.index(frame)]]
                return min((s for s in stamps if s is not None), default=None)
        return None


def _problem(child: str, link: _Link) -> str | None:
    if not child or not link.parent:
        return "a frame has no name"
    if child == link.parent:
        return "a frame cannot be its own parent"
    if not all(map(math.isfinite, (*link.translation, *link.rotation))):
        return "it holds NaN or inf"
    if abs(sum(c * c for c in link.rotation) - 1.0) > _UNIT_TOLERANCE:
        return f"its rotation {link.rotation} is no unit quaternion"
    return None


def _ns(time: Time) -> int:
    nanoseconds = getattr(time, "nanoseconds", None)
    if nanoseconds is None:
        raise TypeError(f"time must be an rclpy.time.Time, not {type(time).__name__}")
    return nanoseconds


def _seconds(stamp: int) -> str:
    return f"{stamp // 1_000_000_000}.{stamp % 1_000_000_000:09d}"


def _compose(way: list[tuple[str, _Link | None]]) -> tuple[Vector, Quaternion]:
    translation, rotation = (0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0)
    for _, link in way:
        assert link is not None  # only the last frame of a way has none
        translation = _sum(_rotate(link.rotation, translation), link.translation)
        rotation = _product(link.rotation, rotation)
    return translation, rotation


def _interpolate(a: _Link, b: _Link, ratio: float) -> _Link:
    """Linear translation, rotation along the shorter arc."""
    translation = tuple(
        x + ratio * (y - x) for x, y in zip(a.translation, b.translation, strict=True)
    )
    cosine = sum(x * y for x, y in zip(a.rotation, b.rotation, strict=True))
    sign = math.copysign(1.0, cosine)
    angle = math.acos(min(1.0, abs(cosine)))
    if angle < 1e-6:  # the sines below would divide 0 by 0
        weights = (1.0 - ratio, ratio * sign)
    else:
        weights = (
            math.sin((1.0 - ratio) * angle) / math.sin(angle),
            math.sin(ratio * angle) / math.sin(angle) * sign,
        )
    rotation = tuple(
        weights[0] * x + weights[1] * y for x, y in zip(a.rotation, b.rotation, strict=True)
    )
    return _Link(a.parent, translation, rotation)


def _sum(a: Vector, b: Vector) -> Vector:
    return a[0] + b[0], a[1] + b[1], a[2] + b[2]


def _product(a: Quaternion, b: Quaternion) -> Quaternion:
    ax, ay, az, aw = a
    bx, by, bz, bw = b
    return (
        aw * bx + ax * bw + ay * bz - az * by,
        aw * by - ax * bz + ay * bw + az * bx,
        aw * bz + ax * by - ay * bx + az * bw,
        aw * bw - ax * bx - ay * by - az * bz,
    )


def _rotate(q: Quaternion, v: Vector) -> Vector:
    x, y, z, w = q
    # v + 2 w (u x v) + 2 u x (u x v), u the vector part
    cx, cy, cz = y * v[2] - z * v[1], z * v[0] - x * v[2], x * v[1] - y * v[0]
    return (
        v[0] + 2.0 * (w * cx + y * cz - z * cy),
        v[1] + 2.0 * (w * cy + z * cx - x * cz),
        v[2] + 2.0 * (w * cz + x * cy - y * cx),
    )


def _message(
    stamp: int, target: str, source: str, translation: Vector, rotation: Quaternion
) -> TransformStamped:
    message = TransformStamped()
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp, 1_000_000_000)
    message.header.frame_id, message.child_frame_id = target, source
    t, q = message.transform.translation, message.transform.rotation
    t.x, t.y, t.z = translation
    q.x, q.y, q.z, q.w = rotation
    return message
