# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Video of live cameras over DDS."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS is not installed (make setup)")
pytest.importorskip("alocc_ros.msg", reason="alocc_ros/msg is not built (make setup)")
av = pytest.importorskip("av")

from sensor_msgs.msg import CompressedImage  # noqa: E402
from spinning import spin_until  # noqa: E402

from alocc_ros.ros.encoder import time  # noqa: E402
from alocc_ros.ros.inputs import Inputs  # noqa: E402
from alocc_ros.ros.parameters import NodeParameters  # noqa: E402
from alocc_ros.ros.video import LiveVideo, advice  # noqa: E402
from alocc_ros.stream.decoding import decode  # noqa: E402
from alocc_ros.stream.preset import load_preset  # noqa: E402
from alocc_ros.stream.skips import NO_KEY_FRAME, VIDEO_TOO_SLOW, Skips  # noqa: E402
from alocc_ros.stream.video import FFMPEG_PACKET  # noqa: E402
from alocc_ros.types import CameraImage  # noqa: E402

NUMBER = 4
GRAYS = [40 + 50 * number for number in range(NUMBER)]


@pytest.fixture(scope="module")
def stream() -> list[bytes]:
    """One key frame, and pictures that follow it; each is of one gray."""
    try:
        context = av.CodecContext.create("libx264", "w")
    except ValueError:
        pytest.skip("this PyAV has no libx264")
    context.width, context.height, context.pix_fmt = 64, 48, "yuv420p"
    context.time_base = Fraction(1, 10)
    context.options = {"preset": "ultrafast", "tune": "zerolatency", "sc_threshold": "0"}
    out = []
    for number, gray in enumerate(GRAYS):
        frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), gray, np.uint8), "rgb24")
        frame.pts = number
        out += context.encode(frame)
    return [bytes(packet) for packet in [*out, *context.encode(None)]]


def test_packets_become_sets_of_pictures(node, executor, stream):
    said: list[str] = []
    skips = Skips(said.append)
    inputs = Inputs(node, load_preset("nuscenes"), NodeParameters(set_timeout=30.0), {}, skips)
    sets = []
    inputs.collector.registerCallback(sets.append)
    publishers = {
        name: node.create_publisher(CompressedImage, camera.image.name, 20)
        for name, camera in inputs.cameras.items()
    }
    assert spin_until(
        executor,
        lambda: (
            inputs.scan()
            or all(publisher.get_subscription_count() for publisher in publishers.values())
        ),
    )
    for number, data in enumerate([stream[1], *stream]):  # the first one has no key frame
        for name, publisher in publishers.items():
            message = CompressedImage(format="h264", data=data)
            message.header.stamp = time(1_000_000_000 + number * 83_000_000)
            message.header.frame_id = name.upper()
            publisher.publish(message)
        received = {name: number + 1 for name in publishers}
        assert spin_until(
            executor,
            lambda received=received: (
                {n: c.image.received for n, c in inputs.cameras.items()} == received
            ),
        )
    assert spin_until(executor, lambda: len(sets) == NUMBER)
    for number, one in enumerate(sets):
        assert len(one.images) == 6 and one.stamp == 1_000_000_000 + (number + 1) * 83_000_000
        for image in one.images.values():
            assert abs(decode(image).mean() - GRAYS[number]) < 4
    assert sorted(skips.counts.values()) == [1] * 6 and len(said) == 6
    assert all(NO_KEY_FRAME in kind for kind in skips.counts)
    assert not any(camera.rejection for camera in inputs.cameras.values())
    inputs.close()


def test_packets_that_come_too_fast_are_counted_and_decoding_begins_anew(stream):
    reasons: list[str] = []
    pictures: list[CameraImage] = []
    video = LiveVideo("cam_back", pictures.append, lambda camera, reason, _: reasons.append(reason))
    packets = [CameraImage("cam_back", n + 1, d, "compressed h264") for n, d in enumerate(stream)]
    # The thread waits for what the test holds, so that nothing depends on its speed.
    held = [video._room.acquire(blocking=False) for _ in range(9)]
    video._thread.submit(lambda: None).result()
    video.add(packets[0])
    video._thread.submit(lambda: None).result()
    held.append(video._room.acquire(blocking=False))
    assert all(held)
    video.add(packets[1])
    for _ in held:
        video._room.release()
    video.add(packets[2])
    video._thread.submit(lambda: None).result()
    video.add(packets[0])
    video.close()
    assert reasons[:2] == [VIDEO_TOO_SLOW, NO_KEY_FRAME]
    assert pictures[0].stamp == 1


def test_what_to_do_about_packets_is_said(monkeypatch):
    monkeypatch.setattr("alocc_ros.ros.video.is_installed", lambda kind: False)
    assert "install the package ffmpeg_image_transport_msgs" in advice(FFMPEG_PACKET)
    assert advice("std_msgs/msg/String") == ""
