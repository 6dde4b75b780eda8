# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from alocc_ros import records
from alocc_ros.bags.sample import write_sample
from alocc_ros.cli._models import load_network
from alocc_ros.cli.main import main
from alocc_ros.errors import AloccError, ModelError
from alocc_ros.records import (
    find,
    load_records,
    read_record,
    record_of_file,
    resolve,
    verified_sha256,
    weights_file,
    weights_path,
)
from alocc_ros.resources import shared_folder

NAMES = {
    "alocc_2d",
    "alocc_2d_mini",
    "alocc_2d_mini_surroundocc",
    "alocc_2d_mini_wo_mask",
    "alocc_2d_wo_mask",
    "alocc_3d",
    "alocc_3d_gf",
    "alocc_3d_gf_gt_depth",
    "alocc_3d_gf_surroundocc",
    "alocc_3d_gf_wo_mask",
    "alocc_3d_gt_depth",
    "alocc_3d_surroundocc",
    "alocc_3d_wo_mask",
    "alocc_flow_2d",
    "alocc_flow_3d",
    "alocc_tiny",
    "alocc_tiny_gf",
}
GOOD = (shared_folder("models") / "alocc_3d.yaml").read_text()


def written(folder: Path, text: str, name: str = "alocc_3d.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_every_model_has_a_record():
    assert set(load_records()) == NAMES


@pytest.mark.parametrize("name", sorted(NAMES))
def test_a_record_agrees_with_its_network(name):
    variants = pytest.importorskip("alocc_ros.network.variants")
    record = find(name)
    variant = variants.find_variant(record.variant)
    assert record.input_size == variant.input_size
    assert record.grid == variant.grid
    assert record.classes is variant.classes
    assert record.flow == variant.flow
    assert (record.history, record.history_interval) == (variant.history, variant.history_interval)
    assert record.recurrent == variant.recurrent


def test_two_records_never_share_a_file():
    files = [r.file for r in load_records().values() if r.file is not None]
    assert len(set(files)) == len(files) > 10


def test_the_published_scores_are_those_of_the_paper_notes():
    def score(name, metric):
        return [s.value for s in find(name).scores if s.metric == metric]

    assert score("alocc_2d_mini", "mIoU") == [41.43]
    assert score("alocc_3d", "mIoU_D") == [38.94, 39.3]
    assert score("alocc_flow_3d", "RayIoU_4m") == [47.2]
    assert all(s.source for r in load_records().values() for s in r.scores)


def test_an_unknown_name_is_told_the_nearest_and_all():
    with pytest.raises(ModelError, match=r"did you mean alocc_flow_3d\?.*alocc_2d_mini_wo_mask"):
        find("alocc_flow3d")


def test_a_file_is_known_by_its_official_name_or_the_record_name(tmp_path):
    official = find("alocc_3d_wo_mask").file
    assert record_of_file(tmp_path / official).name == "alocc_3d_wo_mask"
    assert record_of_file(tmp_path / "alocc_flow_2d.safetensors").name == "alocc_flow_2d"


def test_a_file_is_known_by_its_digest(tmp_path, monkeypatch):
    path = tmp_path / "renamed.pth"
    path.write_bytes(b"weights")
    digest = records.sha256(path)
    text = GOOD.replace("sha256: null", f"sha256: '{digest}'")
    record = read_record(written(tmp_path, text))
    monkeypatch.setattr(records, "load_records", lambda: {record.name: record})
    assert record_of_file(path) is record


def test_a_file_of_unknown_name_needs_the_variant(tmp_path):
    with pytest.raises(ModelError, match=r"mine.pth.*--variant"):
        record_of_file(tmp_path / "mine.pth")
    record = record_of_file(tmp_path / "mine.pth", "alocc_flow_3d")
    assert record.variant == "alocc_flow_3d"
    assert record.scores == () and record.file is None


def test_a_variant_that_contradicts_the_name_is_refused(tmp_path):
    with pytest.raises(ModelError, match="alocc_2d_mini network, not alocc_3d"):
        record_of_file(tmp_path / "alocc_2d_mini_wo_mask.pth", "alocc_3d")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("flow: false", "flow: no way", "flow must be true or false, got 'no way'"),
        ("flow: false", "", "flow is missing"),
        ("flow: false", "flow: false\nflow: true", "flow stands twice"),
        (
            "flow: false",
            "flow: false\nflwo: true",
            r"unknown .* 'flwo' \(did you mean 'flow'\?\)",
        ),
        ("[256, 704]", "[256]", "input: size must be a list of 2"),
        ("[256, 704]", "[256, 704.5]", "size must be a list of 2 whole numbers above 0"),
        ("lower: [-40.0", "lower: [.inf", "lower must be a list of 3 numbers"),
        ("resolution: 0.4", "resolution: 0", "grid: resolution must be a number above 0"),
        ("resolution: 0.4", "resolution: .nan", "resolution must be a number above 0, got nan"),
        ("sha256: null", "sha256: 1234", "sha256 must be 64 lower-case"),
        ("classes: occ3d", "classes: coco", "one of occ3d, openocc, got 'coco'"),
        ("file: alocc_3d_r50_256x704_bevdet_preatrain_16f.pth", "file: null", "needs a file"),
        ("Dobbin/OccStudio", "../../etc", "owner/name"),
        ("channel_order: bgr", "channel_order: [bgr]", "one of bgr, rgb"),
        ("value: 45.45", f"value: 1{'0' * 400}", "value must be a number, got 1000"),
        ("revision: null", "revision: main", "revision must be 40 lower-case"),
        ("[256, 704]", "&a [*a, 3]", "an alias for something that holds it"),
        ("grid:", "grid: 3\nlattice:", "grid: expected `name: value` entries, got 3"),
        ("name: alocc_3d", "name: other", "must be the file's name"),
        ("value: 45.45", "value: high", r"scores\[0\]: value must be a number"),
        ("name: alocc_3d", "name: [", "not a readable YAML file"),
        ("name: alocc_3d", "name: !!python/object/apply:os.getcwd []", "not a readable YAML"),
    ],
)
def test_a_wrong_entry_is_named_with_file_and_place(tmp_path, old, new, message):
    assert old in GOOD
    path = written(tmp_path, GOOD.replace(old, new, 1))
    with pytest.raises(ModelError, match=message) as caught:
        read_record(path)
    assert str(caught.value).startswith("alocc_3d.yaml: ")


