# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""How benchmarks count; how long anything takes is not for tests to say."""

from __future__ import annotations

import pytest
import torch
from small_networks import small

from alocc_ros.bench.timing import ReferenceReport, Sample, benchmark, benchmark_as_reference


def test_the_reference_counts_the_last_frame_twice():
    report = ReferenceReport("v", "cpu", "eager", "fp32", 1, 5, {}, Sample([1.0, 1.0, 2.0]))
    assert report.fps == 3 / 6
    assert report.fps_counted_once == 3 / 4


def test_the_references_method_times_frames_and_nothing_else():
    told: list[str] = []
    variant, cpu = small("alocc_2d_mini"), torch.device("cpu")
    report = benchmark_as_reference(variant, cpu, frames=2, warmup=1, progress=told.append)
    assert told == ["warm-up 1 of 1", "frame 1 of 2", "frame 2 of 2"]
    assert len(report.frame.times) == 2
    assert 0 < report.fps < report.fps_counted_once
    assert report.peak_bytes > 0


@pytest.mark.slow
def test_the_parts_of_a_frame_are_those_of_the_network():
    report = benchmark(small("alocc_2d"), torch.device("cpu"), frames=1)
    assert "img_backbone" in report.parts
    assert report.flops["img_backbone"] == report.backbone_flops > 0
    assert report.ratio > 0
