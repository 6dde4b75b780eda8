# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""What is exported computes what the network does: onnxruntime against eager, one thread.

With more threads sums of equal rows come in any order, which onnxruntime does not take care of.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

import numpy as np
import pytest
import torch
from host_watch import HostWatch
from small_networks import Stream, network_of, small
from torch import Tensor

from alocc_ros.bench.scene import example_frame
from alocc_ros.network.variants import VARIANTS
from alocc_ros.runtime.engines import pack_for_tensorrt
from alocc_ros.runtime.export import Segment, Step, segments, to_onnx
from alocc_ros.runtime.graph import GraphRunner
from alocc_ros.runtime.precision import inference
from alocc_ros.runtime.prepare import prepare

ort = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

# Round-off of two inference engines, relative to the largest magnitude.
TOLERANCE = 1e-5
# Of what is summed over many steps (the scene layer learns by a rule with quotients).
STEP_TOLERANCE = 2e-4


def session(onnx: bytes) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])


class OnnxEngine:
    """A segment in onnxruntime, between buffers that stay where they are."""

    def __init__(self, segment: Segment, shared: Mapping[str, Tensor]) -> None:
        self.session = session(to_onnx(segment))
        example = dict(zip(segment.inputs, segment.example(), strict=True))
        taken = [i.name for i in self.session.get_inputs()]
        self.inputs = {n: shared.get(n, torch.zeros_like(example[n])) for n in taken}
        self.outputs: dict[str, Tensor] = {}
        names = [o.name for o in self.session.get_outputs()]
        assert tuple(names) == segment.outputs
        made = self.session.run(None, {n: x.numpy() for n, x in self.inputs.items()})
        self.outputs = {n: torch.from_numpy(x) for n, x in zip(names, made, strict=True)}

    def __call__(self) -> None:
        made = self.session.run(None, {n: x.numpy() for n, x in self.inputs.items()})
        for buffer, value in zip(self.outputs.values(), made, strict=True):
            np.copyto(buffer.numpy(), value)

    def __deepcopy__(self, memo: dict) -> OnnxEngine:
        return self


def error(ours: Tensor, theirs: Tensor) -> float:
    """Largest difference, relative to the largest magnitude."""
    assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
    scale = ours.double().abs().max().clamp(min=1e-6)
    return float((ours.double() - theirs.double()).abs().max() / scale)


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIANTS)
def test_segments_are_the_same_in_onnx_and_so_is_the_network_of_them(name):
    network = network_of(small(name))
    core = prepare(network)
    made: dict[str, OnnxEngine] = {}

    def engine_for(segment: Segment, shared: Mapping[str, Tensor]) -> OnnxEngine:
        engine = made[segment.name] = OnnxEngine(segment, shared)
        example = segment.example()
        for name, value in zip(segment.inputs, example, strict=True):
            if name in engine.inputs:
                engine.inputs[name].copy_(value)
        with torch.no_grad():
            expected = segment.module(*example)
        engine()
        expected = (expected,) if isinstance(expected, Tensor) else expected
        for name, ours in zip(segment.outputs, expected, strict=True):
            assert error(ours, engine.outputs[name]) <= TOLERANCE, (segment.name, name)
        return engine if segment.dense else None

    packed = pack_for_tensorrt(core, engine_for, precision="fp32")
    assert {"image", "depth", "encode"} <= set(made)
    if core.variant.flow_everywhere and core.variant.flow:
        # Engines read each other's buffers, without a copy between them.
        assert made["flow"].inputs["voxels"] is made["encode"].outputs["voxels"]
    assert made["depth"].inputs["feature"] is made["image"].outputs["feature"]
    ours, theirs = Stream(network), Stream(network)
    theirs.runner = GraphRunner(packed, core, "fp32")
    theirs.state = theirs.runner.new_state()
    frame, state = example_frame(core.variant), packed.empty_state()
    arguments = frame.images, frame.plan(None).tensors("cpu"), None, state
    with inference(), HostWatch() as watch:
        packed(*arguments)
    assert watch.found == []
    places = set()
    for t in range(3):
        one, other = ours.step(seed=t, keyframe=t < 2), theirs.step(seed=t, keyframe=t < 2)
        assert error(one.logits, other.logits) <= STEP_TOLERANCE
        assert (one.labels == other.labels).float().mean() > 0.999
        if one.flow is not None:
            assert (one.flow - other.flow).abs().max() < 1e-3
        places.add(other.logits.data_ptr())
    assert places == {made["encode"].outputs["logits"].data_ptr()}, "a graph could not be captured"


