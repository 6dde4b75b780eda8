# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import contextlib
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from alocc_ros.errors import CalibrationError, PresetError
from alocc_ros.stream.preset import (
    DEFAULT_PRESET,
    Preset,
    distortion_remark,
    load_preset,
    parse_preset,
    preset_names,
    presets_folder,
)
from alocc_ros.stream.rig import intrinsics_from_camera_info, load_rig
from alocc_ros.types import CAMERAS

CAMERA_MATRIX = [[1000.0, 0.0, 800.0], [0.0, 1000.0, 450.0], [0.0, 0.0, 1.0]]


def minimal() -> dict:
    return {"cameras": {camera: {"image": f"/{camera}/image"} for camera in CAMERAS}}


def parse(entries: object) -> Preset:
    return parse_preset(entries, name="t", where="t.yaml", folder=Path("/rig"))


@pytest.mark.parametrize("name", preset_names())
def test_every_shipped_preset_loads_and_names_all_cameras(name):
    preset = load_preset(name)
    assert tuple(preset.cameras) == CAMERAS
    assert preset.description


def test_the_shipped_presets_are_those_of_the_converters_in_the_wild():
    assert set(preset_names()) == {
        "autoware",
        "autoware_raw",
        "autoware_sample",
        "awsim",
        "carla",
        "custom_example",
        "dataset_bridge",
        "nuscenes",
        "nuscenes2bag",
        "nuscenes2bag_ros2",
        "nuscenes_lower",
        "nuscenes_urdf",
        "realsense_six",
        "zed_six",
    }
    default = load_preset(DEFAULT_PRESET)
    assert default.cameras["cam_front"].image == "/CAM_FRONT/image_rect_compressed"
    assert default.cameras["cam_back"].camera_info == "/CAM_BACK/camera_info"
    assert load_preset("nuscenes2bag_ros2").stamp_source == "receive"
    assert load_preset("nuscenes_urdf").ego_pose_source == "odometry"
    assert load_preset("dataset_bridge").world_frame == "world"


def test_the_example_shows_every_entry_with_its_default():
    text = (presets_folder() / "custom_example.yaml").read_text()
    shown = yaml.safe_load(text)
    defaults = parse(minimal())
    for field in fields(Preset):
        if field.name == "name":
            continue
        assert f"{field.name}:" in text, f"{field.name} is not explained"
        if field.name in shown and field.name not in {"cameras", "description"}:
            value = shown[field.name]
            value = tuple(value) if isinstance(value, list) else value
            assert value == getattr(defaults, field.name), field.name
    assert set(shown["cameras"]["cam_front_left"]) == {"image", "camera_info", "frame", "offset_s"}


def changed(**entries: object) -> dict:
    return minimal() | entries


def cameras(**entries: object) -> dict:
    return {"cameras": minimal()["cameras"] | entries}


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        (changed(base_frmae="x"), "did you mean 'base_frame'"),
        (
            changed(max_spread_s="0.05"),
            "max_spread_s must be a number from 0.001 to 10.0, got '",
        ),
        (changed(max_spread_s=55.0), "max_spread_s must be a number from 0.001 to 10.0, got 55.0"),
        (changed(max_spread_s=float("nan")), "from 0.001 to 10.0, got nan"),
        (
            cameras(cam_back={"image": "/x", "offset_s": float("inf")}),
            "a finite number, got inf",
        ),
        (changed(name="x"), "unknown entry 'name'; there are cameras, description"),
        (changed(nam="x"), "unknown entry 'nam'; there are cameras, description"),
        (changed(max_spread_s=10**400), "from 0.001 to 10.0, got 1000"),
        (changed() | {3: 4}, "unknown entry 3"),
        (changed(min_cameras=True), "min_cameras must be a whole number from 1 to 6, got True"),
        (changed(rectified="yes"), "rectified must be true, false or auto"),
        (changed(stamp_source="headr"), "did you mean 'header'"),
        (changed(ego_pose_source="odometry"), "needs odometry_topic"),
        (changed(anchor="cam_frnt"), "did you mean 'cam_front'"),
        (changed(base_frame="map"), "both 'map'"),
        (changed(calibration_file=3), "must be a file name"),
        (cameras(cam_frot={"image": "/x"}), "did you mean 'cam_front'"),
        (cameras(cam_back={"image": "/x", "info": "/y"}), "cam_back: unknown entry 'info'"),
        (cameras(cam_back={"camera_info": "/x"}), "image is missing"),
        (cameras(cam_back="/cam_back/image"), "expected `name: value`"),
        (cameras(cam_back={"image": "/cam_front/image"}), "share the topic /cam_front/image"),
        (cameras(cam_front=None), "anchor is cam_front"),
        ({"cameras": {"cam_front": {"image": "/x"}}}, "lacks cam_front_left, cam_front_right"),
        ({"cameras": {c: None for c in CAMERAS}}, "at least one"),
        ({"base_frame": "x"}, "cameras is missing"),
        (cameras(cam_front={"image": "/x", "offset_s": 0.01}), "must be 0"),
        ([], "expected `name: value`"),
        (None, "expected `name: value`"),
    ],
    ids=lambda v: v if isinstance(v, str) else None,
)
def test_a_wrong_entry_is_named_with_the_file(entries, says):
    with pytest.raises(PresetError, match="^t.yaml") as caught:
        parse(entries)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_preset_suggests_the_nearest():
    with pytest.raises(PresetError, match=r"did you mean 'nuscenes_lower'.*autoware"):
        load_preset("nuscenes_lowr")


