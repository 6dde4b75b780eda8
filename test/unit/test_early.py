# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Images that are decoded and seen before their frame: the same results, and nothing is mixed up;
several streams in one process.
"""

from __future__ import annotations

import gc
import threading
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch
from small_networks import GRID, NETWORK_TOLERANCE, network_of, small

from alocc_ros.bags.sample import rig
from alocc_ros.bench.scene import example_frame
from alocc_ros.errors import (
    CalibrationError,
    DeviceError,
    ImageError,
    ModelError,
    TemporalMemoryError,
)
from alocc_ros.geometry import pose_matrix
from alocc_ros.pipeline import Pipeline
from alocc_ros.records import find
from alocc_ros.runtime.graph import GraphRunner
from alocc_ros.runtime.precision import inference
from alocc_ros.runtime.runner import CompiledRunner, EagerRunner, make_runner
from alocc_ros.types import CAMERAS, CameraImage, FrameSet, Occupancy

# One of each way to fuse in time; with stereo and without, with flow and without.
KINDS = ("alocc_flow_2d", "alocc_3d_gf")
RIG = rig(160, 90)


def pipeline_of(name: str, **options) -> Pipeline:
    record = replace(find(name), grid=GRID, input_size=small(name).input_size)
    return Pipeline(network_of(small(name)), record, confidence=True, **options)


def image(camera: str, seconds: float, seed: int) -> CameraImage:
    pixels = np.random.default_rng(seed).integers(0, 256, (90, 160, 3), np.uint8)
    return CameraImage(camera, round(seconds * 1e9), pixels, "rgb8")


def frame(number: int, without: tuple[str, ...] = ()) -> FrameSet:
    """Frames at 4 Hz: every other one is a key frame."""
    at = pose_matrix((1.5 * number, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0))
    images = {c: image(c, 1.0 + 0.25 * number, 10 * number + i) for i, c in enumerate(CAMERAS)}
    return FrameSet(
        stamp=round((1.0 + 0.25 * number) * 1e9),
        images={c: taken for c, taken in images.items() if c not in without},
        missing=dict.fromkeys(without, "no image"),
        calibration=RIG,
        map_T_base=at,
        map_T_base_at=dict.fromkeys(CAMERAS, at),
    )


def see(pipeline: Pipeline, taken: CameraImage) -> None:
    pipeline.images.see(pipeline.images.begin(taken, RIG[taken.camera]))


def assert_equal(ours: Occupancy, plain: Occupancy) -> None:
    np.testing.assert_array_equal(ours.confidence, plain.confidence)
    np.testing.assert_array_equal(ours.labels, plain.labels)
    assert (ours.flow is None) == (plain.flow is None)
    assert ours.flow is None or np.array_equal(ours.flow, plain.flow)
    assert (ours.degraded, ours.reset) == (plain.degraded, plain.reset)


@pytest.mark.parametrize("name", KINDS)
def test_whatever_happens_to_the_images_results_are_those_without(name):
    early, plain = pipeline_of(name, early=True), pipeline_of(name)

    def both(one: FrameSet) -> dict[str, int]:
        before = early.images.done.copy()
        assert_equal(early.step(one), plain.step(one))
        assert not early.images.waiting, "all were in the frame, or are older"
        return dict(early.images.done - before)

    one = frame(0)  # all of them
    for taken in one.images.values():
        see(early, taken)
    assert both(one) == {"decoded": 6, "seen": 6}
    assert both(frame(1)) == {}  # none
    one = frame(2)  # some, and of one only the pixels
    see(early, one.images["cam_front"])
    see(early, one.images["cam_back"])
    early.images.begin(one.images["cam_back_left"], RIG["cam_back_left"])
    assert both(one) == {"decoded": 3, "seen": 2}
    one = frame(3, without=("cam_front", "cam_back_right"))  # cameras die; what came is dropped
    see(early, image("cam_front", 1.7, 77))
    for taken in one.images.values():
        see(early, taken)
    assert_equal(early.step(one), plain.step(one))
    assert [left.camera for left in early.images.waiting] == ["cam_front"]
    one = frame(4)  # and come back; one image is seen, but a newer one takes its place in the set
    see(early, image("cam_back", 1.9, 78))
    for taken in one.images.values():
        see(early, taken)
    assert both(one) == {"decoded": 6, "seen": 6}
    one = frame(5)  # a newer image is seen before the set with the older one is whole
    for taken in one.images.values():
        see(early, taken)
    newer = frame(6).images["cam_front"]
    see(early, newer)
    assert_equal(early.step(one), plain.step(one))
    assert early.images.waiting == [newer]
    one = replace(frame(6), images={**frame(6).images, "cam_front": newer})
    assert both(one) == {"decoded": 1}  # its features had to go, its pixels are there
    one = frame(7)  # another image with the same stamp, and a camera with another calibration
    see(early, image("cam_front", 2.75, 79))
    see(early, one.images["cam_back"])
    see(early, one.images["cam_front_left"])
    turned = replace(RIG["cam_back"], intrinsics=RIG["cam_back"].intrinsics * [[1.1], [1.1], [1]])
    assert both(replace(one, calibration={**RIG, "cam_back": turned})) == {"decoded": 1, "seen": 1}


def test_whatever_comes_after_the_sum_results_are_those_without():
    early, plain = pipeline_of("alocc_2d_mini", early=True), pipeline_of("alocc_2d_mini")

    def both(one: FrameSet, foreseen: FrameSet | None = None) -> bool:
        """Whether the frame started from the sum; nothing of another frame's may show."""
        foreseen, before = one if foreseen is None else foreseen, early.state.recalled_frames
        early.recall(replace(foreseen, images={}, map_T_base_at={}, calibration={}))
        assert_equal(early.step(one), plain.step(one))
        for name, part in early.state.remembered.items():
            assert torch.equal(part, plain.state.remembered[name]), name
        assert early.keyframes.resets == plain.keyframes.resets, "looking ahead resets nothing"
        return early.state.recalled_frames > before

    def moved(one: FrameSet, metres: float) -> FrameSet:
        return replace(one, map_T_base=pose_matrix((metres, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0)))

    assert not both(frame(0)), "without a past there is no sum"
    assert [both(frame(n)) for n in (1, 2, 3, 4)] == [True] * 4
    assert not both(frame(5), moved(frame(5), 7.6)), "its pose was not known as well"
    assert not both(frame(6), frame(5)), "the set before was foreseen, and never came"
    assert not both(frame(7), replace(frame(7), stamp=frame(7).stamp + 10**7)), "its stamp"
    assert not both(moved(frame(8), 400.0), frame(8)), "it jumped"
    assert not early.recall(frame(20)), "after such a gap nothing is remembered"
    assert both(moved(frame(9), 401.0)) and both(moved(frame(10), 402.0))
    turned = replace(RIG["cam_back"], intrinsics=RIG["cam_back"].intrinsics * [[1.1], [1.1], [1]])
    other_rig = replace(moved(frame(11), 403.0), calibration={**RIG, "cam_back": turned})
    assert not both(other_rig, moved(frame(11), 403.0)), "another rig"
    early.recall(other_rig := replace(other_rig, stamp=frame(12).stamp))
    for pipeline in (early, plain):
        pipeline.reset()
    before = early.state.recalled_frames
    assert_equal(early.step(other_rig), plain.step(other_rig))
    assert early.state.recalled_frames == before, "reset on request"


