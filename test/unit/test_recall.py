# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""The sum over what is remembered, made ahead of its frame: the same results, never a stale one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import pytest
import torch
from small_networks import network_of, small
from torch import Tensor

from alocc_ros.bench.scene import example_frame
from alocc_ros.errors import DeviceError, ModelError, TemporalMemoryError
from alocc_ros.grid import VoxelGrid
from alocc_ros.network.plan import FramePlan
from alocc_ros.runtime.graph import Entry, GraphRunner, Sum
from alocc_ros.runtime.runner import CompiledRunner, Runner, make_runner
from alocc_ros.runtime.state import StreamState

# A history in the plane and one in space; with a backend that calls, and one with fixed buffers.
WAYS = (("eager", "alocc_2d_mini"), ("eager", "alocc_3d"), ("emulated", "alocc_2d_mini"))
SEEN = {0: "an image's key"}  # of streams whose images are seen one by one


@cache
def runner_of(backend: str, name: str) -> Runner:
    grid = VoxelGrid(lower=(-8.0, -8.0, -1.0), shape=(20, 20, 8), resolution=0.8)
    variant = small(name)
    lift_grid = None if variant.lift_grid is None else grid
    return make_runner(network_of(replace(variant, grid=grid, lift_grid=lift_grid)), backend)


class Pair:
    """One stream with sums ahead and one without, through the same runner."""

    def __init__(self, backend: str, name: str) -> None:
        self.runner = runner_of(backend, name)
        self.variant = self.runner.core.variant
        self.ahead: StreamState = self.runner.new_state(early=True)
        self.plain: StreamState = self.runner.new_state()
        self.slot = 1
        self.step(first=True)
        self.step()

    def plan(self, keyframe: bool = True, metres: float = 0.0, first: bool = False) -> FramePlan:
        """Of the next frame; ``metres`` that its pose is off the drive."""
        frame, ages = example_frame(self.variant), None if first else self.plain.ages
        frame.previous_T_current[0, 3] += metres
        return frame.plan(ages, keyframe, 1 - self.slot)

    def step(self, plan: FramePlan | None = None, first: bool = False, seed: int = 7) -> None:
        """A frame through both, which must agree to the last bit."""
        plan = self.plan(first=first) if plan is None else plan
        images, answers = example_frame(self.variant, seed=seed).images, []
        for state in (self.ahead, self.plain):
            self.runner.see(images[:1], state, 0, SEEN[0])
            answers.append(self.runner.step(images[1:], plan, state, seen=SEEN).logits.clone())
        assert torch.equal(*answers)
        for name, part in self.ahead.remembered.items():
            assert torch.equal(part, self.plain.remembered[name]), name
        if plan.keyframe:
            self.slot = plan.slot


@pytest.fixture(params=WAYS, ids="-".join)
def pair(request: pytest.FixtureRequest) -> Pair:
    return Pair(*request.param)


def test_a_frame_that_starts_from_the_sum_is_the_frame_without(pair):
    for number, keyframe in enumerate((True, False, False, True)):
        plan = pair.plan(keyframe, metres=0.3 * number)
        pair.runner.recall(plan, pair.ahead)
        pair.step(plan, seed=number)
    assert pair.ahead.recalled_frames == 4 and pair.plain.recalled_frames == 0


def other_pose(pair: Pair, plan: FramePlan) -> FramePlan:
    return pair.plan(metres=0.1)


def other_age(pair: Pair, plan: FramePlan) -> FramePlan:
    """Another stamp, though the vehicle stands."""
    packed = plan.packed.clone()
    packed[-1] += 0.1
    return replace(plan, packed=packed)


def between_key_frames(pair: Pair, plan: FramePlan) -> FramePlan:
    return replace(plan, keyframe=False)


def first(pair: Pair, plan: FramePlan) -> FramePlan:
    return replace(pair.plan(first=True), slot=plan.slot)


def a_frame_before_it(pair: Pair, plan: FramePlan) -> FramePlan:
    """A key frame from elsewhere; what is remembered then has been moved."""
    pair.step(pair.plan(metres=2.0))
    return replace(plan, slot=1 - pair.slot, reference=pair.slot)


def one_that_fails(pair: Pair, plan: FramePlan) -> FramePlan:
    """It leaves the buffers that the new volumes go to half written."""
    for state in (pair.ahead, pair.plain):
        with pytest.raises((ModelError, RuntimeError)):
            pair.runner.step(torch.zeros(6, 3, 8, 8), pair.plan(metres=2.0), state)
    return plan


def another_memory(pair: Pair, plan: FramePlan) -> FramePlan:
    """A state that was read from a file in between."""
    tensors = {n: t.clone() for n, t in pair.plain._tensors().items()}
    tensors["history"] = -tensors["history"]
    for state in (pair.ahead, pair.plain):
        state._fill({n: t.clone() for n, t in tensors.items()})
    return plan


