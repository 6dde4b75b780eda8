# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""The image network in int8 on a CPU, quantised and run by onnxruntime."""

from __future__ import annotations

import pytest
import torch
from small_networks import Stream, network_of, small

from alocc_ros.bench.scene import example_frame
from alocc_ros.errors import DeviceError, ParameterError
from alocc_ros.runtime.cache import Cache
from alocc_ros.runtime.int8 import int8_core, quantise
from alocc_ros.runtime.prepare import prepare
from alocc_ros.runtime.runner import EagerRunner, make_runner

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


def test_a_calibrated_network_is_near_the_one_in_float32(tmp_path):
    network, cache = network_of(small("alocc_2d")), Cache(tmp_path)
    frames = [example_frame(network.variant, seed=t) for t in range(3)]
    quantise(prepare(network), (f.images.numpy() for f in frames), cache)
    plain, stream = Stream(network), Stream(network)
    stream.runner = EagerRunner(int8_core(prepare(network), cache=cache), precision="int8")
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
    with pytest.raises(DeviceError, match="int8 is for the eager backend on a CPU, not compiled"):
        make_runner(network_of(small("alocc_2d_mini")), "compiled", "int8")


def test_no_images_are_no_calibration(tmp_path):
    with pytest.raises(ParameterError, match="not one set"):
        quantise(prepare(network_of(small("alocc_2d_mini"))), iter(()), Cache(tmp_path))


def test_a_damaged_calibration_is_not_used(tmp_path, caplog):
    network, cache = network_of(small("alocc_2d_mini")), Cache(tmp_path)
    quantise(prepare(network), [example_frame(network.variant).images.numpy()], cache)
    (entry,) = cache.entries()
    data = bytearray(entry.path.read_bytes())
    data[len(data) // 2] ^= 1
    entry.path.write_bytes(data)
    with pytest.raises(DeviceError, match="have not been calibrated"):
        int8_core(prepare(network), cache=cache)
    assert "cannot be used" in caplog.text


def test_the_rest_of_the_network_stays_as_it_is(tmp_path):
    network, cache = network_of(small("alocc_3d_gf")), Cache(tmp_path)
    frame = example_frame(network.variant)
    quantise(prepare(network), [frame.images.numpy()], cache)
    core = int8_core(prepare(network), cache=cache)
    c2, feature, same = core.img_backbone(frame.images)
    assert feature is same is core.img_neck(feature, same)
    whole = prepare(network)
    wanted = whole.img_neck(*whole.img_backbone(frame.images)[1:])
    assert c2.dtype == feature.dtype == torch.float32 and feature.shape == wanted.shape
    assert (feature - wanted).abs().max() <= 0.1 * wanted.abs().max()