def test_a_sum_outlives_a_damaged_image():
    early, plain = pipeline_of("alocc_2d_mini", early=True), pipeline_of("alocc_2d_mini")
    for pipeline in (early, plain):
        pipeline.step(frame(0))
    damaged = CameraImage("cam_back", frame(2).stamp, b"xyz", "jpeg")
    one = replace(frame(2), images={**frame(2).images, "cam_back": damaged})
    assert early.recall(one)
    with pytest.raises(ImageError):
        early.step(one)
    one = frame(2, without=("cam_back",))
    assert_equal(early.step(one), plain.step(one))
    assert early.state.recalled_frames == 1


def test_a_frame_that_fails_leaves_nothing_behind_that_is_wrong():
    early, plain = pipeline_of("alocc_2d_mini", early=True), pipeline_of("alocc_2d_mini")
    damaged = CameraImage("cam_back", 10**9, b"xyz", "jpeg")
    one = replace(frame(0), images={**frame(0).images, "cam_back": damaged})
    for taken in one.images.values():
        if taken is not damaged:
            see(early, taken)
    with pytest.raises(ImageError, match="cam_back: 3 bytes that are no JPEG"):
        see(early, damaged)
    with pytest.raises(ImageError, match="cam_back: 3 bytes that are no JPEG"):
        early.step(one)
    assert early.images.done == {}
    # What is tried next is without it, and need not begin anew.
    rest = {c: taken for c, taken in one.images.items() if taken is not damaged}
    one = replace(one, images=rest, missing={"cam_back": "damaged"})
    assert_equal(early.step(one), plain.step(one))
    assert early.images.done == {"decoded": 5, "seen": 5}
    one = frame(1)
    for taken in one.images.values():
        see(early, taken)
    nowhere = replace(one, calibration={c: k for c, k in RIG.items() if c != "cam_front"})
    with pytest.raises(CalibrationError):
        early.step(nowhere)
    assert not early.state.has_seen(0, one.images["cam_front_left"])
    assert_equal(early.step(frame(2)), plain.step(frame(2)))


