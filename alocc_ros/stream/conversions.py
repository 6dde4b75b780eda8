# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""ROS messages into our values, by the names of their fields.

Messages of rclpy and of a bag library have the same fields, so the node and the bag reader
share this file and it imports neither. Pixels are never copied.
"""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from alocc_ros.errors import PoseError, StampError
from alocc_ros.geometry import pose_matrix
from alocc_ros.stream.encodings import canonical, mosaic_of, video_of
from alocc_ros.types import CameraImage


class StampedPose(NamedTuple):
    """Where ``child`` was in ``parent`` at ``stamp`` (ns)."""

    stamp: int
    parent: str
    child: str
    parent_T_child: np.ndarray


def stamp_ns(stamp: Any) -> int:
    """A builtin_interfaces/Time in nanoseconds.

    Raises:
        StampError: it is negative, or its nanoseconds exceed a second.
    """
    if stamp.sec < 0 or not 0 <= stamp.nanosec < 1_000_000_000:
        raise StampError(f"stamp with {stamp.sec} s and {stamp.nanosec} ns is no time")
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


def header(message: Any) -> Any:
    """Stamp and frame id of any message; foxglove_msgs/CompressedVideo has them outside."""
    if hasattr(message, "header"):
        return message.header
    return SimpleNamespace(stamp=message.timestamp, frame_id=message.frame_id)


def camera_image(message: Any, camera: str, stamp: int, assume_8uc3: str) -> CameraImage:
    """An image, or a packet of video, of ``camera``; ``stamp`` in ns.

    Of types sensor_msgs/Image or CompressedImage, ffmpeg_image_transport_msgs/FFMPEGPacket or
    foxglove_msgs/CompressedVideo.

    ``8UC3`` says three bytes a pixel but not which: ``assume_8uc3`` does. A compressed image's
    ``format`` is free text that many writers get wrong; its first bytes tell the truth. What
    only it can tell is whether a gray picture is a mosaic, and of which stream a part is.
    """
    data = memoryview(message.data)
    if hasattr(message, "format"):
        kind = mosaic_of(message.format) or video_of(message.format)
        return CameraImage(camera, stamp, data, f"compressed {kind}".rstrip())
    if hasattr(message, "pts"):
        # The codec, or in early releases the encoder (libx264), and how the pixels were before.
        name = message.encoding.partition(";")[0].strip()
        return CameraImage(camera, stamp, data, f"compressed {video_of(name) or 'ffmpeg'}")
    return CameraImage(
        camera,
        stamp,
        data,
        canonical(message.encoding, assume_8uc3),
        int(message.height),
        int(message.width),
        int(message.step),
        bool(message.is_bigendian),
    )


def transform(entry: Any) -> StampedPose:
    """A geometry_msgs/TransformStamped, such as the entries of a tf2_msgs/TFMessage.

    Raises:
        PoseError, StampError: naming the two frames.
    """
    parent, child = frame_name(entry.header.frame_id), frame_name(entry.child_frame_id)
    translation, rotation = entry.transform.translation, entry.transform.rotation
    try:
        stamp = stamp_ns(entry.header.stamp)
        matrix = pose_matrix(
            (translation.x, translation.y, translation.z),
            (rotation.x, rotation.y, rotation.z, rotation.w),
        )
    except (PoseError, StampError) as error:
        raise type(error)(f"transform of {child} in {parent}: {error}") from error
    return StampedPose(stamp, parent, child, matrix)


def check_transform(entry: Any, *, static: bool) -> None:
    """Refuses what ``transform`` and a ``TransformTree`` would; cheap, for each one on /tf.

    Raises:
        PoseError, StampError: naming the two frames.
    """
    t, q, stamp = entry.transform.translation, entry.transform.rotation, entry.header.stamp
    length = q.x * q.x + q.y * q.y + q.z * q.z + q.w * q.w
    finite = math.isfinite(t.x + t.y + t.z)
    parent, child = frame_name(entry.header.frame_id), frame_name(entry.child_frame_id)
    if parent == child:
        raise PoseError(f"transform of frame {child!r} in itself")
    if not (finite and 0.82 < length < 1.2) or stamp.sec < 0:
        transform(entry)  # which decides, and says why
    if not static and stamp.sec == 0 and stamp.nanosec == 0:
        raise PoseError(f"pose of {child} in {parent}: stamp 0 is zero or negative")


def pose(message: Any) -> StampedPose:
    """A nav_msgs/Odometry, or geometry_msgs PoseStamped or PoseWithCovarianceStamped.

    Raises:
        PoseError, StampError: the pose or the stamp cannot be used.
    """
    inner = message.pose.pose if hasattr(message.pose, "pose") else message.pose
    position, orientation = inner.position, inner.orientation
    return StampedPose(
        stamp_ns(message.header.stamp),
        frame_name(message.header.frame_id),
        frame_name(getattr(message, "child_frame_id", "")),
        pose_matrix(
            (position.x, position.y, position.z),
            (orientation.x, orientation.y, orientation.z, orientation.w),
        ),
    )


def frame_name(frame: str) -> str:
    """TF frames lost their leading slash in ROS 2; old recordings still have it."""
    return frame.lstrip("/")
