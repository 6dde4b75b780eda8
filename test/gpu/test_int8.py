# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""The image network in int8 on a CPU, quantised and run by onnxruntime."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from small_networks import Stream, network_of, small

from alocc_ros.bench.scene import ExampleFrame, example_frame
from alocc_ros.errors import DeviceError, ParameterError
from alocc_ros.network.model import Alocc
from alocc_ros.runtime.cache import RANGES, Cache
from alocc_ros.runtime.calibration import calibrate, find_ranges
from alocc_ros.runtime.engines import identity_of
from alocc_ros.runtime.int8 import int8_core
from alocc_ros.runtime.prepare import prepare
from alocc_ros.runtime.runner import EagerRunner, make_runner

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


def core_of(network: Alocc, cache: Cache) -> Alocc:
    ranges = find_ranges(network, cache)
    return int8_core(prepare(network), identity_of(network), ranges, cache=cache)


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory) -> tuple[Alocc, Cache, list[ExampleFrame]]:
    """A network, and the frames that it was calibrated with."""
    network, cache = network_of(small("alocc_2d")), Cache(tmp_path_factory.mktemp("cache"))
    frames = [example_frame(network.variant, seed=t) for t in range(3)]
    calibrate(network, (f.images.numpy() for f in frames), cache)
    return network, cache, frames


def test_a_calibrated_network_is_near_the_one_in_float32(calibrated):
    network, cache, frames = calibrated
    plain, stream = Stream(network), Stream(network)
    stream.runner = EagerRunner(core_of(network, cache), precision="int8")
    stream.state = stream.runner.new_state()
    for frame in frames:
        answer, expected = stream.step(frame), plain.step(frame)
        scale = expected.logits.abs().max()
        error = (answer.logits - expected.logits).abs().max() / scale
        assert 0 < error <= 0.1  # not the same, and not another network


def test_without_a_calibration_int8_says_what_to_run(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(DeviceError, match="have not been calibrated.*alocc calibrate BAG"):
        make_runner(network_of(small("alocc_2d_mini")), "eager", "int8")
    with pytest.raises(DeviceError, match="eager on a CPU and for tensorrt, not for compiled"):
        make_runner(network_of(small("alocc_2d_mini")), "compiled", "int8")


def test_no_images_are_no_calibration(tmp_path):
    with pytest.raises(ParameterError, match="not one set"):
        calibrate(network_of(small("alocc_2d_mini")), iter(()), Cache(tmp_path))


def test_images_that_make_no_numbers_are_no_calibration(tmp_path):
    network, cache = network_of(small("alocc_2d_mini")), Cache(tmp_path)
    images = example_frame(network.variant).images.numpy()
    images[0, 0, 0, 0] = float("inf")
    with pytest.raises(ParameterError, match="nothing to calibrate on"):
        calibrate(network, [images], cache)
    assert cache.entries() == []


def test_a_damaged_calibration_is_not_used_and_a_damaged_graph_is_made_anew(
    calibrated, tmp_path, caplog
):
    network, kept, _ = calibrated
    cache = Cache(shutil.copytree(kept.folder, tmp_path / "cache"))
    (ranges,) = cache.entries(RANGES)
    (graph,) = cache.entries("onnx")
    whole = graph.path.read_bytes()
    damage(graph.path)
    core_of(network, cache)
    assert "built anew" in caplog.text and graph.path.read_bytes() == whole
    damage(ranges.path)
    caplog.clear()
    with pytest.raises(DeviceError, match="have not been calibrated"):
        find_ranges(network, cache)
    assert f"{ranges.path} cannot be used" in caplog.text
    assert "built anew" not in caplog.text, "nobody can see the images again"


def test_the_rest_of_the_network_stays_as_it_is(tmp_path):
    network, cache = network_of(small("alocc_3d_gf")), Cache(tmp_path)
    frame = example_frame(network.variant)
    calibrate(network, [frame.images.numpy()], cache)
    core = core_of(network, cache)
    c2, feature, same = core.img_backbone(frame.images)
    assert feature is same is core.img_neck(feature, same)
    whole = prepare(network)
    wanted = whole.img_neck(*whole.img_backbone(frame.images)[1:])
    assert c2.dtype == feature.dtype == torch.float32 and feature.shape == wanted.shape
    assert (feature - wanted).abs().max() <= 0.1 * wanted.abs().max()