def test_a_vehicle_may_lack_a_camera_if_the_file_says_so():
    preset = parse(cameras(cam_back="none", cam_back_left=None))
    assert preset.cameras["cam_back"] is None
    assert list(preset.used_cameras) == [
        c for c in CAMERAS if c not in {"cam_back", "cam_back_left"}
    ]


def test_a_calibration_file_is_relative_to_the_preset():
    assert parse(changed(calibration_file="rig.yaml")).calibration_file == Path("/rig/rig.yaml")


@pytest.mark.parametrize("content", ["a: [", "\x00", "cameras: {a: b}\n- c"])
def test_a_file_that_is_no_yaml_gives_one_line(tmp_path, content):
    path = tmp_path / "broken.yaml"
    path.write_text(content)
    with pytest.raises(PresetError, match="broken.yaml") as caught:
        load_preset(path)
    assert "\n" not in str(caught.value)


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from([f.name for f in fields(Preset)] + list(CAMERAS) + ["image"]), inner
        )
    ),
    max_leaves=12,
)


@settings(deadline=None, max_examples=150)
@given(json_like, st.booleans())
def test_any_content_gives_a_preset_or_a_preset_error(content, complete):
    if complete and isinstance(content, dict):
        content = minimal() | content
    with contextlib.suppress(PresetError):
        assert isinstance(parse(content), Preset)


# --- calibration -----------------------------------------------------------------------------


def camera_info(**changes: object) -> SimpleNamespace:
    values = dict(
        width=1600,
        height=900,
        k=np.ravel(CAMERA_MATRIX),
        d=np.zeros(0),
        r=np.eye(3).ravel(),
        p=np.c_[np.array(CAMERA_MATRIX) * [[2], [2], [1]], np.zeros(3)].ravel(),
        distortion_model="",
        binning_x=0,
        binning_y=0,
        roi=SimpleNamespace(width=0, height=0, x_offset=0, y_offset=0),
    )
    return SimpleNamespace(**(values | changes))


def test_a_rectified_stream_without_k_has_the_intrinsics_p():
    message = camera_info(k=np.zeros(9), d=np.zeros(8), distortion_model="rational_polynomial")
    intrinsics = intrinsics_from_camera_info(message, rectified=True, where="x")
    assert intrinsics.matrix[0, 0] == 2000.0
    with pytest.raises(CalibrationError, match=r"P .*uncalibrated"):
        intrinsics_from_camera_info(
            camera_info(k=np.zeros(9), p=np.zeros(12)), rectified=True, where="x"
        )


