# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Voxels as objects: boxes, what is cut apart, what is not, tracks, messages."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from alocc_ros.bags import cdr
from alocc_ros.bags.outputs import Provenance, frame_outputs
from alocc_ros.bags.tracks import recorded_voxels
from alocc_ros.bags.writer import Recorder
from alocc_ros.geometry import inverse
from alocc_ros.grid import VoxelGrid
from alocc_ros.labels import OCC3D, OPENOCC
from alocc_ros.metrics.object_scores import ObjectScores, TrueObjects
from alocc_ros.objects import detection, encoding
from alocc_ros.objects.detection import MOST, detect_objects
from alocc_ros.objects.things import THINGS, DetectedObject
from alocc_ros.objects.tracking import ObjectTracker
from alocc_ros.types import FrameSet, Occupancy

GRID = VoxelGrid((-12.0, -12.0, -1.0), (60, 60, 8), 0.4)
CAR = OPENOCC.names.index("car")
PLACES = GRID.centres(np.argwhere(np.ones(GRID.shape, bool)))


def pose(x: float = 0.0, y: float = 0.0, yaw: float = 0.0) -> np.ndarray:
    out = np.eye(4)
    out[:3, :3] = Rotation.from_euler("z", yaw).as_matrix()
    out[:2, 3] = x, y
    return out


def result(
    *boxes: tuple, stamp: int = 0, map_T_base: np.ndarray | None = None, **more
) -> Occupancy:
    """Voxels of boxes in the map: class name, x, y, yaw, length, width, height and velocity."""
    map_T_base = np.eye(4) if map_T_base is None else map_T_base
    labels = np.full(len(PLACES), OPENOCC.free, np.uint8)
    flow = np.full((len(PLACES), 2), np.nan, np.float16)
    for name, x, y, yaw, length, width, height, velocity in boxes:
        base_T_box = inverse(map_T_base) @ pose(x, y, yaw)
        own = (PLACES - base_T_box[:3, 3]) @ base_T_box[:3, :3]
        inside = (np.abs(own[:, :2]) <= (length / 2, width / 2)).all(1)
        inside &= (own[:, 2] > 0) & (own[:, 2] < height)
        labels[inside] = OPENOCC.names.index(name)
        flow[inside] = map_T_base[:2, :2].T @ velocity
    shape = GRID.shape
    flow = flow.reshape(*shape, 2)
    return Occupancy(
        labels.reshape(shape), flow, GRID, OPENOCC, stamp, "base_link", map_T_base, **more
    )


def car(x: float, y: float, yaw: float = 0.0, velocity: tuple = (0.0, 0.0)) -> tuple:
    return ("car", x, y, yaw, 4.6, 1.9, 1.6, velocity)


def turned(one: DetectedObject, yaw: float) -> float:
    """How far it is turned from ``yaw``, whatever its front is; rad."""
    return abs((one.yaw - yaw + np.pi / 2) % np.pi - np.pi / 2)


def test_random_vehicles_are_found_where_they_are():
    random = np.random.default_rng(4)
    for _ in range(12):
        yaw, speed = random.uniform(-np.pi, np.pi), random.choice([0.0, 6.0])
        velocity = speed * np.array([np.cos(yaw), np.sin(yaw)])
        places = [(x, y) for x in (-7, 7) for y in (-7, 7)] + random.uniform(-1, 1, (4, 2))
        names = random.permutation(["car", "truck", "bus", "pedestrian"])
        sizes = {
            "car": (4.6, 1.9),
            "truck": (6.5, 2.4),
            "bus": (9.0, 2.6),
            "pedestrian": (0.8, 0.8),
        }
        boxes = [
            (name, *place, yaw, *sizes[name], 1.8, velocity)
            for name, place in zip(names, places, strict=True)
        ]
        found = {OPENOCC.names[o.label]: o for o in detect_objects(result(*boxes))}
        assert found.keys() == set(names)
        for name, x, y, _, length, width, _, _ in boxes:
            one = found[name]
            np.testing.assert_allclose(one.centre[:2], (x, y), atol=0.35)
            np.testing.assert_allclose(one.velocity, velocity, atol=0.02)
            assert one.heading_known == (speed > 0) and one.visible and one.id == 0
            if speed:
                assert np.cos(one.yaw - yaw) > 0.99, "where it goes"
            if name != "pedestrian":
                assert turned(one, yaw) < 0.2
                assert length - 0.5 <= one.size[0] <= length + 1.0
                assert width - 0.5 <= one.size[1] <= width + 1.0


