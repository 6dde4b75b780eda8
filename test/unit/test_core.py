# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""The core is one graph of tensors: nothing of the host in it, static shapes, state that stays
put.
"""

from __future__ import annotations

import pytest
import torch
from host_watch import HostWatch
from small_networks import Stream, network_of, small

from alocc_ros.bench.launches import count_calls
from alocc_ros.bench.scene import example_frame
from alocc_ros.network.model import Alocc
from alocc_ros.network.plan import empty_plan
from alocc_ros.network.state import State
from alocc_ros.network.variants import VARIANTS
from alocc_ros.ops import native
from alocc_ros.runtime.prepare import prepare
from alocc_ros.runtime.runner import inference


def example(core: Alocc) -> tuple:
    """Arguments of a key frame of a rig at rest."""
    frame = example_frame(core.variant)
    plan = frame.plan(None).tensors("cpu")
    state, out = core.empty_state(), core.empty_state()
    for tensor in state:
        if tensor is not None:
            tensor.zero_()
    return frame.images, plan, state, out, True, core.calibrate(plan)


@pytest.mark.parametrize("name", VARIANTS)
def test_the_core_is_one_graph_and_can_be_exported(name):
    core = prepare(network_of(small(name)))
    with torch.no_grad():
        arguments = example(core)
        torch._dynamo.reset()
        explained = torch._dynamo.explain(core)(*arguments)
        assert (explained.graph_break_count, explained.graph_count) == (0, 1)
        program = torch.export.export(core, arguments, strict=False)
        (output, state), (expected, new) = program.module()(*arguments), core(*arguments)
    scale = expected.logits.abs().max()
    assert (output.logits - expected.logits).abs().max() <= 2e-5 * scale
    for ours, theirs in zip(state, new, strict=True):
        assert (ours is None) == (theirs is None)


@pytest.mark.slow
def test_a_small_core_compiles_as_a_whole():
    core = prepare(network_of(small("alocc_2d_mini")))
    with torch.no_grad():
        arguments = example(core)
        expected, _ = core(*arguments)
        torch._dynamo.reset()
        output, _ = torch.compile(core, fullgraph=True)(*arguments)
    assert (output.logits - expected.logits).abs().max() <= 2e-5 * expected.logits.abs().max()


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("prepared", [True, False])
def test_every_tensor_is_on_the_device_it_should_be_on(name, prepared):
    # "meta" refuses to mix with the CPU as a GPU does, has no numbers to read and no indices to
    # find: this finds forgotten moves, .item() and nonzero() without a GPU. At full size.
    variant = VARIANTS[name]
    with torch.device("meta"):
        network = Alocc(variant).eval()
    core = prepare(network) if prepared else network
    images = torch.empty(6, 3, *variant.input_size, device="meta")
    plan = empty_plan(6, 1, variant.history, "meta")
    with torch.no_grad():
        first, state = core(images, plan, None, core.empty_state(), rig=core.calibrate(plan))
        output, after = core(images, plan, state, core.empty_state(), rig=core.calibrate(plan))
        between, same = core(images, plan, after, keyframe=False)
    assert same.history is after.history
    for one in (first, output, between):
        assert one.labels.shape == (1, *variant.grid.shape)
        for tensor in (*one, *state, *after):
            assert tensor is None or tensor.device.type == "meta"


# Before any kernel for GPUs: what the fast path starts from.
MOST_CALLS = {"alocc_2d_mini": 500, "alocc_2d": 900, "alocc_flow_2d": 1200}


@pytest.mark.parametrize("name", MOST_CALLS)
def test_a_frame_costs_no_more_calls_than(name):
    calls = count_calls(VARIANTS[name])
    assert 100 < sum(calls.values()) <= MOST_CALLS[name]
    assert calls["img_backbone"] > 50 and calls["history"] > 5


@pytest.mark.parametrize("name", VARIANTS)
def test_nothing_of_the_host_is_in_the_core(name, monkeypatch):
    monkeypatch.setattr(native, "library", lambda: None)
    core = prepare(network_of(small(name)))
    with inference():
        arguments = example(core)
        with HostWatch() as watch:
            core(*arguments)
            core(*arguments[:4], False, arguments[5])
            core(*arguments[:2])
    assert watch.found == []


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("backend", ["eager", "reference"])
def test_the_state_stays_where_it_is(name, backend):
    stream = Stream(network_of(small(name)), backend)
    for t in range(2):
        stream.step(seed=t)
    shapes: list[list] = []
    addresses: set[int] = set()
    for t in range(6):
        stream.step(seed=t)
        frame = example_frame(stream.variant).plan(stream.state.ages, slot=t % 2)
        state: State = stream.state.reading(frame)
        shapes.append([None if x is None else x.shape for x in state])
        addresses |= {x.data_ptr() for x in state if x is not None}
    assert all(s == shapes[0] for s in shapes)
    parts = sum(s is not None for s in shapes[0])
    assert len(addresses) <= 2 * parts