@pytest.mark.parametrize("rectified", [True, False])
def test_binning_and_a_region_are_those_of_camera_info(rectified):
    roi = SimpleNamespace(width=1200, height=800, x_offset=100, y_offset=40)
    message = camera_info(binning_x=2, binning_y=4, roi=roi, d=np.full(5, 0.01))
    part = intrinsics_from_camera_info(message, rectified=rectified, where="x")
    whole = intrinsics_from_camera_info(
        camera_info(d=np.full(5, 0.01)), rectified=rectified, where="x"
    )
    assert (part.width, part.height, part.distortion) == (600, 200, whole.distortion)
    # A ray meets the sensor at u, v, which is pixel (u - 100) / 2, (v - 40) / 4 of the image.
    for ray in np.random.default_rng(0).random((5, 3)) + [0, 0, 1]:
        u, v, w = whole.matrix @ ray
        x, y, z = part.matrix @ ray
        np.testing.assert_allclose([x / z, y / z], [(u / w - 100) / 2, (v / w - 40) / 4])


@pytest.mark.parametrize(
    ("model", "d", "expected"),
    [
        ("fisheye", (0.1,) * 4, ("equidistant", 4)),
        ("Equidistant", (0.1,) * 4, ("equidistant", 4)),
        ("radtan", (0.1,) * 5, ("plumb_bob", 5)),
        ("", (0.1,) * 5, ("plumb_bob", 5)),
        ("", (0.1,) * 8, ("rational_polynomial", 8)),
        ("rational_polynomial", (0.1,) * 14, ("rational_polynomial", 14)),
        ("rational_polynomial", (0.1,) * 5, ("plumb_bob", 5)),
        ("plumb_bob", (0.1,) * 5 + (0.0,) * 3, ("plumb_bob", 5)),
        ("fisheye", (0.1,) * 4 + (0.0,), ("equidistant", 4)),
    ],
)
def test_distortion_models_as_drivers_write_them(model, d, expected):
    message = camera_info(d=np.array(d), distortion_model=model)
    intrinsics = intrinsics_from_camera_info(message, rectified=False, where="x")
    assert (intrinsics.distortion_model, len(intrinsics.distortion)) == expected


def test_cameras_are_rectified_each_for_itself():
    entries = minimal()
    for number, (topic, own) in enumerate(
        [
            ("/a/image_raw", None),
            ("/b/image_rect", None),
            ("/c/image_rect_color/compressed", None),
            ("/d/image_raw", True),
            ("/e/image_rect", False),
            ("/rectangle/image_raw/compressed", None),
        ]
    ):
        camera = {"image": topic} | ({} if own is None else {"rectified": own})
        entries["cameras"][CAMERAS[number]] = camera
    preset = parse(entries | {"rectified": "auto"})
    found = [preset.is_rectified(camera) for camera in CAMERAS]
    assert found == [False, True, True, True, False, False]
    assert [parse(entries).is_rectified(camera) for camera in CAMERAS].count(False) == 1


def test_distortion_that_is_left_out_is_said_unless_the_topic_says_rectified():
    entries = minimal()
    entries["cameras"]["cam_front"] = {"image": "/f/image_raw"}
    entries["cameras"]["cam_back"] = {"image": "/b/image_rect"}
    preset = parse(entries)
    remark = distortion_remark(preset, "cam_front", "/f/camera_info", np.ones(5))
    assert "/f/camera_info: d is not zero and is left out" in remark
    assert "`rectified: false` for this camera" in remark
    assert distortion_remark(preset, "cam_front", "/f/camera_info", np.zeros(5)) == ""
    assert distortion_remark(preset, "cam_back", "/b/camera_info", np.ones(5)) == ""


def test_the_wrong_r_of_nuscenes_bags_is_ignored_and_k_is_used():
    r = np.array([1, 0, 0, 1, 0, 0, 1, 0, 0], float)
    intrinsics = intrinsics_from_camera_info(camera_info(r=r), rectified=True, where="x")
    np.testing.assert_array_equal(intrinsics.matrix, CAMERA_MATRIX)
    assert intrinsics.distortion == ()