def test_a_box_holds_its_voxels():
    occupancy = result(car(3.0, -2.0, 0.5))
    (one,) = detect_objects(occupancy)
    assert one.voxels == (occupancy.labels == CAR).sum()
    off = PLACES[occupancy.labels.reshape(-1) == CAR] - one.centre
    c, s = np.cos(one.yaw), np.sin(one.yaw)
    along, across = off[:, 0] * c + off[:, 1] * s, off[:, 1] * c - off[:, 0] * s
    half = np.array(one.size) / 2
    distance = np.abs([along, across, off[:, 2]]).T
    assert (distance <= half).all()


@pytest.mark.parametrize("yaw", [0.0, 0.4, np.pi / 2])
def test_parked_cars_that_touch_are_several(yaw):
    ahead = np.array([np.cos(yaw), np.sin(yaw)])
    middles = [ahead * 4.8 * n for n in (-1, 0, 1)]
    row = result(*(car(*middle, yaw) for middle in middles))
    found = sorted(detect_objects(row), key=lambda one: one.centre[:2] @ ahead)
    assert len(found) == 3
    for one, middle in zip(found, middles, strict=True):
        np.testing.assert_allclose(one.centre[:2], middle, atol=0.7)
    side_by_side = result(*(car(-ahead[1] * d, ahead[0] * d, yaw) for d in (-1.0, 1.0)))
    assert len(detect_objects(side_by_side)) == 2


def test_a_long_bus_and_a_turning_lorry_are_one():
    assert len(detect_objects(result(("bus", 0, 0, 0.6, 14.0, 2.6, 2.0, (3, 0))))) == 1
    occupancy = result(("truck", 0, 0, 0.2, 8.0, 2.4, 2.0, (5, 0)))
    spin = np.stack([-PLACES[:, 1], PLACES[:, 0]], axis=1).reshape(*GRID.shape, 2) * 0.8
    flow = occupancy.flow + spin.astype(np.float16)  # 0.8 rad/s
    assert len(detect_objects(replace(occupancy, flow=flow))) == 1


def test_touching_cars_of_different_speed_are_two():
    close = [car(0.0, 0.0, velocity=(8.0, 0.0)), car(1.0, 2.0, velocity=(0.0, 0.0))]
    found = sorted(detect_objects(result(*close)), key=lambda one: one.speed)
    assert [round(one.speed) for one in found] == [0, 8]
    np.testing.assert_allclose(found[1].centre[:2], (0, 0), atol=0.4)


def test_one_wrong_column_is_no_object_of_its_own():
    occupancy = result(car(0.0, 0.0, velocity=(8.0, 0.0)))
    flow = occupancy.flow.copy()
    cell = np.argwhere((occupancy.labels == CAR).any(2))[5]
    flow[tuple(cell)] = (-20.0, 3.0)
    (one,) = detect_objects(replace(occupancy, flow=flow))
    np.testing.assert_allclose(one.velocity, (8, 0), atol=0.02)


def test_flow_that_is_not_known_is_not_zero():
    occupancy = result(car(0.0, 0.0, velocity=(8.0, 0.0)))
    flow = occupancy.flow.copy()
    flow[:30] = np.nan  # half of the car
    np.testing.assert_allclose(detect_objects(replace(occupancy, flow=flow))[0].velocity, (8, 0))
    for nothing in (None, np.full_like(flow, np.nan)):
        (one,) = detect_objects(replace(occupancy, flow=nothing))
        assert np.isnan(one.velocity).all() and np.isnan(one.speed) and not one.heading_known
    # Barriers do not move, whatever the network says of them.
    wall = result(("barrier", 0, 0, 0, 2.0, 0.6, 1.0, (7.0, 0.0)))
    assert detect_objects(wall)[0].speed == 0


def test_nothing_noise_and_the_border():
    assert detect_objects(result()) == []
    occupancy = result()
    occupancy.labels[5, 5, 2] = CAR
    assert detect_objects(occupancy) == [], "one column is no car"
    (cut,) = detect_objects(result(car(12.0, 0.0)))
    assert cut.centre[0] + cut.size[0] / 2 == pytest.approx(12.0)
    everything = replace(result(), labels=np.full(GRID.shape, CAR, np.uint8), flow=None)
    assert detect_objects(everything), "a network may say anything"


