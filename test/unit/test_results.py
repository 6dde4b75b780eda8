# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Voxel grids out of recordings and NPZ files: what was written is what is read."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rosbags.typesys import get_types_from_msg
from street_truth import frame_at, voxels_at

from alocc_ros import messages
from alocc_ros.bags.cdr import OWN_TYPES
from alocc_ros.bags.outputs import Provenance, frame_outputs, save_npz
from alocc_ros.bags.reader import Bag
from alocc_ros.bags.results import npz_stamp, read_npz, recorded_grids
from alocc_ros.bags.writer import Recorder
from alocc_ros.errors import AloccError, BagError
from alocc_ros.geometry import pose_matrix
from alocc_ros.grid import VoxelGrid
from alocc_ros.labels import OCC3D, OPENOCC
from alocc_ros.messages import Message
from alocc_ros.types import Occupancy

FRAME = frame_at(width=32, height=18)
REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def street() -> Occupancy:
    made = voxels_at(grid=VoxelGrid((0.0, -8.0, -1.0), (50, 40, 8), 0.4))
    return dataclasses.replace(made, degraded="no cam_back", reset="first frame")


def recorded(path: Path, occupancy: Occupancy, **more) -> Path:
    """As ``alocc run`` writes it."""
    frame = dataclasses.replace(FRAME, map_T_base=occupancy.map_T_base)
    provenance = Provenance("mine", "sha256:0", {}, {}, **more)
    recorder = Recorder(path, {})
    for output in frame_outputs(frame, occupancy, provenance, first=True):
        recorder.write(*output)
    recorder.end_frame()
    recorder.publish(path)
    return path


def first_of(bag: Bag, **more) -> Occupancy:
    (grids,) = recorded_grids(bag, **more)
    ((stamp, read),) = list(grids)
    occupancy = read()
    assert occupancy.stamp == stamp
    return occupancy


# --- recordings ------------------------------------------------------------------------------


@pytest.mark.parametrize("with_flow", [True, False])
def test_a_recording_gives_back_labels_flow_lattice_and_pose(street, tmp_path, with_flow):
    written = street if with_flow else dataclasses.replace(street, flow=None)
    with Bag(recorded(tmp_path / "out.mcap", written)) as bag:
        (grids,) = recorded_grids(bag)
        assert (grids.name, grids.info.model) == ("/alocc", "mine")
        read = first_of(bag)
    np.testing.assert_array_equal(read.labels, written.labels)
    assert (read.grid, read.classes, read.frame_id) == (written.grid, OCC3D, "base_link")
    np.testing.assert_allclose(read.map_T_base, written.map_T_base, atol=1e-9)
    if with_flow:
        occupied = written.labels != OCC3D.free
        np.testing.assert_array_equal(read.flow[occupied], written.flow[occupied])
    else:
        assert read.flow is None


def test_a_grid_in_another_frame_says_where_that_is(street, tmp_path):
    base_T_grid = pose_matrix((0.9, 0.1, 1.8), (0, 0, 0, 1))
    lidar = dataclasses.replace(street, frame_id="lidar")
    with Bag(recorded(tmp_path / "out.mcap", lidar, base_T_grid=base_T_grid)) as bag:
        (grids,) = recorded_grids(bag)
        np.testing.assert_allclose(grids.base_T_grid("lidar"), base_T_grid, atol=1e-9)
        assert grids.base_T_grid("base_link") is None
        assert grids.base_T_grid("elsewhere") is None


def test_the_nodes_dense_grid_is_taken_before_its_points(street, tmp_path):
    path = tmp_path / "node.mcap"
    recorder = Recorder(path, {})
    stamp, result = street.stamp, dataclasses.replace(street, random_weights=True)
    info = messages.GridInfo(street.grid, OCC3D, "mine", "", True, True)
    frame = dataclasses.replace(FRAME, missing={"cam_back": "never seen"})
    cloud = messages.point_cloud(np.zeros(0, "f4"), stamp, "base_link")
    recorder.write("/node/grid_info", stamp, messages.grid_info(info, stamp, "base_link"))
    recorder.write("/node/occupancy", stamp, cloud)
    recorder.write("/node/voxels", stamp, messages.semantic_grid(frame, result))
    recorder.end_frame()
    recorder.publish(path)
    with Bag(path) as bag:
        read = first_of(bag)
    np.testing.assert_array_equal(read.labels, street.labels)
    moves = np.isin(street.labels, OCC3D.flow)
    np.testing.assert_array_equal(read.flow[moves], street.flow[moves])
    assert (read.degraded, read.random_weights) == ("no cam_back", True)


