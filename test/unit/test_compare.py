# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Backends side by side, and what is predicted of a GPU that is not here."""

from __future__ import annotations

import json

import pytest
import torch
from small_networks import small

from alocc_ros.bench import compare, kernels
from alocc_ros.bench.operations import OF_FUSED
from alocc_ros.bench.predict import GPUS, gpu_of, predict, predictions
from alocc_ros.cli.main import main
from alocc_ros.errors import DataError, ParameterError
from alocc_ros.network.variants import VARIANTS
from alocc_ros.ops import library, resize  # noqa: F401  # registers the one no network calls

CPU = torch.device("cpu")


def test_no_fused_operator_is_without_a_formula():
    assert set(library.fused_forms()) == set(OF_FUSED)


def test_a_prediction_counts_what_the_paper_does():
    # ResNet-50 on six images of 704x256 is 176 GFLOP, whoever counts.
    found = predict(VARIANTS["alocc_2d"])
    backbone = [c for c in found.calls if c.part == "img_backbone"]
    assert sum(c.products for c in backbone) == pytest.approx(176.2e9, rel=0.01)
    history = [c for c in found.calls if c.name == "remembered_sum_fused"]
    assert [c.products for c in history] == [2.0 * 40_000 * 1280 * 80]
    # At least what is kept is read and written.
    assert history[0].moved >= 2 * 40_000 * 1280 * 2
    # Of the new history the present writes its own slot only.
    present = [c for c in found.calls if c.name == "add_present_fused"]
    assert present[0].moved < 0.2 * history[0].moved
    times = [found.seconds(gpu) for gpu in GPUS.values()]
    assert all(1e-4 < t < 0.1 for t in times)
    half, single = predict(small("alocc_2d")), predict(small("alocc_2d"), torch.float32)
    assert sum(c.moved for c in half.calls) < 0.7 * sum(c.moved for c in single.calls)


def test_the_table_has_a_row_a_network_and_a_column_a_gpu():
    lines = predictions([small("alocc_2d_mini"), small("alocc_3d_gf")]).splitlines()
    assert len(lines) == 4 and all(line.count("|") == len(GPUS) + 6 for line in lines)


def test_a_gpu_that_is_not_known_is_named():
    with pytest.raises(ParameterError, match=r"--predict sm_10: there are sm_87 \(Jetson"):
        gpu_of("sm_10")


@pytest.mark.parametrize("name", ["alocc_flow_2d", "alocc_tiny_gf"])
def test_kernels_are_looked_at_with_a_networks_own_arguments(name):
    checks = {c.operator: c for c in kernels.check_kernels(small(name), CPU)}
    assert {"lift_fused", "cost_volume_fused", "camera_gates_fused"} <= set(checks)
    # Here the fused form is what it is compared with.
    assert all(c.passed and c.error == c.strays == 0 for c in checks.values())
    assert all(c.calls >= 1 and c.plain_us > 0 for c in checks.values())


def test_a_kernel_that_is_wrong_is_found():
    name = "lift_fused"
    check = kernels.KernelCheck(name, "v")
    right = torch.rand(1000, dtype=torch.float16)
    kernels.compare(check, right + 1e-4, right, torch.float16)
    assert check.passed
    wrong = right.clone()
    wrong[:10] += 0.1
    kernels.compare(check, wrong, right, torch.float16)
    assert not check.passed and check.strays == pytest.approx(0.01)
    lost = kernels.KernelCheck(name, "v")
    kernels.compare(lost, right.index_fill(0, torch.arange(10), torch.nan), right, torch.float16)
    assert not lost.passed


def test_cells_are_kept_as_they_come_and_the_rest_is_gone_on_with(tmp_path):
    variants, told = [small("alocc_2d_mini"), small("alocc_flow_2d")], []
    first = compare.compare(variants, CPU, tmp_path, 1e-9, ["eager"], told.append)
    assert first.cells == [] and "the same command goes on" in told[-1]
    first = compare.compare(variants[:1], CPU, tmp_path, 600, ["eager"], seconds=0.1)
    kept = json.loads((tmp_path / "compare.json").read_text())
    assert [c["precision"] for c in kept["cells"]] == ["fp32", "bf16"]
    found = compare.compare(variants, CPU, tmp_path, 600, ["eager"], seconds=0.1)
    assert found.cells[:2] == first.cells and len(found.cells) == 4
    single, flow = found.cells[0], found.cells[2]
    assert single.labels == 1.0 and single.flow is None and flow.flow == 1.0
    assert 0 < single.p50_ms <= single.p95_ms and single.fps > 0 and not single.problem
    page = (tmp_path / "compare.md").read_text()
    assert "| alocc_flow_2d | eager | fp32 |" in page and "Load of the machine" in page


def test_what_cannot_be_run_is_a_cell_that_says_why():
    cell = compare.measure(small("alocc_2d_mini"), CPU, "graph", "fp16")
    assert cell.problem.startswith("DeviceError: backend graph: it needs a CUDA device")
    assert cell.p50_ms == 0


def test_a_comparison_of_something_else_is_not_gone_on_with(tmp_path):
    (tmp_path / "compare.json").write_text("{")
    with pytest.raises(DataError, match="is not a comparison"):
        compare.compare([], CPU, tmp_path, 1)
    held = {"device": "H200", "environment": {}, "load": 0.0, "cells": [], "kernels": []}
    (tmp_path / "compare.json").write_text(json.dumps(held))
    with pytest.raises(DataError, match="is of H200 or other versions"):
        compare.compare([], CPU, tmp_path, 1)


def test_the_command_predicts_without_a_gpu(capsys):
    assert main(["benchmark", "--predict", "sm_87", "--model", "alocc_tiny", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["gpu"].startswith("Jetson") and found["predicted"][-1]["part"] == "frame"
    assert main(["benchmark", "--predict", "all", "--model", "alocc_tiny"]) == 0
    assert "| alocc_tiny | " in capsys.readouterr().out
    assert main(["benchmark", "--predict", "sm_90", "--precision", "fp8"]) == 2
    assert "unknown precision 'fp8'" in capsys.readouterr().err


def test_a_file_where_results_should_go_is_told_in_one_line(tmp_path, capsys):
    place = tmp_path / "results"
    place.write_text("notes")
    assert main(["benchmark", "--compare", str(place)]) == 2
    assert capsys.readouterr().err == f"alocc: error: cannot write {place}: File exists\n"
    assert place.read_text() == "notes"
