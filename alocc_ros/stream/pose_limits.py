# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Between which measured poses one may interpolate, and how far beyond them extrapolate."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from alocc_ros.errors import ParameterError, PoseError, PoseGapError
from alocc_ros.stream.preset import Preset

Link = tuple[str, str]  # parent, child
_SLOW = 100_000_000  # ns between two transforms of a slow link, at least
_SLOWER = 4.0  # times the fastest link's, at least


@dataclass(frozen=True)
class PoseLimits:
    """The rule for poses at instants at which none was measured.

    The same one holds for odometry, for each dynamic transform of a recording, and for each one
    of a live tf2 buffer, which by itself interpolates across any gap.

    Attributes:
        max_gap_ns: largest distance of two poses between which to interpolate. Bags with
            poses at the nuScenes key frames only have one every 0.4 to 0.6 s.
        max_extrapolation_ns: how far beyond either end a pose may be asked for; the two
            poses at that end give the velocity.
        max_hold_ns: how long the last transform of a slow link is held, see ``slow_links``.
    """

    max_gap_ns: int = 1_000_000_000
    max_extrapolation_ns: int = 0
    max_hold_ns: int = 0

    def __post_init__(self) -> None:
        if self.max_gap_ns <= 0:
            raise ParameterError(f"poses: max_gap_ns must be positive, is {self.max_gap_ns}")
        if self.max_extrapolation_ns < 0:
            raise ParameterError(
                f"poses: max_extrapolation_ns must not be negative, is {self.max_extrapolation_ns}"
            )
        if self.max_hold_ns < 0:
            raise ParameterError(f"poses: max_hold_ns must not be negative, is {self.max_hold_ns}")

    @staticmethod
    def from_preset(preset: Preset) -> PoseLimits:
        """What the preset allows."""
        return PoseLimits(
            max_gap_ns=round(preset.pose_gap_s * 1e9),
            max_extrapolation_ns=round(preset.pose_extrapolation_s * 1e9),
            max_hold_ns=round(preset.pose_hold_s * 1e9),
        )

    def held(self, stamps: Sequence[int], stamp: int, what: str) -> int | None:
        """Index of the transform of a slow link that is held at ``stamp``.

        None: there are two to interpolate between. A transform that came only once holds always.

        Raises:
            PoseError: the last one is too old, or there is none before.
        """
        if len(stamps) == 1 and self.max_hold_ns:
            return 0
        try:
            self.bracket(stamps, stamp, what)
        except PoseError as error:
            place = bisect_right(stamps, stamp) - 1
            if place < 0 or not self.max_hold_ns:
                raise
            age = stamp - stamps[place]
            if age > self.max_hold_ns:
                raise PoseError(
                    f"no pose of {what} at {seconds(stamp)}: the last one is {age / 1e9:.3f} s "
                    f"old, and is held for {self.max_hold_ns / 1e9:g} s (pose_hold_s in the preset)"
                ) from error
            return place
        return None

    def bracket(self, stamps: Sequence[int], stamp: int, what: str) -> tuple[int, int]:
        """The two measurements that tell the pose at ``stamp``.

        Args:
            stamps: ns, when poses were measured; sorted, at least one.
            stamp: ns.
            what: of which poses, for the error messages.

        Returns:
            Their indices, the earlier one first; twice the same if one was measured at ``stamp``.

        Raises:
            PoseError: saying which stamp, what is covered and how far away that is.
            PoseGapError: likewise, of two poses that are too far apart.
        """
        place = bisect_left(stamps, stamp)
        if place < len(stamps) and stamps[place] == stamp:
            return place, place
        first, last = stamps[0], stamps[-1]
        beyond = max(first - stamp, stamp - last)
        if beyond > self.max_extrapolation_ns or (beyond > 0 and len(stamps) == 1):
            side = "before the first" if stamp < first else "after the last"
            raise PoseError(
                f"no pose of {what} at {seconds(stamp)}: that is "
                f"{beyond / 1e9:.3f} s {side}; poses cover {seconds(first)} to {seconds(last)}, "
                f"extrapolation is limited to {self.max_extrapolation_ns / 1e9:.3f} s "
                "(pose_extrapolation_s in the preset)"
            )
        after = min(max(place, 1), len(stamps) - 1)
        begin, end = stamps[after - 1], stamps[after]
        if end - begin > self.max_gap_ns:
            raise PoseGapError(
                f"no pose of {what} at {seconds(stamp)}: the poses around "
                f"it, {seconds(begin)} and {seconds(end)}, are {(end - begin) / 1e9:.3f} s "
                f"apart, more than {self.max_gap_ns / 1e9:.3f} s (pose_gap_s in the preset)",
                end - begin,
            )
        return after - 1, after


def slow_links(stamps: Mapping[Link, Sequence[int]]) -> set[Link]:
    """The links of a chain that a faster one lets hold their last transform.

    A localisation corrects every second or two where the odometry has drifted to: between its
    corrections nothing is known of the drift, and the motion is the odometry's.

    Args:
        stamps: ns, sorted, of each link that moves; at least one each.
    """
    # A link that spoke once has no period, and is slower than any.
    periods = {
        link: (known[-1] - known[0]) / (len(known) - 1) if len(known) > 1 else float("inf")
        for link, known in stamps.items()
    }
    fastest = min(periods.values(), default=0.0)
    return {link for link, period in periods.items() if period > max(_SLOWER * fastest, _SLOW)}


def seconds(stamp: int) -> str:
    """A stamp (ns) as ROS prints it, exactly."""
    sign = "-" if stamp < 0 else ""
    return f"{sign}{abs(stamp) // 1_000_000_000}.{abs(stamp) % 1_000_000_000:09d}"
