# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""``python -m alocc_ros.ros.benchmark.cameras``: six cameras of a moving vehicle, over DDS.

Phases and sizes as in nuScenes; every image with its CameraInfo and the ego pose at its stamp,
best effort as camera drivers do. The pictures are drawn, with the noise of a sensor: 150 kB as
JPEG. Prints as JSON what it sent, and stays until its standard input is closed: what is in
transit lies in this process's memory.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import rclpy
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, QoSProfile, qos_profile_sensor_data
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from tf2_msgs.msg import TFMessage

from alocc_ros import messages
from alocc_ros.bags.sample import PHASES_MS, START, draw, ego_pose, jpeg, rig, street
from alocc_ros.ros import transport
from alocc_ros.ros.encoder import encode
from alocc_ros.ros.encoder import time as time_message
from alocc_ros.types import Calibration, CameraImage

_PICTURES = 2  # a camera, so that consecutive images differ
_NOISE = 4.0  # of 255
_QUALITY = 80
_TIMEOUT = 60.0  # s, for the node to subscribe
_LEAD = 0.2  # s until the first image


@dataclass(frozen=True)
class _Camera:
    """One camera: when it exposes, and what it publishes again and again."""

    phase: float  # s after the beginning of a cycle
    images: Publisher
    infos: Publisher
    pictures: list[Image | CompressedImage]
    info: CameraInfo


class Rig:
    """Six cameras and the vehicle's poses, as publishers of a node."""

    def __init__(self, node: Node, *, raw: bool) -> None:
        """Draws the pictures, which takes a few seconds."""
        kind = Image if raw else CompressedImage
        self._cameras, mounts = [], []
        for name, calibration in rig().items():
            frame = name.upper()
            topics = f"/{frame}/image_rect_compressed", f"/{frame}/camera_info"
            camera = _Camera(
                PHASES_MS[name] * 1e-3,
                node.create_publisher(kind, topics[0], qos_profile_sensor_data),
                node.create_publisher(CameraInfo, topics[1], qos_profile_sensor_data),
                [_image(picture, frame, raw) for picture in _pictures(calibration)],
                encode(messages.camera_info(calibration, 0, frame)),
            )
            self._cameras.append(camera)
            mounts.append(("base_link", frame, calibration.base_T_camera))
        self._cameras.sort(key=lambda camera: camera.phase)
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._mounts = node.create_publisher(TFMessage, "/tf_static", latched)
        self._mounts.publish(encode(messages.transforms(0, mounts)))
        self._poses = node.create_publisher(TFMessage, "/tf", 100)

    def wait(self) -> bool:
        """Waits until every topic has a subscriber; False: one has none in time."""
        publishers = [self._poses, self._mounts]
        publishers += [p for camera in self._cameras for p in (camera.images, camera.infos)]
        end = time.monotonic() + _TIMEOUT
        while any(publisher.get_subscription_count() == 0 for publisher in publishers):
            if time.monotonic() > end:
                return False
            time.sleep(0.02)
        return True

    def run(self, cycles: int, rate: float) -> dict[str, float]:
        """Publishes ``cycles`` images of each camera, ``rate`` a second; returns what was sent."""
        begin, late = time.time() + _LEAD, []
        for cycle in range(cycles):
            for camera in self._cameras:
                due = begin + cycle / rate + camera.phase
                time.sleep(max(due - time.time(), 0.0))
                late.append(time.time() - due)
                self._publish(camera, cycle, due - begin)
        sizes = [len(picture.data) for camera in self._cameras for picture in camera.pictures]
        return {
            "images": cycles * len(self._cameras),
            "sets": cycles,
            "seconds": time.time() - begin,
            "bytes": float(np.mean(sizes)),
            "late_p99_ms": 1e3 * float(np.percentile(late, 99)),
        }

    def _publish(self, camera: _Camera, cycle: int, seconds: float) -> None:
        pose = ("map", "base_link", ego_pose(START + round(seconds * 1e9)))
        picture, stamp = camera.pictures[cycle % _PICTURES], time.time_ns()
        for header in (picture.header, camera.info.header):
            header.stamp = time_message(stamp)
        self._poses.publish(encode(messages.transforms(stamp, [pose])))
        camera.infos.publish(camera.info)
        camera.images.publish(picture)


def _pictures(calibration: Calibration) -> list[np.ndarray]:  # [h, w, 3] uint8 each
    """What a camera sees, a moment apart."""
    random, boxes = np.random.default_rng(0), street()
    out = []
    for number in range(_PICTURES):
        clean = draw(calibration, START + number * 500_000_000, boxes).astype(np.int16)
        noise = random.normal(0.0, _NOISE, clean.shape[:2]).astype(np.int16)
        out.append(np.clip(clean + noise[..., None], 0, 255).astype(np.uint8))
    return out


def _image(picture: np.ndarray, frame: str, raw: bool) -> Image | CompressedImage:
    if raw:
        return encode(messages.rgb_image(picture, 0, frame))
    return encode(messages.image(CameraImage("", 0, jpeg(picture, _QUALITY), "jpeg"), frame))


def main(arguments: Sequence[str] | None = None) -> int:
    """The program."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--rate", type=float, default=12.0)
    parser.add_argument("--raw", action="store_true")
    args = parser.parse_args(arguments)
    transport.prepare()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
    try:
        cameras = Rig(rclpy.create_node("benchmark_cameras"), raw=args.raw)
        if not cameras.wait():
            print("the node does not subscribe", file=sys.stderr)
            return 1
        print(json.dumps(cameras.run(round(args.seconds * args.rate), args.rate)), flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            sys.stdin.read()
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it is ending
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
