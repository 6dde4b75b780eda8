# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Synthetic streets through the cameras of another vehicle."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from alocc_ros.errors import CalibrationError
from alocc_ros.evaluation.rig_score import ARMS, calibrations_of, free_running, score_rig
from alocc_ros.pipeline import Pipeline
from alocc_ros.stream.image_geometry import Undistortion
from alocc_ros.stream.rig import load_rig
from alocc_ros.synthetic.frames import render
from alocc_ros.synthetic.generation import generate_scene
from alocc_ros.synthetic.lens import pixel_rays
from alocc_ros.synthetic.render import render_camera
from alocc_ros.synthetic.visibility import seen_by
from alocc_ros.types import CAMERAS, Calibration

RIG = Path(__file__).parents[2] / "config" / "rigs" / "four_cameras.yaml"


@pytest.fixture(scope="module")
def cameras() -> dict[str, Calibration]:
    """The four cameras with a tenth of their pixels."""
    small = {}
    for name, camera in calibrations_of(load_rig(RIG, rectified=False)).items():
        k = camera.intrinsics * [[0.1], [0.1], [1.0]]
        size = {"width": camera.width // 10, "height": camera.height // 10}
        small[name] = replace(camera, intrinsics=k, **size)
    return small


@pytest.mark.parametrize("name", ["cam_front", "cam_back_left", "cam_back"])
def test_rays_go_back_to_their_pixels(cameras, name):
    cv2 = pytest.importorskip("cv2")
    camera = cameras[name]
    v, u = np.mgrid[: camera.height, : camera.width].reshape(2, -1)
    rays = pixel_rays(camera, u, v)
    d, nothing = np.array(camera.distortion or (0.0,) * 4), np.zeros(3)
    project = cv2.fisheye.projectPoints if "equi" in camera.distortion_model else None
    if project is not None:
        pixels, _ = project(rays[None], nothing, nothing, camera.intrinsics, d)
    else:
        pixels, _ = cv2.projectPoints(rays, nothing, nothing, camera.intrinsics, d)
    np.testing.assert_allclose(pixels.reshape(-1, 2), np.stack([u, v], -1), atol=0.02)


def test_a_drawn_fisheye_is_straight_once_it_is_undistorted(cameras):
    scene = generate_scene(7001, duration=0.1)
    bent = replace(cameras["cam_back"], width=192, height=152)
    k = bent.intrinsics * [[2.0], [2.0], [1.0]]
    bent = replace(bent, intrinsics=k)
    straight = replace(bent, distortion=(), distortion_model="")
    seen = Undistortion(bent)(render_camera(scene, bent, 0.0).image.numpy()).astype(int)
    drawn = render_camera(scene, straight, 0.0).image.numpy().astype(int)
    inner = (slice(30, -30), slice(30, -30))
    difference = np.abs(seen - drawn)[inner].mean()
    assert difference < 0.4 * np.abs(np.roll(seen, 6, axis=1) - drawn)[inner].mean()


def test_a_rig_gives_frame_sets_with_its_cameras_only(cameras):
    phases = free_running(cameras)
    stamps = np.array(sorted(phases.values()))
    assert np.ptp(stamps) < 66_700_000 and phases["cam_front"] == 7_600_000
    scene = generate_scene(7001, duration=0.1)
    frame = render(scene, 0.0, cameras=cameras, phases=phases)
    made = frame.frame_set()
    assert set(made.images) == set(cameras) == set(made.fitted)
    assert set(made.calibration) == set(CAMERAS)
    assert made.stamp == made.images["cam_front"].stamp
    seen = seen_by(scene, cameras, np.full((200, 200, 16), 17, np.uint8), frame.times, 0.0)
    # Ahead, behind and to both sides there are cameras; nobody looks at what is ahead and beside.
    ahead, behind, left = seen[170:190, 90:110], seen[10:30, 90:110], seen[92:112, 170:190]
    assert min(part.any(axis=2).mean() for part in (ahead, behind, left)) > 0.1
    assert not seen[150:155, 160:165].any()


@pytest.mark.slow
def test_both_rigs_are_scored_where_this_one_sees(cameras):
    pipeline = Pipeline.load("alocc_tiny", device="cpu")
    told = []
    scores = score_rig(
        pipeline.network,
        pipeline.record,
        cameras,
        seeds=(7001,),
        frames=2,
        size=(40, 110),
        on_progress=lambda *progress: told.append(progress),
    )
    assert told == [("street", 1, 2), ("street", 2, 2)]
    assert tuple(scores.everywhere) == tuple(scores.beside) == ARMS
    assert scores.cost == scores.everywhere[ARMS[0]].miou - scores.everywhere[ARMS[1]].miou
    assert all(result.frames == 2 for result in scores.everywhere.values())
    assert all(0 < result.iou < 100 for result in scores.everywhere.values())
    # The lowest rows of 4:3 images hold the ground alone.
    assert scores.everywhere[ARMS[1]].iou > scores.everywhere[ARMS[2]].iou
    assert scores.remarks == ()


def test_a_rig_without_a_front_or_a_place_is_named(tmp_path):
    rig = load_rig(RIG, rectified=False)
    with pytest.raises(CalibrationError, match="no cam_front"):
        calibrations_of({name: c for name, c in rig.items() if name != "cam_front"})
    with pytest.raises(CalibrationError, match="cam_front: the rig file has no base_T_camera"):
        calibrations_of(rig | {"cam_front": replace(rig["cam_front"], base_T_camera=None)})
