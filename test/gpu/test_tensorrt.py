# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""TensorRT-RTX builds our segments on a machine without a GPU; everything but execution runs."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from small_networks import network_of, small

from alocc_ros.bench.scene import example_frame
from alocc_ros.errors import DeviceError, ParameterError
from alocc_ros.network.model import Alocc
from alocc_ros.network.variants import VARIANTS
from alocc_ros.runtime.cache import Cache
from alocc_ros.runtime.engines import built, identity_of, tensorrt_core
from alocc_ros.runtime.export import segments, to_onnx
from alocc_ros.runtime.prepare import prepare
from alocc_ros.runtime.runner import EagerRunner
from alocc_ros.runtime.tensorrt import Toolkit, find_toolkit

pytest.importorskip("onnxscript")


@pytest.fixture
def cache(tmp_path) -> Cache:
    return Cache(tmp_path / "built")


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIANTS)
def test_every_dense_segment_becomes_an_engine_in_half_precision(name, toolkit):
    core = prepare(network_of(small(name)))
    # One network for the targets of other generations; the graphs are the same.
    targets = ("SM89", "SM86", "SM120") if name == "alocc_flow_3d" else ("SM89",)
    found = segments(core, precision="fp16")
    assert [s.name for s in found if not s.dense] in ([], ["flow"])
    for segment in found:
        if segment.dense:
            graph = to_onnx(segment)
            for target in targets:
                engine = toolkit.build(graph, target)
                assert len(engine) > 0.5 * len(graph), (segment.name, target)


@pytest.mark.slow
def test_the_largest_segment_of_a_published_network_builds_at_its_real_size(toolkit):
    with torch.device("meta"):
        network = Alocc(VARIANTS["alocc_flow_3d"])
    network = network.to_empty(device="cpu").eval()
    with torch.no_grad():
        for tensor in (*network.parameters(), *network.buffers()):
            tensor.copy_(torch.ones(()).expand_as(tensor) * 0.01)
    (flow,) = (s for s in segments(prepare(network), precision="fp16") if s.name == "flow")
    assert flow.inputs["voxels"] == (1, 48, 200, 200, 16)
    assert len(toolkit.build(to_onnx(flow), "SM89")) > 100_000


def test_what_was_built_is_found_again_and_what_is_damaged_or_foreign_is_built_anew(
    toolkit, cache, caplog
):
    network = network_of(small("alocc_2d"))
    volume = segments(prepare(network), precision="fp16")[2]
    identity = identity_of(network)

    def build(where: dict[str, str], target: str = "SM89") -> bytes:
        return built(volume, identity, toolkit, target, where, cache)[1]

    here, there = {"device": "NVIDIA L4"}, {"device": "NVIDIA RTX 4090"}
    first = build(here)
    (graph,) = (e.path for e in cache.entries() if e.path.name.startswith("onnx"))
    before = {e.path: e.path.stat().st_mtime_ns for e in cache.entries()}
    assert build(here) == first
    assert {e.path: e.path.stat().st_mtime_ns for e in cache.entries()} == before
    build(there)
    build(here, "SM86")
    engines = [e.path for e in cache.entries() if e.path.name.startswith("engine")]
    assert len(engines) == 3, "another GPU's engine was taken"
    assert graph.stat().st_mtime_ns == before[graph], "the graph was exported again"

    mine = next(p for p in engines if p in before)
    other = next(p for p in engines if p not in before)
    for content in (other.read_bytes(), mine.read_bytes()[:-1], b""):
        mine.write_bytes(content)
        caplog.clear()
        assert build(here) == first
        assert len(caplog.records) == 1 and "built anew" in caplog.records[0].getMessage()


def test_other_weights_make_another_graph(toolkit, cache):
    for seed in (0, 1):
        network = network_of(small("alocc_2d"), seed)
        volume = segments(prepare(network), precision="fp16")[2]
        built(volume, identity_of(network), toolkit, "SM89", {}, cache)
    names = sorted(e.path.name.partition("-")[0] for e in cache.entries())
    assert names == ["engine", "engine", "onnx", "onnx"]


