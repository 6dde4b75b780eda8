# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""The graph runner without a GPU: its buffers, its precision, and that nothing of the host would
stand in the way of a capture.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import partial

import pytest
import torch
from host_watch import HostWatch
from small_networks import Stream, network_of, small

from alocc_ros.bench.launches import CallRecorder
from alocc_ros.bench.predict import predict
from alocc_ros.bench.scene import example_frame
from alocc_ros.errors import DeviceError, TemporalMemoryError
from alocc_ros.network.variants import VARIANTS
from alocc_ros.runtime.graph import Entry, GraphRunner, Sum
from alocc_ros.runtime.prepare import cast, pack_for_gpu, prepare
from alocc_ros.runtime.runner import EagerRunner, make_runner

# One of each way to fuse in time, and with and without flow.
KINDS = ("alocc_2d_mini", "alocc_flow_2d", "alocc_flow_3d", "alocc_3d_gf")
# Half precision rounds to 2^-11 of a value, sixty layers add up to some times that.
HALF = 5e-3


def addresses(state) -> dict[str, int]:
    tensors = {"images": state.images, "packed": state.packed, "staged": state.staged}
    for where, held in (("near", state.near), ("far", state.far)):
        tensors |= {f"{where}.{n}": t for n, t in held._asdict().items() if t is not None}
    for i, parts in enumerate(state.copies):
        tensors |= {f"{i}.{n}": t for n, t in parts.items()}
    if state.seen is not None:
        tensors |= {f"seen.{n}": t for n, t in state.seen._asdict().items()}
    if state.recalled is not None:
        tensors["recalled"] = state.recalled
    return {name: t.data_ptr() for name, t in tensors.items()}


@pytest.mark.parametrize("name", KINDS)
def test_buffers_stay_where_they_are_and_answers_are_those_of_plain_calls(name):
    network = network_of(small(name))
    runner = make_runner(network, "emulated", "fp16")
    ours = Stream(network, runner=runner)
    # The same packed network, called with new tensors each time.
    plain = Stream(network, runner=EagerRunner(runner.core, precision="fp16"))
    before, read = addresses(ours.state), set()
    for t in range(20 if name == "alocc_2d_mini" else 6):
        keyframe = t % 3 != 2
        frame = example_frame(network.variant, seed=t)
        answer, expected = (s.step(frame, keyframe=keyframe) for s in (ours, plain))
        assert torch.equal(answer.labels, expected.labels)
        assert torch.equal(answer.logits, expected.logits)
        if answer.flow is not None:
            assert torch.equal(answer.flow, expected.flow)
        assert addresses(ours.state) == before
        read.add(ours.state.flipped)
    assert read == {True, False}


def test_images_seen_one_by_one_go_where_the_frames_graphs_look():
    network = network_of(small("alocc_flow_2d"))
    runner = make_runner(network, "emulated", "fp16")
    # The same packed network, called with new tensors each time.
    plain = EagerRunner(runner.core, precision="fp16")
    states = runner.new_state(early=True), plain.new_state(early=True)
    before, keys = addresses(states[0]), {camera: object() for camera in (5, 0, 2)}
    assert "seen.c2" in before and "seen.feature" in before
    for t in range(6):
        frame = example_frame(network.variant, seed=t)
        answers = []
        for one, state in zip((runner, plain), states, strict=True):
            seen = keys if t != 3 else {}
            for camera, key in seen.items():
                one.see(frame.images[camera : camera + 1], state, camera, key)
            images = frame.images[[1, 3, 4]] if seen else frame.images
            plan = frame.plan(state.ages if t else None, t % 3 != 2, slot=t % 2)
            answers.append(one.step(images, plan, state, seen=seen))
        # Three others in one call, or one by one: sums of another order, in the memory too.
        difference = (answers[0].logits - answers[1].logits).abs().max()
        assert difference <= HALF * answers[1].logits.abs().max()
        assert addresses(states[0]) == before


