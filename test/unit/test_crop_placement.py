# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Which part of an image the network gets, by focal length and horizon."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from alocc_ros.bags import sample
from alocc_ros.errors import CalibrationError, PresetError
from alocc_ros.geometry import pose_matrix
from alocc_ros.network.variants import VARIANTS
from alocc_ros.planning import _image
from alocc_ros.stream.crop_placement import crop_remark, horizon_row, place_crop
from alocc_ros.stream.image_geometry import Crop
from alocc_ros.stream.preprocessing import Preprocessor
from alocc_ros.stream.preset import load_preset
from alocc_ros.synthetic import rig
from alocc_ros.types import Calibration

_LEVEL = np.array([[0, 0, 1], [-1, 0, 0], [0, -1, 0]])  # optical axes of a camera that looks ahead
SIZES = [(256, 704), (128, 352), (896, 1600)]
# The other one of nuScenes' two cars (n008): f, cx, cy, and quaternions with w first.
N008 = {
    "cam_front": (1252.81, 826.59, 469.98, (0.50772, -0.49734, 0.49837, -0.49648)),
    "cam_front_right": (1256.75, 817.79, 451.95, (0.20335, -0.19146, 0.67857, -0.67936)),
    "cam_front_left": (1257.86, 827.24, 450.92, (0.68121, -0.66875, 0.21017, -0.21108)),
    "cam_back": (796.89, 857.78, 476.88, (0.50680, -0.49776, -0.49878, 0.49659)),
}


def camera(
    width: int,
    height: int,
    focal: float,
    *,
    cy: float | None = None,
    pitch: float = 0.0,  # degrees, down
    yaw: float = 0.0,
    roll: float = 0.0,
    **more: object,
) -> Calibration:
    middle = height / 2 if cy is None else cy
    k = np.array([[focal, 0.0, width / 2], [0.0, focal, middle], [0.0, 0.0, 1.0]])
    base_T_camera = np.eye(4)
    turn = Rotation.from_euler("ZYX", [yaw, pitch, roll], degrees=True).as_matrix()
    base_T_camera[:3, :3] = turn @ _LEVEL
    base_T_camera[:3, 3] = (1.5, 0.0, 1.5)
    return Calibration("cam_front", width, height, k, base_T_camera, **more)


def n008() -> dict[str, Calibration]:
    cameras = {}
    for name, (focal, cx, cy, (w, x, y, z)) in N008.items():
        k = np.array([[focal, 0, cx], [0, focal, cy], [0, 0, 1]])
        cameras[name] = Calibration(name, 1600, 900, k, pose_matrix((1.5, 0, 1.5), (x, y, z, w)))
    return cameras


def horizon_in_input(calibration: Calibration, crop: Crop) -> float:
    """Share of the height, from the top."""
    row = horizon_row(calibration) * crop.post_rotation()[1, 1] + crop.post_translation()[1]
    return row / crop.input_size[0]


# --- as in training ------------------------------------------------------------------------------


@pytest.mark.parametrize("input_size", SIZES)
@pytest.mark.parametrize("cameras", [rig.cameras(), n008(), sample.rig(), rig.cameras(160, 440)])
def test_rigs_of_nuscenes_are_cut_as_in_training(cameras, input_size):
    for calibration in cameras.values():
        lowest = Crop.fit(calibration.width, calibration.height, input_size)
        assert place_crop(calibration, input_size) == lowest
        # Of images that were cut to the shape of the one input, the other would not be made.
        assert calibration.height == 160 or not crop_remark(calibration, lowest)


@pytest.mark.parametrize("pitch", [-1.5, -0.7, 0.7, 1.5])
def test_a_camera_of_nuscenes_that_sits_a_bit_crooked_still_is(pitch):
    for calibration in rig.cameras().values():
        turned = calibration.base_T_camera.copy()
        turned[:3, :3] = turned[:3, :3] @ Rotation.from_euler("x", pitch, degrees=True).as_matrix()
        crooked = dataclasses.replace(calibration, base_T_camera=turned)
        assert abs(horizon_row(crooked) - horizon_row(calibration)) > 5
        assert place_crop(crooked) == Crop.fit(1600, 900)


