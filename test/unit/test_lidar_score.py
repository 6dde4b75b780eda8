# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""``alocc score``: grids against the LiDAR of the drive."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest

from alocc_ros.bags.clouds import cloud_points
from alocc_ros.cli.main import main
from alocc_ros.errors import MessageError
from alocc_ros.grid import VoxelGrid
from alocc_ros.metrics.lidar_scores import KINDS, SECTORS, LidarScores

GRID = VoxelGrid((-10.0, -10.0, -1.0), (50, 50, 10), 0.4)
FREE = 17
ROWS = (*KINDS, *SECTORS)
LIDAR = np.array([0.0, 0.0, 1.8])


def wall(x: float) -> np.ndarray:  # [50, 50, 10]
    """Labels: a wall across the way at this x, m."""
    labels = np.full(GRID.shape, FREE, np.uint8)
    labels[GRID.indices(np.array([[x, 0.0, 0.0]]))[0][0, 0]] = 3
    return labels


def returns(x: float, count: int = 9) -> np.ndarray:  # [n, 3]
    """Of a wall there, straight ahead, at the LiDAR's height."""
    y = np.linspace(-1, 1, count)
    return np.stack([np.full(count, x), y, np.full(count, 1.8)], axis=1)


def score(labels: np.ndarray, points: np.ndarray, origin: np.ndarray = LIDAR):
    scores = LidarScores()
    scores.update(labels, FREE, GRID, points, origin)
    return scores.result()


@pytest.mark.parametrize(
    ("predicted", "measured", "shares"),
    [
        (6.2, 6.2, (1, 1, 1, 0, 0)),
        (6.2, 7.8, (0, 1, 1, 0, 0)),
        (6.2, 9.4, (0, 0, 1, 1, 0)),  # 3.2 m before the return: a phantom
        (9.4, 4.2, (0, 0, 0, 0, 1)),  # 5.2 m behind it: missed
        (9.4, 6.2, (0, 0, 1, 0, 1)),
    ],
)
def test_a_wall_is_as_far_off_as_it_is(predicted, measured, shares):
    result = score(wall(predicted), returns(measured))
    rows = dict(
        zip((*KINDS, *SECTORS), zip(result.counts, result.shares, strict=True), strict=True)
    )
    for row in ("all", "things", "front"):
        counts, found = rows[row]
        assert counts[0] == 9 and found == pytest.approx(shares), row
    assert all(rows[row][0][0] == 0 for row in ("ground", "beyond", "left", "back", "right"))


def test_beyond_the_grid_all_of_the_way_is_to_be_free():
    nothing = np.full(GRID.shape, FREE, np.uint8)
    beyond = KINDS.index("beyond")
    right, phantom = score(nothing, returns(30.0)), score(wall(6.2), returns(30.0))
    assert right.counts[beyond].tolist() == [9, 9, 9, 9, 0, 0]
    assert phantom.counts[beyond].tolist() == [9, 0, 0, 0, 9, 0]
    assert score(nothing, returns(6.2)).shares[0].tolist() == [0, 0, 0, 0, 1]


def test_directions_ground_and_what_is_left_out():
    around = np.array([[8, 0, 0], [0, 8, 0], [-8, 0, 1], [0, -8, 1]], dtype=float)
    own = np.array([[1.0, 1.0, 1.0], [np.nan, 0, 0], [np.inf, 8, 0], [0, 0, 1.8]])
    result = score(np.full(GRID.shape, FREE, np.uint8), np.vstack([around, own]))
    counts = dict(zip(ROWS, result.counts[:, 0].tolist(), strict=True))
    assert counts == {"all": 4, "ground": 2, "things": 2, "beyond": 0} | dict.fromkeys(SECTORS, 1)
    assert "returns" in result.table() and result.as_dict()["left"]["missed"] == 1
    assert score(wall(6.2), own).as_dict()["all"]["within_1_m"] is None


def test_a_lidar_that_is_said_to_be_inside_something_is_told():
    ground = np.full(GRID.shape, FREE, np.uint8)
    ground[:, :, :3] = 10
    assert score(ground, returns(6.2), np.zeros(3)).blind == 1
    assert score(ground, returns(6.2)).blind == 0


