# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Frame sets out of camera sets, with the poses of a recording and cameras as a table."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from time import monotonic

import numpy as np
import pytest

from alocc_ros import messages
from alocc_ros.bags import cdr
from alocc_ros.bags.cameras import RecordedCameras
from alocc_ros.bags.poses import RecordedPoses
from alocc_ros.bags.sample import START, ego_pose, rig
from alocc_ros.errors import CalibrationError, ImageError, PoseError
from alocc_ros.stream.assembler import FrameAssembler
from alocc_ros.stream.collector_config import CollectorConfig
from alocc_ros.stream.preset import Preset, load_preset
from alocc_ros.stream.rig import Intrinsics, RigCamera
from alocc_ros.types import CAMERAS, Calibration, CameraImage, CameraSet

MS = 1_000_000  # ns
PHASES = {camera: 8 * MS * number for number, camera in enumerate(CAMERAS)}
TRUTH = rig(176, 99)
LIDAR = np.array([[0.0, 1.0, 0, 0.9], [-1.0, 0, 0, 0], [0, 0, 1.0, 1.8], [0, 0, 0, 1.0]])


class Cameras:
    """A ``CameraSource``: intrinsics by camera, and when anybody was ready to wait for them."""

    def __init__(self, known: Mapping[str, Intrinsics]) -> None:
        self.known = dict(known)
        self.waited: list[str] = []

    def intrinsics(self, camera: str, stamp: int, deadline: float) -> Intrinsics:
        if camera not in self.known:
            if deadline > monotonic():
                self.waited.append(camera)
            raise CalibrationError("no CameraInfo")
        return self.known[camera]

    def frame(self, camera: str) -> str:
        return camera.upper()


def transforms(stamp, entries):
    return cdr.instance(messages.transforms(stamp, entries))


def intrinsics(camera: str) -> Intrinsics:
    truth = TRUTH[camera]
    return Intrinsics(truth.width, truth.height, truth.intrinsics)


def recorded(preset: Preset, stamps: list[int], without: tuple[str, ...] = ()) -> RecordedPoses:
    """Ego poses at these stamps; mountings of the cameras and of the LiDAR."""
    poses = RecordedPoses(preset)
    mounts = [
        ("base_link", camera.upper(), TRUTH[camera].base_T_camera)
        for camera in CAMERAS
        if camera not in without
    ]
    poses.add_transforms(
        cdr.instance(messages.transforms(START, [*mounts, ("base_link", "LIDAR", LIDAR)])),
        static=True,
    )
    for stamp in stamps:
        poses.add_transforms(
            cdr.instance(messages.transforms(stamp, [("map", "base_link", ego_pose(stamp))])),
            static=False,
        )
    return poses


def assembler(stamps: list[int] | None = None, **changes: object) -> FrameAssembler:
    """With poses every 100 ms for a second, or at these stamps (ms)."""
    own = {"min_cameras", "grid_frame", "timeout", "check_image"}
    options = {name: changes.pop(name) for name in own & changes.keys()}
    known = changes.pop("known", {camera: intrinsics(camera) for camera in CAMERAS})
    rig_file = changes.pop("rig", {})
    without = changes.pop("without", ())
    preset = dataclasses.replace(load_preset("nuscenes"), **changes)
    stamps = [START + ms * MS for ms in (range(0, 1001, 100) if stamps is None else stamps)]
    cameras = known if isinstance(known, Cameras) else Cameras(known)
    poses = recorded(preset, stamps, without)
    return FrameAssembler(preset, poses, cameras, rig_file, **options)


def camera_set(ms: int, cameras: tuple[str, ...] = CAMERAS) -> CameraSet:
    """The front left camera's image is taken at this time, the others' up to 40 ms later."""
    images = {c: CameraImage(c, START + ms * MS + PHASES[c], b"?", "jpeg") for c in cameras}
    missing = {c: "never seen" for c in CAMERAS if c not in cameras}
    return CameraSet(START + ms * MS + PHASES["cam_front"], images, missing)


def test_every_camera_has_the_pose_of_its_own_stamp():
    frame = assembler().assemble(camera_set(150))
    assert set(frame.images) == set(CAMERAS) and not frame.missing
    np.testing.assert_allclose(frame.map_T_base, ego_pose(frame.stamp), atol=1e-3)
    for camera, image in frame.images.items():
        np.testing.assert_allclose(
            frame.map_T_base_at[camera], ego_pose(image.stamp), atol=1e-3, err_msg=camera
        )
    assert not np.allclose(frame.map_T_base, frame.map_T_base_at["cam_back_right"], atol=1e-3)
    assert (frame.map_frame, frame.base_frame, frame.base_T_grid) == ("map", "base_link", None)