def a_new_sequence(pair: Pair, plan: FramePlan) -> FramePlan:
    """A reset, and a first frame that looks otherwise; then the plan as it was."""
    for state in (pair.ahead, pair.plain):
        state.reset()
    pair.step(first=True, seed=9)
    return replace(plan, slot=1 - pair.slot, reference=pair.slot)


@pytest.mark.parametrize(
    "happens",
    [
        *(other_pose, other_age, between_key_frames, first, a_frame_before_it, one_that_fails),
        *(another_memory, a_new_sequence),
    ],
    ids=lambda happens: happens.__name__,
)
def test_a_sum_of_anything_else_is_not_used(
    pair: Pair, happens: Callable[[Pair, FramePlan], FramePlan]
) -> None:
    plan = pair.plan()
    pair.runner.recall(plan, pair.ahead)
    pair.step(happens(pair, plan))
    assert pair.ahead.recalled_frames == 0
    pair.step()


def test_a_sum_serves_one_frame_and_the_newest_counts(pair):
    pair.runner.recall(pair.plan(metres=2.0), pair.ahead)
    plan = pair.plan(keyframe=False)
    pair.runner.recall(plan, pair.ahead)
    pair.step(plan)
    pair.step(plan)
    assert pair.ahead.recalled_frames == 1


def test_a_sum_that_fails_leaves_none(pair, monkeypatch):
    """The volumes of the one before may be overwritten by then."""
    plan = pair.plan()
    pair.runner.recall(plan, pair.ahead)
    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="full"):

        def fails(total: Tensor) -> None:
            raise RuntimeError("the device is full")

        patch.setattr(pair.ahead, "store_recalled", fails)
        pair.runner.recall(pair.plan(metres=2.0), pair.ahead)
    pair.step(plan)
    assert pair.ahead.recalled_frames == 0


def test_without_a_past_there_is_no_sum(pair):
    pair.ahead.reset()
    with pytest.raises(TemporalMemoryError, match="begins a sequence"):
        pair.runner.recall(pair.plan(first=True), pair.ahead)
    with pytest.raises(TemporalMemoryError, match="holds nothing"):
        pair.runner.recall(pair.plan(), pair.ahead)


def test_who_has_a_sum_to_make_ahead():
    """The fusion in two steps: not the recurrent one, whose volume moves by what images say."""
    planar, recurrent = (network_of(small(n)) for n in ("alocc_2d_mini", "alocc_3d_gf"))
    for runner, offers in (
        *((make_runner(planar, b), b != "reference") for b in ("eager", "emulated", "reference")),
        *((make_runner(recurrent, b), False) for b in ("eager", "emulated")),
        (CompiledRunner(make_runner(planar).core), False),
    ):
        assert runner.recalls is offers, runner.backend
        if not offers:
            with pytest.raises(DeviceError, match="has no sum to make ahead"):
                runner.recall(example_frame(planar.variant).plan(None), runner.new_state())


@pytest.mark.parametrize(("backend", "graphs"), [("graph", 26), ("tensorrt", 14)])
def test_only_streams_that_are_early_have_graphs_for_it(backend, graphs):
    core = make_runner(network_of(small("alocc_2d_mini")), "emulated").core
    runner = GraphRunner(core, core, "fp32", backend)
    assert len(runner._kinds(early=False)) == 6
    kinds = runner._kinds(early=True)
    assert len(kinds) + 6 * runner.sees == len(set(kinds)) + 6 * runner.sees == graphs
    sums = [kind for kind in kinds if isinstance(kind, Sum)]
    assert sorted(sums) == sorted(Sum(k, f) for k in (True, False) for f in (True, False))
    starting = [k for k in kinds if isinstance(k, Entry) and k.recalled]
    assert len(starting) == 4 and {k.early for k in starting} == {runner.sees}
    runner.give_up(RuntimeError("no"))
    assert not runner.recalls


def test_where_all_images_are_seen_at_once_a_frame_starts_from_the_sum_too():
    core = make_runner(network_of(small("alocc_2d_mini")), "emulated").core
    runner = GraphRunner(core, core, "fp32", "tensorrt")
    states = runner.new_state(early=True), runner.new_state()
    for number in range(3):
        frame, answers = example_frame(core.variant, seed=number), []
        plan = frame.plan(states[0].ages if number else None, slot=number % 2)
        if number:
            runner.recall(plan, states[0])
        answers = [runner.step(frame.images, plan, state).logits.clone() for state in states]
        assert torch.equal(*answers)
    assert [state.recalled_frames for state in states] == [2, 0]
