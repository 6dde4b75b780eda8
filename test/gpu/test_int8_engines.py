# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""The image network in int8 for TensorRT: the graph, what it computes, and the engine, without a
GPU. onnxruntime runs the same graph, one thread, in float16 between its Q and DQ.
"""

from __future__ import annotations

import re
from argparse import Namespace
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from small_networks import Stream, network_of, small
from torch import Tensor

from alocc_ros.bench.scene import ExampleFrame, example_frame
from alocc_ros.cli import export
from alocc_ros.cli.main import main
from alocc_ros.errors import DeviceError
from alocc_ros.network.model import Alocc
from alocc_ros.runtime.cache import Cache
from alocc_ros.runtime.calibration import calibrate, find_ranges
from alocc_ros.runtime.engines import built, graph_of, identity_of, pack_for_tensorrt
from alocc_ros.runtime.export import Segment, segments
from alocc_ros.runtime.graph import GraphRunner
from alocc_ros.runtime.prepare import cast, prepare
from alocc_ros.runtime.quantisation import CPU, TENSORRT, Quantisation, Ranges, quantised
from alocc_ros.runtime.tensorrt import find_toolkit

ort = pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")

# Root mean square of the difference, relative to that of the float32 feature. A tensor in int8 has
# steps of 1/127 of its largest value, which is four to six times its rms here; a rounding is off by
# 0.29 of a step, 1 % of the rms. The way to c2 passes four convolutions, with an activation and a
# weight each, and a sum: nine roundings, which add up as their squares do, 3 %. The way to the
# feature passes 14 with five sums that read one side in int8: 33 roundings, 5.7 %.
TOLERANCE = {"c2": 0.03, "feature": 0.057}


@dataclass(frozen=True)
class Calibrated:
    """A network with two blocks in its first stage, so that there is a skip without convolution.

    Attributes:
        network: and its prepared form, ``core``.
        frames: that it was calibrated with.
        segment: in int8.
        graph: of that segment.
        plain: the same in float32.
    """

    network: Alocc
    core: Alocc
    frames: list[ExampleFrame]
    cache: Cache
    segment: Segment
    graph: bytes
    plain: bytes


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory) -> Calibrated:
    variant = replace(small("alocc_2d_mini"), backbone_blocks=(2, 1, 1, 1))
    network, cache = network_of(variant), Cache(tmp_path_factory.mktemp("cache"))
    core, frames = prepare(network), [example_frame(variant, seed=t) for t in range(2)]
    ranges = calibrate(network, (f.images.numpy() for f in frames), cache)
    assert find_ranges(network, cache) == ranges
    plain = graph_of(segments(core)[0], identity_of(network), cache)
    how = Quantisation(ranges, TENSORRT)
    segment = segments(core, precision="fp16", quantisation=how)[0]
    return Calibrated(network, core, frames, cache, segment, quantised(plain, how), plain)


def session(graph: bytes) -> Any:  # ort.InferenceSession
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    # Its optimiser makes int32 of biases, with products of float16 scales, which are too small for
    # float16. What the graph says is to be computed, call by call.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def errors(calibrated: Calibrated, graph: bytes) -> dict[str, float]:
    """Of a graph's outputs over all frames, as ``TOLERANCE`` is."""
    ours, found = session(graph), {}
    with torch.no_grad():
        for frame in calibrated.frames:
            wanted = calibrated.segment.module(frame.images)
            made = ours.run(None, {"images": frame.images.numpy().astype(np.float16)})
            for name, x, y in zip(calibrated.segment.outputs, made, wanted, strict=True):
                assert x.dtype == np.float16 and x.shape == y.shape
                off = (torch.from_numpy(x).float() - y).square().mean().sqrt()
                found[name] = max(found.get(name, 0.0), float(off / y.square().mean().sqrt()))
    return found


def test_every_convolution_reads_symmetric_int8_and_everything_else_is_float16(calibrated):
    model = onnx.load_from_string(calibrated.graph)
    onnx.checker.check_model(model, full_check=True)
    constants = {i.name: onnx.numpy_helper.to_array(i) for i in model.graph.initializer}
    makers = {name: n for n in model.graph.node for name in n.output}
    for value in (*model.graph.input, *model.graph.output):
        assert value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT16

    def is_quantised(name: str) -> bool:
        return makers[name].op_type == "DequantizeLinear"

    convolutions = [n for n in model.graph.node if n.op_type == "Conv"]
    plain = [n for n in onnx.load_from_string(calibrated.plain).graph.node if n.op_type == "Conv"]
    assert len(convolutions) == len(plain) > 20
    for node in convolutions:
        image, weight, bias = node.input
        assert is_quantised(image) and is_quantised(weight)
        assert constants[bias].dtype == np.float16
        values, scales, zeros = (constants[n] for n in makers[weight].input)
        assert values.dtype == np.int8 and scales.shape == (len(values),)  # for each channel
        (axis,) = (a.i for a in makers[weight].attribute if a.name == "axis")
        assert axis == 0 and not zeros.any()
        assert (np.abs(values.reshape(len(values), -1)).max(1) >= 126).all()  # all of the range
    for node in model.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            scale, zero = (constants[n] for n in node.input[1:])
            assert scale.dtype == np.float16 and (scale > 0).all()
            assert zero.dtype == np.int8 and not zero.any()
        elif node.op_type == "Add":
            # TensorRT adds within the convolution of the other side.
            assert sorted(map(is_quantised, node.input)) == [False, True]
        elif node.op_type != "Conv":
            assert not any(map(is_quantised, filter(None, node.input[:1])))
    # What leaves the graph was not rounded for the convolutions that read it too.
    assert not any(is_quantised(o.name) for o in model.graph.output)