def test_a_sum_made_ahead_goes_where_the_frames_graphs_look():
    """Over 20 frames, some of whose plans are not those of the sum."""
    network = network_of(small("alocc_2d_mini"))
    runner = make_runner(network, "emulated", "fp16")
    states = runner.new_state(early=True), runner.new_state(early=True)
    before, key, read = addresses(states[0]), object(), set()
    assert {"seen.c2", "recalled"} <= before.keys() and states[0].recalled.dtype == torch.float32
    for t in range(20):
        frame, answers = example_frame(network.variant, seed=t), []
        plan = frame.plan(states[0].ages if t else None, t % 3 != 2, slot=t % 2)
        if t:
            runner.recall(replace(plan, keyframe=not plan.keyframe) if t == 7 else plan, states[0])
        for state in states:
            runner.see(frame.images[4:5], state, 4, key)
            others = frame.images[[0, 1, 2, 3, 5]]
            answers.append(runner.step(others, plan, state, seen={4: key}).logits.clone())
        assert torch.equal(*answers)
        assert addresses(states[0]) == before
        read.add(states[0].flipped)
    assert read == {True, False} and [s.recalled_frames for s in states] == [18, 0]


@pytest.mark.parametrize("name", KINDS)
def test_nothing_of_the_host_stands_in_the_way_of_a_capture(name):
    variant = small(name)
    core = pack_for_gpu(prepare(network_of(variant)), torch.float16)
    runner = GraphRunner(core, core)
    state = runner.new_state(early=True)
    calls = [partial(runner.call_see, state, 3)]
    for kind in ((True, True), (False, True), (False, False)):
        for flipped in (False, True):
            entry = Entry(*kind, flipped, early=flipped)
            calls.append(partial(runner.call, state, entry))
            if runner.recalls and not entry.first:
                calls.append(partial(runner.call_recall, state, Sum(entry.keyframe, flipped)))
                calls.append(partial(runner.call, state, entry._replace(recalled=True)))
    for call in calls:
        with torch.no_grad(), HostWatch() as watch:
            call()
        assert watch.found == []


def test_the_sum_that_is_made_ahead_is_no_part_of_its_frame():
    core = pack_for_gpu(prepare(network_of(small("alocc_2d_mini"))), torch.float16)
    runner = GraphRunner(core, core)
    state = runner.new_state(early=True)

    def calls(what) -> Counter[str]:
        with torch.no_grad(), CallRecorder() as recorder:
            what()
        return recorder.calls

    entry = Entry(False, True, False, early=True)
    whole = calls(lambda: runner.call(state, entry))
    ahead = calls(lambda: runner.call_recall(state, Sum(True, False)))
    rest = calls(lambda: runner.call(state, entry._replace(recalled=True)))
    assert [c["remembered_sum_fused"] for c in (whole, ahead, rest)] == [1, 1, 0]
    assert rest.total() < whole.total()
    # The sum, biases of the slots, what of the plan has another type, and to the buffer.
    assert ahead.total() <= 6


@pytest.mark.parametrize("name", VARIANTS)
def test_a_captured_frame_is_few_launches(name):
    launches = predict(VARIANTS[name]).launches
    if VARIANTS[name].backbone_width == 64:
        # 53 convolutions and the pooling; what the plan is unpacked with runs before.
        assert launches["img_backbone"] == 54
    assert 60 < sum(launches.values()) <= 150


