# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""The thread in which the work is done, with a real network of few channels; no ROS needed."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import tiny_node
import torch

from alocc_ros.bags.sample import START, draw, ego_pose, jpeg, rig, street
from alocc_ros.errors import CalibrationError, PoseError
from alocc_ros.network.model import Alocc
from alocc_ros.pipeline import Pipeline
from alocc_ros.ros.worker import STAGES, Worker
from alocc_ros.stream.skips import Skips
from alocc_ros.types import CAMERAS, Calibration, CameraImage, CameraSet, FrameSet, Occupancy

WAIT = 60.0  # s
RIG = rig(176, 99)
STEP = 500_000_000  # ns


@pytest.fixture(scope="module")
def images() -> dict[str, CameraImage]:
    pictures = {c: jpeg(draw(RIG[c], START, street())) for c in CAMERAS}
    return {c: CameraImage(c, START, data, "jpeg") for c, data in pictures.items()}


class Bench:
    """A worker, what it published, and a gate before the network."""

    def __init__(self, early: bool = False) -> None:
        torch.manual_seed(0)
        network = Alocc(tiny_node.VARIANT).eval()
        self.pipeline = Pipeline(network, tiny_node.RECORD, random_weights=True, early=early)
        self.results: list[tuple[FrameSet, Occupancy]] = []
        self.errors: list[str] = []
        self.asked: list[int] = []
        self.skips = Skips()
        self.begun, self.gate = threading.Semaphore(0), threading.Event()
        self.knows: Callable[[int], bool] = lambda stamp: stamp >= 0
        self.known = set(CAMERAS)
        self.gate.set()
        self.worker = Worker(
            self.pipeline,
            self._frame,
            lambda *result: self.results.append(result),
            now=lambda: START + STEP,
            report_error=self.errors.append,
            skips=self.skips,
            calibrate=self._calibration if early else None,
            foresee=self._foresee,
        )

    def _calibration(self, image: CameraImage) -> Calibration:
        if image.camera not in self.known:
            raise CalibrationError(f"{image.camera}: not known yet")
        return RIG[image.camera]

    def _foresee(self, stamp: int) -> FrameSet:
        self.asked.append(stamp)
        if not self.knows(stamp):
            raise PoseError("it is not there yet")
        return FrameSet(stamp, {}, {}, ego_pose(stamp), {})

    def _frame(self, camera_set: CameraSet) -> FrameSet:
        self.begun.release()
        assert self.gate.wait(WAIT)
        if not self.knows(camera_set.stamp):
            raise PoseError("nobody knows where that was")
        pose = ego_pose(camera_set.stamp)
        return FrameSet(
            stamp=camera_set.stamp,
            images=camera_set.images,
            calibration=RIG,
            map_T_base=pose,
            map_T_base_at=dict.fromkeys(camera_set.images, pose),
            missing=camera_set.missing,
        )

    def until(self, holds: Callable[[], bool]) -> None:
        end = time.monotonic() + WAIT
        while not holds():
            assert time.monotonic() < end, self.worker.statistics
            time.sleep(0.005)

    def idle(self) -> None:
        """Waits until all that was submitted is accounted for."""
        self.until(lambda: self.worker.statistics.submitted == accounted(self.worker))


def accounted(worker: Worker) -> int:
    s = worker.statistics
    return s.processed + s.superseded + s.ignored + sum(s.failed.values())


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.gate.set()
    assert made.worker.stop()


def a_set(images: dict[str, CameraImage], number: int = 0) -> CameraSet:
    stamp = START + number * STEP
    return CameraSet(stamp, {c: dataclasses.replace(i, stamp=stamp) for c, i in images.items()})


def test_a_newer_set_takes_the_place_of_one_that_waits(bench, images):
    bench.gate.clear()
    bench.worker.submit(a_set(images, 0))
    assert bench.begun.acquire(timeout=WAIT)
    for number in (1, 2, 3):
        bench.worker.submit(a_set(images, number))
    assert bench.worker.statistics.waiting
    bench.gate.set()
    bench.idle()
    assert [frame.stamp for frame, _ in bench.results] == [START, START + 3 * STEP]
    statistics = bench.worker.statistics
    assert (statistics.submitted, statistics.processed, statistics.superseded) == (4, 2, 2)
    assert set(statistics.stages) == {name for name, _ in STAGES}
    assert statistics.latencies == [0.5, -1.0]