def test_images_that_no_frame_wants_are_let_go():
    pipeline = pipeline_of("alocc_2d_mini", early=True)
    offered = []
    for number in range(6):
        for taken in frame(number).images.values():
            offered.append(weakref.ref(taken))
            see(pipeline, taken)
    del taken
    gc.collect()
    assert sum(one() is not None for one in offered) == 2 * len(CAMERAS)
    pipeline.step(frame(7))
    gc.collect()
    assert not any(one() for one in offered)
    with pytest.raises(CalibrationError, match="cam_roof: the network has no place"):
        pipeline.images.begin(image("cam_roof", 1.0, 0), RIG["cam_front"])


@pytest.mark.parametrize("backend", ["eager", "reference", "emulated"])
def test_a_frame_of_what_was_seen_is_the_whole_frame(backend):
    """A convolution of one image may add up in another order than that of six."""
    network = network_of(small("alocc_flow_2d"))
    runner, seen = make_runner(network, backend), {i: object() for i in (0, 2, 3, 5)}
    states = runner.new_state(early=True), runner.new_state()
    for t in range(3):
        one = example_frame(network.variant, seed=t)
        for camera, key in seen.items():
            runner.see(one.images[camera : camera + 1], states[0], camera, key)
        plan = one.plan(states[0].ages if t else None, slot=t % 2)
        early = runner.step(one.images[[1, 4]], plan, states[0], seen=seen).logits.clone()
        whole = runner.step(one.images, plan, states[1]).logits
        if backend == "eager":
            assert torch.equal(early, whole)
        tolerance = {"reference": NETWORK_TOLERANCE, "emulated": 5e-3}.get(backend, 0.0)
        assert (early - whole).abs().max() <= tolerance * whole.abs().max()


@pytest.mark.parametrize("backend", ["eager", "emulated"])
def test_features_serve_only_the_image_that_they_are_of(backend):
    network = network_of(small("alocc_2d_mini"))
    runner, key = make_runner(network, backend), object()
    state, one = runner.new_state(early=True), example_frame(network.variant)
    plan, images = one.plan(None), one.images
    with pytest.raises(TemporalMemoryError, match="camera 1 was not seen"):
        runner.step(images[[0, 2, 3, 4, 5]], plan, state, seen={1: key})
    runner.see(images[1:2], state, 1, key)
    with pytest.raises(TemporalMemoryError, match="camera 1 was not seen, or another image"):
        runner.step(images[[0, 2, 3, 4, 5]], plan, state, seen={1: object()})
    with pytest.raises(ModelError, match="6 images but 6 cameras, 1 seen before"):
        runner.step(images, plan, state, seen={1: key})
    with pytest.raises((ModelError, RuntimeError)):
        runner.see(images[1:2, :, :32], state, 1, object())
    assert not state.has_seen(1, key)
    runner.see(images[1:2], state, 1, key)
    state.reset()
    assert not state.has_seen(1, key)
    assert not state.begun