def test_all_class_lists_name_things():
    for classes in (OCC3D, OPENOCC):
        assert THINGS.keys() <= {*classes.names}
        moving = {classes.names[label] for label in classes.flow}
        assert moving - {"traffic_cone"} <= THINGS.keys()


# --- tracks ------------------------------------------------------------------------------------


def drive(tracker: ObjectTracker, number: int, missing: bool = False, flow: bool = True, **more):
    """The vehicle turns while it drives; one car comes towards it, one stands, one crosses."""
    seconds = 0.5 * number
    boxes = [car(8.0 - 3 * seconds, 3.0, np.pi, (-3.0, 0.0)), car(2.0, -5.0)]
    boxes.append(("pedestrian", 5.0, -2.0 + seconds, 0, 0.8, 0.8, 1.8, (0.0, 1.0)))
    boxes = boxes[1:] if missing else boxes
    there = pose(2 * seconds, 0.2 * seconds, 0.1 * seconds)
    occupancy = result(*boxes, stamp=round(seconds * 1e9), map_T_base=there, **more)
    return tracker.step(occupancy if flow else replace(occupancy, flow=None))


@pytest.mark.parametrize("flow", [True, False], ids=["flow", "no flow"])
def test_ids_stay_over_a_drive_and_a_missed_frame(flow):
    tracker = ObjectTracker()
    first = {one.label: one.id for one in drive(tracker, 0, flow=flow) if one.label != CAR}
    for number in range(1, 6):
        found = drive(tracker, number, missing=number == 3, flow=flow)
        ghosts = [one for one in found if not one.visible]
        assert [one.label for one in ghosts] == ([CAR] if number == 3 else [])
        if ghosts:  # where it should be, seen from where the vehicle is by now
            place = pose(3.0, 0.3, 0.15) @ [*ghosts[0].centre, 1]
            np.testing.assert_allclose(place[:2], (3.5, 3.0), atol=0.5)
        assert {o.label: o.id for o in found if o.label != CAR} == first
        assert sorted({one.id for one in found}) == [1, 2, 3]
    assert max(one.age for one in found) == 6
    assert tracker.next_id == 4


def test_what_has_moved_keeps_its_front_when_it_stops():
    tracker = ObjectTracker()
    tracker.step(result(car(0.0, 0.0, np.pi, (-4.0, 0.0)), stamp=1))
    (one,) = tracker.step(result(car(-1.6, 0.0, np.pi), stamp=400_000_001))
    assert one.heading_known and np.cos(one.yaw - np.pi) > 0.98 and one.id == 1


def test_another_time_or_place_ends_all_tracks_and_no_id_comes_twice():
    tracker = ObjectTracker()
    seen = {one.id for one in drive(tracker, 4)}
    again = {one.id for one in drive(tracker, 0)}  # a bag that begins again
    after = {one.id for one in drive(tracker, 1, reset="jump")}
    tracker.forget()
    last = {one.id for one in drive(tracker, 2)}
    assert len(seen | again | after | last) == 12
    late = tracker.step(result(stamp=10_000_000_000))
    assert late == [] and tracker.tracks == (), "given up after three seconds"


def test_a_truck_taken_for_a_car_goes_on_but_no_pedestrian():
    tracker = ObjectTracker()
    (one,) = tracker.step(result(car(0.0, 0.0), stamp=1))
    (other,) = tracker.step(result(("truck", 0, 0, 0, 5.0, 2.2, 2.0, (0, 0)), stamp=2))
    assert other.id == one.id
    person = ("pedestrian", 0, 0, 0, 0.8, 0.8, 1.8, (0, 0))
    assert tracker.step(result(person, stamp=3))[0].id != one.id


# --- messages ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tracked() -> list[DetectedObject]:
    tracker = ObjectTracker()
    drive(tracker, 0)
    return drive(tracker, 1, missing=True)


def read(message):
    return cdr.TYPESTORE.deserialize_cdr(cdr.encode(message), message.type)


def test_detections_are_what_is_seen_with_class_box_and_id(tracked):
    message = read(encoding.detections(tracked, OPENOCC, 1_500_000_000, "base_link"))
    assert (message.header.stamp.sec, message.header.stamp.nanosec) == (1, 500_000_000)
    seen = [one for one in tracked if one.visible]
    assert len(message.detections) == len(seen) == 2 < len(tracked)
    for one, box in zip(seen, message.detections, strict=True):
        assert box.id == str(one.id) and box.header.frame_id == "base_link"
        assert box.results[0].hypothesis.class_id == OPENOCC.names[one.label]
        assert box.results[0].hypothesis.score == 1.0
        centre, size = box.bbox.center.position, box.bbox.size
        np.testing.assert_allclose((centre.x, centre.y, centre.z), one.centre)
        assert (size.x, size.y, size.z) == one.size


