# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Pictures of voxels: the right pixel, the right colour, the right way round."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.spatial.transform import Rotation
from street_truth import frame_at, voxels_at

from alocc_ros.arrays import direction_colours
from alocc_ros.errors import ImageError, OutputError, ParameterError
from alocc_ros.geometry import inverse, pose_matrix, project
from alocc_ros.grid import VoxelGrid
from alocc_ros.labels import OCC3D
from alocc_ros.stream.overlay import camera_T_grid, not_covered
from alocc_ros.types import Occupancy
from alocc_ros.viewer import bev, layout, voxels
from alocc_ros.viewer.frames import FrameHandle, Layer, ViewFrame
from alocc_ros.viewer.layers import align_heading, align_to_frame, mask_unseen
from alocc_ros.viewer.matching import match_by_stamp
from alocc_ros.viewer.motion import motions
from alocc_ros.viewer.page import render_page
from alocc_ros.viewer.pictures import Animation

CAR, TRUCK, TREE = (OCC3D.names.index(n) for n in ("car", "truck", "vegetation"))
SMALL = VoxelGrid(lower=(-4.0, -4.0, -1.0), shape=(20, 20, 8), resolution=0.4)


def occupancy(
    cells: dict[tuple[int, int, int], int],
    grid: VoxelGrid = SMALL,
    velocity: tuple[float, float] | None = None,
) -> Occupancy:
    """Free but for ``cells``; all of it with the same flow."""
    labels = np.full(grid.shape, OCC3D.free, np.uint8)
    for cell, label in cells.items():
        labels[cell] = label
    flow = None if velocity is None else np.full((*grid.shape, 2), velocity, np.float16)
    return Occupancy(labels, flow, grid, OCC3D, 10**18, "base_link", np.eye(4))


def centre_of(mask: np.ndarray) -> np.ndarray:  # [h, w] -> u, v; of pixel middles
    v, u = np.nonzero(mask)
    return np.array([u.mean() + 0.5, v.mean() + 0.5])


def eroded(mask: np.ndarray) -> np.ndarray:  # [h, w] bool
    """Without the pixels at an edge, which are of both sides."""
    core = np.zeros_like(mask)
    core[1:-1, 1:-1] = cv2.erode(mask.astype(np.uint8), np.ones((3, 3)))[1:-1, 1:-1] > 0
    return core


# --- voxels.py -------------------------------------------------------------------------------


def drawn_from(eye: tuple[float, float, float], what: Occupancy, **more) -> np.ndarray:
    place = voxels.look_at(eye, (0.3, 0.1, 0.2))
    intrinsics = np.array([[150.0, 0, 80], [0, 150, 60], [0, 0, 1]])
    return voxels.draw_faces(voxels.faces(what), place, intrinsics, (160, 120), **more)


@pytest.mark.parametrize("eye", [(-9.0, 1.0, 3.0), (7.0, -8.0, 5.0), (0.5, 9.0, -4.0)])
def test_one_voxel_is_drawn_where_its_centre_projects_to(eye):
    cell = (11, 9, 4)
    drawn = drawn_from(eye, occupancy({cell: CAR}))
    place = voxels.look_at(eye, (0.3, 0.1, 0.2))
    intrinsics = np.array([[150.0, 0, 80], [0, 150, 60], [0, 0, 1]])
    (pixel,), (depth,) = project(SMALL.centres(np.array([cell])), place, intrinsics)
    side = 150 * 0.4 / depth
    assert np.abs(centre_of(drawn[..., 3] > 127) - pixel).max() < 0.6
    assert side**2 < (drawn[..., 3] > 127).sum() < 2.3 * side**2  # a face to three of them
    red, green, blue = (drawn[..., i].astype(int).sum() for i in range(3))
    assert red == 0 and blue > 1.4 * green > 0  # a car is 0, 150, 245