def test_what_has_a_graph_of_a_fixed_size_sees_all_images_at_once():
    runner = make_runner(network_of(small("alocc_2d_mini")), "emulated")
    assert runner.sees and runner.concurrent
    image = example_frame(small("alocc_2d_mini")).images[:1]
    for whole, words, concurrent in (
        (GraphRunner(runner.core, runner.core, "fp16", "tensorrt"), "tensorrt in fp16", False),
        (CompiledRunner(runner.core), "compiled in fp32", False),
        (EagerRunner(runner.core, "eager", "int8"), "eager in int8", True),
    ):
        assert (whole.sees, whole.concurrent) == (False, concurrent)
        with pytest.raises(DeviceError, match=f"{words} sees all images at once"):
            whole.see(image, whole.new_state(), 0, object())


def test_images_are_only_decoded_early_where_they_are_seen_at_once():
    early, plain = pipeline_of("alocc_2d_mini", early=True), pipeline_of("alocc_2d_mini")
    early.runner.sees = False
    for taken in (one := frame(0)).images.values():
        see(early, taken)
    assert_equal(early.step(one), plain.step(one))
    assert early.images.done == {"decoded": 6, "seen": 0}


@pytest.mark.parametrize("backend", ["eager", "emulated"])
def test_streams_of_two_rigs_in_two_threads_are_what_each_is_alone(backend):
    alone = [pipeline_of("alocc_flow_2d", backend=backend) for _ in range(2)]
    drives = [[frame(n) for n in range(3)], [frame(n + 10) for n in range(3)]]
    expected = [[p.step(f) for f in drive] for p, drive in zip(alone, drives, strict=True)]
    first = pipeline_of("alocc_flow_2d", backend=backend, early=True)
    second = first.beside(early=False)
    assert second.runner is first.runner and second.state is not first.state
    results: list[list[Occupancy]] = [[], []]
    start = threading.Barrier(2)

    def run(i: int, pipeline: Pipeline) -> None:
        start.wait(30.0)
        for one in drives[i]:
            if pipeline.early and backend == "eager":
                see(pipeline, one.images["cam_back"])
            results[i].append(pipeline.step(one))

    threads = [threading.Thread(target=run, args=a) for a in enumerate((first, second))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for ours, theirs in zip(results, expected, strict=True):
        for one, other in zip(ours, theirs, strict=True):
            assert_equal(one, other)


def test_threads_of_one_precision_run_together_and_others_wait():
    allowed = [b.allow_tf32 for b in (torch.backends.cudnn, torch.backends.cuda.matmul)]
    order, inside, leave = [], threading.Event(), threading.Event()

    def rounded() -> None:
        inside.wait(30.0)
        with inference("tf32"):
            order.append(("tf32", torch.backends.cudnn.allow_tf32))

    def exact() -> None:
        inside.wait(30.0)
        with inference("fp16"):
            order.append(("fp16", torch.backends.cudnn.allow_tf32))
        leave.set()

    threads = [threading.Thread(target=one) for one in (rounded, exact)]
    for thread in threads:
        thread.start()
    with inference("fp32"):
        inside.set()
        assert leave.wait(30.0)
        with inference("fp32"):
            order.append(("fp32", torch.backends.cudnn.allow_tf32))
        with pytest.raises(RuntimeError, match="one precision within another"):
            inference("tf32").__enter__()
    for thread in threads:
        thread.join()
    assert order == [("fp16", False), ("fp32", False), ("tf32", True)]
    assert [b.allow_tf32 for b in (torch.backends.cudnn, torch.backends.cuda.matmul)] == allowed