# --- other rigs ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "calibration",
    [
        camera(640, 480, 455.0),
        camera(1280, 800, 905.0, pitch=2.0),
        camera(1920, 1200, 1100.0, yaw=90.0),
        camera(1440, 1080, 900.0, pitch=8.0, yaw=-120.0),
        camera(640, 480, 455.0, roll=4.0),
    ],
    ids=lambda c: f"{c.width}x{c.height}",
)
def test_the_horizon_comes_to_where_training_had_it(calibration):
    crop = place_crop(calibration)
    assert horizon_in_input(calibration, crop) == pytest.approx(0.275, abs=0.003)
    assert 0 <= crop.top <= crop.resized[1] - 256
    before = Crop.fit(calibration.width, calibration.height)
    assert horizon_in_input(calibration, before) < 0.15  # what the lowest rows would have been


def test_a_point_lies_where_the_crop_says():
    """What is level with the camera is seen at the row of the horizon, whatever the pitch."""
    calibration = camera(1440, 1080, 900.0, pitch=8.0, yaw=30.0, roll=3.0)
    far = calibration.base_T_camera[:3, 3] + 1e6 * np.array(
        [np.cos(np.radians(30)), np.sin(np.radians(30)), 0.0]
    )
    seen = np.linalg.inv(calibration.base_T_camera) @ [*far, 1.0]
    pixel = calibration.intrinsics @ (seen[:3] / seen[2])
    assert pixel[0] == pytest.approx(720.0, abs=8.0)
    assert pixel[1] == pytest.approx(horizon_row(calibration), abs=0.5)


@pytest.mark.parametrize(
    ("focal", "wanted"), [(150.0, 0.50), (300.0, 0.50), (420.0, 0.79), (455.0, 0.79)]
)
def test_an_image_is_scaled_to_the_nearest_focal_length_of_training(focal, wanted):
    calibration = camera(640, 480, focal)
    crop = place_crop(calibration)
    assert focal * crop.resized[0] / 640 / 704 == pytest.approx(wanted, abs=0.002)
    assert crop.left == (crop.resized[0] - 704) // 2  # cut equally from both sides
    assert not crop_remark(calibration, crop)


@pytest.mark.parametrize("focal", [325.0, 380.0, 520.0])
def test_a_longer_lens_than_the_nearest_keeps_its_whole_width(focal):
    crop = place_crop(camera(640, 480, focal))
    assert (crop.resized[0], crop.left) == (704, 0)


@pytest.mark.parametrize("image_size", [(900, 1600), (160, 440)])
def test_what_the_network_is_told_is_the_same_geometry(image_size):
    """In numbers as of training: the cut is training's, and the camera matrix makes up for it."""
    calibration = camera(640, 480, 455.0, pitch=7.0)
    variant = dataclasses.replace(VARIANTS["alocc_3d"], image_size=image_size)
    crop = place_crop(calibration, variant.input_size)
    matrix, rotation, shift = _image(calibration, crop, variant)
    trained = Crop.fit(image_size[1], image_size[0], variant.input_size)
    np.testing.assert_array_equal(rotation, trained.post_rotation())
    np.testing.assert_array_equal(shift, trained.post_translation())
    points = np.random.default_rng(0).uniform((-5, -2, 2), (5, 2, 40), (50, 3)).T
    pixels = crop.post_rotation() @ (calibration.intrinsics @ points / points[2])
    said = rotation @ (matrix @ points / points[2])
    np.testing.assert_allclose(
        (said + shift[:, None])[:2], (pixels + crop.post_translation()[:, None])[:2], atol=1e-9
    )
    assert matrix[0, 0] == pytest.approx(0.79 * image_size[1], rel=0.01)


