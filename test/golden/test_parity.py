# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""``alocc parity`` against tensors of the reference network, and what it does with bad folders."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from alocc_ros.bench import parity
from alocc_ros.cli.main import main
from alocc_ros.errors import AloccError, ModelError

GOLDEN = Path(__file__).parents[3] / "shared" / "golden"
needs_golden = pytest.mark.skipif(
    not (GOLDEN / "manifest.json").exists(), reason="no golden folder beside the repository"
)
FIVE = ("alocc_2d_mini", "alocc_2d", "alocc_3d", "alocc_flow_2d", "alocc_flow_3d")

# What every variant must show; most others are seen as well.
MAIN_STAGES = {
    "img_neck/out0",
    "depth_net/depth_prob",
    "depth_net/context",
    "depth_net/geometry_after_intra",
    "view_transformer/lifted",
    "history/fused",
    "bev_encoder/neck",
    "final/occ_logits_xyzc",
    "labels",
}


@needs_golden
@pytest.mark.golden
@pytest.mark.slow
@pytest.mark.parametrize("name", [*FIVE, "alocc_3d_gf"])
def test_the_network_is_the_reference(name):
    golden = parity.open_golden(GOLDEN)
    results = list(parity.compare(golden, name, torch.device("cpu")))
    failed = [r for r in results if not r.passed]
    assert not failed
    for t in golden.manifest["frames"]:
        assert {r.stage for r in results if r.frame == t} >= MAIN_STAGES
    if "flow" in name:
        assert [r.stage for r in results].count("flow") == len(golden.manifest["frames"])


@needs_golden
@pytest.mark.golden
@pytest.mark.slow
def test_the_reference_operators_are_the_reference_too():
    golden = parity.open_golden(GOLDEN)
    results = list(
        parity.compare(golden, "alocc_2d_mini", torch.device("cpu"), backend="reference")
    )
    assert not [r for r in results if not r.passed]
    # Stages that the fast form never holds whole.
    seen = {r.stage for r in results}
    assert seen >= {"history/sampled_history", "history/time_conv", "final_conv/out"}


@needs_golden
@pytest.mark.golden
@pytest.mark.slow
def test_recurrent_fusion_is_the_reference_step_by_step():
    golden = parity.open_golden(GOLDEN)
    golden.manifest["frames"] = golden.manifest["frames"][:2]
    results = list(parity.compare(golden, "alocc_3d_gf", torch.device("cpu"), backend="reference"))
    assert not [r for r in results if not r.passed]
    assert {r.stage for r in results if r.frame == 1} >= {
        "depth_net/history_warped",
        "history/motion_gradient",
        "history/sampled_history",
        "history/time_conv",
        "scene/norm_weight_update",
    }


def test_vectors_of_an_unknown_network_are_skipped_unless_they_are_asked_for(tmp_path, capsys):
    entry = {"schema": "x.json", "golden": "x.npz", "stereo": False}
    manifest = {
        "salt": "",
        "frames": [0],
        "input_size": [256, 704],
        "variants": {"alocc_4d": entry},
    }
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    script = "SALT = ''\ndef make_state_dict(schema): ...\ndef make_frame(*what): ...\n"
    (tmp_path / "procedural.py").write_text(script)
    assert main(["parity", "--golden", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "skipped, not known here: alocc_4d" in said and "no network that is known" in said
    assert main(["parity", "--golden", str(tmp_path), "--variant", "alocc_4d"]) == 2
    assert "unknown model 'alocc_4d'" in capsys.readouterr().err
    golden = parity.open_golden(tmp_path)
    golden.manifest["variants"]["alocc_2d"] = entry
    assert golden.known() == (["alocc_2d"], ["alocc_4d"])


@needs_golden
@pytest.mark.golden
def test_a_wrong_rule_is_noticed(monkeypatch):
    # A rule that all variants share: nodes stand at the lower corners of cells.
    golden = parity.open_golden(GOLDEN)
    golden.manifest["frames"] = golden.manifest["frames"][:1]
    monkeypatch.setattr(
        "alocc_ros.network.lifting.lattice",
        lambda v: parity_lattice(v, shift=0.5),
    )
    results = list(parity.compare(golden, "alocc_2d_mini", torch.device("cpu")))
    assert "view_transformer/lifted" in {r.stage for r in results if not r.passed}


def parity_lattice(variant, shift):
    from alocc_ros.ops.lift import Lattice

    lower = tuple(
        lo + shift * s for lo, s in zip(variant.grid.lower, variant.lift_step, strict=True)
    )
    return Lattice(lower, variant.lift_step, variant.lift_cells)


@needs_golden
def test_the_command_says_what_is_wrong(tmp_path, capsys):
    assert main(["parity", "--golden", str(tmp_path)]) == 2
    assert "is not a golden folder" in capsys.readouterr().err
    assert main(["parity", "--golden", str(GOLDEN), "--variant", "alocc_4d"]) == 2
    assert "alocc_4d" in capsys.readouterr().err
    assert main(["parity", "--golden", str(GOLDEN), "--backend", "magic"]) == 2
    assert "unknown backend" in capsys.readouterr().err
    assert main(["parity", "--golden", str(GOLDEN), "--device", "cuda:77"]) == 2
    assert "cuda:77" in capsys.readouterr().err


def test_malformed_folders_are_named(tmp_path):
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(AloccError, match="not JSON"):
        parity.open_golden(tmp_path)
    (tmp_path / "manifest.json").write_text(json.dumps({"salt": ""}))
    with pytest.raises(AloccError, match="frames, input_size, variants"):
        parity.open_golden(tmp_path)
    manifest = {"salt": "", "frames": [0], "input_size": [256, 704], "variants": {"x": {}}}
    manifest["variants"]["x"] = {"schema": "x.json", "golden": "x.npz", "stereo": False}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(AloccError, match="procedural"):
        parity.open_golden(tmp_path)
    script = "SALT = ''\ndef make_state_dict(schema): ...\ndef make_frame(*what): ...\n"
    (tmp_path / "procedural.py").write_text(script)
    golden = parity.open_golden(tmp_path)
    with pytest.raises(ModelError, match="has no vectors of 'alocc_3d'"):
        golden.entry("alocc_3d")
