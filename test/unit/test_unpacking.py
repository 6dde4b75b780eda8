# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""``~/voxels`` back as the arrays that it was made of."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from street_truth import frame_at, voxels_at

from alocc_ros.bags import cdr
from alocc_ros.errors import MessageError
from alocc_ros.grid import VoxelGrid
from alocc_ros.messages import Message, semantic_grid, unpack
from alocc_ros.types import Occupancy

GRID = VoxelGrid((0.0, -8.0, -1.0), (50, 40, 8), 0.4)
FRAME = dataclasses.replace(frame_at(width=32, height=18), missing={"cam_back": "no image"})


@pytest.fixture(scope="module")
def street() -> Occupancy:
    street = voxels_at(grid=GRID)
    sure = np.random.default_rng(0).random(GRID.shape).astype(np.float32)
    return dataclasses.replace(
        street,
        confidence=sure,
        degraded="cam_back: no image",
        reset="first frame",
        short_memory=True,
    )


def decoded(message: Message, way: str) -> object:
    if way == "ours":
        return message
    if way == "bags":
        return cdr.TYPESTORE.deserialize_cdr(cdr.encode(message), message.type)
    pytest.importorskip("rclpy")
    pytest.importorskip("alocc_ros.msg")
    from alocc_ros.ros.encoder import encode

    return encode(message)


@pytest.mark.parametrize("way", ["ours", "bags", "rclpy"])
def test_the_arrays_come_back_whatever_decoded_them(street, way):
    voxels = unpack(decoded(semantic_grid(FRAME, street), way))
    assert (voxels.stamp, voxels.frame_id, voxels.grid) == (street.stamp, "base_link", GRID)
    np.testing.assert_array_equal(voxels.labels, street.labels)
    np.testing.assert_allclose(voxels.confidence, street.confidence, atol=0.5 / 255 + 1e-6)
    can_move = np.isin(street.labels, street.classes.flow)
    assert can_move.any()
    np.testing.assert_array_equal(voxels.flow, street.flow[can_move].astype(np.float32))
    dense = voxels.dense_flow()
    np.testing.assert_array_equal(np.isnan(dense[..., 0]), ~can_move)
    np.testing.assert_array_equal(dense[can_move], voxels.flow)
    assert voxels.flags == 1 + 2 + 8
    assert (voxels.degraded, voxels.reset, voxels.random_weights, voxels.short_memory) == (
        *(True, True),
        *(False, True),
    )
    assert voxels.missing_cameras == ("cam_back",)


def test_no_flow_is_not_standing_still(street):
    voxels = unpack(semantic_grid(FRAME, dataclasses.replace(street, flow=None, confidence=None)))
    assert voxels.flow is None and voxels.confidence is None
    assert np.isnan(voxels.dense_flow()).all()


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("labels", np.zeros(7, np.uint8), "7 labels for 50 x 40 x 8 cells"),
        ("confidence", np.zeros(3, np.uint8), "3 confidences for 16000 cells"),
        ("flow", np.zeros(3, np.float32), "3 numbers of flow for"),
        ("flow_cells", None, "flow of cell 16000, of 16000 cells"),
    ],
)
def test_a_message_that_contradicts_itself_is_refused(street, name, value, complaint):
    message = semantic_grid(FRAME, street)
    if value is None:
        value = message["flow_cells"].copy()
        value[-1] = 16000
    with pytest.raises(MessageError, match=complaint):
        unpack(Message(message.type, {**message.fields, name: value}))


def test_sizes_whose_product_has_65_bits_are_refused(street):
    """As a number of 64 bits it is 0, which is how many labels there are."""
    message = semantic_grid(FRAME, street)
    geometry = message["geometry"]
    sizes = {"size_x": 2**31, "size_y": 2**31, "size_z": 4}
    huge = Message(geometry.type, {**geometry.fields, **sizes})
    empty = {"labels": np.zeros(0, np.uint8), "confidence": np.zeros(0, np.uint8)}
    with pytest.raises(MessageError, match="0 labels for 2147483648 x"):
        unpack(Message(message.type, {**message.fields, **empty, "geometry": huge}))