def test_of_a_set_to_come_the_pose_is_known_as_soon_as_it_is_there():
    one = assembler()
    ahead, frame = one.pose_ahead(camera_set(150).stamp), one.assemble(camera_set(150))
    assert frame.stamp == ahead.stamp and not ahead.images
    np.testing.assert_array_equal(ahead.map_T_base, frame.map_T_base)
    names = ("map_frame", "base_frame", "base_T_grid", "fitted")
    assert [getattr(ahead, n) for n in names] == [getattr(frame, n) for n in names]
    with pytest.raises(PoseError):
        one.pose_ahead(camera_set(1050).stamp)


def test_a_gap_between_poses_is_crossed_as_far_as_the_preset_says():
    at = [0, 100, 700, 800]
    with pytest.raises(PoseError, match=r"are 0\.600 s apart, more than 0\.500 s"):
        assembler(at, pose_gap_s=0.5).assemble(camera_set(300))
    assert not assembler(at, pose_gap_s=0.6).assemble(camera_set(300)).missing


def test_a_camera_without_a_pose_is_missing_and_the_others_go_on():
    one = assembler([0, 100, 120, 900], pose_gap_s=0.5)
    frame = one.assemble(camera_set(90))  # cam_back at 122 ms, cam_back_right at 130 ms
    assert set(frame.missing) == {"cam_back", "cam_back_right"}
    assert set(frame.images) == set(frame.map_T_base_at) == set(CAMERAS) - set(frame.missing)
    assert "0.780 s apart" in frame.missing["cam_back"]
    assert one.rejections == frame.missing
    assert not one.assemble(camera_set(60)).missing
    assert one.rejections == {}


def test_beyond_the_last_pose_motion_goes_on_as_far_as_the_preset_says():
    with pytest.raises(PoseError, match="after the last"):
        assembler().assemble(camera_set(1050))
    frame = assembler(pose_extrapolation_s=0.07).assemble(camera_set(1050))
    assert set(frame.missing) == set(CAMERAS[3:])
    np.testing.assert_allclose(frame.map_T_base, ego_pose(frame.stamp), atol=1e-3)


def test_too_few_cameras_are_an_error_that_says_why_each_is_missing():
    three = camera_set(150, CAMERAS[:3])
    assert len(assembler(min_cameras=3).assemble(three).images) == 3
    with pytest.raises(CalibrationError, match=r"3 cameras can be used, 4 are needed \(cam_back_l"):
        assembler(min_cameras=4).assemble(three)
    # As many as the set has images, but one of them cannot be used.
    known = {camera: intrinsics(camera) for camera in CAMERAS[:5]}
    with pytest.raises(CalibrationError, match=r"5 cameras.*6 are needed.*: no CameraInfo\)"):
        assembler(min_cameras=6, known=known).assemble(camera_set(150))


def test_the_minimum_is_the_preset_s_if_none_is_given():
    preset = dataclasses.replace(load_preset("nuscenes"), min_cameras=4)
    cameras = Cameras({camera: intrinsics(camera) for camera in CAMERAS})
    one = FrameAssembler(preset, recorded(preset, [START, START + 200 * MS]), cameras, {})
    with pytest.raises(CalibrationError, match="4 are needed"):
        one.assemble(camera_set(100, CAMERAS[:3]))


def test_places_without_a_camera_have_the_anchor_s_geometry():
    cameras = {**load_preset("nuscenes").cameras, "cam_back": None}
    some = camera_set(150, tuple(c for c in CAMERAS if c != "cam_back"))
    frame = assembler(cameras=cameras).assemble(dataclasses.replace(some, missing={}))
    assert frame.missing == {} and set(frame.fitted) == set(CAMERAS) - {"cam_back"}
    placeholder, anchor = frame.calibration["cam_back"], frame.calibration["cam_front"]
    assert list(frame.calibration) == list(CAMERAS)
    assert placeholder.camera == "cam_back"
    assert placeholder.intrinsics is anchor.intrinsics
    assert placeholder.base_T_camera is anchor.base_T_camera


def test_without_the_anchor_s_calibration_another_camera_s_geometry_stands_there():
    known = {"cam_back": intrinsics("cam_back")}
    frame = assembler(known=known).assemble(camera_set(150))
    assert set(frame.images) == {"cam_back"}
    assert frame.missing["cam_front"] == "no CameraInfo"
    assert frame.calibration["cam_front"].intrinsics is frame.calibration["cam_back"].intrinsics


def test_a_camera_that_sends_nothing_keeps_its_own_calibration():
    one = assembler()
    first = one.assemble(camera_set(150))
    second = one.assemble(camera_set(250, CAMERAS[:5]))
    assert set(second.missing) == {CAMERAS[5]}
    assert second.calibration[CAMERAS[5]] is first.calibration[CAMERAS[5]]


