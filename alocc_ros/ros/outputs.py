# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""The node's publishers; only outputs that have subscribers are computed."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from time import monotonic
from typing import Any

import numpy as np
from rclpy.duration import Duration
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import DurabilityPolicy, LivelinessPolicy, QoSProfile

from alocc_ros import costmap, messages
from alocc_ros.errors import PoseError
from alocc_ros.messages import GridInfo, Message
from alocc_ros.objects.tracking import ObjectTracker
from alocc_ros.outputs import OUTPUTS, PER_CAMERA, Output, Result
from alocc_ros.records import ModelRecord
from alocc_ros.ros.definitions import is_installed, message_class
from alocc_ros.ros.encoder import encode
from alocc_ros.ros.inputs import Camera
from alocc_ros.ros.overlays import Overlays
from alocc_ros.ros.parameters import NodeParameters
from alocc_ros.types import FrameSet, Occupancy

NODE_OUTPUTS = tuple(o for o in OUTPUTS if o.node and not o.is_absolute)
# What planners use goes out first.
_PER_RESULT = sorted(
    (o for o in NODE_OUTPUTS if o.build is not None and not o.latched), key=lambda o: o.for_viewing
)
_KEPT = tuple(o for o in _PER_RESULT if o.kept)
MARKERS = ("flow_markers", "object_markers", "markers")
_LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
# Reliable, because any subscription can have it; the newest only, because older ones are of no
# use to anybody.
_NEWEST = QoSProfile(depth=1)
# What tells others that results stopped coming, or that the process is gone: the middleware of
# whoever asks for as much in its subscription says so (docs/node.md, "Safe state").
HEARTBEAT = Duration(seconds=1)
_WATCHED = QoSProfile(
    depth=1,
    deadline=HEARTBEAT,
    liveliness=LivelinessPolicy.AUTOMATIC,
    liveliness_lease_duration=HEARTBEAT,
)


_ERROR_LOG_PERIOD = 5.0  # s between two equal kinds of errors in the log


