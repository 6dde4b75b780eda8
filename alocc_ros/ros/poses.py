# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Where the vehicle was, and where things are mounted on it: TF, or TF and odometry.

Questions may come from any thread but the executor's: they wait, up to a deadline, for the
answer to arrive. Nothing is guessed: no pose at a stamp is an error.
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
from tf2_msgs.msg import TFMessage
from tf2_ros import Buffer, TransformException, TransformListener

from alocc_ros.errors import PoseError, StampError
from alocc_ros.ros.topics import Topic, qos_problems
from alocc_ros.stream import conversions
from alocc_ros.stream.preset import Preset
from alocc_ros.stream.trajectory import Trajectory

_ODOMETRY_TYPES = {
    "nav_msgs/msg/Odometry": Odometry,
    "geometry_msgs/msg/PoseStamped": PoseStamped,
    "geometry_msgs/msg/PoseWithCovarianceStamped": PoseWithCovarianceStamped,
}
# Stamps that go back further than this have begun anew; bags carry poses half a second ahead.
_JUMP = 1_000_000_000  # ns
_STATIC_QOS = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class Poses:
    """Ego poses and mounts.

    Attributes:
        odometry: the topic of the ego poses, or None if they come from TF.
        map_frame: in which the ego poses are.
    """

    def __init__(self, node: Node, preset: Preset, buffer: Buffer) -> None:
        """Subscribes; ``buffer`` outlives this, as it cannot be taken off a node's clock."""
        self._node, self._preset, self._buffer = node, preset, buffer
        self._listener = _Listener(buffer, node)
        self.map_frame = preset.world_frame
        self.odometry: Topic | None = None
        self._refused = ""  # why odometry messages are of no use
        self._arrived = threading.Condition()
        self._trajectory = Trajectory(
            max_gap_ns=round(preset.pose_gap_s * 1e9),
            max_extrapolation_ns=round(preset.pose_extrapolation_s * 1e9),
        )
        if preset.ego_pose_source == "odometry":
            self.odometry = Topic(
                node, preset.odometry_topic, _ODOMETRY_TYPES, self._add_odometry, depth=50
            )

    def map_T_base(self, stamp: int, deadline: float) -> np.ndarray:  # [4, 4]
        """Ego pose at ``stamp`` ns, waiting until ``deadline`` (``time.monotonic``) for it.

        Raises:
            PoseError: there is none, with the reason.
        """
        if self.odometry is None:
            return self._lookup(self._preset.world_frame, self._preset.base_frame, stamp, deadline)
        with self._arrived:
            while True:
                try:
                    return self._trajectory.at(stamp)
                except PoseError as error:
                    if not self._arrived.wait(max(deadline - monotonic(), 0.0)):
                        reason = self._refused or self.odometry.problem or str(error)
                        raise PoseError(f"{self.odometry.resolved}: {reason}") from error

    def base_T(self, frame: str, deadline: float) -> np.ndarray:  # [4, 4]
        """Where a fixed frame is on the vehicle, waiting until ``deadline`` for it.

        Raises:
            PoseError: TF does not link it to the base frame.
        """
        return self._lookup(self._preset.base_frame, frame, 0, deadline)

    def problems(self) -> list[str]:
        """Publishers whose messages cannot be received."""
        found = qos_problems(self._node, "/tf", QoSProfile(depth=100))
        found += qos_problems(self._node, "/tf_static", _STATIC_QOS)
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

    def _lookup(self, target: str, source: str, stamp: int, deadline: float) -> np.ndarray:
        wait = Duration(nanoseconds=max(round((deadline - monotonic()) * 1e9), 0))
        try:
            found = self._buffer.lookup_transform(target, source, Time(nanoseconds=stamp), wait)
        except TransformException as error:
            raise PoseError(f"no transform of {source} in {target}: {error}") from error
        return conversions.transform(found).parent_T_child

    def _add_odometry(self, message: Odometry) -> None:
        base = self._preset.base_frame
        with self._arrived:
            try:
                pose = conversions.pose(message)
                if pose.child not in ("", base):
                    raise PoseError(f"this is the motion of {pose.child}, not of {base}")
                parent = pose.parent or self._preset.world_frame
                covered = self._trajectory.covered
                began_anew = covered is not None and pose.stamp < covered[1] - _JUMP
                if began_anew or parent != (self._trajectory.parent or parent):
                    self._trajectory.clear()
                self._trajectory.add(pose.stamp, pose.parent_T_child, parent, base)
            except (PoseError, StampError) as error:
                self._refused = str(error)
                return
            self._refused, self.map_frame = "", parent
            self._arrived.notify_all()


class _Listener(TransformListener):
    """Clears the buffer when the stamps of a link go back, as in a bag that loops.

    The buffer itself notices that by the clock only, and only with simulated time; what it has
    would keep it from taking what comes.
    """

    def __init__(self, buffer: Buffer, node: Node) -> None:
        self._newest: dict[tuple[str, str], int] = {}
        super().__init__(buffer, node)

    def callback(self, data: TFMessage) -> None:
        for entry in data.transforms:
            link = (entry.header.frame_id, entry.child_frame_id)
            stamp = entry.header.stamp.sec * 1_000_000_000 + entry.header.stamp.nanosec
            if 0 < stamp < self._newest.get(link, 0) - _JUMP:
                self.buffer.clear()
                self._newest.clear()
            self._newest[link] = max(stamp, self._newest.get(link, 0))
        super().callback(data)