def test_a_calibration_is_the_same_object_until_it_changes():
    cameras = Cameras({camera: intrinsics(camera) for camera in CAMERAS})
    one = assembler(known=cameras)
    first = one.assemble(camera_set(150)).calibration
    cameras.known["cam_back"] = dataclasses.replace(intrinsics("cam_back"), distortion=(0.1,) * 4)
    second = one.assemble(camera_set(250)).calibration
    assert [c for c in CAMERAS if second[c] is not first[c]] == ["cam_back"]
    assert second["cam_back"].distortion == (0.1,) * 4


def test_a_calibration_file_goes_before_the_messages():
    moved = TRUTH["cam_back"].base_T_camera.copy()
    moved[0, 3] -= 1.0
    lens = dataclasses.replace(intrinsics("cam_back"), width=352)
    found = assembler(rig={"cam_back": RigCamera(lens, moved)}).assemble(camera_set(150))
    assert found.calibration["cam_back"].width == 352
    np.testing.assert_array_equal(found.calibration["cam_back"].base_T_camera, moved)


def test_the_reasons_for_missing_extrinsics_are_told():
    frame = assembler(without=("cam_back",)).assemble(camera_set(150))
    assert frame.missing["cam_back"].startswith("no extrinsics on TF: no transform from CAM_BACK")
    mounted = {c: RigCamera(None, TRUTH[c].base_T_camera) for c in CAMERAS[:5]}
    frame = assembler(extrinsics="file", rig=mounted).assemble(camera_set(150))
    assert frame.missing == {
        CAMERAS[5]: "no extrinsics: they are not in the calibration_file",
    }


def test_what_was_waited_for_in_vain_is_not_waited_for_again():
    cameras = Cameras({camera: intrinsics(camera) for camera in CAMERAS[:5]})
    one = assembler(known=cameras, timeout=10.0)
    for ms in (150, 250):
        assert set(one.assemble(camera_set(ms)).missing) == {CAMERAS[5]}
    assert cameras.waited == [CAMERAS[5]]
    cameras.known[CAMERAS[5]] = intrinsics(CAMERAS[5])
    assert not one.assemble(camera_set(350)).missing
    del cameras.known[CAMERAS[5]]
    one.assemble(camera_set(450))
    assert cameras.waited == [CAMERAS[5]] * 2


def test_an_image_that_is_refused_counts_as_missing_and_one_that_is_converted_is_used():
    def check(image: CameraImage, calibration: Calibration) -> CameraImage:
        assert calibration.camera == image.camera
        if image.camera == "cam_back":
            raise ImageError("too dark")
        return dataclasses.replace(image, encoding="png")

    frame = assembler(check_image=check).assemble(camera_set(150))
    assert frame.missing == {"cam_back": "too dark"}
    assert {image.encoding for image in frame.images.values()} == {"png"}


def test_the_grid_s_place_is_known_with_the_first_frame_set_and_comes_with_each():
    one = assembler(grid_frame="LIDAR")
    assert one.base_T_grid is None
    for ms in (150, 250):
        np.testing.assert_allclose(one.assemble(camera_set(ms)).base_T_grid, LIDAR, atol=1e-12)
    np.testing.assert_allclose(one.base_T_grid, LIDAR, atol=1e-12)
    with pytest.raises(PoseError, match="unknown RADAR"):
        assembler(grid_frame="RADAR").assemble(camera_set(150))


def test_camera_infos_of_a_recording_hold_from_their_stamp_on():
    preset = load_preset("nuscenes")
    cameras = RecordedCameras(preset)
    for stamp, focal in ((START, 100.0), (START + 200 * MS, 100.0), (START + 300 * MS, 200.0)):
        truth = TRUTH["cam_front"]
        matrix = truth.intrinsics.copy()
        matrix[0, 0] = matrix[1, 1] = focal
        info = cdr.instance(
            messages.camera_info(dataclasses.replace(truth, intrinsics=matrix), stamp, "F")
        )
        cameras.add_info("cam_front", info, stamp, "/info")
    focal = [
        cameras.intrinsics("cam_front", START + ms * MS).matrix[0, 0] for ms in (-9, 0, 299, 300)
    ]
    assert focal == [100.0, 100.0, 100.0, 200.0]
    assert cameras.frame("cam_front") == "F"


def test_the_collector_s_settings_are_the_preset_s_but_for_what_is_given():
    preset = dataclasses.replace(load_preset("nuscenes"), set_timeout_s=0.3, min_cameras=4)
    made = CollectorConfig.from_preset(preset)
    assert (made.timeout_ns, made.required, made.cameras) == (300 * MS, 4, CAMERAS)
    assert made.silent_after_ns == CollectorConfig().silent_after_ns
    given = CollectorConfig.from_preset(preset, timeout_s=0.1, min_cameras=6, silent_after_s=0.5)
    assert (given.timeout_ns, given.required, given.silent_after_ns) == (100 * MS, 6, 500 * MS)
    five = dataclasses.replace(preset, cameras={**preset.cameras, "cam_back": None})
    assert CollectorConfig.from_preset(five, min_cameras=6).required == 5
