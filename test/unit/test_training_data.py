# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Augmentation, targets and streams: what stands where must still stand there."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
import torch
from PIL import Image

from alocc_ros.datasets.sequences import halves
from alocc_ros.errors import TrainingError
from alocc_ros.grid import OCC3D_GRID
from alocc_ros.labels import OCC3D, OPENOCC
from alocc_ros.network.lifting import lidar_bins
from alocc_ros.network.variants import VARIANTS
from alocc_ros.stream.image_geometry import Crop
from alocc_ros.training.augmentation import GridFlip, ImageAugmentation, ImageTransform
from alocc_ros.training.losses import IGNORED
from alocc_ros.training.streams import Streams, Visit
from alocc_ros.training.targets import (
    block_targets,
    pixels_of,
    point_classes,
    voxel_flow,
    voxel_labels,
)

# --- images ------------------------------------------------------------------------------------


def dotted(width: int, height: int, at: tuple[float, float]) -> Image.Image:
    """Black with one soft bright dot at continuous pixel ``at``."""
    y, x = np.mgrid[:height, :width] + 0.5
    spot = 255 * np.exp(-((x - at[0]) ** 2 + (y - at[1]) ** 2) / (2 * 9.0**2))
    return Image.fromarray(np.repeat(spot.astype(np.uint8)[..., None], 3, 2))


def centre(image: np.ndarray) -> np.ndarray:
    weight = image[..., 0].astype(np.float64)
    y, x = np.mgrid[: weight.shape[0], : weight.shape[1]] + 0.5
    return np.array([(x * weight).sum(), (y * weight).sum()]) / weight.sum()


@pytest.mark.parametrize("seed", range(12))
def test_what_the_moved_image_shows_lies_where_the_homography_says(seed):
    crop = Crop.fit(1600, 900, (256, 704))
    move = ImageTransform.sample(crop, ImageAugmentation(), np.random.default_rng(seed))
    rotation, shift = move.homography()
    wanted = np.array([352.0 + 60 * np.cos(seed), 128.0 + 50 * np.sin(seed)])
    at = np.linalg.solve(rotation[:2, :2], wanted - shift[:2])
    found = centre(move.apply(dotted(1600, 900, tuple(at))))
    # Turning takes the nearest pixel, which moves each by up to half of one.
    assert np.abs(found - wanted).max() < 0.5


def test_draws_have_the_reference_ranges_and_keep_the_bottom():
    random = np.random.default_rng(0)
    crop = Crop.fit(1600, 900, (256, 704))
    moves = [ImageTransform.sample(crop, ImageAugmentation(), random) for _ in range(500)]
    widths = np.array([m.resized[0] for m in moves]) / 1600
    assert 0.379 <= widths.min() < 0.385 and 0.545 < widths.max() <= 0.55
    assert all(m.top + 256 == m.resized[1] for m in moves)
    assert all(0 <= m.left <= max(0, m.resized[0] - 704) for m in moves)
    assert 0.4 < np.mean([m.flip for m in moves]) < 0.6
    assert 5.0 < max(m.turn for m in moves) <= 5.4 and -5.4 <= min(m.turn for m in moves) < -5.0


def test_the_scale_is_drawn_around_that_of_inference():
    random = np.random.default_rng(0)
    still = ImageAugmentation(scale=(0.0, 0.0))
    for size in ((1600, 900), (640, 480), (1000, 300)):
        move = ImageTransform.sample(Crop.fit(*size, (128, 352)), still, random)
        assert move.resized == pytest.approx(Crop.fit(*size, (128, 352)).resized, abs=1)


def test_a_scaled_image_that_is_too_narrow_is_black_on_the_right():
    move = ImageTransform((600, 338), 0, 338 - 256, False, 0.0, (1600, 900), (256, 704))
    image = move.apply(Image.new("RGB", (1600, 900), (200, 100, 50)))
    assert image.shape == (256, 704, 3)
    assert (image[:, :600] == (200, 100, 50)).all() and (image[:, 600:] == 0).all()


