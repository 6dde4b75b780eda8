# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Where one frame was in another over time: poses in, interpolated poses out."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

import numpy as np

from alocc_ros.errors import ParameterError, PoseError
from alocc_ros.geometry import check_rigid, interpolate
from alocc_ros.stream.pose_limits import PoseLimits, seconds


class Trajectory:
    """The recent poses of one frame in another, typically ego poses from TF or odometry.

    Translation is interpolated linearly and rotation by slerp. Nothing is guessed: outside the
    covered time there is no pose unless extrapolation was asked for, and two poses that are
    too far apart say nothing about the time between them.

    Poses may come out of order; one at a known stamp replaces the older one. A pose older than
    the whole history means that time jumped back (a bag loops): the history begins anew.

    Attributes:
        parent, child: names of the frames, for the error messages and for whoever asks;
            empty until the first pose.
    """

    def __init__(
        self, *, history_ns: int | None = 30_000_000_000, limits: PoseLimits | None = None
    ) -> None:
        """Sets the bounds.

        Args:
            history_ns: how far back poses are kept at least; None keeps all of them.
            limits: between and beyond which poses one may be asked for.
        """
        if history_ns is not None and history_ns <= 0:
            raise ParameterError(f"trajectory: history_ns must be positive, is {history_ns}")
        self.history_ns = history_ns
        self.limits = limits or PoseLimits()
        self.clear()

    def clear(self) -> None:
        """Forgets all poses and the frame names."""
        self.parent = ""
        self.child = ""
        self._stamps: list[int] = []
        self._poses: list[np.ndarray] = []

    def __len__(self) -> int:
        return len(self._stamps)

    @property
    def covered(self) -> tuple[int, int] | None:
        """First and last stamp in ns, or None without poses."""
        return (self._stamps[0], self._stamps[-1]) if self._stamps else None

    def add(
        self,
        stamp: int,
        parent_T_child: np.ndarray,  # [4, 4]
        parent: str = "map",
        child: str = "base_link",
    ) -> None:
        """Takes one pose in. At the end of the history this is O(1), amortised.

        Raises:
            PoseError: not a finite rigid transform, no valid stamp, or of other frames than
                the poses before (``clear`` first).
        """
        if stamp <= 0:
            raise PoseError(f"pose of {child} in {parent}: stamp {stamp} is zero or negative")
        pose = check_rigid(parent_T_child, f"pose of {child} in {parent} at {seconds(stamp)}")
        if self._stamps and (parent, child) != (self.parent, self.child):
            raise PoseError(
                f"pose of {child} in {parent}, but the poses so far are of "
                f"{self.child} in {self.parent}"
            )
        stamps = self._stamps
        if stamps and self.history_ns is not None and stamp < stamps[-1] - self.history_ns:
            self.clear()
            stamps = self._stamps
        self.parent, self.child = parent, child
        if not stamps or stamp > stamps[-1]:
            stamps.append(stamp)
            self._poses.append(pose)
            self._trim()
            return
        place = bisect_left(stamps, stamp)
        if stamps[place] == stamp:
            self._poses[place] = pose
        else:
            stamps.insert(place, stamp)
            self._poses.insert(place, pose)

    def at(self, stamp: int) -> np.ndarray:  # [4, 4] parent_T_child
        """The pose at ``stamp``.

        Raises:
            PoseError: saying which stamp, what is covered and how far away that is.
        """
        stamps = self._stamps
        if not stamps:
            raise PoseError(f"no pose at {seconds(stamp)}: none has come in yet")
        before, after = self.limits.bracket(stamps, stamp, f"{self.child} in {self.parent}")
        if before == after:
            return self._poses[before].copy()
        begin, end = stamps[before], stamps[after]
        ratio = (stamp - begin) / (end - begin)
        return interpolate(self._poses[before], self._poses[after], ratio)

    def held(self, stamp: int) -> tuple[np.ndarray, int]:  # [4, 4] parent_T_child
        """The pose at ``stamp`` of a slow link, and how many ns old it is: 0 if interpolated.

        Raises:
            PoseError: as ``at``, or the last one is too old.
        """
        index = self.limits.held(self._stamps, stamp, f"{self.child} in {self.parent}")
        if index is None:
            return self.at(stamp), 0
        return self._poses[index].copy(), abs(stamp - self._stamps[index])

    @property
    def stamps(self) -> Sequence[int]:
        """Of the poses, ns, sorted."""
        return self._stamps

    def latest(self) -> np.ndarray:  # [4, 4] parent_T_child
        """The newest pose, whenever that was; for mounts that do not move.

        Raises:
            PoseError: none has come in yet.
        """
        if not self._poses:
            raise PoseError("no latest pose: none has come in yet")
        return self._poses[-1].copy()

    def _trim(self) -> None:
        """Cuts the older half once all of it is past the history: O(1) a pose on average."""
        half = len(self._stamps) // 2
        if self.history_ns is None or half == 0:
            return
        if self._stamps[half] < self._stamps[-1] - self.history_ns:
            del self._stamps[:half]
            del self._poses[:half]