def test_it_computes_what_the_float32_segment_does_within_what_rounding_costs(calibrated):
    found = errors(calibrated, calibrated.graph)
    assert all(0.003 < found[name] <= TOLERANCE[name] for name in TOLERANCE), found
    # Ranges of other images, or of none, would be seen.
    ranges = find_ranges(calibrated.network, calibrated.cache)
    for factor in (0.2, 10.0):
        values = {n: (factor * x, factor * y) for n, (x, y) in ranges.values.items()}
        wrong = Quantisation(Ranges(values, ranges.form), TENSORRT)
        found = errors(calibrated, quantised(calibrated.plain, wrong))
        assert found["feature"] > TOLERANCE["feature"], (factor, found)


def test_channels_of_tiny_weights_are_not_lost_in_float16(calibrated):
    model = onnx.load_from_string(calibrated.plain)
    first = next(i for i in model.graph.initializer if i.name.endswith("layer1.0.conv1.weight"))
    weights = onnx.numpy_helper.to_array(first).copy()
    weights[0] *= 1e-3 / np.abs(weights[0]).max()  # a scale below float16's normal numbers
    weights[1] *= 1e-9
    first.CopyFrom(onnx.numpy_helper.from_array(weights, first.name))
    graph = onnx.load_from_string(
        quantised(model.SerializeToString(), calibrated.segment.quantisation)
    )
    constants = {i.name: onnx.numpy_helper.to_array(i) for i in graph.graph.initializer}
    scales = constants[f"{first.name}_scale"].astype(np.float32)
    made = constants[f"{first.name}_quantized"] * scales[:, None, None, None]
    assert (scales > 0).all()
    # Half a step, and what float16 takes from the scale.
    off = np.abs(made - weights).max((1, 2, 3))
    assert (off <= 0.51 / 127 * np.abs(weights).max((1, 2, 3)) + 127 * 2.0**-25).all()


def test_tensorrt_builds_an_engine_that_holds_int8_convolutions(calibrated, toolkit):
    engine = toolkit.build(calibrated.graph, "SM89")
    # An engine cannot be inspected without a GPU; but it lists its tensors in words.
    listed = [line for line in re.findall(rb"tensor=\{[^\n]*", engine) if b"const_payload" in line]
    if not listed:
        pytest.skip(f"engines of {toolkit} list no tensors")
    held: Counter[tuple[int, ...]] = Counter()
    for line in listed:
        dims = tuple(map(int, re.search(rb"dims=\{ ([\d ]+) \}", line)[1].split()))
        if b"type=int8" in line and len(dims) == 4:
            held[dims] += 1
        else:
            assert dims[0] == 1 or len(dims) < 4, "weights that are not in int8"
    graph = onnx.load_from_string(calibrated.graph).graph
    weights = [tuple(i.dims) for i in graph.initializer if len(i.dims) == 4]
    # It reads the three channels of an image as four.
    wanted = Counter((o, max(i, 4), *size) for o, i, *size in weights)
    assert wanted <= held and len(weights) > 20


def test_other_images_make_another_graph_and_another_engine(calibrated, toolkit, tmp_path):
    cache, identity = Cache(tmp_path), identity_of(calibrated.network)
    ranges = calibrated.segment.quantisation.ranges
    values = {name: (low, 1.5 * high) for name, (low, high) in ranges.values.items()}
    other = Quantisation(replace(ranges, values=values), TENSORRT)
    first, second = calibrated.segment, replace(calibrated.segment, quantisation=other)
    for segment in (first, second):
        make = partial(quantised, calibrated.plain, segment.quantisation)
        graph_of(segment, identity, cache, make)
    made = [built(s, identity, toolkit, "SM89", {}, cache) for s in (first, second)]
    assert made[0][0] == calibrated.graph != made[1][0]
    assert len(cache.entries("onnx")) == len(cache.entries("engine")) == 2
    times = {e.path: e.path.stat().st_mtime_ns for e in cache.entries()}
    assert built(first, identity, toolkit, "SM89", {}, cache) == made[0]
    assert {e.path: e.path.stat().st_mtime_ns for e in cache.entries()} == times
    engines = [e.path.read_bytes() for e in cache.entries("engine")]
    for used in (ranges, other.ranges):
        entry = f'"calibration": "{used.digest}"'.encode()
        assert sum(entry in engine for engine in engines) == 1


