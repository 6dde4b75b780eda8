# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""``python -m alocc_ros.ros.benchmark.cameras``: six cameras of a moving vehicle, over DDS.

Phases and sizes as in nuScenes; every image with its CameraInfo and the ego pose at its stamp,
best effort as camera drivers do. The pictures are drawn, with the noise of a sensor: 150 kB as
JPEG. Says as JSON what it sent, and stays until its standard input is closed: what is on its
way lies in this process's memory.
"""

from __future__ import annotations

import argparse
import array
import contextlib
import json
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from alocc_ros.bags.sample import PHASES_MS, START, draw, ego_pose, jpeg, rig, street
from alocc_ros.geometry import quaternion_xyzw
from alocc_ros.types import Calibration

_PICTURES = 2  # a camera: enough to tell the next one from the one before
_NOISE = 4.0  # of 255
_QUALITY = 80
_PATIENCE = 60.0  # s, for the node to subscribe
_LEAD = 0.2  # s until the first image


@dataclass(frozen=True)
class _Shot:
    """An image to publish, again and again."""

    at: float  # s after the beginning of a cycle
    image: Any  # publisher
    info: Any  # publisher
    info_message: Any
    messages: list[Any]


def pictures(calibration: Calibration) -> list[np.ndarray]:  # [h, w, 3] uint8 each
    """What the camera sees, a moment apart."""
    random, boxes = np.random.default_rng(0), street()
    out = []
    for number in range(_PICTURES):
        clean = draw(calibration, START + number * 500_000_000, boxes).astype(np.int16)
        noise = random.normal(0.0, _NOISE, clean.shape[:2]).astype(np.int16)
        out.append(np.clip(clean + noise[..., None], 0, 255).astype(np.uint8))
    return out


def main(arguments: Sequence[str] | None = None) -> int:
    """The program."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--rate", type=float, default=12.0)
    parser.add_argument("--raw", action="store_true")
    args = parser.parse_args(arguments)

    import rclpy
    from geometry_msgs.msg import Quaternion, TransformStamped, Vector3
    from rclpy.qos import DurabilityPolicy, QoSProfile, qos_profile_sensor_data
    from rclpy.signals import SignalHandlerOptions
    from sensor_msgs.msg import CameraInfo, CompressedImage, Image
    from tf2_msgs.msg import TFMessage

    from alocc_ros.ros import transport
    from alocc_ros.ros.messages import time as time_message

    transport.prepare()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node("benchmark_cameras")

    def link(parent: str, child: str, parent_T_child: np.ndarray) -> TransformStamped:
        message = TransformStamped(child_frame_id=child)
        message.header.frame_id = parent
        x, y, z = parent_T_child[:3, 3].tolist()
        message.transform.translation = Vector3(x=x, y=y, z=z)
        qx, qy, qz, qw = quaternion_xyzw(parent_T_child).tolist()
        message.transform.rotation = Quaternion(x=qx, y=qy, z=qz, w=qw)
        return message

    def message_of(picture: np.ndarray, frame: str) -> Image | CompressedImage:
        message = Image() if args.raw else CompressedImage(format="jpeg")
        message.header.frame_id = frame
        data = picture.tobytes() if args.raw else jpeg(picture, _QUALITY)
        message.data = array.array("B", data)
        if args.raw:
            message.height, message.width = picture.shape[:2]
            message.step, message.encoding = 3 * message.width, "rgb8"
        return message

    def info_of(calibration: Calibration, frame: str) -> CameraInfo:
        message = CameraInfo(distortion_model="plumb_bob", d=[0.0] * 5)
        message.header.frame_id = frame
        message.width, message.height = calibration.width, calibration.height
        message.k = calibration.intrinsics.ravel()
        message.r = np.eye(3).ravel()
        message.p = np.hstack([calibration.intrinsics, np.zeros((3, 1))]).ravel()
        return message

    shots, static = [], []
    kind = Image if args.raw else CompressedImage
    for name, calibration in rig().items():
        frame = name.upper()
        messages = [message_of(picture, frame) for picture in pictures(calibration)]
        topic = f"/{frame}/image_rect_compressed"
        image = node.create_publisher(kind, topic, qos_profile_sensor_data)
        info = node.create_publisher(CameraInfo, f"/{frame}/camera_info", qos_profile_sensor_data)
        shot = _Shot(PHASES_MS[name] * 1e-3, image, info, info_of(calibration, frame), messages)
        shots.append(shot)
        static.append(link("base_link", frame, calibration.base_T_camera))
    shots.sort(key=lambda shot: shot.at)
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    static_publisher = node.create_publisher(TFMessage, "/tf_static", latched)
    static_publisher.publish(TFMessage(transforms=static))
    poses = node.create_publisher(TFMessage, "/tf", 100)

    wanted = [p for shot in shots for p in (shot.image, shot.info)] + [poses, static_publisher]
    end = time.monotonic() + _PATIENCE
    while any(p.get_subscription_count() == 0 for p in wanted):
        if time.monotonic() > end:
            print("the node does not subscribe", file=sys.stderr)
            return 1
        time.sleep(0.02)
    time.sleep(_LEAD)

    begin = time.time() + _LEAD
    late, cycles = [], round(args.seconds * args.rate)
    for cycle in range(cycles):
        for shot in shots:
            due = begin + cycle / args.rate + shot.at
            wait = due - time.time()
            if wait > 0:
                time.sleep(wait)
            late.append(time.time() - due)
            stamp = time.time_ns()
            pose = link("map", "base_link", ego_pose(START + round((due - begin) * 1e9)))
            message = shot.messages[cycle % _PICTURES]
            for head in (pose.header, message.header, shot.info_message.header):
                head.stamp = time_message(stamp)
            poses.publish(TFMessage(transforms=[pose]))
            shot.info.publish(shot.info_message)
            shot.image.publish(message)
    told = {
        "images": cycles * len(shots),
        "sets": cycles,
        "seconds": time.time() - begin,
        "bytes": float(np.mean([len(m.data) for shot in shots for m in shot.messages])),
        "late_p99_ms": 1e3 * float(np.percentile(late, 99)),
    }
    print(json.dumps(told), flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        sys.stdin.read()
    rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