@given(st.data())
@settings(deadline=None, max_examples=60)
def test_any_damage_to_a_record_gives_a_record_or_a_model_error(tmp_path_factory, data):
    tree = yaml.safe_load(GOOD)
    section = data.draw(st.sampled_from([tree, *[v for v in tree.values() if isinstance(v, dict)]]))
    key = data.draw(st.sampled_from(sorted(section)))
    section[key] = data.draw(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
        | st.lists(st.integers() | st.text(max_size=2), max_size=3)
        | st.dictionaries(st.text(max_size=2), st.integers(), max_size=2)
    )  # fmt: skip
    path = written(tmp_path_factory.mktemp("record"), yaml.safe_dump(tree))
    try:
        read_record(path)
    except AloccError as error:
        assert "alocc_3d.yaml" in str(error)


@given(st.binary(max_size=200))
@settings(deadline=None, max_examples=60)
def test_any_bytes_give_a_model_error(tmp_path_factory, junk):
    path = tmp_path_factory.mktemp("record") / "alocc_3d.yaml"
    path.write_bytes(junk)
    with pytest.raises(ModelError):
        read_record(path)


def test_a_model_is_a_name_or_a_file(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert resolve("alocc_3d") == (find("alocc_3d"), None)
    fetched = weights_path(find("alocc_3d"))
    fetched.parent.mkdir(parents=True)
    fetched.touch()
    assert resolve("alocc_3d") == (find("alocc_3d"), fetched)

    mine = tmp_path / "mine.pth"
    with pytest.raises(ModelError, match=r"mine.pth: no such file"):
        resolve(str(mine), "alocc_2d")
    mine.touch()
    record, path = resolve(str(mine), "alocc_2d")
    assert (record.variant, path) == ("alocc_2d", mine)
    with pytest.raises(ModelError, match="unknown model 'alocc3d'"):
        resolve("alocc3d")


def test_a_run_of_training_is_a_model_too_and_says_which(tmp_path):
    run = tmp_path / "run"
    state = run / "checkpoints" / "step-00000002" / "state.pt"
    with pytest.raises(ModelError, match="run: no such file"):
        resolve(str(run))
    state.parent.mkdir(parents=True)
    with pytest.raises(ModelError, match=r"run: a folder, but of no run"):
        resolve(str(run))
    state.touch()
    with pytest.raises(ModelError, match=r"its newest checkpoint is .*step-00000002/state.pt"):
        resolve(str(run))
    with pytest.raises(ModelError, match="state.pt: neither .* with --variant"):
        resolve(str(state))
    (run / "config.yaml").write_text("model: alocc_2d_mini\nsteps: 2\n")
    assert resolve(str(state))[0].variant == "alocc_2d_mini"
    assert resolve(str(state.parent))[1] == state

    weights = run / "weights.safetensors"
    save_file({"x": np.zeros(1)}, weights, metadata={"model": "alocc_flow_2d", "step": "2"})
    for model in (run, weights):
        record, path = resolve(str(model))
        assert (record.name, record.file, path) == ("alocc_flow_2d", None, weights)
    with pytest.raises(ModelError, match="alocc_flow_2d, a alocc_flow_2d network, not alocc_3d"):
        resolve(str(run), "alocc_3d")
    save_file({"x": np.zeros(1)}, weights, metadata={"model": "alocc_2d"})
    assert resolve(str(run), "alocc_2d_wo_mask")[0].name == "alocc_2d_wo_mask"


def test_training_starts_from_names_files_and_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert weights_file("alocc_tiny") == shared_folder("models") / find("alocc_tiny").file
    with pytest.raises(ModelError, match="not here: fetch them with `alocc models fetch alocc_2d`"):
        weights_file("alocc_2d")
    resnet = tmp_path / "resnet50.pth"  # of no model of ours
    resnet.touch()
    assert weights_file(str(resnet)) == resnet


def test_weights_without_a_repository_come_with_the_package(tmp_path):
    own = GOOD.replace("repository: Dobbin/OccStudio", "repository: null")
    assert own != GOOD
    record = read_record(written(tmp_path, own))
    assert weights_path(record) == shared_folder("models") / record.file


def test_weights_that_were_never_published_have_no_place(tmp_path):
    record = record_of_file(tmp_path / "mine.pth", "alocc_2d")
    with pytest.raises(ModelError, match="no published weights"):
        weights_path(record)


def test_the_weights_of_the_small_network_are_here_and_small():
    from alocc_ros.network.checkpoint import load_weights, read_state_dict
    from alocc_ros.network.model import Alocc
    from alocc_ros.network.variants import find_variant

    record, path = resolve("alocc_tiny")
    assert record.repository is None and path is not None
    assert path.stat().st_size < 20e6
    assert records.sha256(path) == record.sha256
    load_weights(Alocc(find_variant(record.variant)), read_state_dict(path))
    assert {"mIoU", "IoU", "RayIoU", "mAVE"} <= {s.metric for s in record.scores}


def flipped(tmp_path, tiny):
    """The weights that come with the package, with one bit changed in the last tensor."""
    data = bytearray((shared_folder("models") / tiny.file).read_bytes())
    data[-100] ^= 1
    path = tmp_path / tiny.file
    path.write_bytes(data)
    return path


def test_one_flipped_bit_in_weights_with_a_digest_is_noticed_by_every_command(tmp_path, capsys):
    path = flipped(tmp_path, find("alocc_tiny"))
    bag = tmp_path / "bag.mcap"
    write_sample(bag, seconds=0.2, rate=5, width=176, height=99)
    assert main(["run", str(bag), "-o", str(tmp_path / "out.mcap"), "--model", str(path)]) == 2
    told = capsys.readouterr().err
    assert f"{path} is damaged, or not the file of alocc_tiny" in told
    assert "install the package anew" in told
    with pytest.raises(ModelError, match="is damaged"):
        load_network(find("alocc_tiny"), path, "cpu", 0)
    record = dataclasses.replace(find("alocc_tiny"), repository="somebody/something")
    with pytest.raises(ModelError, match=r"delete it and fetch it with `alocc models fetch"):
        verified_sha256(path, record)


def test_the_node_refuses_weights_with_a_flipped_bit(tmp_path):
    pytest.importorskip("rclpy", reason="ROS is not installed (make setup)")
    from alocc_ros.ros.model import load
    from alocc_ros.ros.parameters import NodeParameters

    path = flipped(tmp_path, find("alocc_tiny"))
    with pytest.raises(ModelError, match="is damaged"):
        load(NodeParameters(model=str(path), device="cpu"))