def test_own_types_are_those_of_the_msg_files():
    for name, definition in OWN_TYPES.items():
        file = REPOSITORY / "msg" / f"{name.rpartition('/')[2]}.msg"
        (_, ours), (_, theirs) = (
            get_types_from_msg(text, name)[name] for text in (definition, file.read_text())
        )
        assert ours == theirs


def test_without_grid_info_nothing_is_guessed(street, tmp_path):
    path = tmp_path / "out.mcap"
    with Bag(recorded(tmp_path / "whole.mcap", street)) as bag:
        recorder = Recorder(path, {})
        for record in bag.messages(["/alocc/occupancy"]):
            recorder.write_bytes(record.topic, record.type, record.log_time, record.data)
        recorder.end_frame()
        recorder.publish(path)
    with Bag(path) as bag, pytest.raises(BagError, match="/alocc/grid_info was not recorded"):
        recorded_grids(bag)


def with_info(path: Path, occupancy: Occupancy, info: Message) -> Path:
    """A recording with another grid_info."""
    source = path.with_name("whole.mcap")
    if not source.exists():
        recorded(source, occupancy)
    recorder = Recorder(path, {})
    recorder.write("/alocc/grid_info", occupancy.stamp, info)
    with Bag(source) as bag:
        for record in bag.messages(["/alocc/occupancy"]):
            recorder.write_bytes(record.topic, record.type, record.log_time, record.data)
    recorder.end_frame()
    recorder.publish(path)
    return path


def described(occupancy: Occupancy, **changes) -> Message:
    """Its grid_info, with other fields."""
    info = messages.GridInfo(occupancy.grid, OCC3D, "mine", "", False, True)
    made = messages.grid_info(info, occupancy.stamp, "base_link")
    return Message(made.type, {**made.fields, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size_x": 2, "size_y": 2, "size_z": 2}, "points lie outside the grid"),
        ({"size_x": 1 << 20, "size_y": 1 << 20}, "grid_info cannot be used .a grid of"),
        ({"size_x": 0}, "grid_info cannot be used .a grid of"),
        ({"resolution": 0.0}, "grid_info cannot be used .a lattice from"),
        ({"resolution": np.nan}, "grid_info cannot be used .a lattice from"),
    ],
)
def test_a_grid_info_whose_lattice_does_not_fit_is_named(street, tmp_path, changes, message):
    geometry = messages.grid_geometry(street.grid)
    wrong = Message(geometry.type, {**geometry.fields, **changes})
    path = with_info(tmp_path / "out.mcap", street, described(street, geometry=wrong))
    with Bag(path) as bag, pytest.raises(BagError, match=message):
        first_of(bag)


def test_a_grid_info_of_other_classes_is_named(street, tmp_path):
    classes = described(street)["classes"][:-1]
    path = with_info(tmp_path / "out.mcap", street, described(street, classes=classes))
    with Bag(path) as bag, pytest.raises(BagError, match="its 17 classes are those of no list"):
        first_of(bag)


# --- recordings that say it in JSON ----------------------------------------------------------


def as_json(occupancy: Occupancy) -> dict[str, Any]:
    """What the grid_info of early recordings of ``alocc run`` holds."""
    classes = occupancy.classes
    return {
        "model": "mine",
        "weights": "sha256:0",
        "random_weights": occupancy.random_weights,
        "frame_id": occupancy.frame_id,
        "lower_m": occupancy.grid.lower,
        "shape_xyz": occupancy.grid.shape,
        "resolution_m": occupancy.grid.resolution,
        "benchmark": classes.name,
        "free_label": classes.free,
        "classes": [
            {
                "label": label,
                "name": name,
                "rgb": classes.colours[label].tolist(),
                "obstacle": bool(classes.is_obstacle[label]),
                "ground": bool(classes.is_ground[label]),
                "has_flow": label in classes.flow,
            }
            for label, name in enumerate(classes.names)
        ],
    }


def json_info(entries: Any) -> Message:
    return Message("std_msgs/msg/String", {"data": json.dumps(entries)})