def test_targets_are_told(toolkit):
    assert {"SM86", "SM89", "SM120"} <= set(toolkit.targets)
    toolkit.check_target("SM89")
    with pytest.raises(ParameterError, match="no target 'SM90'.*SM89"):
        toolkit.check_target("SM90")


def test_tensorrt_itself_builds_for_the_gpu_that_is_here_only(toolkit):
    # Both have one interface; what differs is decided by the name.
    whole = Toolkit("tensorrt", find_toolkit(["tensorrt_rtx"]).module)
    assert whole.targets == ()
    with pytest.raises(ParameterError, match="the GPU that is here only; leave SM89 out"):
        whole.check_target("SM89")


def test_bytes_that_are_no_graph_and_bytes_that_are_no_engine_are_one_line(toolkit):
    for data in (b"", b"no graph", bytes(1000)):
        with pytest.raises(DeviceError) as caught:
            toolkit.build(data, "SM89")
        assert "\n" not in str(caught.value) and "tensorrt_rtx" in str(caught.value)
        with pytest.raises(DeviceError, match="cannot load the engine") as caught:
            toolkit.load(data, torch.device("cuda"))
        assert "\n" not in str(caught.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="here is a GPU")
def test_without_a_gpu_the_backend_says_so_and_an_engine_cannot_be_loaded(toolkit, cache):
    network = network_of(small("alocc_2d"))
    core = prepare(network)
    with pytest.raises(DeviceError, match="runs on a CUDA device"):
        tensorrt_core(core, identity_of(network), "fp16", torch.device("cpu"), cache=cache)
    engine = toolkit.build(to_onnx(segments(core, precision="fp16")[2]), "SM89")
    with pytest.raises(DeviceError, match="cannot load the engine"):
        toolkit.load(engine, torch.device("cuda"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_on_a_gpu_the_network_of_engines_says_what_the_network_says(cache):
    device, network = torch.device("cuda"), network_of(small("alocc_flow_2d")).cuda()
    try:
        core = tensorrt_core(prepare(network), identity_of(network), "fp16", device, cache=cache)
    except DeviceError as error:  # TensorRT-RTX does not know every GPU
        pytest.skip(str(error))
    runners = EagerRunner(prepare(network)), EagerRunner(core)
    states = [runner.new_state() for runner in runners]
    for t in range(3):
        frame = example_frame(network.variant, seed=t)
        outputs = []
        for runner, state in zip(runners, states, strict=True):
            plan = frame.plan(state.ages if t else None, slot=t % 2)
            outputs.append(runner.step(frame.images.to(device, runner.core.dtype), plan, state))
        ours, theirs = outputs
        assert (ours.labels == theirs.labels).float().mean() > 0.99
        assert (ours.flow - theirs.flow.float()).abs().max() < 0.1


def test_where_no_toolkit_is_here_the_line_says_what_to_install(tmp_path):
    (tmp_path / "tensorrt.py").write_text("__version__ = '8.6.1'\n")
    (tmp_path / "tensorrt_rtx.py").write_text("raise OSError('libcudart.so.13:\\n not found')\n")
    code = (
        "from alocc_ros.runtime.tensorrt import find_toolkit\n"
        "try: find_toolkit()\n"
        "except Exception as e: print(type(e).__name__, e)"
    )
    path = [str(tmp_path), *[p for p in sys.path if p]]
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {path!r}\n{code}"],
        capture_output=True,
        text=True,
    )
    (line,) = done.stdout.splitlines()
    assert line.startswith("DeviceError ")
    assert "tensorrt 8.6.1 is here, 10.3 or newer is needed" in line
    assert "libcudart.so.13: not found" in line and "pip install" in line


def test_engines_are_kept_for_the_network_as_it_was_loaded():
    """Folded on a GPU, a weight may differ in the last bit from what a CPU made of it."""
    variant = small("alocc_2d")
    network = network_of(variant)
    here = identity_of(network)
    prepare(network)
    assert {identity_of(network), identity_of(network_of(variant))} == {here}
    others = (
        network_of(variant, seed=1),
        network_of(replace(variant, skip_classes=1)),
        network_of(small("alocc_2d_mini")),
    )
    assert len({here, *map(identity_of, others)}) == 4