@pytest.mark.parametrize("name", VARIANTS)
def test_half_precision_is_near_the_network_as_trained(name):
    network = network_of(small(name))
    half, single = (Stream(network, b) for b in ("emulated", "reference"))
    for t in range(3):
        answer, expected = (s.step(seed=t) for s in (half, single))
        assert answer.logits.dtype == torch.float16
        scale = expected.logits.abs().max()
        assert (answer.logits - expected.logits).abs().max() <= HALF * scale
        assert (answer.labels == expected.labels).float().mean() >= 0.99  # random weights: ties
        if answer.flow is not None:
            # Random weights see so many moving voxels that not every one gets a velocity.
            both = (answer.flow != 0) & (expected.flow != 0)
            assert both.float().mean() >= 0.1
            assert (answer.flow - expected.flow)[both].abs().max() <= 0.02


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_the_network_to_fall_back_to_has_the_same_state(dtype):
    prepared = prepare(network_of(small("alocc_3d_gf")))
    fast, plain = pack_for_gpu(prepared, dtype), cast(prepared, dtype)
    for ours, theirs in zip(fast.empty_state(), plain.empty_state(), strict=True):
        assert (ours is None) == (theirs is None)
        assert ours is None or (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)


def test_a_capture_that_fails_is_told_and_the_stream_goes_on(monkeypatch):
    network = network_of(small("alocc_2d"))
    runner = make_runner(network, "emulated", "fp32")
    stream, other = Stream(network, runner=runner), Stream(network)
    stream.step(seed=0)
    other.step(seed=0)
    runner.give_up(RuntimeError("out of\n memory"))
    assert runner.reason == "no CUDA graph: RuntimeError: out of memory"
    answer, expected = stream.step(seed=1), other.step(seed=1)
    assert (answer.labels == expected.labels).float().mean() >= 0.999


def test_state_is_saved_and_loaded_into_the_buffers_that_graphs_know(tmp_path):
    network = network_of(small("alocc_flow_2d"))
    runner = make_runner(network, "emulated")
    stream = Stream(network, runner=runner)
    for t in range(3):
        stream.step(seed=t)
    stream.state.save(tmp_path / "state.safetensors")
    expected = stream.step(seed=3)
    labels = expected.labels.clone()
    resumed = Stream(network, runner=runner)
    before = addresses(resumed.state)
    resumed.state.load(tmp_path / "state.safetensors")
    resumed.slot = 0
    assert torch.equal(resumed.step(seed=3).labels, labels)
    assert addresses(resumed.state) == before


def test_a_frame_that_looks_back_needs_a_past():
    network = network_of(small("alocc_2d_mini"))
    runner = make_runner(network, "emulated")
    state = runner.new_state()
    frame = example_frame(network.variant)
    with pytest.raises(TemporalMemoryError, match="first frame"):
        runner.step(frame.images, frame.plan(state.ages, True, 1), state)


@pytest.mark.parametrize("backend", ["graph", "tensorrt"])
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_backend_that_cannot_be_is_one_line(backend):
    with pytest.raises(DeviceError, match=f"backend {backend}: it needs a CUDA device; use auto"):
        make_runner(network_of(small("alocc_2d_mini")), backend)


@pytest.mark.parametrize(
    ("backend", "precision", "words"),
    [
        ("eager", "fp16", "needs a GPU; a CPU does fp32, bf16 and int8"),
        ("reference", "bf16", "runs in fp32"),
        ("eager", "fp8", "unknown precision 'fp8'; there are auto, fp32"),
    ],
)
def test_a_precision_that_cannot_be_is_one_line(backend, precision, words):
    with pytest.raises(DeviceError, match=words):
        make_runner(network_of(small("alocc_2d_mini")), backend, precision)


def test_auto_runs_everywhere():
    runner = make_runner(network_of(small("alocc_2d_mini")), "auto")
    if not torch.cuda.is_available():
        assert (runner.backend, runner.precision, runner.reason) == ("eager", "fp32", "")


@pytest.mark.slow
def test_compiled_frames_are_eager_ones():
    network = network_of(replace(small("alocc_2d_mini"), history=0, encoder_blocks=(1, 1, 1)))
    compiled, eager = Stream(network, "compiled"), Stream(network)
    answer, expected = compiled.step(), eager.step()
    assert (answer.logits - expected.logits).abs().max() <= 1e-3