class Int8Engine:
    """The image segment in onnxruntime, between buffers that stay where they are."""

    def __init__(self, calibrated: Calibrated) -> None:
        self._session, self.calls = session(calibrated.graph), 0
        example = dict(zip(calibrated.segment.inputs, calibrated.segment.example(), strict=True))
        self.inputs = example
        made = self._session.run(None, {n: x.numpy() for n, x in example.items()})
        names = calibrated.segment.outputs
        self.outputs = {n: torch.from_numpy(x) for n, x in zip(names, made, strict=True)}

    def __call__(self) -> None:
        self.calls += 1
        made = self._session.run(None, {n: x.numpy() for n, x in self.inputs.items()})
        for buffer, value in zip(self.outputs.values(), made, strict=True):
            np.copyto(buffer.numpy(), value)

    def __deepcopy__(self, memo: dict) -> Int8Engine:
        return self


def test_the_network_takes_the_int8_image_segment_and_is_float16_for_the_rest(calibrated):
    engine = Int8Engine(calibrated)

    def engine_for(segment: Segment, _: Mapping[str, Tensor]) -> Int8Engine | None:
        assert (segment.quantisation is not None) == (segment.name == "image")
        assert segment.precision == "fp16"
        return engine if segment.name == "image" else None

    how = calibrated.segment.quantisation
    packed = pack_for_tensorrt(calibrated.core, engine_for, quantisation=how)
    runner = GraphRunner(packed, cast(calibrated.core, torch.float16), "int8", "tensorrt")
    ours, theirs = Stream(calibrated.network), Stream(calibrated.network, runner=runner)
    for number, frame in enumerate(calibrated.frames, 1):
        wanted, made = ours.step(frame), theirs.step(frame)
        assert engine.calls == number and made.logits.dtype == torch.float16
        off = (made.logits.float() - wanted.logits).abs().max() / wanted.logits.abs().max()
        assert 0 < off <= 0.1  # as on a CPU in int8


def test_without_a_calibration_every_way_says_what_to_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    ways = [("onnx",)]
    with suppress(DeviceError):  # without a toolkit the line is that there is none
        find_toolkit(["tensorrt_rtx"])
        ways.append(("tensorrt", "--target", "SM89"))
    command = ["export", "--model", "alocc_tiny", "--random-weights", "--precision", "int8"]
    for way in ways:
        assert main([*command, "-o", str(tmp_path / "out"), "--backend", *way]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "have not been calibrated" in line and "alocc calibrate BAG" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("backend", ["onnx", "tensorrt"])
def test_an_export_has_the_graph_of_what_runs_it_and_says_so(
    backend, calibrated, tmp_path, request
):
    toolkit = request.getfixturevalue("toolkit") if backend == "tensorrt" else None
    ranges = calibrated.segment.quantisation.ranges
    how = Quantisation(ranges, CPU if toolkit is None else TENSORRT)
    arguments = Namespace(cameras=6, backend=backend)
    image, depth, *_ = export.segments_of(calibrated.core, arguments, "int8", how)
    assert depth.quantisation is None and depth.precision == image.precision
    (entry,) = export.write_segments([image], tmp_path, toolkit, "SM89")
    assert (entry["int8"], entry["calibration"]) == (how.target.name, ranges.digest)
    kind = "float32" if toolkit is None else "float16"
    assert [i["type"] for i in entry["inputs"]] == [kind] and image.precision == f"fp{kind[5:]}"
    assert ("engine" in entry) == (toolkit is not None)
    # The same bytes as from the graph that was exported before: calibration is of no one export.
    assert (tmp_path / entry["onnx"]).read_bytes() == quantised(calibrated.plain, how)


def test_ranges_of_another_version_of_the_network_are_no_calibration(calibrated):
    ranges = Ranges(calibrated.segment.quantisation.ranges.values, "another")
    with pytest.raises(DeviceError, match="have not been calibrated.*of another version"):
        quantised(calibrated.plain, Quantisation(ranges, TENSORRT))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_on_a_gpu_the_engine_computes_what_its_graph_says(calibrated):
    device = torch.device("cuda")
    try:
        toolkit = find_toolkit()
        engine = toolkit.build(calibrated.graph, toolkit.target_of(device))
    except DeviceError as error:  # TensorRT-RTX does not know every GPU
        pytest.skip(str(error))
    loaded, frame = toolkit.load(engine, device), calibrated.frames[0]
    loaded.inputs["images"].copy_(frame.images)
    loaded()
    with torch.no_grad():
        wanted = calibrated.segment.module(frame.images)
    for name, expected in zip(calibrated.segment.outputs, wanted, strict=True):
        off = (loaded.outputs[name].cpu().float() - expected).square().mean().sqrt()
        assert off <= TOLERANCE[name] * expected.square().mean().sqrt(), name
