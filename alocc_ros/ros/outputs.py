# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""What the node publishes of each result; nothing is computed that nobody has subscribed to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from time import monotonic
from typing import Any

import numpy as np
from nav_msgs.msg import OccupancyGrid
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import Image, PointCloud2
from std_msgs.msg import Header
from visualization_msgs.msg import MarkerArray

from alocc_ros import arrays
from alocc_ros.msg import FrameStatusStamped, GridInfo, SemanticGrid
from alocc_ros.records import ModelRecord
from alocc_ros.ros import messages
from alocc_ros.ros.inputs import Camera
from alocc_ros.ros.overlays import Overlays
from alocc_ros.ros.parameters import NodeParameters
from alocc_ros.types import FrameSet, Occupancy

# Topic under ~/, type, meaning; the documentation is made of it.
TOPICS = (
    ("occupancy", PointCloud2, "every occupied voxel: x y z rgb label vx vy (m, m/s)"),
    ("obstacles", PointCloud2, "x y z of voxels that a planner must not drive into"),
    ("occupancy_grid", OccupancyGrid, "seen from above: 100 obstacle, 0 ground, -1 unknown"),
    ("flow_markers", MarkerArray, "moving voxels, as lines to where they will be in 1 s"),
    ("voxels", SemanticGrid, "a label for every cell, and the flow of what can move"),
    ("status", FrameStatusStamped, "how far the outputs of that stamp can be trusted"),
    ("markers", MarkerArray, "occupied voxels as cubes; only with the parameter `markers`"),
    ("overlay/<camera>", Image, "the camera's image with the voxels drawn into it"),
    ("grid_info", GridInfo, "classes, geometry and model; latched"),
)
_LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
# Reliable, because any subscription can have it; the newest only, because older ones are of no
# use to anybody.
_NEWEST = QoSProfile(depth=1)


class Outputs:
    """The node's publishers. ``publish`` is called from the worker's thread only.

    Attributes:
        cameras: name their frames, for the overlays; to be set before the first result.
        base_T_grid: [4, 4], where the grid's frame is on the vehicle; None: it is the base.
    """

    def __init__(
        self, node: LifecycleNode, parameters: NodeParameters, cameras: Iterable[str]
    ) -> None:
        """Creates them; they are silent until the node is active."""
        self._node, self._parameters = node, parameters
        self._publishers: dict[str, Any] = {}
        for name, kind, _ in TOPICS:
            if name == "markers" and not parameters.markers:
                continue
            for camera in cameras if "<camera>" in name else [""]:
                topic = name.replace("<camera>", camera)
                qos = _LATCHED if name == "grid_info" else _NEWEST
                self._publishers[topic] = node.create_lifecycle_publisher(kind, f"~/{topic}", qos)
        self._height = (-np.inf, parameters.obstacle_height)
        self.cameras: Mapping[str, Camera] = {}
        self.base_T_grid: np.ndarray | None = None
        self._last_view: float | None = None
        self._clear_markers = True
        self._overlays = Overlays(self._publish_overlay, node.get_logger().error)

    def announce(self, record: ModelRecord, weights_sha256: str, frame: str) -> None:
        """Publishes ``grid_info``."""
        now = self._node.get_clock().now().nanoseconds
        info = messages.grid_info(record, weights_sha256, frame, now)
        self._publishers["grid_info"].publish(info)

    def clear(self, frame: str) -> None:
        """Deletes the markers; nothing new will come for a while."""
        stamp = messages.time(self._node.get_clock().now().nanoseconds)
        for name in ("flow_markers", "markers"):
            if name in self._publishers:
                head = Header(stamp=stamp, frame_id=frame)
                self._publishers[name].publish(messages.no_markers(head))

    def finish(self) -> None:
        """Waits until nothing is published any more; to be called when no results come."""
        self._overlays.stop()

    def destroy(self) -> None:
        """Takes all publishers away."""
        self.finish()
        for publisher in self._publishers.values():
            self._node.destroy_lifecycle_publisher(publisher)
        self._publishers.clear()

    def publish(self, frame: FrameSet, occupancy: Occupancy) -> None:
        """Everything that somebody wants of one result."""
        head = messages.header(occupancy)
        status = messages.frame_status(frame, occupancy)
        if self.wanted("status"):
            self._publishers["status"].publish(FrameStatusStamped(header=head, status=status))
        if self.wanted("obstacles"):
            points = arrays.obstacle_points(occupancy, self._height)
            rows = points.view(arrays.OBSTACLE_DTYPE).reshape(-1)
            self._publishers["obstacles"].publish(messages.point_cloud(rows, head))
        if self.wanted("occupancy_grid"):
            cells = arrays.occupancy_grid(occupancy, self._height)
            self._publishers["occupancy_grid"].publish(
                messages.occupancy_grid(cells, occupancy.grid, head)
            )
        if self.wanted("voxels"):
            self._publishers["voxels"].publish(messages.semantic_grid(occupancy, status, head))
        self._clear_markers |= bool(occupancy.reset)
        if self._is_time_to_view():
            self._publish_views(frame, occupancy, head)

    def _publish_views(self, frame: FrameSet, occupancy: Occupancy, head: Header) -> None:
        clear, self._clear_markers = self._clear_markers, False
        if self.wanted("occupancy") or self.wanted("markers"):
            points = self._thinned(arrays.occupied_points(occupancy))
            if self.wanted("occupancy"):
                self._publishers["occupancy"].publish(messages.point_cloud(points, head))
            if self.wanted("markers"):
                resolution = occupancy.grid.resolution
                cubes = messages.cube_markers(points, resolution, head, clear=clear)
                self._publishers["markers"].publish(cubes)
        if self.wanted("flow_markers"):
            lines = arrays.flow_lines(occupancy)
            self._publishers["flow_markers"].publish(
                messages.flow_markers(lines, head, clear=clear)
            )
        cameras = [camera for camera in frame.images if self.wanted(f"overlay/{camera}")]
        if cameras:
            self._overlays.offer(frame, occupancy, self.base_T_grid, cameras)

    def _publish_overlay(self, frame: FrameSet, camera: str, pixels: np.ndarray) -> None:
        stamp = messages.time(frame.images[camera].stamp)
        head = Header(stamp=stamp, frame_id=self.cameras[camera].frame)
        self._publishers[f"overlay/{camera}"].publish(messages.image(pixels, head))

    def wanted(self, name: str) -> bool:
        """Whether somebody has subscribed to that topic."""
        publisher = self._publishers.get(name)
        return publisher is not None and publisher.get_subscription_count() > 0

    def _is_time_to_view(self) -> bool:
        if self._parameters.max_rate_hz == 0.0:
            return True
        now, period = monotonic(), 1.0 / self._parameters.max_rate_hz
        if self._last_view is not None and now < self._last_view + period:
            return False
        # From when it was due, so that results at 5 Hz make 2 Hz and not 1.67; but not further
        # back than a period, or there would be a burst after a pause.
        due = now if self._last_view is None else self._last_view + period
        self._last_view = max(due, now - period)
        return True

    def _thinned(self, points: np.ndarray) -> np.ndarray:
        most = self._parameters.max_points
        if most == 0 or len(points) <= most:
            return points
        return points[np.arange(most) * len(points) // most]
