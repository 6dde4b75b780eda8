# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Messages in, camera sets out: the three streams on which plain approximate-time sync fails.

The cameras fire one after the other as on nuScenes' scene-0061; the clock is the stamps' own, so
nothing here depends on how busy the machine is.
"""

from __future__ import annotations

from collections.abc import Iterable

import pytest

pytest.importorskip("rclpy", reason="ROS is not installed (make setup)")
pytest.importorskip("alocc_ros.msg", reason="alocc_ros/msg is not built (make setup)")

from sensor_msgs.msg import CompressedImage, Image  # noqa: E402

from alocc_ros.ros import encoder  # noqa: E402
from alocc_ros.ros.inputs import SetCollector  # noqa: E402
from alocc_ros.ros.parameters import NodeParameters  # noqa: E402
from alocc_ros.stream import conversions  # noqa: E402
from alocc_ros.stream.collector_config import CollectorConfig  # noqa: E402
from alocc_ros.stream.preset import load_preset  # noqa: E402
from alocc_ros.types import CAMERAS, CameraSet  # noqa: E402

START, PERIOD, DELAY = 1_532_402_927_000_000_000, 83_333_333, 20_000_000  # ns
PHASES = {
    "cam_front_left": 0,
    "cam_front": 7_600_000,
    "cam_front_right": 15_500_000,
    "cam_back_right": 23_000_000,
    "cam_back": 32_700_000,
    "cam_back_left": 42_600_000,
}
Shot = tuple[str, int]  # camera, stamp


def shots(cycles: int) -> list[Shot]:
    return [(c, START + n * PERIOD + p) for n in range(cycles) for c, p in PHASES.items()]


class Sets:
    """A collector as the node makes it, and what came out of it."""

    def __init__(self) -> None:
        self.closed: list[CameraSet] = []
        stale_after = NodeParameters().stale_after
        self.collector = SetCollector(
            CollectorConfig.from_preset(load_preset("nuscenes"), silent_after_s=stale_after)
        )
        self.collector.registerCallback(self.closed.append)

    def feed(self, stream: Iterable[Shot], kind: type, later: int = 0) -> None:
        """Messages, each ``DELAY`` after its stamp; ``later`` shifts the clock, not the stamps."""
        for camera, stamp in stream:
            message = kind(data=b"\xff\xd8")
            message.header.stamp = encoder.time(stamp)
            taken = conversions.stamp_ns(message.header.stamp)
            assert taken == stamp
            image = conversions.camera_image(message, camera, taken, "bgr8")
            self.collector.poll(stamp + DELAY + later - 1)
            self.collector.add(image, stamp + DELAY + later)

    def end(self, now: int) -> None:
        """The timer goes on when no image comes any more."""
        self.collector.poll(now)

    def assert_whole(self, stamps: list[int]) -> None:
        """Sets at these stamps of the anchor, all of one cycle and of six cameras."""
        assert [closed.stamp for closed in self.closed] == stamps
        for closed in self.closed:
            assert set(closed.images) == set(CAMERAS)
            assert closed.spread == PHASES["cam_back_left"]


def anchors(cycles: Iterable[int]) -> list[int]:
    return [START + n * PERIOD + PHASES["cam_front"] for n in cycles]


@pytest.mark.parametrize("kind", [CompressedImage, Image])
def test_sixty_cycles_make_sixty_whole_sets(kind):
    sets = Sets()
    sets.feed(shots(60), kind)
    sets.end(START + 61 * PERIOD)
    sets.assert_whole(anchors(range(60)))


def test_a_stream_that_begins_in_mid_cycle_never_mixes_two():
    sets = Sets()
    sets.feed(shots(60)[3:], CompressedImage)  # the back right camera first
    sets.end(START + 61 * PERIOD)
    whole = [closed for closed in sets.closed if not closed.missing]
    assert [closed.stamp for closed in whole] == anchors(range(1, 60))
    assert all(closed.spread <= PHASES["cam_back_left"] for closed in sets.closed)


@pytest.mark.parametrize("camera", CAMERAS)
@pytest.mark.parametrize("clock", ["wall", "bag"])
def test_the_second_lap_is_whole_though_a_camera_was_lost_in_the_first(camera, clock):
    sets = Sets()
    dies = START + 216 * PERIOD
    first = [(c, stamp) for c, stamp in shots(240) if c != camera or stamp < dies]
    sets.feed(first, CompressedImage)
    sets.closed.clear()
    # With use_sim_time the clock goes back with the bag, without it goes on.
    later = 240 * PERIOD if clock == "wall" else 0
    sets.feed(shots(240), CompressedImage, later)
    sets.end(START + 241 * PERIOD + later)
    again = [closed for closed in sets.closed if closed.stamp <= anchors([239])[0]]
    whole = [closed for closed in again if not closed.missing]
    assert [closed.stamp for closed in whole] == anchors(range(240))
    assert all(closed.spread == PHASES["cam_back_left"] for closed in whole)