def test_pictures_are_those_of_rays_walked_one_by_one():
    """Every pixel whose surroundings are of one voxel shows the nearest one on its ray."""
    random = np.random.default_rng(5)
    labels = np.where(random.random(SMALL.shape) < 0.08, random.integers(0, 3, SMALL.shape), 17)
    labels[7:14, 7:14] = 17  # the second camera is in there
    palette = np.zeros((18, 3), np.uint8)
    palette[:3] = 250 * np.eye(3)
    grid = dataclasses.replace(occupancy({}), labels=labels.astype(np.uint8))
    size = (96, 72)
    intrinsics = np.array([[90.0, 0, 48], [0, 90, 36], [0, 0, 1]])
    for eye in ((-8.0, 2.0, 3.0), (0.1, 0.3, 0.5), (3.0, -9.0, 2.5)):
        place = voxels.look_at(eye, (0.5, 0.2, 0.1))
        drawn = voxels.draw_faces(voxels.faces(grid, palette), place, intrinsics, size)
        expected = nearest_labels(grid, place, intrinsics, size)
        for label in range(-1, 3):
            inner = eroded(expected == label)
            shown = drawn[inner]
            if label < 0:
                assert (shown == 0).all()
            else:
                assert (shown[:, 3] == 255).all()
                assert (shown[:, :3].argmax(axis=1) == label).all()
        assert (expected >= 0).mean() > 0.1


def nearest_labels(
    what: Occupancy, place: np.ndarray, intrinsics: np.ndarray, size: tuple[int, int]
) -> np.ndarray:  # [h, w], -1 for nothing
    """Each ray against each voxel."""
    cells = np.argwhere(what.labels != what.classes.free)
    labels = what.labels[tuple(cells.T)].astype(int)
    lower = np.array(what.grid.lower) + cells * what.grid.resolution
    grid_T_camera = inverse(place)
    v, u = np.mgrid[: size[1], : size[0]] + 0.5
    rays = np.stack([u.ravel(), v.ravel(), np.ones(u.size)], axis=1)
    rays = rays @ np.linalg.inv(intrinsics).T @ grid_T_camera[:3, :3].T
    with np.errstate(divide="ignore"):
        a = (lower[None] - grid_T_camera[:3, 3]) / rays[:, None]
        b = (lower[None] + what.grid.resolution - grid_T_camera[:3, 3]) / rays[:, None]
    enter, leave = np.minimum(a, b).max(axis=2), np.maximum(a, b).min(axis=2)
    reach = np.where((enter < leave) & (enter > 0), enter, np.inf)
    first = reach.argmin(axis=1)
    hit = np.isfinite(reach.min(axis=1))
    return np.where(hit, labels[first], -1).reshape(size[1], size[0])


def test_a_block_has_only_its_outer_faces():
    block = {(x, y, z): CAR for x in range(4, 8) for y in range(5, 9) for z in range(2, 6)}
    assert len(voxels.faces(occupancy(block)).sides) == 6 * 4 * 4


def test_what_is_half_opaque_lets_half_of_the_picture_through():
    picture = np.full((120, 160, 3), 200, np.uint8)
    what = occupancy({(11, 9, 4): CAR})
    drawn = drawn_from((-9.0, 1.0, 3.0), what, opacity=np.full(18, 0.5))
    seen = voxels.blend(picture, drawn)
    inside = eroded(drawn[..., 3] > 120)
    assert (seen[drawn[..., 3] == 0] == 200).all()
    assert inside.any() and np.abs(seen[inside][:, 0].astype(int) - 100).max() <= 2


def test_the_overview_has_the_grid_in_view():
    for grid in (VoxelGrid(), SMALL, VoxelGrid((0, 0, 0), (300, 40, 5), 0.2)):
        place, intrinsics = voxels.overview(grid, (700, 400))
        middle = (np.array(grid.lower) + grid.upper) / 2
        (pixel,), (depth,) = project(middle[None], place, intrinsics)
        assert depth > 0 and 100 < pixel[0] < 600 and 80 < pixel[1] < 320
        ahead, _ = project((middle + (1, 0, 0))[None], place, intrinsics)
        assert ahead[0, 1] < pixel[1]  # ahead is up


# --- from above, and what moves --------------------------------------------------------------


@pytest.mark.parametrize("side", [400, 173, 11])
def test_a_voxel_from_above_is_where_the_map_says_in_its_colour(side):
    cell = (15, 4, 3)  # ahead and to the right
    what, background = occupancy({cell: TRUCK}), np.array([1, 2, 3])
    place = bev.BevCanvas(SMALL, side)
    picture = place.draw(bev.class_colours(what, background), side, background)
    x, y, _ = SMALL.centres(np.array([cell]))[0]
    u, v = place.pixel(x, y)
    assert u > side / 2 > v  # right and up
    found = np.abs(picture.astype(int) - background).sum(axis=-1) > 30
    assert np.abs(centre_of(found) - (u, v)).max() < 1.0
    colour = picture[int(v), int(u)].astype(float)
    direction = colour / np.linalg.norm(colour)
    assert side < 20 or np.abs(direction - OCC3D.colours[TRUCK] / 290.2).max() < 0.02