def test_an_early_recording_reads_as_a_new_one(street, tmp_path):
    early = with_info(tmp_path / "early.mcap", street, json_info(as_json(street)))
    with Bag(early) as bag, Bag(tmp_path / "whole.mcap") as whole:
        (old,), (new,) = recorded_grids(bag), recorded_grids(whole)
        assert old.info == new.info
        assert old.info.weights == "sha256:0"
        np.testing.assert_array_equal(first_of(bag).labels, first_of(whole).labels)
        np.testing.assert_array_equal(first_of(bag).flow, first_of(whole).flow)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda info: info.update(shape_xyz=[2, 2, 2]), "points lie outside the grid"),
        (lambda info: info.update(shape_xyz=[1 << 20] * 3), "grid_info cannot be used .a grid of"),
        (lambda info: info.update(shape_xyz=[0, 2]), "grid_info cannot be used"),
        (lambda info: info.update(resolution_m=0), "grid_info cannot be used .a lattice from"),
        (lambda info: info.update(lower_m=[None] * 3), "grid_info cannot be used"),
        (lambda info: info["classes"].pop(), "its 17 classes are those of no list known here"),
        (lambda info: info.pop("lower_m"), "grid_info cannot be used .KeyError: 'lower_m'"),
        (lambda info: info.update(classes=3), "grid_info cannot be used"),
    ],
)
def test_json_that_does_not_fit_is_named(street, tmp_path, change, message):
    info = as_json(street)
    change(info)
    path = with_info(tmp_path / "out.mcap", street, json_info(info))
    with Bag(path) as bag, pytest.raises(BagError, match=message):
        first_of(bag)


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists))
def test_any_json_is_an_error_of_ours_or_a_grid(street, tmp_path, value):
    path = with_info(tmp_path / "out.mcap", street, json_info(value))
    with Bag(path) as bag, pytest.raises(BagError, match="grid_info cannot be used"):
        first_of(bag)


# --- NPZ -------------------------------------------------------------------------------------


def test_an_npz_gives_back_what_was_saved(street, tmp_path):
    path = tmp_path / "one.npz"
    confidence = np.random.default_rng(0).random(street.labels.shape, np.float32)
    written = dataclasses.replace(street, confidence=confidence, random_weights=True)
    save_npz(path, written)
    assert npz_stamp(path) == street.stamp
    read = read_npz(path)
    for field in dataclasses.fields(Occupancy):
        ours, theirs = getattr(read, field.name), getattr(written, field.name)
        if isinstance(theirs, np.ndarray):
            np.testing.assert_array_equal(ours, theirs)
        else:
            assert ours == theirs


def arrays_of(occupancy: Occupancy) -> dict[str, np.ndarray]:
    names = ("labels", "flow", "map_T_base")
    arrays = {name: getattr(occupancy, name) for name in names}
    arrays |= {"lower": np.array(occupancy.grid.lower), "resolution": np.array(0.4)}
    arrays |= {"stamp": np.array(occupancy.stamp), "frame_id": np.array("base_link")}
    arrays |= {"class_names": np.array(OCC3D.names), "degraded": np.array("")}
    arrays |= {"reset": np.array(""), "random_weights": np.array(False)}
    return arrays


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": np.zeros((3, 4), np.uint8)}, r"'labels' has the shape \(3, 4\)"),
        ({"labels": np.zeros((2, 2, 2))}, "labels are float64, not uint8"),
        ({"labels": np.full((50, 40, 8), 18, np.uint8)}, "label 18 is none of the 18 of occ3d"),
        ({"flow": np.zeros((50, 40, 8), np.float16)}, "'flow' has the shape"),
        ({"class_names": np.array(OPENOCC.names[:4])}, "its 4 classes are those of no list"),
        ({"stamp": np.array(1.5)}, "1.5 is no stamp in ns"),
        ({"stamp": np.array(-1)}, "-1 is no stamp in ns"),
        ({"stamp": None}, "has no 'stamp'; `alocc run --npz` writes one"),
        ({"labels": np.array([{}], dtype=object)}, "'labels' is damaged"),
        ({"map_T_base": np.ones((4, 4))}, "map_T_base: not a rigid transform"),
        ({"resolution": np.array(np.nan)}, "a lattice from"),
    ],
)
def test_an_npz_of_something_else_is_told_in_one_line(street, tmp_path, change, message):
    arrays = {k: v for k, v in (arrays_of(street) | change).items() if v is not None}
    np.savez(tmp_path / "one.npz", **arrays)
    with pytest.raises(BagError, match=message):
        read_npz(tmp_path / "one.npz")


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_a_damaged_npz_is_an_error_of_ours_or_still_readable(street, tmp_path, data):
    whole = tmp_path / "whole.npz"
    if not whole.exists():
        save_npz(whole, dataclasses.replace(street, flow=None))
    content = bytearray(whole.read_bytes())
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content)))]
    else:
        for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=9)):
            content[place] = data.draw(st.integers(0, 255))
    damaged = tmp_path / "damaged.npz"
    damaged.write_bytes(content)
    try:
        assert read_npz(damaged).labels.ndim == 3
    except AloccError as error:
        assert str(damaged) in str(error) and "\n" not in str(error)
