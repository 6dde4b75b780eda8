# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""The cameras: images and CameraInfo in, sets of images that belong together out.

Everything here happens in the executor's thread and takes microseconds: nothing is decoded,
converted or waited for. Video is decoded beside it, as each packet needs those before it.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from message_filters import SimpleFilter
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from alocc_ros.errors import CalibrationError, StampError
from alocc_ros.ros.parameters import NodeParameters
from alocc_ros.ros.topics import Topic
from alocc_ros.ros.video import LiveVideo, advice, video_classes
from alocc_ros.stream import conversions
from alocc_ros.stream.collector import CollectorStatistics, FrameCollector
from alocc_ros.stream.collector_config import CollectorConfig
from alocc_ros.stream.preset import CameraTopics, Preset, distortion_remark
from alocc_ros.stream.rig import Intrinsics, RigCamera, intrinsics_from_camera_info
from alocc_ros.stream.skips import Skips
from alocc_ros.stream.video import codec_of, is_available
from alocc_ros.types import CameraImage, CameraSet

RAW, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
IMAGE_TYPES = {
    "auto": {RAW: Image, COMPRESSED: CompressedImage},
    "raw": {RAW: Image},
    "compressed": {COMPRESSED: CompressedImage},
}
_GAPS = 60  # from which the share of missing images is estimated
_IMAGE_DEPTH = 10  # nearly a second at 12 Hz, for when the processor is busy with others
_INFO_DEPTH = 2


class SetCollector(SimpleFilter):
    """Images of several subscribers in, camera sets out, by the rule of ``FrameCollector``."""

    def __init__(self, config: CollectorConfig) -> None:
        super().__init__()
        self._collector = FrameCollector(config)
        self._lock = threading.Lock()

    def add(self, image: CameraImage, now: int) -> None:
        """Takes one image in; ``now`` in ns, on one clock for all calls."""
        with self._lock:
            closed = self._collector.add(image, now)
        self._signal(closed)

    def poll(self, now: int) -> None:
        """Closes the sets whose time is over."""
        with self._lock:
            closed = self._collector.poll(now)
        self._signal(closed)

    def change(self, config: CollectorConfig) -> None:
        """Takes over other times and numbers."""
        with self._lock:
            self._collector.change(config)

    def reset(self) -> None:
        """Drops what is queued."""
        with self._lock:
            self._collector.reset()

    @property
    def forming(self) -> int | None:
        """Stamp (ns) of the set that is being put together, see ``FrameCollector``."""
        return self._collector.forming

    @property
    def statistics(self) -> CollectorStatistics:
        """A snapshot of the counters."""
        with self._lock:
            return self._collector.statistics

    def _signal(self, closed: list[CameraSet]) -> None:
        for camera_set in closed:
            self.signalMessage(camera_set)


class Camera:
    """What is known about one camera. Written by the executor's thread, read by any.

    Attributes:
        name: out of the rig.
        frame: TF name of the optical frame; "" until a message tells.
        intrinsics: None until CameraInfo or a file tells; the same object until they change.
        rejection: why the newest image cannot be used, or "".
        gaps: ns between the stamps of its newest images.
        info_rejection: why the newest CameraInfo cannot be used, or "".
        image, info: the topics; ``info`` is None if the intrinsics come from a file.
    """

    def __init__(
        self,
        node: Node,
        name: str,
        topics: CameraTopics,
        rig: RigCamera | None,
        *,
        types: dict[str, type],
        preset: Preset,
        on_image: Callable[[Camera, Any], None],
    ) -> None:
        self.name = name
        self.frame = conversions.frame_name(topics.frame)
        self.intrinsics: Intrinsics | None = rig.intrinsics if rig else None
        self.rejection = self.info_rejection = ""
        self.gaps: deque[int] = deque(maxlen=_GAPS)
        self._last_stamp: int | None = None
        self._preset, self._logger, self._remark = preset, node.get_logger(), ""
        self._info_key: tuple[Any, ...] = ()
        callback = partial(on_image, self)
        self.image = Topic(
            node, topics.image, types, callback, _IMAGE_DEPTH, count_lost=True, advice=advice
        )
        self.info: Topic | None = None
        if self.intrinsics is None and topics.camera_info:
            info_types = {"sensor_msgs/msg/CameraInfo": CameraInfo}
            self.info = Topic(node, topics.camera_info, info_types, self._on_info, _INFO_DEPTH)

    def add_frame(self, frame: str) -> None:
        """The first header that names a frame counts, if the preset names none."""
        if not self.frame and frame:
            self.frame = conversions.frame_name(frame)

    def add_stamp(self, stamp: int) -> None:
        """Keeps the gap to the stamp before; time that goes back begins anew."""
        if self._last_stamp is not None and stamp > self._last_stamp:
            self.gaps.append(stamp - self._last_stamp)
        elif self._last_stamp is not None and stamp < self._last_stamp:
            self.gaps.clear()
        self._last_stamp = stamp

    def _on_info(self, message: CameraInfo) -> None:
        self.add_frame(message.header.frame_id)
        # It comes with every image and hardly ever changes: comparing is cheaper than reading.
        key = (
            *(message.width, message.height, message.distortion_model),
            *(message.k.tobytes(), message.p.tobytes(), bytes(message.d)),
            *(message.binning_x, message.binning_y, message.roi.width, message.roi.x_offset),
            *(message.roi.y_offset, message.roi.height),
        )
        if key == self._info_key:
            return
        self._info_key = key
        try:
            self.intrinsics = intrinsics_from_camera_info(
                message, self._preset.is_rectified(self.name), self.info.resolved
            )
            self.info_rejection = ""
            remark = distortion_remark(self._preset, self.name, self.info.resolved, message.d)
            if remark and remark != self._remark:
                self._logger.warning(remark)
            self._remark = remark
        except CalibrationError as error:
            self.intrinsics, self.info_rejection = None, str(error)