# One of each kind: without stereo, with everything in the plane, volumetric, recurrent.
@pytest.mark.slow
@pytest.mark.parametrize("name", ["alocc_2d_mini", "alocc_tiny", "alocc_3d", "alocc_3d_gf"])
def test_a_whole_step_is_the_same_in_onnx(name):
    core = prepare(network_of(small(name)))
    step = Step(core)
    assert step.inputs[:2] == ("images", "plan") and len(step.inputs) > 2
    frame = example_frame(core.variant)
    plan = frame.plan(torch.full((1, core.variant.history), 0.5)).packed
    _, _, *state = step.example()
    given = dict(zip(step.inputs, (frame.images, plan, *state), strict=True))
    theirs = session(to_onnx(step)).run(None, {n: x.numpy() for n, x in given.items()})
    with inference():
        ours = step(*given.values())
    for name, one, other in zip(step.outputs, ours, theirs, strict=True):
        if name == "labels":
            assert (one.numpy() == other).mean() > 0.999
        else:
            assert error(one, torch.from_numpy(other)) <= STEP_TOLERANCE, name


@pytest.mark.skipif("ALOCC_WHOLE_STEP" not in os.environ, reason="takes many minutes")
def test_a_whole_step_of_real_size_is_the_same_in_onnx():
    """``ALOCC_WHOLE_STEP=alocc_flow_2d``; docs/export.md has what came out."""
    name = os.environ["ALOCC_WHOLE_STEP"]
    core = prepare(network_of(VARIANTS[name]))
    frame, state = example_frame(core.variant), []
    for first in (True, False):
        step = Step(core, first=first)
        ages = None if first else torch.full((1, core.variant.history), 0.5)
        given = dict(zip(step.inputs, (frame.images, frame.plan(ages).packed, *state), strict=True))
        with inference():
            ours = dict(zip(step.outputs, step(*given.values()), strict=True))
        begin = time.monotonic()
        onnx = to_onnx(step)
        written = time.monotonic()
        their = session(onnx)
        answer = their.run(list(step.outputs), {n: x.numpy() for n, x in given.items()})
        theirs = {n: torch.from_numpy(x) for n, x in zip(step.outputs, answer, strict=True)}
        errors = {n: error(ours[n], theirs[n]) for n in ours if n not in ("labels", "flow")}
        same = ours["labels"] == theirs["labels"]
        print(f"{name} {'first' if first else 'step'}: {len(onnx) / 1e6:.1f} MB")
        print(f"  {written - begin:.0f} s to write, {time.monotonic() - written:.0f} s to run")
        print(f"  labels equal {same.double().mean():.6%}, errors {errors}")
        if "flow" in ours:
            off = (ours["flow"] - theirs["flow"]).abs().amax(-1)[same]
            print(f"  flow off by {off.max():.2g} m/s, by more than 0.02 in {(off > 0.02).sum()}")
            assert (off <= 0.02).double().mean() >= 0.999
        assert same.double().mean() >= 0.9999
        assert max(errors.values()) <= STEP_TOLERANCE
        del their, answer
        state = [ours[n] for n in step.outputs if n.startswith("next_")]


def test_the_same_network_gives_the_same_bytes_and_no_paths():
    core = prepare(network_of(small("alocc_2d")))
    files = [to_onnx(segments(core)[2]) for _ in range(2)]
    assert files[0] == files[1]
    assert b".py" not in files[0], "paths of this machine are in the file"


def test_a_first_step_needs_no_state():
    core = prepare(network_of(small("alocc_flow_2d")))
    first = Step(core, first=True)
    assert first.inputs == ("images", "plan")
    with inference():
        made = dict(zip(first.outputs, first(*first.example()), strict=True))
    assert made["next_history"].shape == core.empty_state().history.shape
    assert made["flow"].shape == (1, *core.variant.grid.shape, 2)


def test_half_weights_make_files_of_half_the_size_with_inputs_of_that_type():
    import onnx

    core = prepare(network_of(small("alocc_2d")))
    files = {p: to_onnx(segments(core, precision=p)[2]) for p in ("fp32", "fp16", "bf16")}
    types = {"fp16": onnx.TensorProto.FLOAT16, "bf16": onnx.TensorProto.BFLOAT16}
    for precision, expected in types.items():
        assert 0.4 < len(files[precision]) / len(files["fp32"]) < 0.7
        graph = onnx.load_from_string(files[precision]).graph
        for value in (*graph.input, *graph.output):
            assert value.type.tensor_type.elem_type == expected
    assert next(core.parameters()).dtype == torch.float32, "the network itself was changed"