def test_rectified_images_of_a_lens_with_distortion_have_the_intrinsics_p():
    message = camera_info(d=np.array([-0.3, 0.1, 0, 0, 0]), distortion_model="plumb_bob")
    rectified = intrinsics_from_camera_info(message, rectified=True, where="x")
    raw = intrinsics_from_camera_info(message, rectified=False, where="x")
    assert rectified.matrix[0, 0] == 2000.0
    assert rectified.distortion == ()
    assert raw.matrix[0, 0] == 1000.0
    assert raw.distortion == (-0.3, 0.1, 0, 0, 0)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"k": np.zeros(9)}, "K is all zero, only P is there.*`rectified: true`"),
        ({"k": np.zeros(9), "p": np.zeros(12)}, "K .*uncalibrated"),
        ({"k": np.diag([1e-300, 1000.0, 1.0])}, "fx of K is 1e-300 pixels"),
        ({"k": np.diag([1e300, 1000.0, 1.0])}, r"fx of K is 1e\+300 pixels"),
        ({"k": np.array([1e3, 0, 1e300, 0, 1e3, 450, 0, 0, 1])}, r"cx of K is 1e\+300 pixels"),
        ({"k": np.array([1e3, 0, 800, 0, 1e3, -9e3, 0, 0, 1])}, "cy of K is -9000 pixels"),
        ({"d": np.ones(6), "distortion_model": "plumb_bob"}, "d has 6 coefficients, plumb_bob has"),
        ({"d": np.ones(9), "distortion_model": ""}, "d has 9 coefficients, rational_polynomial"),
        (
            {"roi": SimpleNamespace(width=800, height=450, x_offset=801, y_offset=0)},
            "roi of 800 x 450 pixels at 801, 0",
        ),
        ({"k": np.full(9, np.nan)}, "NaN"),
        ({"width": 0}, "0 x 900"),
        ({"d": np.ones(4), "distortion_model": "fisheye_x"}, "fisheye_x"),
    ],
)
def test_an_impossible_camera_info_is_named(changes, says):
    with pytest.raises(CalibrationError, match=says) as caught:
        intrinsics_from_camera_info(camera_info(**changes), rectified=False, where="/c/camera_info")
    assert "/c/camera_info" in str(caught.value)


ROS_CAMERA_INFO = {
    "image_width": 1600,
    "image_height": 900,
    "camera_name": "front",
    "camera_matrix": {"rows": 3, "cols": 3, "data": [float(v) for v in np.ravel(CAMERA_MATRIX)]},
    "distortion_model": "plumb_bob",
    "distortion_coefficients": {"rows": 1, "cols": 5, "data": [-0.3, 0.1, 0.0, 0.0, 0.0]},
    "projection_matrix": {"data": [900.0, 0, 800, 0, 0, 900, 450, 0, 0, 0, 1, 0]},
}


def test_a_rig_file_holds_our_entries_or_points_to_ros_files(tmp_path):
    (tmp_path / "back.yaml").write_text(yaml.safe_dump(ROS_CAMERA_INFO))
    pose = {"translation": [1.7, 0.0, 1.5], "rotation_xyzw": [-0.5, 0.5, -0.5, 0.5]}
    rig_file = tmp_path / "rig.yaml"
    rig_file.write_text(
        yaml.safe_dump(
            {
                "cameras": {
                    "cam_front": {
                        "width": 1600,
                        "height": 900,
                        "intrinsics": CAMERA_MATRIX,
                        "base_T_camera": pose,
                    },
                    "cam_back": {"camera_info": "back.yaml"},
                }
            }
        )
    )
    rig = load_rig(rig_file, rectified=False)
    front = rig["cam_front"]
    # A camera that looks ahead: its z axis is the base's x axis, its y axis points down.
    np.testing.assert_allclose(front.base_T_camera[:3, 2], [1, 0, 0], atol=1e-12)
    np.testing.assert_allclose(front.base_T_camera[:3, 1], [0, 0, -1], atol=1e-12)
    assert rig["cam_back"].base_T_camera is None
    assert rig["cam_back"].intrinsics.distortion[0] == -0.3
    assert load_rig(rig_file, rectified=True)["cam_back"].intrinsics.matrix[0, 0] == 900.0


