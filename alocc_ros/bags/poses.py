# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Ego poses and mountings of a recording: its transforms, and its odometry if that is asked for.

Offline there is no reason to guess poses: one that was recorded after an image is known when the
image is read.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np

from alocc_ros.errors import AloccError, PoseError, StampError
from alocc_ros.stream import conversions
from alocc_ros.stream.pose_limits import PoseLimits
from alocc_ros.stream.preset import Preset
from alocc_ros.stream.skips import BAD_ODOMETRY, Skips, bad_transform
from alocc_ros.stream.trajectory import Trajectory
from alocc_ros.stream.transforms import TransformTree

NO_POSE = "no ego pose"


class RecordedPoses:
    """A ``PoseSource``, once all messages are added."""

    def __init__(self, preset: Preset, skips: Skips | None = None) -> None:
        self._preset = preset
        self._skips = Skips() if skips is None else skips
        limits = PoseLimits.from_preset(preset)
        self._tree = TransformTree(history_ns=None, limits=limits)
        self._odometry = Trajectory(history_ns=None, limits=limits)
        # The first error of each transform (parent, child), and of the odometry.
        self._unusable: dict[tuple[str, str], AloccError] = {}
        self._unusable_odometry: AloccError | None = None
        self._parents: dict[str, set[str]] = defaultdict(set)

    def add_transforms(self, message: Any, *, static: bool, topic: str = "") -> None:
        """A tf2_msgs/TFMessage; transforms that cannot be used are left out and counted."""
        topic = topic or ("/tf_static" if static else "/tf")
        for entry in message.transforms:
            try:
                stamp, parent, child, pose = conversions.transform(entry)
                if static:
                    self._tree.add_static(parent, child, pose)
                else:
                    self._tree.add(stamp, parent, child, pose)
            except (PoseError, StampError) as error:
                parent = conversions.frame_name(entry.header.frame_id)
                child = conversions.frame_name(entry.child_frame_id)
                self._unusable.setdefault((parent, child), error)
                self._skips.add(topic, bad_transform(parent, child), str(error))
            self._parents[conversions.frame_name(entry.child_frame_id)].add(parent)

    def add_odometry(self, message: Any) -> None:
        """Any message that ``conversions.pose`` takes; what cannot be used is left out, counted."""
        base = self._preset.base_frame
        try:
            pose = conversions.pose(message)
            if pose.child not in ("", base):
                raise PoseError(
                    f"{self._preset.odometry_topic} is the motion of {pose.child}, "
                    f"not of base_frame {base}"
                )
            parent = pose.parent or self._preset.world_frame
            self._odometry.add(pose.stamp, pose.parent_T_child, parent, base)
        except (PoseError, StampError) as error:
            self._unusable_odometry = self._unusable_odometry or error
            self._skips.add(self._preset.odometry_topic, BAD_ODOMETRY, str(error))

    def check_transforms(self, frames: set[str]) -> None:
        """Only transforms above the ``frames`` that are needed matter.

        Raises:
            PoseError, StampError: of one of those there is none that can be used.
        """
        visited: set[str] = set()
        pending = set(frames)
        while pending:
            frame = pending.pop()
            visited.add(frame)
            parents = sorted(self._parents[frame] - {frame})
            broken = [e for p in parents if (e := self._unusable.get((p, frame))) is not None]
            if broken and not any(self._tree.knows(p, frame) for p in parents):
                raise broken[0]
            pending |= self._parents[frame] - visited

    def check_ego_motion(self) -> None:
        """Whether there is any; which stamps are covered is seen later.

        Raises:
            PoseError: there is none.
        """
        if self._preset.ego_pose_source == "odometry":
            if not len(self._odometry) and self._unusable_odometry is not None:
                raise self._unusable_odometry
            if not len(self._odometry):
                raise PoseError(f"{self._preset.odometry_topic} has no messages")
            return
        self._tree.lookup(self._preset.world_frame, self._preset.base_frame, None)

    @property
    def held(self) -> list[str]:
        """What to know about links of the chain whose last transform was held."""
        return [
            f"the transform of {child} in {parent} comes too seldom to interpolate: the last one "
            f"was held {number} times, for {oldest / 1e9:.3f} s at most (pose_hold_s in the preset "
            f"is {self._preset.pose_hold_s:g})"
            for (parent, child), (number, oldest) in sorted(self._tree.held.items())
        ]

    @property
    def map_frame(self) -> str:
        """TF name of the frame in which the ego poses are."""
        return self._odometry.parent or self._preset.world_frame

    def map_T_base(self, stamp: int, deadline: float = 0.0) -> np.ndarray:  # [4, 4]
        """Ego pose at ``stamp`` (ns); there is nothing to wait for.

        Raises:
            PoseError: the recording does not cover it.
        """
        try:
            if self._preset.ego_pose_source == "odometry":
                return self._odometry.at(stamp)
            return self._tree.lookup(self._preset.world_frame, self._preset.base_frame, stamp)
        except PoseError as error:
            raise PoseError(f"{NO_POSE}: {error}") from error

    def base_T(self, frame: str, deadline: float = 0.0) -> np.ndarray:  # [4, 4]
        """Where a fixed frame (a LiDAR's, say) is on the vehicle.

        Raises:
            PoseError: TF does not link it to the base frame.
        """
        return self._tree.lookup(self._preset.base_frame, frame, None)