class Inputs:
    """Subscriptions of all cameras of a preset, and the collector behind them.

    Attributes:
        cameras: by name, in network order.
        collector: a filter; register a callback with it to get the camera sets.
        on_image: gets every image, after the set that it closed, and the stamp (ns) of the set that
            is being put together then, or None; of video in threads of their cameras.
    """

    def __init__(
        self,
        node: Node,
        preset: Preset,
        parameters: NodeParameters,
        rig: dict[str, RigCamera],
        skips: Skips | None = None,
    ) -> None:
        """Subscribes; ``skips`` takes note of packets of video that no picture comes of."""
        self._node, self._preset = node, preset
        self._skips = Skips() if skips is None else skips
        self._videos: dict[str, LiveVideo] = {}
        self.on_image: Callable[[CameraImage, int | None], None] = lambda image, forming: None
        self._stamp_source = parameters.stamp_source
        if self._stamp_source == "preset":
            self._stamp_source = preset.stamp_source
        self.collector = SetCollector(_config(preset, parameters))
        types = IMAGE_TYPES[parameters.image_transport]
        if parameters.image_transport == "auto":
            types = types | video_classes()
        self.cameras = {
            name: Camera(
                node,
                name,
                topics,
                rig.get(name),
                types=types,
                preset=preset,
                on_image=self._on_image,
            )
            for name, topics in preset.used_cameras.items()
        }

    def take_over(self, parameters: NodeParameters) -> None:
        """Those that are live."""
        self.collector.change(_config(self._preset, parameters))

    def scan(self) -> None:
        """Looks for publishers that came, went or changed."""
        for camera in self.cameras.values():
            camera.image.scan()
            if camera.info is not None:
                camera.info.scan()

    def poll(self) -> None:
        """Closes the sets whose time is over; to be called by a timer."""
        self.collector.poll(self._now())

    def close(self) -> None:
        """Ends all subscriptions."""
        for camera in self.cameras.values():
            camera.image.close()
            if camera.info is not None:
                camera.info.close()
        for video in self._videos.values():
            video.close()

    def _now(self) -> int:
        return self._node.get_clock().now().nanoseconds

    def _on_image(self, camera: Camera, message: Any) -> None:
        header = conversions.header(message)
        camera.add_frame(header.frame_id)
        now = self._now()
        try:
            header_stamp = conversions.stamp_ns(header.stamp)
        except StampError as error:
            camera.rejection = str(error)
            return
        if self._stamp_source == "header" and header_stamp == 0:
            camera.rejection = "the header stamp is zero; stamp_source: receive takes the arrival's"
        elif camera.name not in self._videos:  # whose thread knows better
            camera.rejection = ""
        stamp = now if self._stamp_source == "receive" else header_stamp
        camera.add_stamp(stamp)
        image = conversions.camera_image(message, camera.name, stamp, self._preset.assume_8uc3)
        if codec_of(image) and is_available():
            self._video(camera).add(image)
        else:
            self._take(image, now)

    def _take(self, image: CameraImage, now: int) -> None:
        self.collector.add(image, now)  # which counts images that it cannot use
        self.on_image(image, self.collector.forming)

    def _video(self, camera: Camera) -> LiveVideo:
        """Made with the first packet."""
        if camera.name not in self._videos:

            def deliver(picture: CameraImage) -> None:
                camera.rejection = ""
                self._take(picture, self._now())

            def skip(name: str, reason: str, detail: str) -> None:
                camera.rejection = f"{reason} ({detail})" if detail else reason
                self._skips.add(camera.image.resolved, reason, detail)

            self._videos[camera.name] = LiveVideo(camera.name, deliver, skip)
        return self._videos[camera.name]


def _config(preset: Preset, parameters: NodeParameters) -> CollectorConfig:
    return CollectorConfig.from_preset(
        preset,
        timeout_s=parameters.set_timeout,
        min_cameras=parameters.min_cameras,
        silent_after_s=parameters.stale_after,
    )