def cloud(dtype, points, *, lines=1, padded_to=None, **changes) -> SimpleNamespace:
    rows = np.zeros(len(points), dtype)
    for i, axis in enumerate("xyz"):
        rows[axis] = points[:, i]
    types = {"<f4": 7, ">f4": 7, "<f8": 8, "|u1": 2}
    fields = [
        SimpleNamespace(name=n, offset=rows.dtype.fields[n][1], count=1,
                        datatype=types[rows.dtype.fields[n][0].str])
        for n in rows.dtype.names
    ]  # fmt: skip
    width = len(points) // lines
    data = np.frombuffer(rows.tobytes(), np.uint8)
    if padded_to is not None:
        padded = np.zeros((lines, padded_to), np.uint8)
        padded[:, : width * rows.itemsize] = data.reshape(lines, -1)
        data = padded.reshape(-1)
    values = {
        "fields": fields, "is_bigendian": False, "point_step": rows.itemsize, "width": width,
        "height": lines, "row_step": padded_to or width * rows.itemsize, "data": data,
    }  # fmt: skip
    return SimpleNamespace(**values | changes)


POINTS = np.arange(18, dtype=float).reshape(6, 3)
PLAIN = np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f4")])
MIXED = np.dtype([("ring", "u1"), ("z", "<f8"), ("y", "<f4"), ("x", "<f4")])
BIG = np.dtype([("x", ">f4"), ("y", ">f4"), ("z", ">f4")])


def test_points_of_any_layout():
    assert np.array_equal(cloud_points(cloud(PLAIN, POINTS)), POINTS)
    assert np.array_equal(cloud_points(cloud(MIXED, POINTS)), POINTS)
    assert np.array_equal(cloud_points(cloud(BIG, POINTS, is_bigendian=True)), POINTS)
    organised = cloud(PLAIN, POINTS, lines=2, padded_to=50)
    assert np.array_equal(cloud_points(organised), POINTS)
    assert cloud_points(cloud(PLAIN, POINTS[:0])).shape == (0, 3)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"width": 7}, "does not fit 72 bytes"),
        ({"height": 1 << 31}, "does not fit"),
        ({"point_step": 0}, "0 bytes"),
        ({"row_step": 60}, "does not fit"),
        ({"fields": []}, "without x"),
        ({"point_step": 8, "row_step": 0}, "z lies outside"),
    ],
)
def test_numbers_that_do_not_fit_are_told(changes, said):
    with pytest.raises(MessageError, match=said):
        cloud_points(cloud(PLAIN, POINTS, **changes))


def test_truth_agrees_with_the_lidar_that_saw_it(tmp_path, capsys):
    """Real bag, real commands; the ground truth in a drawn scene's recording is scored."""
    command = ["synth", str(tmp_path), "--format", "bag", "--scenes", "1", "--seed", "14"]
    assert main([*command, "--frames", "2", "--size", "36x64", "--jobs", "1"]) == 0
    bag = str(tmp_path / "scene-0001.mcap")
    capsys.readouterr()
    assert main(["score", bag, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    rows = told["scores"]["/truth"]
    assert rows["frames"] == 2 and rows["blind"] == 0 and rows["still"] == 0
    # Voxels are 0.4 m, so flat rays over the ground end early; there are no other reasons.
    assert rows["all"]["returns"] > 50_000 and rows["all"]["within_4_m"] > 0.94
    assert rows["things"]["within_2_m"] > 0.8 and rows["all"]["missed"] < 0.01
    assert main(["score", bag, "--bag", bag, "--lidar", "/nowhere"]) == 2
    assert "its point clouds are /LIDAR_TOP" in capsys.readouterr().err
    assert main(["score", bag, "--origin", "0", "0", "-1.95"]) == 0
    assert "give its place with --origin" in capsys.readouterr().out
    assert main(["score", bag, "--apart", "0.0"]) == 2
    assert "2 x /truth/occupancy: no sweep near it" in capsys.readouterr().err
    assert main(["score", str(tmp_path / "none.mcap")]) == 2
    assert "there is no bag" in capsys.readouterr().err