def test_neighbours_that_move_are_one_thing_with_one_arrow():
    block = {(x, y, 2): CAR for x in range(10, 14) for y in range(8, 10)}
    still = {(x, 15, 2): TREE for x in range(10, 14)}
    (car,) = motions(occupancy({**block, **still}, velocity=(-3.0, 4.0)))
    np.testing.assert_allclose(car.start, [0.8, -0.4, 0.2], atol=1e-6)
    np.testing.assert_allclose(car.end - car.start, [-3.0, 4.0, 0.0], atol=1e-6)
    assert car.label == CAR and car.speed == pytest.approx(5.0)


def test_nothing_moves_without_flow_slowly_or_with_nan():
    block = {(x, 8, 2): CAR for x in range(10, 14)}
    for velocity in (None, (0.1, 0.1), (np.nan, np.nan)):
        assert motions(occupancy(block, velocity=velocity)) == []


@pytest.mark.parametrize("velocity", [(2.0, 0.0), (-2.0, 0.0), (0.0, 2.0), (0.0, -2.0)])
def test_the_arrow_points_where_the_thing_goes_in_the_colour_of_that_direction(velocity):
    grid = VoxelGrid(lower=(-8.0, -8.0, -1.0), shape=(40, 40, 8), resolution=0.4)
    block = {(x, y, 2): CAR for x in range(9, 11) for y in range(29, 31)}
    what = occupancy(block, grid, velocity)
    page = np.asarray(render_page(ViewFrame(what.stamp, None, (Layer("prediction", "", what),))))
    right = layout.PAGE_WIDTH - layout.MARGIN
    panel = page[layout.HEADER_HEIGHT :][
        : layout.PANEL_SIDE, right - layout.PANEL_SIDE : right
    ].astype(int)
    place = bev.BevCanvas(grid, layout.PANEL_SIDE)
    white = np.abs(panel - 255).sum(axis=-1) < 30
    for along, there in ((0.8, True), (-0.8, False)):
        u, v = place.pixel(-4.0 + along * velocity[0], 4.0 + along * velocity[1])
        assert white[int(v) - 3 : int(v) + 4, int(u) - 3 : int(u) + 4].any() == there
    cells = bev.flow_colours(what, np.zeros(3))
    strongest = bev.speed_colours(np.array([velocity]) * 10)[0] / 255
    np.testing.assert_allclose(strongest, direction_colours(np.arctan2(*velocity[::-1])[None])[0])
    assert (cells[9, 29] == bev.speed_colours(np.array([velocity]))[0].astype(np.uint8)).all()


# --- the page --------------------------------------------------------------------------------


@pytest.mark.parametrize("camera", ["cam_front", "cam_back_left"])
def test_a_voxel_is_drawn_into_the_image_at_its_pixel(camera):
    frame = frame_at()
    grid = VoxelGrid(lower=(-12.0, -12.0, -1.0), shape=(60, 60, 8), resolution=0.4)
    place, calibration = camera_T_grid(frame, camera), frame.calibration[camera]
    ahead = inverse(place) @ (0.3, -0.4, 8.0, 1.0)
    cell = tuple(grid.indices(ahead[None, :3])[0][0].tolist())
    pages = [
        np.asarray(render_page(ViewFrame(frame.stamp, frame, (Layer("", "", what),)))).astype(int)
        for what in (occupancy({}, grid), occupancy({cell: CAR}, grid))
    ]
    width = (layout.CONTENT_WIDTH - 2 * layout.GAP) // 3
    height = round(width * 180 / 320)
    row = next(i for i, cameras in enumerate(layout.CAMERA_LAYOUT) if camera in cameras)
    left = layout.MARGIN + layout.CAMERA_LAYOUT[row].index(camera) * (width + layout.GAP)
    top = layout.HEADER_HEIGHT + row * (height + layout.GAP)
    tiles = [page[top : top + height, left : left + width] for page in pages]
    changed = np.abs(tiles[1] - tiles[0]).sum(axis=-1) > 20
    scale = np.diag([width / 320, height / 180, 1.0])
    centre = grid.centres(np.array([cell]))
    (pixel,), _ = project(centre, place, scale @ calibration.intrinsics)
    assert np.abs(centre_of(changed) - pixel).max() < 1.5
    others = np.abs(pages[1] - pages[0]).sum(axis=-1)[: top + height] > 20
    assert others.sum() == changed.sum()  # no other camera sees it