def test_autoware_gets_its_classes_and_the_twist_in_the_objects_axes(tracked):
    tracker = ObjectTracker()
    found = tracker.step(result(car(0, 0, 2.0, (-4.0 * 0.416, 4.0 * 0.909)), stamp=1))
    found += tracker.step(result(("barrier", 0, 0, 0, 2.0, 0.6, 1.0, (0, 0)), stamp=2))[:1]
    message = read(encoding.autoware_objects(found, OPENOCC, 0, "base_link"))
    moving, wall = message.objects
    assert [o.classification[0].label for o in message.objects] == [1, 0]
    twist = moving.kinematics.twist_with_covariance.twist.linear
    np.testing.assert_allclose((twist.x, twist.y), (4.0, 0.0), atol=0.02)
    assert moving.kinematics.has_twist and moving.kinematics.orientation_availability == 2
    assert wall.kinematics.orientation_availability == 1
    assert moving.shape.type == 0 and moving.shape.dimensions.x == found[0].size[0]
    (still,) = detect_objects(replace(result(car(0, 0)), flow=None))
    without = read(encoding.autoware_objects([still], OPENOCC, 0, "base_link")).objects[0]
    assert not without.kinematics.has_twist


def test_markers_show_boxes_arrows_and_names(tracked):
    message = read(encoding.object_markers(tracked, OPENOCC, 0, "base_link"))
    clear, boxes, arrows, *names = message.markers
    assert clear.action == 3 and boxes.type == arrows.type == 5
    assert len(boxes.points) == 24 * 3 == len(boxes.colors)
    assert len(arrows.points) == 6 * 2, "the pedestrian, and the car that was missed"
    assert [n.type for n in names] == [9] * 3 and {n.id for n in names} == {0, 1, 2}
    assert any(n.text.startswith("pedestrian") and n.text.endswith("1.0 m/s") for n in names)
    (nothing,) = read(encoding.object_markers([], OPENOCC, 0, "base_link")).markers
    assert nothing.action == 3


def test_a_recording_that_is_gone_on_with_has_the_tracks_that_it_had(tmp_path):
    recorder, tracker = Recorder(tmp_path / "out.mcap", {}), ObjectTracker()
    provenance, again = Provenance("mine", "", {}, {}), ObjectTracker()
    results = []
    for number in range(4):
        there = pose(number, 0.1 * number, 0.05 * number)
        boxes = [car(8.0 - number, 3.0, np.pi, (-2.0, 0.0)), car(2.0, -5.0)][number == 2 :]
        reset = "jump" if number == 1 else ""
        stamp = 1 + number * 500_000_000
        occupancy = result(*boxes, stamp=stamp, map_T_base=there, reset=reset)
        results.append(occupancy)
        frame = FrameSet(stamp, {}, {}, there, {})
        first = number == 0
        for entry in frame_outputs(frame, occupancy, provenance, first=first, tracker=tracker):
            recorder.write(*entry)
        recorder.end_frame()
    # While it is still being written, as a resumed run does.
    for recorded, known in zip(recorded_voxels(recorder.path), results, strict=True):
        again.step(replace(recorded, map_T_base=known.map_T_base, reset=known.reset))
    assert again.next_id == tracker.next_id == 5 and again.stamp == tracker.stamp
    for ours, theirs in zip(again.tracks, tracker.tracks, strict=True):
        assert (ours.id, ours.age, ours.missed) == (theirs.id, theirs.age, theirs.missed)
        np.testing.assert_array_equal(ours.place, theirs.place)
        np.testing.assert_array_equal(ours.velocity, theirs.velocity)
    recorder.finish()


# --- scores ------------------------------------------------------------------------------------


def truth_of(*boxes: tuple) -> TrueObjects:
    return TrueObjects(
        label=np.array([OPENOCC.names.index(b[0]) for b in boxes]),
        centre=np.array([(b[1], b[2], b[6] / 2) for b in boxes], float),
        size=np.array([b[4:7] for b in boxes], float),
        yaw=np.array([b[3] for b in boxes], float),
        velocity=np.array([b[7] for b in boxes], float),
        instance=tuple(str(n) for n in range(len(boxes))),
    )


