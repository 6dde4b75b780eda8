# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Frames of several sources, matched by their stamps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from alocc_ros.viewer.frames import FrameHandle, ViewFrame


def match_by_stamp(
    frames: Iterable[FrameHandle],
    others: Iterable[FrameHandle],
    tolerance: int,  # ns
    on_match: Callable[[], None] = lambda: None,
) -> Iterator[FrameHandle]:
    """``frames``, each with what the nearest one of ``others`` adds to it.

    Both in order of time. A frame of ``others`` goes to the one that it is nearest to, and
    only within ``tolerance``; what finds no partner is left as it is.
    """
    waiting = iter(others)
    before: FrameHandle | None = None
    behind = next(waiting, None)
    for frame, following in _with_next(frames):
        while behind is not None and behind.stamp <= frame.stamp:
            before, behind = behind, next(waiting, None)
        near = [other for other in (before, behind) if other is not None]
        nearest = min(near, key=lambda other: abs(other.stamp - frame.stamp), default=None)
        if nearest is not None:
            apart = abs(nearest.stamp - frame.stamp)
            is_nearer_to_next = (
                following is not None and abs(nearest.stamp - following.stamp) < apart
            )
            if apart <= tolerance and not is_nearer_to_next:
                if nearest is before:
                    before = None
                else:
                    before, behind = None, next(waiting, None)
                on_match()
                yield _merged(frame, nearest)
                continue
        yield frame


def _with_next(
    frames: Iterable[FrameHandle],
) -> Iterator[tuple[FrameHandle, FrameHandle | None]]:
    rest = iter(frames)
    current = next(rest, None)
    while current is not None:
        following = next(rest, None)
        yield current, following
        current = following


def _merged(frame: FrameHandle, other: FrameHandle) -> FrameHandle:
    def load() -> ViewFrame:
        one, two = frame.load(), other.load()
        return ViewFrame(one.stamp, one.frame_set or two.frame_set, one.layers + two.layers)

    return FrameHandle(frame.stamp, load)
