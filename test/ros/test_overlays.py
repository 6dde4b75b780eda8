# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Pictures with voxels in them are drawn beside the work, the newest result's."""

from __future__ import annotations

import dataclasses
import threading

import numpy as np
import pytest

from alocc_ros.bags.sample import START, draw, ego_pose, jpeg, rig, street
from alocc_ros.grid import VoxelGrid
from alocc_ros.labels import OCC3D
from alocc_ros.ros.overlays import Overlays
from alocc_ros.types import CameraImage, FrameSet, Occupancy

CAMERAS = ("cam_front", "cam_back")
GRID = VoxelGrid(lower=(-8.0, -8.0, -1.0), shape=(20, 20, 4), resolution=0.8)
WAIT = 60.0  # s


@pytest.fixture(scope="module")
def result() -> tuple[FrameSet, Occupancy]:
    calibration = rig(176, 99)
    pose = ego_pose(START)
    images = {
        c: CameraImage(c, START, jpeg(draw(calibration[c], START, street())), "jpeg")
        for c in CAMERAS
    }
    frame = FrameSet(START, images, calibration, pose, dict.fromkeys(CAMERAS, pose))
    labels = np.full(GRID.shape, OCC3D.free, np.uint8)
    labels[..., 0] = 11
    return frame, Occupancy(labels, None, GRID, OCC3D, START, "base_link", pose)


class Seen:
    """Takes pictures, each only when it is let go on."""

    def __init__(self) -> None:
        self.pictures: list[tuple[int, str, np.ndarray]] = []
        self.errors: list[str] = []
        self.begun, self.go_on = threading.Semaphore(0), threading.Semaphore(0)
        self.overlays = Overlays(self._take, self.errors.append)

    def _take(self, frame: FrameSet, camera: str, pixels: np.ndarray) -> None:
        self.pictures.append((frame.stamp, camera, pixels))
        self.begun.release()
        self.go_on.acquire(timeout=WAIT)


def at(result: tuple[FrameSet, Occupancy], number: int) -> tuple[FrameSet, Occupancy]:
    return dataclasses.replace(result[0], stamp=START + number), result[1]


def test_the_newest_result_is_drawn_and_those_before_it_are_left_out(result):
    seen = Seen()
    for number in range(5):
        seen.overlays.submit(*at(result, number), None, ("cam_front",))
        if number == 0:
            assert seen.begun.acquire(timeout=WAIT)
    seen.go_on.release()
    assert seen.begun.acquire(timeout=WAIT)
    seen.go_on.release()
    seen.overlays.stop()
    assert [stamp - START for stamp, _, _ in seen.pictures] == [0, 4]
    assert seen.errors == []


def test_every_camera_gets_its_picture_and_it_shows_voxels(result):
    seen = Seen()
    seen.go_on.release(2)
    seen.overlays.submit(*result, None, CAMERAS)
    assert seen.begun.acquire(timeout=WAIT)
    assert seen.begun.acquire(timeout=WAIT)
    seen.overlays.stop()
    assert [camera for _, camera, _ in seen.pictures] == list(CAMERAS)
    calibration = rig(176, 99)
    for _, camera, pixels in seen.pictures:
        plain = draw(calibration[camera], START, street())
        assert pixels.shape == plain.shape
        assert np.abs(pixels.astype(int) - plain).mean() > 5.0


def test_stopping_leaves_out_what_waits_and_it_can_go_on_later(result):
    seen = Seen()
    seen.overlays.submit(*at(result, 0), None, ("cam_front",))
    assert seen.begun.acquire(timeout=WAIT)
    seen.overlays.submit(*at(result, 1), None, ("cam_front",))
    stopping = threading.Thread(target=seen.overlays.stop)
    stopping.start()
    seen.go_on.release(2)
    stopping.join(WAIT)
    drawn = len(seen.pictures)  # the second may have begun before it was stopped
    seen.overlays.submit(*at(result, 2), None, ("cam_front",))
    seen.go_on.release()
    for _ in range(drawn):
        assert seen.begun.acquire(timeout=WAIT)
    seen.overlays.stop()
    assert seen.pictures[-1][0] == START + 2


def test_an_image_that_cannot_be_drawn_into_costs_only_its_own_picture(result):
    seen = Seen()
    frame, occupancy = result
    damaged = dataclasses.replace(frame.images["cam_front"], data=b"no image")
    frame = dataclasses.replace(frame, images={**frame.images, "cam_front": damaged})
    seen.go_on.release()
    seen.overlays.submit(frame, occupancy, None, CAMERAS)
    assert seen.begun.acquire(timeout=WAIT)
    seen.overlays.stop()
    assert [camera for _, camera, _ in seen.pictures] == ["cam_back"]
    assert "ImageError" in seen.errors[0]