def test_a_damaged_image_counts_as_missing_and_is_named(bench, images):
    broken = dataclasses.replace(images["cam_back"], data=images["cam_back"].data[:400])
    bench.worker.submit(a_set({**images, "cam_back": broken}))
    bench.idle()
    ((frame, occupancy),) = bench.results
    assert set(frame.missing) == {"cam_back"}
    assert "cam_back" not in frame.images
    assert "cam_back" in occupancy.degraded
    assert bench.skips.counts == {"cam_back: image cannot be decoded": 1}
    assert bench.errors == []


def test_a_set_that_fails_is_counted_told_and_does_not_end_the_work(bench, images):
    bench.worker.submit(CameraSet(-1, images))
    bench.idle()
    assert bench.worker.statistics.failed == {"PoseError": 1}
    assert bench.errors == ["nobody knows where that was"]
    bench.worker.submit(a_set(images))
    bench.idle()
    assert len(bench.results) == 1
    assert bench.worker.statistics.last_failure == ""


def test_what_is_submitted_while_it_is_disabled_is_ignored_and_counted(bench, images):
    bench.worker.enabled = False
    bench.worker.submit(a_set(images))
    bench.worker.enabled = True
    bench.worker.submit(a_set(images, 1))
    bench.idle()
    assert [frame.stamp for frame, _ in bench.results] == [START + STEP]
    assert bench.worker.statistics.ignored == 1


def test_a_reset_forgets_the_past_and_what_waits(bench, images):
    for number in (0, 1):
        bench.worker.submit(a_set(images, number))
        bench.idle()
    bench.worker.reset()
    bench.worker.submit(a_set(images, 2))
    bench.idle()
    resets = [occupancy.reset for _, occupancy in bench.results]
    assert resets[0] and not resets[1] and resets[2]


def test_a_set_of_the_last_lap_of_a_loop_is_no_error(bench, images):
    """Its poses are forgotten already; what comes is a lap earlier."""
    lost = dataclasses.replace(a_set(images), stamp=START + 20 * STEP)
    bench.knows = lambda stamp: stamp < START + 10 * STEP
    bench.gate.clear()
    bench.worker.submit(lost)
    assert bench.begun.acquire(timeout=WAIT)
    bench.worker.submit(a_set(images, 1))
    bench.gate.set()
    bench.idle()
    assert bench.errors == [] and [f.stamp for f, _ in bench.results] == [START + STEP]
    statistics = bench.worker.statistics
    assert (statistics.ignored, statistics.failed) == (1, {})


@pytest.fixture
def early_bench() -> Iterator[Bench]:
    made = Bench(early=True)
    yield made
    made.gate.set()
    assert made.worker.stop()


def offer_all(bench: Bench, camera_set: CameraSet, but: str = "") -> None:
    """Each image when the one before is done with."""
    for camera, image in camera_set.images.items():
        if camera != but:
            bench.worker.offer(image)
            bench.until(lambda camera=camera: is_seen(bench, camera))


def is_seen(bench: Bench, camera: str) -> bool:
    key = bench.pipeline.state.seen_of.get(CAMERAS.index(camera))
    return key is not None


def test_images_that_came_early_give_what_they_give_in_their_set(early_bench, bench, images):
    for number in range(3):
        one = a_set(images, number)
        bench.worker.submit(one)
        offer_all(early_bench, one, but="cam_back")
        early_bench.worker.submit(one)
        early_bench.worker.offer(one.images["cam_back"])  # as it comes after the set it closed
        bench.idle()
        early_bench.idle()
    for (_, ours), (_, theirs) in zip(early_bench.results, bench.results, strict=True):
        np.testing.assert_array_equal(ours.labels, theirs.labels)
        np.testing.assert_array_equal(ours.flow, theirs.flow)
    statistics = early_bench.worker.statistics
    none = {"superseded": 0, "left": 0, "recalled": 0}
    assert statistics.early == {"decoded": 15, "seen": 15, **none}
    assert all(seconds > 0.0 for seconds in statistics.stages["early"])
    plain = bench.worker.statistics
    assert plain.early == {} and plain.stages["early"] == [0.0] * 3