def test_the_street_lies_on_its_drawing():
    """A car that is drawn red is covered by voxels of cars, and the sky by none."""
    frame, street = frame_at(), voxels_at()
    place = camera_T_grid(frame, "cam_front")
    drawn = voxels.draw_faces(
        voxels.faces(street), place, frame.calibration["cam_front"].intrinsics, (320, 180)
    )
    (pixel,), _ = project(np.array([[14.0, 0.0, 0.8]]), place @ street_T_map(street), intrinsics())
    u, v = pixel.astype(int)
    colour = drawn[v, u, :3] / np.linalg.norm(drawn[v, u, :3])
    assert np.abs(colour - OCC3D.colours[CAR] / np.linalg.norm(OCC3D.colours[CAR])).max() < 0.05
    assert (drawn[:10, 150:170] == 0).all()


def street_T_map(street: Occupancy) -> np.ndarray:
    return inverse(street.map_T_base)


def intrinsics() -> np.ndarray:
    return frame_at(width=320, height=180).calibration["cam_front"].intrinsics


def test_rows_without_anything_to_show_are_left_out():
    frame, what = frame_at(), voxels_at(grid=SMALL)
    layers = (Layer("prediction", "mine", what), Layer("ground truth", "occ3d", what))
    height = {
        number: render_page(ViewFrame(frame.stamp, f, layers[:n])).height
        for number, (f, n) in enumerate([(frame, 0), (None, 1), (frame, 1), (frame, 2)])
    }
    panels = layout.PANEL_SIDE + layout.GAP
    assert height[3] - height[2] == panels
    assert height[2] - height[0] == panels + 2 * layout.LEGEND_ROW_HEIGHT + layout.GAP
    with pytest.raises(ImageError, match="nothing to see at 5 ns"):
        render_page(ViewFrame(5))


def test_a_missing_camera_and_odd_stamps_do_not_stop_the_page():
    frame = frame_at()
    images = {c: i for c, i in frame.images.items() if c != "cam_back"}
    frame = dataclasses.replace(frame, images=images, missing={"cam_back": "no image " * 40})
    for stamp in (0, 1, 2**62):
        assert render_page(ViewFrame(stamp, frame)).width == layout.PAGE_WIDTH


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_a_grid_of_a_turned_frame_is_seen_as_from_the_base(quarters):
    """The same street in a frame that is turned on the vehicle gives the same page."""
    grid = VoxelGrid(lower=(-8.0, -12.0, -1.0), shape=(50, 60, 8), resolution=0.4)
    street = voxels_at(grid=grid)
    turn = Rotation.from_euler("z", -90 * quarters, degrees=True).as_matrix()  # grid_T_base
    base_T_grid = np.eye(4)
    base_T_grid[:3, :3] = turn.T
    corners = np.array([grid.lower, grid.upper]) @ turn.T
    labels = np.rot90(street.labels, -quarters)
    turned = dataclasses.replace(
        street,
        labels=labels,
        flow=(np.rot90(street.flow, -quarters).astype(np.float64) @ turn[:2, :2].T),
        grid=VoxelGrid(tuple(corners.min(axis=0).round(6)), labels.shape, 0.4),
    )
    back = align_heading(Layer("", "", turned, base_T_grid))
    np.testing.assert_array_equal(back.occupancy.labels, street.labels)
    np.testing.assert_allclose(back.occupancy.flow, street.flow, atol=1e-3)
    np.testing.assert_allclose(back.base_T_grid, np.eye(4), atol=1e-12)
    np.testing.assert_allclose(back.occupancy.grid.lower, grid.lower, atol=1e-6)


