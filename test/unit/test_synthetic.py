# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""The synthetic street: what is drawn, what is measured and what is said to be true agree."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from alocc_ros.geometry import inverse, project
from alocc_ros.grid import OCC3D_GRID, VoxelGrid
from alocc_ros.labels import OCC3D, OPENOCC
from alocc_ros.metrics.ray_scores import RayScores
from alocc_ros.metrics.voxels import VoxelScores
from alocc_ros.synthetic import primitives, raycast, rig
from alocc_ros.synthetic.frames import ANCHOR, ray_origins, render, truth_of
from alocc_ros.synthetic.generation import generate_scene
from alocc_ros.synthetic.lidar import scan
from alocc_ros.synthetic.render import SKY
from alocc_ros.synthetic.visibility import voxels_on_rays, voxels_on_rays_reference
from alocc_ros.synthetic.voxels import fill_voxels
from alocc_ros.types import CAMERAS

SIZE = (90, 160)
TIME = 3.0
GROUND = [OCC3D.names.index(n) for n in ("driveable_surface", "other_flat", "sidewalk", "terrain")]


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """Small operations: several threads only wait for each other on a loaded machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def scene():
    return generate_scene(2, duration=6.0)


@pytest.fixture(scope="module")
def frame(scene):
    return render(scene, TIME, SIZE)


@pytest.fixture(scope="module")
def truth(scene, frame):
    return truth_of(scene, frame.lidar_time, "occ3d")


def voxel_labels(truth, points):
    """(labels of the voxels that hold points, which points are in the grid)"""
    index, inside = OCC3D_GRID.indices(points)
    return truth.labels[tuple(index[inside].T)], inside


def test_the_same_seed_gives_the_same_bytes(scene, frame):
    again = render(generate_scene(2, duration=6.0), TIME, SIZE)
    for camera in CAMERAS:
        assert torch.equal(again.views[camera].image, frame.views[camera].image)
        assert torch.equal(again.views[camera].depth, frame.views[camera].depth)
    other = generate_scene(3, duration=6.0)
    assert len(other.parts) != len(scene.parts)


def test_cameras_lie_where_the_rig_says_and_fire_in_turn():
    cameras = rig.cameras()
    assert list(cameras) == list(CAMERAS)
    forward = {c: k.base_T_camera[:3, 2] for c, k in cameras.items()}
    heading = {c: np.degrees(np.arctan2(f[1], f[0])) for c, f in forward.items()}
    assert abs(heading["cam_front"]) < 1 and 50 < heading["cam_front_left"] < 60
    assert -115 < heading["cam_back_right"] < -105 and abs(heading["cam_back"]) > 179
    order = sorted(rig.PHASES, key=rig.PHASES.get)
    assert [c.removeprefix("cam_") for c in order] == [
        "front_left", "front", "front_right", "back_right", "back", "back_left",
    ]  # fmt: skip
    assert 40e6 < max(rig.PHASES.values()) < rig.LIDAR_PHASE < 50e6


def test_a_smaller_image_shows_the_lower_part_of_the_full_one():
    full, small = rig.cameras(), rig.cameras(256, 704)
    point = np.array([[0.4, 0.3, 4.0]])
    for camera in CAMERAS:
        u, v = project(point, np.eye(4), full[camera].intrinsics)[0][0] * 0.44
        x, y = project(point, np.eye(4), small[camera].intrinsics)[0][0]
        assert (x, y) == pytest.approx((u, v - (396 - 256)), abs=1e-6)


def test_another_vehicle_has_other_cameras():
    change = rig.RigChange(zoom=1.1, lift=0.5, pitch=np.radians(5), yaw={"cam_back": 0.1})
    usual, other = rig.cameras(160, 440), rig.cameras(160, 440, change)
    for camera in CAMERAS:
        a, b = usual[camera], other[camera]
        assert b.intrinsics[0, 0] == pytest.approx(1.1 * a.intrinsics[0, 0])
        assert np.array_equal(b.intrinsics[:2, 2], a.intrinsics[:2, 2])
        move = b.base_T_camera[:3, 3] - a.base_T_camera[:3, 3]
        assert move == pytest.approx([0, 0, 0.5])
        before, now = (k.base_T_camera[:3, 2] for k in (a, b))
        down = np.degrees(np.arcsin(before[2]) - np.arcsin(now[2]))
        assert down == pytest.approx(5, abs=0.1)
        turned = np.arctan2(now[1], now[0]) - np.arctan2(before[1], before[0])
        wanted = 0.1 if camera == "cam_back" else 0.0
        assert np.angle(np.exp(1j * (turned - wanted))) == pytest.approx(0, abs=2e-3)
    same = rig.cameras(160, 440, rig.NO_CHANGE)
    assert all(np.array_equal(same[c].base_T_camera, usual[c].base_T_camera) for c in CAMERAS)
    drawn = [rig.RigChange.sample(np.random.default_rng(s)) for s in range(50)]
    heights = [rig.cameras(change=d)["cam_front"].base_T_camera[2, 3] for d in drawn]
    assert 1.2 < min(heights) < 1.4 and 2.2 < max(heights) < 2.42


@pytest.mark.parametrize("search", [raycast.front_to_back, raycast.all_pairs])
def test_culling_does_not_change_what_rays_hit(scene, search):
    solids = scene.solids(TIME)
    near = torch.nonzero(
        (solids.centre[:, :2] - torch.tensor(scene.ego_pose(TIME)[:2, 3])).norm(dim=1) < 25
    )[:, 0]
    some = solids.take(near)
    eye = torch.tensor(scene.ego_pose(TIME)[:3, 3], dtype=torch.float32) + torch.tensor([0, 0, 1.6])
    azimuth = torch.linspace(0, 6.28, 65)[:-1]
    elevation = torch.linspace(-0.6, 0.4, 24)
    e, a = torch.meshgrid(elevation, azimuth, indexing="ij")
    rays = torch.stack([e.cos() * a.cos(), e.cos() * a.sin(), e.sin()], dim=-1).view(-1, 3)
    rays = rays[raycast.tile_image(24, 64, 8, torch.device("cpu"))]
    limit = torch.full(rays.shape[:2], 100.0)
    slow = raycast.first_hit_reference(some, eye, rays, limit)
    fast = raycast.first_hit(some, eye, rays, limit, search)
    assert torch.equal(fast[0], slow[0])
    assert (fast[1] == slow[1]).float().mean() > 0.99  # where parts touch, either may be told
    assert (fast[1] >= 0).float().mean() > 0.2


def test_solids_are_hit_where_arithmetic_says():
    parts = [
        primitives.block((-1, 1), (-1, 1), (0, 2), origin=(10, 0)),
        primitives.ellipsoid((0, 10, 1), (2, 1, 1)),
        primitives.cone((-10, 0), (1, 1), (0, 4), top=0.5),
    ]
    scene = generate_scene(0, duration=1.0)
    scene = dataclasses.replace(
        scene, parts=tuple(parts), owner=np.full(3, -1), labels=np.array([15, 16, 15], np.uint8)
    )
    eye = torch.tensor([0.0, 0.0, 1.0])
    rays = torch.tensor([[[1.0, 0, 0], [0, 2.0, 0], [-1.0, 0, 0], [0, -1.0, 0]]])
    distance, hit = raycast.first_hit_reference(
        scene.solids(0.0), eye, rays, torch.full((1, 4), 50.0)
    )
    assert distance[0].tolist() == pytest.approx([9.0, 4.5, 10 - 0.875, 50.0], abs=1e-4)
    assert hit[0].tolist() == [0, 1, 2, -1]


def test_pixels_lie_in_voxels_of_their_class(scene, frame, truth):
    base_T_map = inverse(scene.ego_pose(frame.lidar_time))
    occupied, same, count = 0, 0, 0
    for camera, view in frame.views.items():
        # What moves is elsewhere when the LiDAR fires.
        moving = np.array([t.moves for t in scene.actors] + [False])[view.actors.numpy()]
        v, u = np.nonzero((view.labels.numpy() != SKY) & ~moving)
        depth = view.depth.numpy()[v, u]
        k = frame.calibration[camera]
        points = (
            np.stack([u, v, np.ones_like(u)], 1) @ np.linalg.inv(k.intrinsics).T * depth[:, None]
        )
        a = base_T_map @ scene.ego_pose(frame.times[camera]) @ k.base_T_camera
        found, inside = voxel_labels(truth, points @ a[:3, :3].T + a[:3, 3])
        labels = view.labels.numpy()[v, u][inside]
        occupied += (found != OCC3D.free).sum()
        same += (found == labels).sum()
        count += len(labels)
    assert count > 10_000
    assert occupied / count > 0.98
    assert same / count > 0.93  # a voxel where two classes meet has one label


def test_visible_voxels_have_their_class_in_the_image(scene, frame, truth):
    map_T_base = scene.ego_pose(frame.lidar_time)
    index = np.argwhere((truth.labels != OCC3D.free) & truth.mask_camera)
    # The middle of a ground voxel lies under the ground. Far away, at a flat angle, its pixel shows
    # a place metres before it.
    near = np.hypot(*OCC3D_GRID.centres(index)[:, :2].T) < 12.0
    index = index[near | ~OCC3D.is_ground[truth.labels[tuple(index.T)]]]
    centres = (
        OCC3D_GRID.centres(index).astype(np.float64) @ map_T_base[:3, :3].T + map_T_base[:3, 3]
    )
    labels = truth.labels[tuple(index.T)]
    seen, agree = np.zeros(len(index), bool), np.zeros(len(index), bool)
    for camera, view in frame.views.items():
        k = frame.calibration[camera]
        camera_T_map = inverse(scene.ego_pose(frame.times[camera]) @ k.base_T_camera)
        pixels, depth = project(centres, camera_T_map, k.intrinsics)
        u, v = np.round(pixels).astype(int).T
        ok = (depth > 0.5) & (u >= 0) & (u < k.width) & (v >= 0) & (v < k.height)
        image, there = view.labels.numpy()[v[ok], u[ok]], view.depth.numpy()[v[ok], u[ok]]
        at = np.flatnonzero(ok)[np.abs(there - depth[ok]) < 0.6]
        seen[at] = True
        agree[at] |= (image == labels[ok])[np.abs(there - depth[ok]) < 0.6]
    assert len(index) > 3000
    assert seen.mean() > 0.6  # centres of voxels at a corner may just not be seen
    assert agree[seen].mean() > 0.92


def test_the_ground_that_cameras_see_has_no_gaps_between_their_rays(truth):
    ground = OCC3D.is_ground[truth.labels]
    for axis in (0, 1):
        before, here, after = (np.roll(truth.mask_camera & ground, k, axis) for k in (1, 0, -1))
        between = before & after & ground
        assert between.sum() > 1000
        assert here[between].mean() > 0.97


def test_lidar_points_lie_in_voxels_of_their_class(scene, frame, truth):
    sweep = scan(scene, frame.lidar_time)
    base_T_lidar = rig.lidar().base_T_lidar
    points = sweep.points[:, :3] @ base_T_lidar[:3, :3].T + base_T_lidar[:3, 3]
    found, inside = voxel_labels(truth, points)
    assert inside.sum() > 5000
    assert (found != OCC3D.free).mean() > 0.97
    assert (found == sweep.labels[inside]).mean() > 0.93
    assert sweep.points.dtype == np.float32 and set(sweep.points[:, 4]) == set(range(32))


def test_depth_maps_agree_with_the_lidar(scene, frame):
    sweep = scan(scene, frame.times[ANCHOR])
    k = frame.calibration[ANCHOR]
    pose = inverse(k.base_T_camera) @ rig.lidar().base_T_lidar
    pixels, depth = project(sweep.points[:, :3], pose, k.intrinsics)
    u, v = np.round(pixels).astype(int).T
    ok = (depth > 1) & (depth < 40) & (u >= 0) & (u < k.width) & (v >= 0) & (v < k.height)
    # Up to half a pixel beside the point: a slanted road needs some room.
    window = frame.views[ANCHOR].depth.numpy()
    difference = np.abs(window[v[ok], u[ok]] - depth[ok]) / depth[ok]
    assert ok.sum() > 1000
    assert np.median(difference) < 0.01 and (difference < 0.08).mean() > 0.9


def test_flow_is_where_things_go():
    scene = generate_scene(0, duration=6.0)
    pose = scene.ego_pose(TIME)
    later = 0.4
    now, then = fill_voxels(scene, TIME, pose), fill_voxels(scene, TIME + later, pose)
    fast = np.linalg.norm(now.flow, axis=-1) > 2.0
    assert fast.sum() > 200
    index = np.argwhere(fast)
    moved = OCC3D_GRID.centres(index)
    moved[:, :2] += now.flow[fast] * later
    target, inside = OCC3D_GRID.indices(moved)
    same = then.labels[tuple(target[inside].T)] == now.labels[fast][inside]
    stays = then.labels[fast][inside] == now.labels[fast][inside]
    assert same.mean() > 0.9  # rounding to voxels costs some at the edges
    assert stays.mean() < same.mean() - 0.2


def test_flow_is_over_ground_along_the_axes_of_the_vehicle():
    scene = generate_scene(0, duration=6.0)
    pose = scene.ego_pose(TIME)
    turned = pose.copy()
    turned[:3, :3] = pose[:3, :3] @ np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1]])
    a, b = fill_voxels(scene, TIME, pose).flow, fill_voxels(scene, TIME, turned).flow
    fastest = a.reshape(-1, 2)[np.linalg.norm(a, axis=-1).argmax()]
    expected = np.array([fastest[1], -fastest[0]])
    assert np.abs(b.reshape(-1, 2) - expected).sum(axis=1).min() < 1e-4
    assert np.abs(b.reshape(-1, 2) - fastest).sum(axis=1).min() > 1.0
    speeds = np.linalg.norm(scene.actor_velocities(TIME), axis=1)
    assert np.isclose(speeds, np.linalg.norm(fastest), atol=1e-3).any()


def test_masks_tell_what_can_be_seen(truth, scene):
    for mask in (truth.mask_camera, truth.mask_lidar):
        assert 0.1 < mask.mean() < 0.6
        assert not mask[:, :, 0].any()  # 0.8 m below the road
        assert mask[108:113, 98:102, 5].all()  # the air right before the vehicle
    # What is seen as occupied borders on free space that is seen.
    index = np.argwhere(truth.mask_camera & (truth.labels != OCC3D.free))
    free = np.pad(truth.mask_camera & (truth.labels == OCC3D.free), 1)
    near = np.zeros(len(index), bool)
    for axis in range(3):
        for step in (-1, 1):
            shifted = index + 1
            shifted[:, axis] += step
            near |= free[tuple(shifted.T)]
    edge = (index == 0).any(1) | (index == np.array(OCC3D_GRID.shape) - 1).any(1)
    assert (near | edge).mean() > 0.97  # the rest is seen through the corners of voxels


def test_the_ray_mask_is_of_the_benchmarks_rays(scene, frame):
    truth = truth_of(scene, frame.lidar_time, "openocc")
    assert truth.classes.name == "openocc" and truth.flow.shape == (200, 200, 16, 2)
    origins = ray_origins(scene, frame.lidar_time)
    assert 1 <= len(origins) <= 8
    index, inside = OCC3D_GRID.indices(origins)
    assert truth.ray_mask[tuple(index[inside].T)].all()
    assert 0.05 < truth.ray_mask.mean() < 0.8


def test_voxels_on_rays_are_those_of_the_reference():
    random = np.random.default_rng(0)
    grid = VoxelGrid((-4.0, -4.0, -1.0), (20, 20, 8), 0.4)
    labels = np.where(random.random(grid.shape) < 0.06, 4, OCC3D.free).astype(np.uint8)
    origins = random.uniform(-5, 5, (500, 3))
    rays = random.normal(size=(500, 3))
    rays[:50, 2] = 0.0  # along the levels
    origins[:20] = 0.0  # on the faces of voxels
    fast = voxels_on_rays(labels, origins, rays, grid)
    assert np.array_equal(fast, voxels_on_rays_reference(labels, origins, rays, grid))
    assert 0.3 < fast.mean() < 1.0


def test_a_ray_touches_voxels_up_to_the_first_that_is_filled():
    grid = VoxelGrid((0.0, 0.0, 0.0), (10, 4, 4), 1.0)
    labels = np.full(grid.shape, OCC3D.free, np.uint8)
    labels[6, 1, 1] = 4
    seen = voxels_on_rays(labels, np.array([[1.5, 1.5, 1.5]]), np.array([[1.0, 0.0, 0.0]]), grid)
    assert np.argwhere(seen).tolist() == [[x, 1, 1] for x in range(1, 7)]


def test_thin_poles_keep_their_voxels():
    scene = generate_scene(2, duration=1.0)
    pole = primitives.cone((5.03, 3.07), (0.045, 0.045), (0.0, 3.0))
    scene = dataclasses.replace(
        scene, actors=(), parts=(pole,), owner=np.array([-1]), labels=np.array([15], np.uint8)
    )
    labels = fill_voxels(scene, 0.0, np.eye(4)).labels
    column = labels[int(45.03 / 0.4), int(43.07 / 0.4)]
    assert (column[3:10] == 15).all()


def test_a_scene_holds_every_class_sooner_or_later():
    found = set()
    for seed in range(16, 20):
        scene = generate_scene(seed, duration=1.0)
        found |= {int(n) for n in np.unique(scene.labels)}
        found |= {int(n) for n in np.unique(scene.streets.lots)} | {11, 13}
    assert found == set(range(17))


@pytest.mark.parametrize("seeds", [range(3), pytest.param(range(3, 8), marks=pytest.mark.slow)])
def test_nobody_drives_through_our_own_vehicle(seeds):
    for seed in seeds:
        scene = generate_scene(seed, duration=8.0)
        for time in np.arange(0.0, 8.0, 1.0):
            pose = scene.ego_pose(time)
            actors = scene.actor_poses(time)
            ahead = (actors[:, :2] - pose[:2, 3]) @ pose[:2, :2]
            for actor, (x, y) in zip(scene.actors, ahead, strict=True):
                # The vehicle reaches from 1 m behind the rear axle to 3 m before it.
                assert not (-0.8 < x < 2.8 and abs(y) < 0.6), (seed, time, actor.kind)


def test_a_long_drive_does_not_come_to_the_end_of_its_road():
    scene = generate_scene(1_100_001, duration=200.0)
    speeds = np.array([scene.ego_speed(t) for t in range(200)])
    assert (speeds[50:] > 2.0).all()
    x, y = torch.from_numpy(np.array([scene.ego_pose(t)[:2, 3] for t in range(200)])).T
    assert (scene.streets.kerb_distance(x, y) < 0).all()
    near = np.array([[np.hypot(*(p.origin[:2] - scene.ego_pose(t)[:2, 3])) < 60
                      for p, owner in zip(scene.parts, scene.owner, strict=True) if owner < 0]
                     for t in (100.0, 195.0)])  # fmt: skip
    assert (near.sum(1) > 50).all()  # houses and trees all along


def test_who_predicts_the_truth_scores_100(scene, frame, truth):
    flowing = truth_of(scene, frame.lidar_time, "openocc")
    voxels = VoxelScores(OCC3D)
    voxels.update(truth.labels, truth.labels, truth.mask_camera)
    rays = RayScores(OPENOCC, flow=True)
    rays.update(flowing, flowing, ray_origins(scene, frame.lidar_time))
    assert voxels.result().miou == voxels.result().iou == 100.0
    assert rays.result().rayiou == 100.0
    assert rays.result().flow.mave_tp == 0.0


def test_frames_without_files_are_frame_sets(frame):
    ready = frame.frame_set()
    assert set(ready.images) == set(CAMERAS) and ready.stamp == ready.images[ANCHOR].stamp
    image = ready.images["cam_back"]
    assert (image.height, image.width, image.encoding) == (*SIZE, "rgb8")
    stamps = [ready.images[c].stamp for c in CAMERAS]
    assert max(stamps) - min(stamps) == max(rig.PHASES.values())


def test_surroundocc_lies_in_the_lidars_frame(scene, frame):
    truth = truth_of(scene, frame.lidar_time, "surroundocc")
    # The LiDAR is 1.84 m above the road: there it lies in level (-1.84 + 5) / 0.5 = 6.
    assert np.isin(truth.labels[100, 100], GROUND).nonzero()[0].tolist() == [6]
    # Its y axis looks ahead: the road goes on along the second axis, not along the first.
    road = (truth.labels == OCC3D.names.index("driveable_surface")).any(axis=2)
    assert road[100].mean() > 0.9 > road[:, 100].mean()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_a_gpu_draws_the_same_street(scene, frame, truth):
    there = render(scene, TIME, SIZE, device="cuda")
    for camera in CAMERAS:
        ours, theirs = frame.views[camera], there.views[camera]
        assert (ours.labels == theirs.labels.cpu()).float().mean() > 0.995
        close = torch.isclose(ours.depth, theirs.depth.cpu(), rtol=1e-3)
        assert close.float().mean() > 0.99
        # The sensor's noise is another one.
        difference = ours.image.float() - theirs.image.cpu().float()
        assert difference.mean().abs() < 1 and difference.abs().mean() < 10
    labels = truth_of(scene, frame.lidar_time, "occ3d", device="cuda")
    assert (labels.labels == truth.labels).mean() > 0.999
    assert (labels.mask_camera == truth.mask_camera).mean() > 0.999
    sweep = scan(scene, frame.lidar_time, device="cuda")
    assert len(sweep.points) == pytest.approx(len(scan(scene, frame.lidar_time).points), rel=0.01)


def test_more_of_what_is_rare_and_the_same_street_without():
    seeds = range(2_200_000, 2_200_004)
    ordinary = [generate_scene(s, 1.0) for s in seeds]
    again = [generate_scene(s, 1.0, rare=1.0) for s in seeds]
    assert [s.parts for s in ordinary] == [s.parts for s in again]
    many = [generate_scene(s, 1.0, rare=3.0) for s in seeds]

    def count(scenes, *kinds):
        return sum(a.kind in kinds for s in scenes for a in s.actors)

    for kinds in (("pedestrian",), ("bicycle", "motorcycle"), ("cone",), ("truck", "bus"),
                  ("trailer", "construction")):  # fmt: skip
        assert count(many, *kinds) > 1.5 * count(ordinary, *kinds), kinds