@pytest.mark.parametrize(
    ("entry", "value", "says"),
    [
        ("camera_matrix", {}, "camera_matrix: data is missing"),
        ("image_width", "1600", "image_width must be a whole number above 0, got '1600'"),
        ("distortion_coefficients", {"data": "none"}, "data must be a list of numbers"),
        ("distortion_model", None, "distortion_model must be text, got None"),
    ],
)
def test_a_damaged_ros_file_is_named_with_the_entry(tmp_path, entry, value, says):
    path = tmp_path / "cam_front.yaml"
    path.write_text(yaml.safe_dump(ROS_CAMERA_INFO | {entry: value}))
    with pytest.raises(CalibrationError, match=says) as caught:
        load_rig(tmp_path, rectified=False)
    assert str(path) in str(caught.value)


def test_the_calibration_example_is_right():
    (front,) = load_rig(presets_folder().parent / "calibration_example.yaml", True).values()
    np.testing.assert_allclose(front.base_T_camera[:3, :3], [[0, 0, 1], [-1, 0, 0], [0, -1, 0]])
    assert front.intrinsics.width == 1600


def test_a_folder_of_ros_files_is_a_rig(tmp_path):
    (tmp_path / "cam_front.yaml").write_text(yaml.safe_dump(ROS_CAMERA_INFO))
    assert list(load_rig(tmp_path, rectified=False)) == ["cam_front"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "empty"),
        ("cameras: {cam_frnt: {}}", "unknown camera 'cam_frnt' \\(did you mean 'cam_front'"),
        (
            "cameras: {cam_front: {fx: 1}}",
            "cam_front: unknown entry 'fx'; there are camera_",
        ),
        ("cameras: {cam_front: {camera_info: nowhere.yaml}}", "nowhere.yaml"),
        ("cameras: {cam_front: {intrinsics: [1, 2]}}", "cam_front"),
        ("cameras: {cam_front: {base_T_camera: [[1, 0], [0, 1]]}}", "base_T_camera"),
        ("cameras: {cam_front: {base_T_camera: {translation: [0, 0, 0]}}}", "rotation_xyzw is mis"),
        (
            "cameras: {cam_front: {base_T_camera: {translation: [0, 0], "
            "rotation_xyzw: [0, 0, 0, 1]}}}",
            r"translation must be a list of 3 numbers, got \[0, 0\]",
        ),
        (
            "cameras: {cam_front: {base_T_camera: {translation: [0, 0, 0], "
            "rotation_xyzw: [0, 0, 0, 9]}}}",
            "has length 9",
        ),
        ("cameras: {cam_front: {width: 1600.5}}", "width must be a number of pixels, got 1600.5"),
        ("cams: {}", "unknown entry 'cams'"),
        ("cameras: [cam_front]", "must map camera names"),
    ],
)
def test_a_wrong_rig_file_gives_one_line_that_names_it(tmp_path, content, says):
    path = tmp_path / "rig.yaml"
    path.write_text(content)
    with pytest.raises(CalibrationError, match=says) as caught:
        load_rig(path, rectified=True)
    assert "\n" not in str(caught.value)


def test_the_anchor_must_be_there_only_where_there_are_fewer_than_six(tmp_path):
    shipped = load_preset("nuscenes")
    assert shipped.must_have == ()
    three = {c: None for c in CAMERAS} | {
        c: shipped.cameras[c] for c in ("cam_front", "cam_back", "cam_back_left")
    }
    assert replace(shipped, cameras=three).must_have == ("cam_front",)
    assert replace(shipped, cameras=three, required_cameras=()).must_have == ()
    mine = tmp_path / "mine.yaml"
    text = (presets_folder() / "nuscenes.yaml").read_text()
    mine.write_text(text + "required_cameras: [cam_front, cam_back]\n")
    assert load_preset(mine).must_have == ("cam_front", "cam_back")
    mine.write_text(text + "required_cameras: [cam_middle]\n")
    with pytest.raises(PresetError, match="required_cameras.*cam_middle"):
        load_preset(mine)


def test_a_wrong_name_of_a_camera_is_told_where_the_right_ones_look(tmp_path):
    mine = tmp_path / "mine.yaml"
    text = (presets_folder() / "nuscenes.yaml").read_text()
    mine.write_text(text.replace("  cam_back_left:", "  cam_left:"))
    with pytest.raises(PresetError, match="cam_left.*back_left 110.*take the nearest"):
        load_preset(mine)
