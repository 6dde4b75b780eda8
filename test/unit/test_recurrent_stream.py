# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Whole streams through whole networks, images to labels: what ends a memory ends all of it, of
recurrent networks as of the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from small_networks import GRID, network_of, small

from alocc_ros.bags.sample import rig
from alocc_ros.geometry import pose_matrix
from alocc_ros.pipeline import Pipeline
from alocc_ros.records import find
from alocc_ros.stream.keyframes import BACKWARD_STAMP, CALIBRATION, GAP, MANUAL, TELEPORT
from alocc_ros.types import CAMERAS, CameraImage, FrameSet, Occupancy

NAMES = ("alocc_3d_gf", "alocc_tiny_gf", "alocc_flow_3d")


def pipeline_of(name: str) -> Pipeline:
    record = replace(find(name), grid=GRID, input_size=small(name).input_size)
    return Pipeline(network_of(small(name)), record, confidence=True)


def frame(
    seconds: float,
    x: float,
    seed: int,
    without: Sequence[str] = (),
    focal: float = 1.0,
) -> FrameSet:
    """Six images of noise, the vehicle ``x`` m along its road."""
    stamp, random = round(seconds * 1e9), np.random.default_rng(seed)
    pixels = {c: random.integers(0, 256, (90, 160, 3), np.uint8) for c in CAMERAS}
    cameras = rig(160, 90)
    if focal != 1.0:
        scale = np.diag([focal, focal, 1.0])
        cameras = {c: replace(k, intrinsics=scale @ k.intrinsics) for c, k in cameras.items()}
    at = pose_matrix((x, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0))
    return FrameSet(
        stamp=stamp,
        images={c: CameraImage(c, stamp, pixels[c], "rgb8") for c in CAMERAS if c not in without},
        missing=dict.fromkeys(without, "no image"),
        calibration=cameras,
        map_T_base=at,
        map_T_base_at=dict.fromkeys(CAMERAS, at),
        map_frame="map",
        base_frame="base_link",
    )


def drive(first: float = 0.0, x: float = 0.0, **options) -> list[FrameSet]:
    """Four frames at 4 Hz: every other one is a key frame."""
    return [frame(first + 0.25 * k, x + 1.5 * k, seed=k, **options) for k in range(4)]


def equal(a: Occupancy, b: Occupancy) -> bool:
    flows = a.flow is None or np.array_equal(a.flow, b.flow)
    same = np.array_equal(a.confidence, b.confidence)
    return flows and same and np.array_equal(a.labels, b.labels)


def held(pipeline: Pipeline) -> dict[str, torch.Tensor]:
    return {n: t.clone() for n, t in pipeline.state.remembered.items()}


RESETS = {
    # A bag that loops, as it stands or with a clock that goes on; a pause; other cameras; a wish.
    BACKWARD_STAMP: {"first": 0.0},
    TELEPORT: {"first": 2.0, "x": -500.0},
    GAP: {"first": 60.0, "x": 6.0},
    CALIBRATION: {"first": 2.0, "x": 6.0, "focal": 1.1},
    MANUAL: {"first": 2.0, "x": 6.0},
}


@pytest.mark.parametrize("name", NAMES)
def test_after_a_reset_a_stream_is_a_new_one(name):
    used = pipeline_of(name)
    for reason, options in RESETS.items():
        for one in drive():
            used.step(one)
        if reason == MANUAL:
            used.reset()
        new = pipeline_of(name)
        after = [(used.step(f), new.step(f)) for f in drive(**options)]
        assert after[0][0].reset == reason and not after[1][0].reset
        assert all(equal(a, b) for a, b in after), reason
        ours, theirs = held(used), held(new)
        assert ours.keys() == theirs.keys() and ours
        assert all(torch.equal(ours[n], theirs[n]) for n in ours), reason
        assert torch.equal(used.state.ages, new.state.ages)
        used.reset()


@pytest.mark.parametrize("name", NAMES)
def test_without_the_reset_the_memory_would_tell(name):
    used, new = pipeline_of(name), pipeline_of(name)
    for one in drive():
        used.step(one)
    ours, theirs = (p.step(frame(1.0, 6.0, seed=9)) for p in (used, new))
    assert not ours.reset and not equal(ours, theirs)


@pytest.mark.parametrize("name", NAMES)
def test_a_camera_that_dies_and_returns_leaves_a_stream_of_numbers(name):
    dead = ("cam_back", "cam_front_left")
    pipeline = pipeline_of(name)
    frames = drive()
    for k in (2, 3):  # a key frame and one between
        frames[k] = frame(0.25 * k, 1.5 * k, seed=k, without=dead)
    answers = [pipeline.step(f) for f in frames]
    assert [bool(a.degraded) for a in answers] == [k in (2, 3) for k in range(4)]
    assert all(np.isfinite(a.confidence).all() for a in answers)
    assert all(t.isfinite().all() for t in held(pipeline).values())
    whole = pipeline_of(name)
    others = [whole.step(f) for f in drive()]
    assert [equal(a, b) for a, b in zip(answers, others, strict=True)] == [True] * 2 + [False] * 2


@pytest.mark.parametrize("name", NAMES)
def test_a_stream_without_any_image_ends_with_numbers_too(name):
    pipeline = pipeline_of(name)
    answers = [pipeline.step(frame(0.5 * k, k, seed=k, without=CAMERAS)) for k in range(3)]
    answers.append(pipeline.step(frame(1.5, 3.0, seed=3)))
    assert all(np.isfinite(a.confidence).all() for a in answers)
    assert all(t.isfinite().all() for t in held(pipeline).values())