def scored(prediction: Occupancy, truth: TrueObjects, labels: np.ndarray, seen: np.ndarray):
    scores = ObjectScores(OPENOCC, GRID)
    scores.update(detect_objects(prediction), prediction.labels, truth, labels, seen)
    return scores.result()


def test_scores_count_by_hand():
    boxes = [car(5.0, 5.0, velocity=(6.0, 0.0)), car(-5.0, 5.0), car(-5.0, -8.0)]
    truth, labels = truth_of(*boxes), result(*boxes).labels
    seen = np.ones(GRID.shape, bool)
    wrong = [car(5.5, 5.0, velocity=(7.0, 0.0)), car(0.0, 0.0), boxes[2]]
    report = scored(result(*wrong), truth, labels, seen)
    assert report.recall(CAR) == pytest.approx(200 / 3) == report.precision(CAR)
    assert report.velocity_error(CAR) == pytest.approx(0.5, abs=0.01)
    assert report.velocity_error(CAR, moving=True) == pytest.approx(1.0, abs=0.01)
    assert report.counts["truth"][CAR].tolist() == [3, 0, 0, 0]
    assert "car" in report.table() and report.as_dict()["recall"]["car"][1] is None
    # What no camera sees, what has no voxels, and what the border cuts is not asked for.
    seen[:, 30:] = False
    report = scored(result(*wrong, car(12.0, -5.0)), truth, labels, seen)
    assert (report.recall(CAR), report.precision(CAR)) == (100, 50)
    # Nor what the truth has as well, and nobody drew a box around.
    seen[:] = True
    more = result(*boxes, car(5.0, -5.0))
    assert scored(more, truth, labels, seen).precision(CAR) == 75
    assert scored(more, truth, more.labels, seen).precision(CAR) == 100
    nothing = scored(result(), truth, result().labels, np.ones(GRID.shape, bool))
    assert np.isnan(nothing.recall()) and np.isnan(nothing.precision())


def test_scenes_merge_and_a_changed_id_is_counted():
    boxes = [car(5.0, 5.0)]
    labels, seen = result(*boxes).labels, np.ones(GRID.shape, bool)
    scores, total = ObjectScores(OPENOCC, GRID), ObjectScores(OPENOCC, GRID)
    (one,) = detect_objects(result(*boxes))
    for track in (7, 7, 8, 8):
        scores.update([replace(one, id=track)], labels, truth_of(*boxes), labels, seen)
    total.merge(scores.state())
    total.merge(scores.state())
    assert total.result().frames == 8
    assert total.result().totals()["vehicle id switches"] == pytest.approx(100 / 3)


def test_noise_takes_no_time_and_gives_the_largest_objects():
    """Voxels at random, as a network gives without trained weights, and flow at random."""
    rng = np.random.default_rng(0)
    grid, car_label = VoxelGrid(), OPENOCC.names.index("car")
    labels = rng.integers(0, len(OPENOCC.names), grid.shape).astype(np.uint8)
    labels[rng.random(grid.shape[:2]) < 0.5] = OPENOCC.free
    labels[100:111, 100:105] = car_label
    flow = rng.normal(0, 3, (*grid.shape, 2)).astype(np.float16)
    flow[100:111, 100:105] = (4.0, 0.0)
    noise = Occupancy(labels, flow, grid, OPENOCC, 1, "base_link", np.eye(4))
    begin = time.process_time()
    found = detect_objects(noise)
    assert time.process_time() - begin < 2.0, "seconds, where minutes would be a denial of service"
    assert len(found) == MOST
    assert any(o.label == car_label and np.allclose(o.velocity, (4.0, 0.0)) for o in found)


@pytest.mark.parametrize("resolution", [0.4, 0.5, 0.8])
def test_a_cut_always_leaves_something_on_both_sides(resolution):
    """Else the same columns would be cut for ever."""
    rng, cut = np.random.default_rng(0), 0
    for _ in range(400):
        extent = rng.integers(2, 12)
        points = np.unique(rng.integers(0, extent, (rng.integers(2, 30), 2)), axis=0) * resolution
        weights = rng.integers(1, 9, len(points))
        around = detection._footprint(points, resolution)
        for thing in THINGS.values():
            beyond = detection._cut(points, weights, thing, around, resolution)
            assert beyond is None or 0 < beyond.sum() < len(beyond)
            cut += beyond is not None
    assert cut > 100