def test_a_grid_of_another_stamp_lies_where_its_vehicle_was():
    frame = frame_at(width=32, height=18)
    later = dataclasses.replace(occupancy({}), stamp=frame.stamp + 60_000_000)
    driven = frame.map_T_base @ pose_matrix((0.5, 0, 0), (0, 0, 0, 1))
    mounted = pose_matrix((0.9, 0, 1.8), (0, 0, 0, 1))
    for base_T_grid, expected in ((None, 0.5), (mounted, 1.4)):
        layer = Layer("", "", dataclasses.replace(later, map_T_base=driven), base_T_grid)
        moved = align_to_frame(layer, frame).base_T_grid
        np.testing.assert_allclose(moved[0, 3], expected, atol=1e-9)
        untold = Layer("", "", later, base_T_grid)  # its pose is the identity
        assert align_to_frame(untold, frame) is untold and align_to_frame(layer, None) is layer


def test_names_of_any_length_and_kind_stay_on_their_side_of_the_page():
    words = "a\nvery\tlong\x1b[31m name " * 30
    what = dataclasses.replace(occupancy({}), degraded=words, reset=words, random_weights=True)
    usual, odd = (
        np.asarray(render_page(ViewFrame(1, None, (Layer(name, "", what), Layer(name, "", what)))))
        for name in ("short", words)
    )
    header = slice(0, layout.HEADER_HEIGHT), slice(layout.PAGE_WIDTH - 340, layout.PAGE_WIDTH)
    np.testing.assert_array_equal(odd[header], usual[header])
    assert (odd != usual).any()


def test_random_weights_are_said_in_red():
    def reds(random_weights: bool) -> int:
        what = dataclasses.replace(occupancy({}), random_weights=random_weights)
        page = np.asarray(render_page(ViewFrame(1, None, (Layer("prediction", "tiny", what),))))
        header = page[: layout.HEADER_HEIGHT].astype(int)
        return int((header[..., 0] - header[..., 1] > 90).sum())

    assert reds(True) > 100 > reds(False) == 0


def test_a_camera_amid_voxels_sees_those_around_it():
    frame = frame_at()
    filled = dataclasses.replace(occupancy({}, VoxelGrid()), labels=np.full((200, 200, 16), CAR))
    filled = dataclasses.replace(filled, labels=filled.labels.astype(np.uint8))
    empty = occupancy({}, VoxelGrid())
    pages = [
        np.asarray(render_page(ViewFrame(1, frame, (Layer("", "", what),)))).astype(int)
        for what in (empty, filled)
    ]
    tile = [page[80:380, 40:500] for page in pages]
    assert (np.abs(tile[1] - tile[0]).sum(axis=-1) > 0).mean() > 0.95


# --- overlay.py ------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 400), st.integers(0, 2**32 - 1), st.integers(1, 40))
def test_painting_what_is_not_covered_is_painting_all(number, seed, largest):
    random = np.random.default_rng(seed)
    size = (37, 23)
    middle = random.uniform((-5, -5), (42, 28), (number, 2))
    half = random.uniform(0, largest, (number, 1))
    corners = np.hstack([middle - half, middle + half]).round()
    inside = (corners[:, 2:] >= 0).all(axis=1) & (corners[:, :2] < size).all(axis=1)
    corners = corners[inside]

    def painted(chosen: np.ndarray) -> np.ndarray:
        canvas = np.full(size[::-1], -1)
        for i in chosen:
            left, top, right, bottom = corners[i].astype(int)
            canvas[max(top, 0) : bottom + 1, max(left, 0) : right + 1] = i
        return canvas

    everything = painted(np.arange(len(corners)))
    kept = not_covered(corners, size)
    np.testing.assert_array_equal(painted(kept), everything)
    assert len(kept) == len(corners) or len(corners) > 256


# --- matching.py and layers.py ---------------------------------------------------------------


def handles(stamps: list[int], what: str = "") -> list[FrameHandle]:
    def load(stamp: int) -> ViewFrame:
        layers = (Layer(what, str(stamp), occupancy({})),) if what else ()
        return ViewFrame(stamp, None, layers)

    return [FrameHandle(s, lambda s=s: load(s)) for s in stamps]