def test_of_images_cut_as_in_training_the_network_is_told_as_in_training():
    for calibration in (*rig.cameras().values(), *rig.cameras(160, 440).values()):
        crop = place_crop(calibration)
        matrix, rotation, shift = _image(calibration, crop, VARIANTS["alocc_3d"])
        assert matrix is calibration.intrinsics
        np.testing.assert_array_equal(rotation, crop.post_rotation())
        np.testing.assert_array_equal(shift, crop.post_translation())


# --- what is said --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("calibration", "words"),
    [
        (camera(640, 480, 900.0), "with a focal length of 1.41 of their width; in training"),
        (camera(640, 480, 455.0, pitch=30.0), "with the horizon -11 % of the height"),
        (camera(1920, 400, 1000.0, pitch=-12.0), "too little of the ground"),
        (camera(640, 480, 455.0, pitch=88.0), "looks up or down"),
        (camera(640, 480, 455.0, roll=180.0), "lies on its side"),
    ],
)
def test_too_little_in_the_picture_is_said_with_numbers(calibration, words):
    remark = crop_remark(calibration, place_crop(calibration))
    assert words in remark and remark.startswith("cam_front: of ")
    assert "the network sees columns " in remark and "docs/other_vehicles.md" in remark


def test_it_is_said_once_a_camera():
    said = []
    with Preprocessor() as preprocessor:
        preprocessor.say = said.append
        for _ in range(3):
            preprocessor.crop(camera(640, 480, 900.0))  # an equal one, but another object
    assert len(said) == 1


# --- by hand -------------------------------------------------------------------------------------


def test_the_preset_may_name_the_part():
    crop = place_crop(camera(1280, 720, 905.0, crop=(100, 200, 704)))
    assert (crop.resized, crop.left, crop.top) == ((1280, 720), 100, 200)
    half = place_crop(camera(1280, 720, 905.0, crop=(0, 17, 1280)), (128, 352))
    assert half.resized[0] == 352 and half.top == round(17 * 352 / 1280)
    lowest = place_crop(camera(640, 480, 455.0, crop="lowest"))
    assert lowest == Crop.fit(640, 480)


@pytest.mark.parametrize("crop", [(700, 0, 600), (0, 500, 1280), (0, 0, 1300)])
def test_a_part_outside_of_the_image_is_named(crop):
    with pytest.raises(CalibrationError, match=r"cam_front: crop \[.*outside of an image of 1280"):
        place_crop(camera(1280, 720, 905.0, crop=crop))


def preset_text(**entries: str) -> str:
    names = ("front_left", "front_right", "back_left", "back", "back_right")
    more = entries.pop("of_front", "")
    lines = ["cameras:", f"  cam_front: {{image: /f, camera_info: /i{more}}}"]
    lines += [f"  cam_{name}: none" for name in names]
    return "\n".join(lines + [f"{key}: {value}" for key, value in entries.items()]) + "\n"


def test_presets_say_it_for_all_or_for_one(tmp_path):
    file = tmp_path / "rig.yaml"
    file.write_text(preset_text())
    assert load_preset(file).crop_of("cam_front") == "auto"
    file.write_text(preset_text(crop="lowest"))
    assert load_preset(file).crop_of("cam_front") == "lowest"
    file.write_text(preset_text(crop="lowest", of_front=", crop: [10, 20, 600]"))
    assert load_preset(file).crop_of("cam_front") == (10, 20, 600)


@pytest.mark.parametrize("entry", ["[1, 2]", "[0, 0, 0]", "[0, -1, 5]", "bottom", "[1.5, 2, 3]"])
def test_a_crop_that_is_none_is_an_error_with_what_may_stand_there(tmp_path, entry):
    file = tmp_path / "rig.yaml"
    file.write_text(preset_text(of_front=f", crop: {entry}"))
    with pytest.raises(PresetError, match=r"must be auto, lowest, or \[left, top, width\]"):
        load_preset(file)
