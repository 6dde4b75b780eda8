# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Sequences of key frames: order, halves, what came before, and how the vehicle moved."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from nuscenes_tables import small_nuscenes

from alocc_ros.bags.sample import ego_pose
from alocc_ros.datasets.nuscenes import NuScenes
from alocc_ros.datasets.sequences import half_scenes, steps, whole_scenes


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    return NuScenes(small_nuscenes(tmp_path_factory.mktemp("nuscenes"), samples=5)).samples


def test_a_scene_is_one_sequence_outside_training_and_two_in_it(samples):
    assert whole_scenes(samples) == [(0, 1, 2, 3, 4), (5, 6, 7, 8, 9)]
    assert half_scenes(samples) == [(0, 1, 2), (3, 4), (5, 6, 7), (8, 9)]
    assert half_scenes(samples[:1]) == [(0,)]


def test_memories_begin_with_sequences_and_images_are_compared_within_scenes(samples):
    found = [step for sequence in steps(samples, half_scenes(samples)) for step in sequence]
    assert [s.index for s in found] == list(range(10))
    assert [s.index for s in found if s.start] == [0, 3, 5, 8]
    assert [s.adjacent for s in found] == [0, 0, 1, 2, 3, 5, 5, 6, 7, 8]


def test_memories_move_as_the_vehicle_did_between_the_lidar_stamps(samples):
    for sequence in steps(samples, whole_scenes(samples)):
        np.testing.assert_array_equal(sequence[0].previous_T_current, np.eye(4))
        for before, step in zip(sequence, sequence[1:], strict=False):
            earlier, later = (ego_pose(samples[s.index].stamp) for s in (before, step))
            expected = np.linalg.inv(earlier) @ later
            assert step.previous_T_current.dtype == np.float32
            np.testing.assert_allclose(step.previous_T_current, expected, atol=1e-6)
            assert step.previous_T_current[0, 3] > 2  # metres ahead


def test_scenes_recorded_at_the_same_time_are_not_mixed_up(samples):
    shift = samples[5].stamp - samples[0].stamp - 250_000_000
    mixed = [s if s.scene_name != samples[5].scene_name else replace(s, stamp=s.stamp - shift)
             for s in samples]  # fmt: skip
    mixed.sort(key=lambda s: s.stamp)
    assert whole_scenes(mixed) == [(0, 2, 4, 6, 8), (1, 3, 5, 7, 9)]
    assert [s.adjacent for s in steps(mixed, whole_scenes(mixed))[1]] == [1, 1, 3, 5, 7]
