# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Ego poses and mountings, live: TF, or TF and odometry.

Lookups may come from any thread but the executor's: they wait, up to a deadline, for the
message to arrive.
"""

from __future__ import annotations

import threading
from time import monotonic

import numpy as np
from geometry_msgs.msg import PoseStamped, PoseWithCovarianceStamped
from nav_msgs.msg import Odometry
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.time import Time
from tf2_ros import Buffer, TransformException

from alocc_ros.errors import PoseError, PoseGapError, StampError
from alocc_ros.messages import TF_MESSAGE
from alocc_ros.ros.topics import Topic, qos_problems
from alocc_ros.ros.transform_listener import JUMP, StampedTransformListener
from alocc_ros.stream import conversions
from alocc_ros.stream.pose_limits import Link, PoseLimits, slow_links
from alocc_ros.stream.preset import Preset, other_transforms
from alocc_ros.stream.skips import BAD_ODOMETRY, Skips
from alocc_ros.stream.trajectory import Trajectory
from alocc_ros.stream.transforms import TransformTree

ODOMETRY_TYPES = {
    "nav_msgs/msg/Odometry": Odometry,
    "geometry_msgs/msg/PoseStamped": PoseStamped,
    "geometry_msgs/msg/PoseWithCovarianceStamped": PoseWithCovarianceStamped,
}
_STATIC_QOS = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class LivePoses:
    """A ``PoseSource`` over a tf2 buffer, and odometry if the preset asks for it.

    Attributes:
        odometry: the topic of the ego poses, or None if they come from TF.
        map_frame: in which the ego poses are.
    """

    def __init__(
        self, node: Node, preset: Preset, buffer: Buffer, skips: Skips | None = None
    ) -> None:
        """Subscribes; ``buffer`` outlives this, as it cannot be taken off a node's clock."""
        self._node, self._preset, self._buffer = node, preset, buffer
        self._skips = Skips() if skips is None else skips
        self._listener = StampedTransformListener(
            buffer,
            node,
            topics=preset.tf_topics,
            static_topics=preset.tf_static_topics,
            skips=self._skips,
        )
        self.map_frame = preset.world_frame
        self.odometry: Topic | None = None
        self._rejection = ""  # why odometry messages are of no use
        self._arrived = threading.Condition()
        self._limits = PoseLimits.from_preset(preset)
        self._trajectory = Trajectory(limits=self._limits)
        if preset.ego_pose_source == "odometry":
            self.odometry = Topic(
                node, preset.odometry_topic, ODOMETRY_TYPES, self._add_odometry, depth=50
            )

    def map_T_base(self, stamp: int, deadline: float) -> np.ndarray:  # [4, 4]
        """Ego pose at ``stamp`` ns, waiting until ``deadline`` (``time.monotonic``) for it.

        Raises:
            PoseError: there is none, with the reason.
        """
        if self.odometry is None:
            return self._on_tf(stamp, deadline)
        with self._arrived:
            self._arrived.wait_for(lambda: self._is_covered(stamp), max(deadline - monotonic(), 0))
            try:
                return self._trajectory.at(stamp)
            except PoseError as error:
                reason = self._rejection or self.odometry.problem or str(error)
                raise PoseError(f"{self.odometry.resolved}: {reason}") from error

    def base_T(self, frame: str, deadline: float) -> np.ndarray:  # [4, 4]
        """Where a fixed frame is on the vehicle, waiting until ``deadline`` for it.

        Raises:
            PoseError: TF does not link it to the base frame.
        """
        return self._lookup(self._preset.base_frame, frame, 0, deadline)

    def T_base(self, frame: str, stamp: int) -> np.ndarray:  # [4, 4]
        """Where the base was in any frame at ``stamp`` ns, as TF has it by now.

        Raises:
            PoseError: TF does not say.
        """
        return self._lookup(frame, self._preset.base_frame, stamp, deadline=0.0)

    def problems(self) -> list[str]:
        """Publishers whose messages cannot be received."""
        found = []
        for topic in self._preset.tf_topics:
            found += qos_problems(self._node, topic, QoSProfile(depth=100))
        for topic in self._preset.tf_static_topics:
            found += qos_problems(self._node, topic, _STATIC_QOS)
        if self.odometry is not None:
            self.odometry.scan()
            found += [self.odometry.problem] if self.odometry.problem else []
        return found

    def close(self) -> None:
        """Ends the subscriptions."""
        self._listener.unregister()
        self._buffer.clear()
        if self.odometry is not None:
            self.odometry.close()

    def _is_covered(self, stamp: int) -> bool:
        """Whether waiting is over: an extrapolated pose is for when the true one does not come."""
        covered = self._trajectory.covered
        return covered is not None and stamp <= covered[1]

    def _on_tf(self, stamp: int, deadline: float) -> np.ndarray:  # [4, 4]
        """``map_T_base`` on TF, within the limits, of which the buffer knows nothing."""
        world, base = self._preset.world_frame, self._preset.base_frame
        if slow := self._slow_links(stamp):
            return self._by_links(stamp, deadline, slow)
        try:
            pose = self._lookup(world, base, stamp, deadline)
        except PoseError as error:
            if self._limits.max_extrapolation_ns == 0:
                raise
            try:
                return self._extrapolated(stamp)
            except PoseError:
                raise error from None
        for (parent, child), stamps in self._listener.chain(world, base).items():
            if not (stamps and stamps[0] <= stamp <= stamps[-1]):
                continue
            try:
                self._limits.bracket(stamps, stamp, f"{child} in {parent}")
            except PoseGapError as error:
                raise PoseError(
                    f"no pose of {child} in {parent} at {stamp * 1e-9:.3f}: the transforms around "
                    f"it are {error.gap * 1e-9:.3f} s apart, more than the preset's pose_gap_s, "
                    f"{self._limits.max_gap_ns * 1e-9:g} s"
                ) from error
        return pose

    def _slow_links(self, stamp: int) -> set[Link]:
        """The links of the chain that are not waited for, see ``slow_links``."""
        chain = self._listener.chain(self._preset.world_frame, self._preset.base_frame)
        moving = {link: stamps for link, stamps in chain.items() if stamps}
        return slow_links(moving) if len(moving) > 1 else set()

    def _by_links(self, stamp: int, deadline: float, slow: set[Link]) -> np.ndarray:  # [4, 4]
        """``map_T_base`` with the last transform of slow links held.

        Raises:
            PoseError: naming the link that has no transform within the limits.
        """
        world, base = self._preset.world_frame, self._preset.base_frame
        chain = self._listener.chain(world, base)
        # For the fast ones there is something to wait for.
        for (parent, child), stamps in chain.items():
            if stamps and (parent, child) not in slow:
                self._lookup(parent, child, stamp, deadline)
        tree = TransformTree(history_ns=None, limits=self._limits)
        for (parent, child), stamps in self._listener.chain(world, base).items():
            what, at = f"{child} in {parent}", 0
            if (parent, child) in slow:
                held = self._limits.held(stamps, stamp, what)
                at = stamp if held is None else stamps[held]
            elif stamps:
                self._limits.bracket(stamps, stamp, what)
                at = stamp
            tree.add_static(parent, child, self._lookup(parent, child, at, deadline=0.0))
        return tree.lookup(world, base, stamp)

    def _extrapolated(self, stamp: int) -> np.ndarray:  # [4, 4]
        """``map_T_base`` as a recording has it: each dynamic transform for itself.

        Raises:
            PoseError: the stamp is not within the limits.
        """
        world, base = self._preset.world_frame, self._preset.base_frame
        tree = TransformTree(history_ns=None, limits=self._limits)
        for (parent, child), stamps in self._listener.chain(world, base).items():
            if not stamps:
                tree.add_static(parent, child, self._lookup(parent, child, 0, deadline=0.0))
                continue
            for index in self._limits.bracket(stamps, stamp, f"{child} in {parent}"):
                known = stamps[index]
                tree.add(known, parent, child, self._lookup(parent, child, known, deadline=0.0))
        return tree.lookup(world, base, stamp)

    def _lookup(self, target: str, source: str, stamp: int, deadline: float) -> np.ndarray:
        wait = Duration(nanoseconds=max(round((deadline - monotonic()) * 1e9), 0))
        try:
            found = self._buffer.lookup_transform(target, source, Time(nanoseconds=stamp), wait)
        except TransformException as error:
            raise PoseError(
                f"no transform of {source} in {target}: {error}{self._other_transforms()}"
            ) from error
        return conversions.transform(found).parent_T_child

    def _other_transforms(self) -> str:
        """Topics of transforms that the preset does not name, and how to name them."""
        kinds = self._node.get_topic_names_and_types()
        there = [topic for topic, types in kinds if TF_MESSAGE in types]
        return other_transforms(self._preset, there, self._node.resolve_topic_name)

    def _add_odometry(self, message: Odometry) -> None:
        base = self._preset.base_frame
        with self._arrived:
            try:
                pose = conversions.pose(message)
                if pose.child not in ("", base):
                    raise PoseError(f"this is the motion of {pose.child}, not of {base}")
                parent = pose.parent or self._preset.world_frame
                covered = self._trajectory.covered
                began_anew = covered is not None and pose.stamp < covered[1] - JUMP
                if began_anew or parent != (self._trajectory.parent or parent):
                    self._trajectory.clear()
                self._trajectory.add(pose.stamp, pose.parent_T_child, parent, base)
            except (PoseError, StampError) as error:
                self._rejection = str(error)
                self._skips.add(self._preset.odometry_topic, BAD_ODOMETRY, str(error))
                return
            self._rejection, self.map_frame = "", parent
            self._arrived.notify_all()