class Outputs:
    """The node's publishers. ``publish`` is called from the worker's thread only.

    Attributes:
        cameras: name their frames, for the overlays; to be set before the first result.
        locate: name_T_base [4, 4] of a TF frame by name and stamp (ns); None: TF is not there.
    """

    def __init__(
        self, node: LifecycleNode, parameters: NodeParameters, cameras: Iterable[str]
    ) -> None:
        """Creates them; they are silent until the node is active."""
        self._node, self._parameters = node, parameters
        self._camera_names = tuple(cameras)
        self._publishers: dict[str, Any] = {}
        self._publishing = threading.Lock()  # so that nobody's publisher is destroyed under him
        self._add_publishers()
        self.cameras: Mapping[str, Camera] = {}
        self.locate: Callable[[str, int], np.ndarray] | None = None
        self._drawing = costmap.CostmapSettings(
            costs=costmap.parse_costs(parameters.class_costs),
            unknown=parameters.unknown_cost,
            by_confidence=parameters.cost_by_confidence,
            footprint=costmap.parse_footprint(parameters.footprint),
        )
        self._newest = threading.Lock()
        self._result: Result | None = None  # the newest one
        self._sent: dict[str, int] = {}  # stamp of the last message of kept outputs, ns
        self._last_view: float | None = None
        self._clear_markers = True
        self._tracker = ObjectTracker()
        self._overlays = Overlays(self._publish_overlay, node.get_logger().error)

    def _add_publishers(self) -> None:
        """Those that the parameters ask for and that are not there."""
        for output in NODE_OUTPUTS:
            if output.parameter and not getattr(self._parameters, output.parameter):
                continue
            if output.optional and not is_installed(output.type):
                continue
            for name in _names(output, self._camera_names):
                if name in self._publishers:
                    continue
                qos = _LATCHED if output.latched or output.kept else _NEWEST
                if output.name == "status":
                    qos = _WATCHED
                self._publishers[name] = self._node.create_lifecycle_publisher(
                    message_class(output.type), f"~/{name}", qos
                )

    def take_over(self, parameters: NodeParameters, frame: str, *, is_active: bool) -> None:
        """Those that are live; of any thread.

        Args:
            parameters: new.
            frame: of markers that are to be deleted.
            is_active: the node is, and so are publishers that are new.
        """
        self._parameters = parameters
        for output in NODE_OUTPUTS:
            if output.parameter and not getattr(parameters, output.parameter):
                for name in _names(output, self._camera_names):
                    self._remove_publisher(name, frame)
        before = set(self._publishers)
        with self._publishing:
            self._add_publishers()
            for name in self._publishers.keys() - before if is_active else ():
                self._publishers[name].on_activate(None)
        self._clear_markers |= before != set(self._publishers)

    def _remove_publisher(self, name: str, frame: str) -> None:
        if name not in self._publishers:
            return
        if name in MARKERS:
            self._publish(name, messages.no_markers(self._now(), frame))
        with self._publishing:
            self._node.destroy_lifecycle_publisher(self._publishers.pop(name))

    def announce(self, record: ModelRecord, weights_sha256: str, frame: str) -> None:
        """Publishes ``grid_info``."""
        info = GridInfo(
            grid=record.grid,
            classes=record.classes,
            model=record.name,
            weights=f"{messages.SHA256}{weights_sha256}" if weights_sha256 else "",
            random_weights=not weights_sha256,
            has_flow=record.flow,
        )
        self._publish("grid_info", messages.grid_info(info, self._now(), frame))

    def clear(self, frame: str) -> None:
        """Deletes the markers; nothing new will come for a while."""
        with self._newest:
            self._result = None
        for name in MARKERS:
            if name in self._publishers:
                self._publish(name, messages.no_markers(self._now(), frame))

    def finish(self) -> None:
        """Waits until nothing is published any more; to be called when no results come."""
        self._overlays.stop()

    def destroy(self) -> None:
        """Removes all publishers."""
        self.finish()
        for publisher in self._publishers.values():
            self._node.destroy_lifecycle_publisher(publisher)
        self._publishers.clear()

    def publish(self, frame: FrameSet, occupancy: Occupancy) -> None:
        """Publishes the outputs of one result that have subscribers."""
        self._clear_markers |= bool(occupancy.reset)
        if occupancy.reset:  # also while nobody wants objects: tracks of another place
            self._tracker.forget()
        show = self._is_time_to_view()
        result = Result(
            frame,
            occupancy,
            obstacle_height=(-np.inf, self._parameters.obstacle_height),
            max_points=self._parameters.max_points,
            clear_markers=self._clear_markers,
            drawing=self._drawing,
            grid_frame=self._parameters.grid_output_frame,
            cloud_frame=self._parameters.cloud_frame,
            locate=self.locate and partial(self._located, occupancy.stamp),
            tracker=self._tracker,
        )
        with self._newest:
            # Without what was made of it for others, which is not needed again.
            self._result = dataclasses.replace(result)
            for output in _PER_RESULT:
                if (show or not output.for_viewing) and self.has_subscribers(output.name):
                    self._build(output, result)
        if show:
            self._clear_markers = False
            self._draw_overlays(frame, occupancy)

    def catch_up(self) -> None:
        """Publishes what is kept to those who came after the newest result, if any did.

        Nothing is made of a result while nobody listens, so there may be nothing kept for them.
        Of any thread; gives up if another one is publishing.
        """
        if not self._newest.acquire(blocking=False):
            return
        try:
            result = self._result
            for output in _KEPT if result is not None else ():
                is_new = self._sent.get(output.name) != result.occupancy.stamp
                if is_new and self.has_subscribers(output.name):
                    self._build(output, result)
        finally:
            self._newest.release()

    def _build(self, output: Output, result: Result) -> None:
        try:
            message = output.build(result)
        except PoseError as error:  # of the frame that this output is to be in; others are not
            self._node.get_logger().error(
                f"~/{output.name} is not published: {error}",
                throttle_duration_sec=_ERROR_LOG_PERIOD,
            )
            return
        self._publish(output.name, message)
        self._sent[output.name] = result.occupancy.stamp

    def _located(self, stamp: int, name: str) -> np.ndarray:
        return self.locate(name, stamp)

    def has_subscribers(self, name: str) -> bool:
        """Whether the topic ``~/name`` has any."""
        with self._publishing:
            publisher = self._publishers.get(name)
            return publisher is not None and publisher.get_subscription_count() > 0

    def _draw_overlays(self, frame: FrameSet, occupancy: Occupancy) -> None:
        cameras = [c for c in frame.images if self.has_subscribers(f"overlay/{c}")]
        if cameras:
            self._overlays.submit(frame, occupancy, frame.base_T_grid, cameras)

    def _publish_overlay(self, frame: FrameSet, camera: str, pixels: np.ndarray) -> None:
        stamp, tf_frame = frame.images[camera].stamp, self.cameras[camera].frame
        self._publish(f"overlay/{camera}", messages.rgb_image(pixels, stamp, tf_frame))

    def _publish(self, name: str, message: Message) -> None:
        encoded = encode(message)
        with self._publishing:
            if name in self._publishers:  # else it was taken away meanwhile
                self._publishers[name].publish(encoded)

    def _now(self) -> int:  # ns
        return self._node.get_clock().now().nanoseconds

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


def _names(output: Output, cameras: Iterable[str]) -> list[str]:
    """Of the output's topics, under ``~/``."""
    if not output.per_camera:
        return [output.name]
    return [output.name.replace(PER_CAMERA, camera) for camera in cameras]
