# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Names that come from data lead nowhere but below the folder they are for."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nuscenes_tables import VERSION, add_lidarseg, small_nuscenes

from alocc_ros.cli.main import main
from alocc_ros.datasets.infos import InfoFile, write_infos
from alocc_ros.datasets.lidarseg import lidarseg_files
from alocc_ros.datasets.nuscenes import NuScenes
from alocc_ros.datasets.truth import truth_files
from alocc_ros.errors import DataError
from alocc_ros.files import below, component

HOSTILE = ["../..", "..", "/ABSOLUTE", "a/../../b", "a\0b", "x" * 5000, "", "\\..\\x"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    return small_nuscenes(tmp_path / "in" / "nuscenes")


def change(root: Path, table: str, **values: object) -> None:
    """Every row of a table gets these values, a row without them stays."""
    path = root / VERSION / f"{table}.json"
    rows = json.loads(path.read_text())
    path.write_text(json.dumps([{**row, **values} for row in rows]))


@pytest.mark.parametrize("name", ["scene-0061", "n015-2018+0800__CAM_FRONT__1.jpg", "f" * 32, "é"])
def test_ordinary_names_stay_as_they_are(name):
    assert component(name) == name


@given(st.text(max_size=400))
def test_every_name_is_one_component(name):
    made = component(name)
    assert Path("a", made).parent == Path("a")
    assert made not in ("", ".", "..") and not set(made) & set("/\\\0")
    assert len(made.encode()) <= 200


@pytest.mark.parametrize("name", ["/etc/passwd", "../x", "a/../../x", "", ".", "a\0b"])
def test_a_file_below_a_folder_is_below_it(name):
    with pytest.raises(ValueError, match="is not below"):
        below(Path("root"), name)
    assert below(Path("root"), "samples/a.jpg") == Path("root/samples/a.jpg")


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_convert_writes_nothing_outside_of_its_folder(root, tmp_path, name):
    change(root, "scene", name=name.replace("/ABSOLUTE", str(tmp_path / "absolute")))
    out = tmp_path / "out" / "deep" / "er"
    before = {p for p in tmp_path.rglob("*") if "out" not in p.parts}
    arguments = ["convert", "nuscenes", str(root), "--scene", "all", "-o", str(out)]
    main(arguments)  # both scenes have that name: one is made, the other is refused or not
    written = {p for p in tmp_path.rglob("*") if p.is_file()} - before
    assert written
    assert all(path.parent == out for path in written)


@pytest.mark.parametrize("name", ["../secret.jpg", "/etc/passwd", "samples/../../secret.jpg"])
def test_tables_name_files_below_their_folder_only(root, name):
    change(root, "sample_data", filename=name)
    with pytest.raises(DataError, match=r"sample_data\.json.*is not below"):
        NuScenes(root)


def test_an_info_file_names_files_below_its_folder_only(root):
    dataset, path = NuScenes(root), root / "infos.pkl"
    write_infos(path, dataset.scenes, root, VERSION, {})
    contents = pickle.loads(path.read_bytes())
    contents["infos"][0]["cams"]["CAM_BACK"]["data_path"] = "x/samples/../../secret.jpg"
    path.write_bytes(pickle.dumps(contents))
    with pytest.raises(DataError, match="is not below"):
        InfoFile(path)


def test_lidarseg_names_files_below_its_folder_only(root):
    add_lidarseg(root)
    change(root, "lidarseg", filename="../../secret.bin")
    with pytest.raises(DataError, match="is not below"):
        lidarseg_files(root, VERSION)


def test_labels_are_looked_for_below_the_data_set_only(root):
    change(root, "scene", name="../../other")
    for sample in NuScenes(root).samples:
        for benchmark in ("occ3d", "openocc", "surroundocc", "openoccupancy"):
            for file in truth_files(root, sample, benchmark):
                assert file.resolve().is_relative_to(root.resolve())
