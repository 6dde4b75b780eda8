# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""The way of a researcher who knows the reference's code, by the page for them and nothing else."""

from __future__ import annotations

import gzip
import json
import pickle
import re
import shlex
from pathlib import Path

import pytest
import torch

from alocc_ros.cli.main import main
from alocc_ros.evaluation.scoring import fitting
from alocc_ros.network.model import Alocc
from alocc_ros.network.variants import find_variant
from alocc_ros.records import find

pytestmark = [pytest.mark.slow, pytest.mark.system]
PAGE = Path(__file__).parents[2] / "docs" / "from_the_reference.md"
OFFICIAL = find("alocc_2d_mini")


def lines_of_the_page() -> list[list[str]]:
    (block,) = re.findall(r"<!-- walk -->\n```sh\n(.*?)```", PAGE.read_text("utf-8"), re.S)
    return [shlex.split(line) for line in block.splitlines()]


def write_official(path: Path) -> None:
    """As the authors' training code saves: metadata, weights and the constants of the grid."""
    torch.manual_seed(0)
    variant = find_variant(OFFICIAL.variant)
    step = torch.tensor(variant.lift_step)
    grid = {
        "view_transformer.dx": step,
        "view_transformer.bx": torch.tensor(variant.lift_lower) + step / 2,
        "view_transformer.nx": torch.tensor(variant.lift_cells, dtype=torch.float32),
    }
    weights = Alocc(variant).state_dict() | grid
    torch.save({"meta": {"epoch": 12, "iter": 96060}, "state_dict": weights}, path)


def test_the_page_evaluates_on_all_benchmarks_that_fit():
    found: dict[str, set[str]] = {}
    for words in lines_of_the_page():
        if words[1] == "evaluate":
            model, name = (words[words.index(o) + 1] for o in ("--model", "--benchmark"))
            found.setdefault(model, set()).add(name)
    assert found[OFFICIAL.file] == set(fitting(OFFICIAL))
    assert found["runs/tuned"] == {*fitting(find("alocc_tiny")), "occ3d"}


def test_every_line_of_the_page_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_official(tmp_path / OFFICIAL.file)
    told: dict[str, str] = {}
    for words in lines_of_the_page():
        assert words[0] == "alocc"
        code = main(words[1:])
        captured = capsys.readouterr()
        assert code == 0, f"{shlex.join(words)}: {captured.err}"
        told[" ".join(words[1:])] = captured.out + captured.err
    said = next(text for line, text in told.items() if line.startswith("models verify"))
    assert "network  alocc_2d_mini" in said and "state_dict" in said and "good" in said

    scores = {
        (about["model"], about["benchmark"]): report
        for path in (tmp_path / "evaluation").glob("*/scores.json")
        for report in [json.loads(path.read_text())]
        for about in [report["about"]]
    }
    assert len(scores) == 6 and all(report["frames"] == 2 for report in scores.values())
    mapped = scores["alocc_tiny", "occ3d"]
    assert mapped["mapped classes"]["not scored"] == ["others"]
    assert mapped["about"]["mapped classes"] == mapped["mapped classes"]
    assert "mapped classes" not in scores["alocc_tiny", "openocc"]
    assert any("classes mapped by name from openocc to occ3d" in t for t in told.values())

    assert len(list((tmp_path / "predictions").glob("*.npz"))) == 2
    assert len(list((tmp_path / "beside_the_truth").glob("*.png"))) == 1
    assert len(list((tmp_path / "pages").glob("*.png"))) == 2
    with gzip.open("challenge.gz") as file:
        submission = pickle.load(file)  # what has just been written
    assert submission["team"] == "Robots" and len(submission["results"]) == 2

    tuned = tmp_path / "runs" / "tuned"
    log = [json.loads(line) for line in (tuned / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in log] == [0, 1]
    assert (tuned / "start.txt").read_text().startswith("from runs/tiny/weights.safetensors")
    first, last = (
        torch.load(tuned / "checkpoints" / f"step-0000000{n}" / "state.pt", weights_only=True)
        for n in (1, 2)
    )
    frozen = "img_backbone.conv1.weight"
    assert torch.equal(first["network"][frozen], last["network"][frozen])