def test_the_sum_over_the_past_is_made_when_stamp_and_pose_of_the_set_are_known(
    early_bench, bench, images
):
    state, worker = early_bench.pipeline.state, early_bench.worker

    def offer(one: CameraSet, camera: str) -> None:
        asked = len(early_bench.asked)
        worker.offer(one.images[camera], one.stamp)
        early_bench.until(lambda: len(early_bench.asked) > asked and is_seen(early_bench, camera))

    def submit(one: CameraSet) -> int:
        for each in (early_bench, bench):
            each.worker.submit(one)
            each.idle()
        (_, ours), (_, theirs) = early_bench.results[-1], bench.results[-1]
        np.testing.assert_array_equal(ours.labels, theirs.labels)
        np.testing.assert_array_equal(ours.flow, theirs.flow)
        return worker.statistics.early["recalled"]

    assert submit(a_set(images, 0)) == 0
    one, early_bench.knows = a_set(images, 1), lambda stamp: False
    offer(one, "cam_front")
    assert state.recalled_of is None
    early_bench.knows = lambda stamp: True  # between two images
    offer(one, "cam_front_left")
    made = state.recalled_of
    assert made is not None
    offer(one, "cam_front_right")
    assert state.recalled_of is made, "once is enough"
    assert submit(one) == 1
    offer(a_set(images, 2), "cam_front")  # which is lost
    assert state.recalled_of is not None
    assert submit(a_set(images, 3)) == 1
    assert early_bench.errors == [] and worker.statistics.early["left"] == 0


def test_a_set_goes_before_images_and_of_these_the_newest(early_bench, images):
    early_bench.gate.clear()
    early_bench.worker.submit(a_set(images, 0))
    assert early_bench.begun.acquire(timeout=WAIT)
    for number in (1, 2, 3):  # nothing is done with them while the network is at a set
        for image in a_set(images, number).images.values():
            early_bench.worker.offer(image, image.stamp)
    assert early_bench.worker.statistics.early["superseded"] == 12
    early_bench.worker.submit(a_set(images, 2))  # older than what waits
    early_bench.worker.submit(a_set(images, 3))
    assert early_bench.worker.statistics.early["superseded"] == 18
    early_bench.gate.set()
    early_bench.idle()
    assert early_bench.worker.statistics.early["decoded"] == 0
    assert early_bench.asked == []
    assert [frame.stamp for frame, _ in early_bench.results] == [START, START + 3 * STEP]


def test_what_cannot_be_done_early_is_left_to_its_set_which_counts_it_once(early_bench, images):
    broken = dataclasses.replace(images["cam_back"], data=images["cam_back"].data[:400])
    early_bench.known.discard("cam_front")
    one = a_set({**images, "cam_back": broken})
    for image in one.images.values():
        early_bench.worker.offer(image)
    early_bench.until(lambda: early_bench.worker.statistics.early["left"] == 2)
    early_bench.until(lambda: all(is_seen(early_bench, c) for c in CAMERAS[:1] + CAMERAS[2:4]))
    early_bench.worker.submit(one)
    early_bench.idle()
    ((frame, _),) = early_bench.results
    assert set(frame.missing) == {"cam_back"}
    assert early_bench.skips.counts == {"cam_back: image cannot be decoded": 1}
    assert early_bench.errors == [] and early_bench.worker.statistics.failed == {}
    assert early_bench.worker.statistics.early["left"] == 2


def test_a_defect_ends_early_work_and_not_that_on_sets(early_bench, images):
    del early_bench.known  # an AttributeError in the thread
    early_bench.worker.offer(images["cam_front"])
    early_bench.until(lambda: bool(early_bench.errors))
    assert early_bench.errors[0].startswith("from now on nothing is done ahead of sets: Traceback")
    for number in (0, 1):
        for image in a_set(images, number).images.values():
            early_bench.worker.offer(image)
        early_bench.worker.submit(a_set(images, number))
        early_bench.idle()
    assert len(early_bench.results) == 2 and len(early_bench.errors) == 1


def test_a_reset_and_the_end_let_early_images_go(early_bench, images):
    early_bench.gate.clear()
    early_bench.worker.submit(a_set(images, 0))
    assert early_bench.begun.acquire(timeout=WAIT)
    next_one = dataclasses.replace(images["cam_front"], stamp=START + STEP)
    early_bench.worker.offer(next_one, next_one.stamp)
    early_bench.worker.reset()
    early_bench.worker.enabled = False
    early_bench.worker.offer(dataclasses.replace(images["cam_back"], stamp=START + STEP))
    early_bench.gate.set()
    early_bench.idle()
    assert early_bench.worker.statistics.early == {
        **{"decoded": 0, "seen": 0, "left": 0, "recalled": 0},
        "superseded": 1,
    }
    assert early_bench.asked == []