@pytest.mark.parametrize("size", [(1600, 900), (800, 450), (1000, 900)])
def test_without_augmentation_the_move_is_inferences_crop(size):
    crop = Crop.fit(*size, (128, 352))
    move = ImageTransform.none(crop)
    rotation, shift = move.homography()
    np.testing.assert_allclose(rotation, crop.post_rotation())
    np.testing.assert_allclose(shift, crop.post_translation())


# --- the grid ----------------------------------------------------------------------------------


@pytest.mark.parametrize("flip", [GridFlip(x, y) for x in (0, 1) for y in (0, 1)])
def test_a_mirrored_point_has_the_label_and_the_mirrored_flow(flip):
    random = np.random.default_rng(1)
    labels = random.integers(0, 18, OCC3D_GRID.shape, dtype=np.uint8)
    flow = random.normal(size=(*labels.shape, 2)).astype(np.float32)
    points = random.uniform(-39, 39, (300, 3)) * (1, 1, 0.05) + (0, 0, 1)
    index, inside = OCC3D_GRID.indices(points)
    moved, still_inside = OCC3D_GRID.indices(points @ flip.matrix().T)
    assert inside.all() and still_inside.all()
    new_labels, new_flow = flip.voxels(labels), flip.flow(flow)
    before, after = tuple(index.T), tuple(moved.T)
    assert (new_labels[after] == labels[before]).all()
    np.testing.assert_array_equal(new_flow[after], flow[before] @ flip.matrix()[:2, :2].T)


# --- targets -----------------------------------------------------------------------------------