def test_what_is_nearest_is_put_together_and_the_rest_stays_alone():
    pace = handles([0, 100, 200, 300])
    found = [
        (m.stamp, [layer.detail for layer in m.load().layers])
        for m in match_by_stamp(pace, handles([90, 140, 205, 460], "truth"), tolerance=50)
    ]
    assert found == [(0, []), (100, ["90"]), (200, ["205"]), (300, [])]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.integers(0, 300), max_size=12, unique=True),
    st.lists(st.integers(0, 300), max_size=12, unique=True),
    st.integers(0, 60),
)
def test_every_frame_stays_and_gets_at_most_one_partner(pace, others, tolerance):
    pairs = []
    out = list(match_by_stamp(handles(sorted(pace)), handles(sorted(others), "b"), tolerance))
    assert [m.stamp for m in out] == sorted(pace)
    for frame in out:
        pairs += [(frame.stamp, int(layer.detail)) for layer in frame.load().layers]
    assert len({b for _, b in pairs}) == len(pairs)
    assert all(abs(a - b) <= tolerance for a, b in pairs)
    assert {(s, s) for s in set(pace) & set(others)} <= set(pairs)
    # Whoever is the other's nearest has it, or something that is as near.
    for a, b in pairs:
        assert all(abs(a - b) <= abs(c - b) for c in pace if c > a)


def test_only_what_a_camera_sees_is_left_of_every_grid():
    seen = np.zeros(SMALL.shape, bool)
    seen[:10] = True
    both = {(4, 4, 4): CAR, (15, 4, 4): CAR}
    layers = (
        Layer("prediction", "", occupancy(both)),
        Layer("ground truth", "", occupancy(both), camera_mask=seen),
    )
    for layer in mask_unseen(ViewFrame(1, None, layers)).layers:
        assert np.argwhere(layer.occupancy.labels != OCC3D.free).tolist() == [[4, 4, 4]]
    other = Layer("prediction", "", occupancy({}, VoxelGrid()))
    for without in ((layers[0],), (other, layers[1]), ()):
        with pytest.raises(ParameterError, match="nothing tells which voxels"):
            mask_unseen(ViewFrame(1, None, without))


# --- pictures.py -----------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".gif", ".webp"])
def test_a_moving_picture_has_every_page_for_as_long_as_it_was(tmp_path, suffix):
    path = tmp_path / f"out{suffix}"
    with Animation(path, width=80) as animation:
        for number, stamp in enumerate([0, 250_000_000, 750_000_000]):
            page = Image.new("RGB", (160, 100), tuple(OCC3D.colours[number + 2].tolist()))
            animation.add(stamp, page)
        assert not path.exists()
    with Image.open(path) as opened:
        assert (opened.size, opened.n_frames) == ((80, 50), 3)
        times = []
        for number in range(3):
            opened.seek(number)
            opened.load()
            times.append(opened.info["duration"])
            colour = np.array(opened.convert("RGB").getpixel((40, 25)))
            assert np.abs(colour - OCC3D.colours[number + 2]).max() < 12
    assert times == [250, 500, 500]


def test_a_moving_picture_that_fails_leaves_nothing(tmp_path):
    with pytest.raises(ZeroDivisionError), Animation(tmp_path / "out.gif") as animation:
        animation.add(0, Image.new("RGB", (160, 100)))
        raise ZeroDivisionError
    with pytest.raises(OutputError, match="must end in .gif or .webp"):
        Animation(tmp_path / "out.mp4")
    assert list(tmp_path.iterdir()) == []


# --- recording.py ----------------------------------------------------------------------------


def test_a_rerun_recording_goes_on_where_something_is_missing(tmp_path):
    pytest.importorskip("rerun")
    from alocc_ros.viewer.recording import Recording

    frame, what = frame_at(width=64, height=36), occupancy({(4, 4, 4): CAR}, velocity=(3, 0))
    layers = (Layer("prediction", "", what), Layer("ground truth", "", what, np.eye(4)))
    path = tmp_path / "out.rrd"
    with Recording(path, ("prediction", "ground truth"), cameras=True) as recording:
        recording.add(0, ViewFrame(frame.stamp, frame, layers))
        recording.add(1, ViewFrame(frame.stamp + 1, None, layers[:1]))
        recording.add(2, ViewFrame(frame.stamp + 2, dataclasses.replace(frame, images={}), ()))
        assert not path.exists()
    program = [sys.executable, "-m", "rerun", "rrd", "verify", str(path)]
    done = subprocess.run(program, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["out.rrd"]
