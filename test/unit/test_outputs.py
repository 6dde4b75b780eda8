# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""The table of outputs: what a row says is what its builder makes and what a recording holds."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from street_truth import frame_at, voxels_at

from alocc_ros import arrays
from alocc_ros.bags import cdr
from alocc_ros.bags.outputs import Provenance, frame_outputs
from alocc_ros.grid import VoxelGrid
from alocc_ros.messages import Message, transforms
from alocc_ros.outputs import OUTPUTS, RECORDING_NAMESPACE, Result, find_output, is_latched

FRAME = frame_at(width=32, height=18)
BUILT = [output for output in OUTPUTS if output.build is not None]


@pytest.fixture(scope="module")
def result() -> Result:
    street = voxels_at(grid=VoxelGrid((0.0, -8.0, -1.0), (50, 40, 8), 0.4))
    return Result(FRAME, street, "mine", "sha256:0123")


def test_no_two_rows_have_one_name_and_each_goes_somewhere():
    names = [output.name for output in OUTPUTS]
    assert len({*names}) == len(names)
    assert all(output.node or output.recording for output in OUTPUTS)
    assert all(find_output(name).name == name for name in names)
    with pytest.raises(KeyError):
        find_output("nowhere")


@pytest.mark.parametrize("output", BUILT, ids=lambda output: output.name)
def test_a_row_makes_a_message_of_its_type_that_reads_back_as_it_was(output, result):
    message = output.build(result)
    assert message.type == output.type
    read = cdr.TYPESTORE.deserialize_cdr(cdr.encode(message), output.type)
    assert_holds(read, message)


def assert_holds(read: object, message: Message) -> None:
    for name, value in message.fields.items():
        found = getattr(read, name)
        if isinstance(value, Message):
            assert_holds(found, value)
        elif isinstance(value, np.ndarray):
            np.testing.assert_array_equal(found, value)
        elif isinstance(value, list) and value and isinstance(value[0], Message):
            for one, part in zip(found, value, strict=True):
                assert_holds(one, part)
        elif isinstance(value, float):
            assert found == pytest.approx(value, rel=1e-6)
        elif isinstance(value, bool | int | str):
            assert found == value


def test_a_recording_holds_the_rows_that_are_of_recordings(result):
    provenance = Provenance("mine", "sha256:0123", {}, {})
    entries = list(frame_outputs(FRAME, result.occupancy, provenance, first=True))
    assert {(topic, message.type) for topic, _, message in entries} == {
        (output.topic(RECORDING_NAMESPACE), output.type) for output in OUTPUTS if output.recording
    }
    later = {
        topic for topic, _, _ in frame_outputs(FRAME, result.occupancy, provenance, first=False)
    }
    assert {topic for topic, _, _ in entries} - later == {"/tf_static", "/alocc/grid_info"}


def test_only_what_is_looked_at_is_thinned_and_evenly(result):
    thinned = dataclasses.replace(result, max_points=100)
    everything = arrays.occupied_points(result.occupancy)
    assert len(everything) > 200
    assert find_output("occupancy").build(thinned)["width"] == 100
    assert len(find_output("markers").build(thinned)["markers"][-1]["points"]) == 100
    places = np.searchsorted(everything["x"], thinned.points["x"])
    assert places[0] == 0 and places[-1] > 0.9 * len(everything)
    for name in ("obstacles", "voxels", "occupancy_grid"):
        whole, thin = (cdr.encode(find_output(name).build(r)) for r in (result, thinned))
        assert whole == thin
    assert dataclasses.replace(result, max_points=len(everything)).points.shape == everything.shape


def test_obstacles_above_the_vehicle_do_not_count(result):
    low = dataclasses.replace(result, obstacle_height=(-np.inf, 0.5))
    counts = [find_output("obstacles").build(r)["width"] for r in (low, result)]
    assert 0 < counts[0] < counts[1]


@pytest.mark.parametrize("name", ["flow_markers", "markers"])
def test_markers_of_earlier_results_are_deleted_on_request(result, name):
    actions = [
        [marker["action"] for marker in find_output(name).build(r)["markers"]]
        for r in (result, dataclasses.replace(result, clear_markers=True))
    ]
    assert actions == [[0], [3, 0]]


@pytest.mark.parametrize(
    ("topic", "latched"),
    [
        ("/tf_static", True),
        ("/robot/tf_static", False),
        ("/alocc/grid_info", True),
        ("/alocc_node/grid_info", True),
        ("/grid_info", True),
        ("/tf", False),
        ("/alocc/occupancy", False),
        ("/alocc/no_grid_info", False),
    ],
)
def test_what_is_said_once_is_known_by_its_topic(topic, latched):
    assert is_latched(topic) is latched


def test_fields_that_are_left_out_are_zero_in_every_kind():
    """Arrays of fixed length, sequences, strings, numbers and messages."""
    info = cdr.instance(Message("sensor_msgs/msg/CameraInfo", {"width": 3}))
    assert (info.width, info.height, info.distortion_model, info.roi.do_rectify) == (
        3,
        0,
        "",
        False,
    )
    assert info.k.shape == (9,) and info.d.shape == (0,) and not info.k.any()
    assert info.header.stamp.sec == 0
    marker = cdr.instance(Message("visualization_msgs/msg/Marker", {}))
    assert marker.points == [] and marker.scale.x == 0.0
    assert cdr.encode(Message("visualization_msgs/msg/Marker", {}))
    assert cdr.encode(transforms(5, [])) == cdr.encode(Message("tf2_msgs/msg/TFMessage", {}))