def blocks_slow(pixels, depth, labels, variant):
    """Nearest point of each pixel, then nearest pixel of each block, as the reference goes."""
    height, width = variant.input_size
    near = np.zeros((height, width))
    who = np.full((height, width), -1)
    for p, ((u, v), d) in enumerate(zip(np.round(pixels), depth, strict=True)):
        in_range = variant.depth_range[0] <= d < variant.depth_range[1]
        if in_range and 0 <= u < width and 0 <= v < height:
            u, v = int(u), int(v)
            if who[v, u] < 0 or d < near[v, u]:
                near[v, u], who[v, u] = d, p
    bins = lidar_bins(torch.from_numpy(near[None]).float(), variant)[0]
    classes = np.full((height // 16, width // 16), IGNORED)
    for row, column in np.ndindex(classes.shape):
        block = np.s_[row * 16 : row * 16 + 16, column * 16 : column * 16 + 16]
        if (who[block] >= 0).any():
            distance = np.where(who[block] >= 0, near[block], np.inf)
            classes[row, column] = labels[who[block].flat[distance.argmin()]]
    return bins.numpy(), classes


def test_blocks_take_their_nearest_point():
    variant = VARIANTS["alocc_2d"]
    random = np.random.default_rng(0)
    pixels = random.uniform(-40, 750, (4000, 2)) * (1, 0.4)
    # Not on a bin's edge: the reference's floor is taken in single precision.
    depth = np.floor(random.uniform(0, 120, 4000)) / 2 + random.uniform(0.1, 0.4, 4000)
    labels = random.integers(0, 17, 4000).astype(np.uint8)
    v = variant
    bins, classes = block_targets(pixels, depth, labels, v.input_size, v.depth_range, v.depth_step)
    expected_bins, expected_classes = blocks_slow(pixels, depth, labels, v)
    assert (classes == expected_classes).all()
    assert (bins == expected_bins).all()
    assert (bins >= 0).mean() > 0.5


def test_points_are_seen_where_a_pinhole_camera_sees_them():
    k = np.array([[100.0, 0, 50], [0, 100, 40], [0, 0, 1]])
    camera_T_points = np.eye(4)
    camera_T_points[:3, 3] = 1.0, 0.0, 0.0
    post = np.diag([0.5, 0.5, 1.0])
    pixels, depth = pixels_of(
        np.array([[1.0, -2.0, 4.0], [0.0, 0.0, 0.0]]),
        camera_T_points,
        k,
        post,
        np.array([3.0, -1, 0]),
    )
    assert depth.tolist() == [4.0, 0.0]
    assert pixels[0].tolist() == [0.5 * (100 * 2 / 4 + 50) + 3, 0.5 * (100 * -2 / 4 + 40) - 1]


def test_lidar_labels_become_the_benchmarks_by_name():
    labels = np.arange(17, dtype=np.uint8)
    assert (point_classes(labels, OCC3D) == labels).all()
    openocc = point_classes(labels, OPENOCC)
    assert openocc[0] == IGNORED
    assert [OPENOCC.names[c] for c in openocc[1:]] == list(OCC3D.names[1:17])
    assert point_classes(np.array([IGNORED], np.uint8), OPENOCC)[0] == IGNORED


def test_voxels_are_transposed_and_unsupervised_ones_ignored():
    labels = np.arange(24, dtype=np.uint8).reshape(2, 3, 4) % 17
    seen = np.ones(labels.shape, bool)
    seen[1, 2, 3] = False
    found = voxel_labels(labels, seen)
    assert found.shape == (3, 2, 4) and found[2, 1, 3] == IGNORED
    assert found[0, 1, 2] == labels[1, 0, 2]
    flow = np.zeros((2, 3, 4, 2))
    flow[1, 0, 2] = 5.0, -7.0  # vx, vy
    flow[0, 0, 0] = np.inf, 0.0
    labels[1, 0, 2] = labels[0, 0, 0] = 0  # cars
    learned = voxel_flow(flow, voxel_labels(labels, seen), OPENOCC)
    assert learned[0, 1, 2].tolist() == [-7.0, 5.0]
    assert np.isnan(learned[0, 0, 0]).all()
    assert np.isnan(learned[2, 1, 3]).all()
    road = OPENOCC.names.index("driveable_surface")
    assert np.isnan(learned[voxel_labels(labels, seen) == road]).all()


# --- streams -----------------------------------------------------------------------------------


def streams(slots: int, seed: int = 0) -> Streams:
    return Streams(halves([range(0, 5), range(5, 9), range(9, 10), range(10, 17)]), slots, seed)


def test_scenes_are_cut_into_halves():
    assert halves([range(5), range(5, 6)]) == [(0, 1, 2), (3, 4), (5,)]


def test_a_slot_walks_whole_sequences_in_order_of_time():
    s = streams(3)
    for slot in range(3):
        visits = [step[slot] for step in islice(s.steps(), 200)]
        starts = [i for i, v in enumerate(visits) if v.start]
        pieces = [visits[a:b] for a, b in zip(starts, starts[1:], strict=False)]
        assert visits[0].start and len(pieces) > 10
        assert {tuple(v.index for v in p) for p in pieces} <= set(s.sequences)


def test_slots_share_every_pass_over_all_sequences():
    s = streams(3)
    begun = [[] for _ in range(3)]
    for step in islice(s.steps(), 400):
        for visit in step:
            if visit.start:
                begun[visit.slot].append(visit.index)
    dealt = [begun[i % 3][i // 3] for i in range(7 * len(s.sequences))]
    first = sorted(q[0] for q in s.sequences)
    passes = [dealt[i : i + len(first)] for i in range(0, len(dealt), len(first))]
    assert all(sorted(p) == first for p in passes)
    assert passes[0] != passes[1]


@pytest.mark.parametrize("skip", [0, 1, 17, 123])
def test_a_stream_can_be_entered_at_any_step(skip):
    s = streams(4)
    assert list(islice(s.steps(skip), 30)) == list(islice(s.steps(), skip, skip + 30))


def test_another_seed_is_another_order_and_steps_are_numbered():
    assert list(islice(streams(2).steps(), 50)) != list(islice(streams(2, 1).steps(), 50))
    assert [v[1] for v in islice(streams(2).steps(3), 2)] == [
        Visit(3, 1, *v[1][2:]) if i == 0 else Visit(4, 1, *v[1][2:])
        for i, v in enumerate(islice(streams(2).steps(3), 2))
    ]
    with pytest.raises(TrainingError):
        Streams([], 1, 0)
