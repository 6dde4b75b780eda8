# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Pictures, films and poses in plain files, against the bag that holds the same."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from scipy.spatial.transform import Rotation

from alocc_ros.bags.frames import FrameSource, preset_of
from alocc_ros.bags.pictures import Motion, Pictures
from alocc_ros.bags.pose_files import nanoseconds, read_poses
from alocc_ros.bags.reader import Bag
from alocc_ros.bags.rig_example import FoundCamera, assign
from alocc_ros.bags.sample import write_sample
from alocc_ros.cli.main import main
from alocc_ros.errors import CalibrationError, PoseError, StampError
from alocc_ros.geometry import inverse, quaternion_xyzw
from alocc_ros.stream.preset import load_preset
from alocc_ros.stream.rig import load_rig
from alocc_ros.types import CAMERAS, Calibration, FrameSet

SHARED = Path(__file__).parents[3] / "shared" / "data"
TINY = ("--model", "tiny", "--random-weights")

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("tiny")]


# --- helpers -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bag") / "street.mcap"
    write_sample(path, seconds=0.75, rate=4.0, width=176, height=99)
    return path


def frames_of(bag: Path) -> list[FrameSet]:
    with Bag(bag) as opened:
        return list(FrameSource(opened, preset_of(opened)))


def write_rig(path: Path, rig: Mapping[str, Calibration], **entries: object) -> Path:
    cameras = {
        c: {
            "width": cal.width,
            "height": cal.height,
            "intrinsics": cal.intrinsics.tolist(),
            "base_T_camera": {
                "translation": cal.base_T_camera[:3, 3].tolist(),
                "rotation_xyzw": [float(v) for v in quaternion_xyzw(cal.base_T_camera)],
            },
        }
        for c, cal in rig.items()
    }
    path.write_text(yaml.safe_dump({"cameras": cameras} | entries))
    return path


def tum_line(stamp: int, pose: np.ndarray) -> str:
    values = [*pose[:3, 3], *quaternion_xyzw(pose)]
    return " ".join([f"{stamp // 10**9}.{stamp % 10**9:09d}", *(repr(float(v)) for v in values)])


def write_drive(folder: Path, frames: list[FrameSet]) -> tuple[Path, Path]:
    """A folder of pictures a camera, called by their ns, and the poses as TUM."""
    lines = set()
    for frame in frames:
        for camera, image in frame.images.items():
            (folder / "drive" / camera).mkdir(parents=True, exist_ok=True)
            (folder / "drive" / camera / f"{image.stamp}.jpg").write_bytes(image.data)
            lines.add(tum_line(image.stamp, frame.map_T_base_at[camera]))
    poses = folder / "poses.txt"
    poses.write_text("# stamp x y z qx qy qz qw\n" + "\n".join(sorted(lines)) + "\n")
    return folder / "drive", poses


def run(*args: object) -> int:
    return main(["run", *map(str, args), *TINY])


def voxels(folder: Path) -> list[dict[str, np.ndarray]]:
    found = []
    for file in sorted(folder.iterdir()):
        with np.load(file) as arrays:
            found.append({name: arrays[name] for name in arrays.files})
    return found


def assert_equal(a: Path, b: Path) -> int:
    one, two = voxels(a), voxels(b)
    assert len(one) == len(two) > 0
    for left, right in zip(one, two, strict=True):
        assert left.keys() == right.keys()
        for name in left:
            np.testing.assert_array_equal(left[name], right[name], err_msg=name)
    return len(one)


# --- equal to the bag ----------------------------------------------------------------------------


def test_a_drive_of_pictures_equals_the_bag(bag, tmp_path):
    frames = frames_of(bag)
    rig = write_rig(tmp_path / "rig.yaml", frames[0].calibration)
    drive, poses = write_drive(tmp_path, frames)
    assert run(bag, "-o", tmp_path / "bag.mcap", "--npz", tmp_path / "a") == 0
    more = ("--config", rig, "--poses", poses)
    assert run(drive, "-o", tmp_path / "out.mcap", *more, "--npz", tmp_path / "b") == 0
    assert assert_equal(tmp_path / "a", tmp_path / "b") == 3

    made = tmp_path / "made.mcap"
    assert main(["convert", "images", str(drive), "-o", str(made), *map(str, more)]) == 0
    # The preset beside it is for recordings whose topics no shipped one has; here it fits, too.
    with_preset = ("--config", made.with_suffix(".yaml"), "--npz", tmp_path / "c")
    assert run(made, "-o", tmp_path / "again.mcap", *with_preset) == 0
    assert_equal(tmp_path / "a", tmp_path / "c")


@pytest.mark.skipif(not SHARED.exists(), reason="the real recordings are not here")
def test_the_real_key_frame_equals_the_bag(tmp_path):
    folder = SHARED / "nuscenes_scene0061_sample"
    calib = json.loads((folder / "calib.json").read_text())
    with Bag(SHARED / "nuscenes_scene0061_bag") as opened:
        source = FrameSource(opened, preset_of(opened))
        frame = next(iter(source))
    rig = write_rig(tmp_path / "rig.yaml", frame.calibration)
    (tmp_path / "set").mkdir()
    stamps, lines = ["file,stamp"], []
    for camera, image in frame.images.items():
        file = folder / f"{camera.upper()}.jpg"
        assert file.read_bytes() == bytes(image.data) and camera.upper() in str(calib)
        (tmp_path / "set" / file.name).write_bytes(file.read_bytes())
        stamps.append(f"{file.name},{image.stamp}")
        lines.append(tum_line(image.stamp, frame.map_T_base_at[camera]))
    (tmp_path / "stamps.csv").write_text("\n".join(stamps))
    (tmp_path / "poses.txt").write_text("\n".join(sorted(lines)))
    bag = SHARED / "nuscenes_scene0061_bag"
    assert run(bag, "-o", tmp_path / "bag.mcap", "--npz", tmp_path / "a") == 0
    motion = ("--poses", tmp_path / "poses.txt", "--stamps", tmp_path / "stamps.csv")
    more = ("--config", rig, *motion, "--npz", tmp_path / "b")
    assert run(tmp_path / "set", "-o", tmp_path / "out.mcap", *more) == 0
    assert_equal(tmp_path / "a", tmp_path / "b")


def test_one_picture_a_camera_is_one_set_without_memory(bag, tmp_path, capsys):
    frame = frames_of(bag)[0]
    rig = write_rig(tmp_path / "rig.yaml", frame.calibration)
    (tmp_path / "set").mkdir()
    for camera, image in frame.images.items():
        (tmp_path / "set" / f"{camera.upper()}.JPG").write_bytes(image.data)
    more = ("--config", rig, "--npz", tmp_path / "npz")
    assert run(tmp_path / "set", "-o", tmp_path / "out.mcap", *more) == 0
    assert "the network remembers nothing" in capsys.readouterr().err
    assert len(voxels(tmp_path / "npz")) == 1


def test_films_of_cameras_that_stand_still(bag, tmp_path):
    cv2 = pytest.importorskip("cv2")
    frame = frames_of(bag)[0]
    # Films have even sizes.
    used = {c: replace(frame.calibration[c], height=98) for c in ("cam_front", "cam_back")}
    rig = write_rig(tmp_path / "rig.yaml", used)
    (tmp_path / "films").mkdir()
    for camera in used:
        codec = cv2.VideoWriter_fourcc(*"MJPG")
        film = cv2.VideoWriter(str(tmp_path / "films" / f"{camera}.avi"), codec, 10.0, (176, 98))
        for shade in (40, 90, 140):
            film.write(np.full((98, 176, 3), shade, np.uint8))
        film.release()
    with Pictures(tmp_path / "films", rig, Motion(standing=True)) as pictures:
        sets = list(FrameSource(pictures, pictures.preset))
    assert [f.stamp for f in sets] == [1_000_000_000, 1_100_000_000, 1_200_000_000]
    assert all(tuple(f.images) == ("cam_front", "cam_back") and not f.missing for f in sets)
    assert sets[0].fitted == ("cam_front", "cam_back")
    with pytest.raises(PoseError, match=r"give --poses FILE .* or --standing"):
        Pictures(tmp_path / "films", rig)


def test_numbered_pictures_have_the_given_rate(bag, tmp_path):
    frames = frames_of(bag)
    rig = write_rig(tmp_path / "rig.yaml", {"cam_front": frames[0].calibration["cam_front"]})
    folder = tmp_path / "drive" / "cam_front"
    folder.mkdir(parents=True)
    for number, frame in zip((0, 1, 3), frames, strict=True):  # one was lost
        (folder / f"frame_{number:04d}.jpg").write_bytes(frame.images["cam_front"].data)
    with pytest.raises(StampError, match="its name tells no time.*--rate HZ"):
        Pictures(tmp_path / "drive", rig, Motion(standing=True))
    with Pictures(tmp_path / "drive", rig, Motion(standing=True, rate=10.0)) as pictures:
        stamps = [f.stamp for f in FrameSource(pictures, pictures.preset)]
    assert stamps == [1_000_000_000, 1_100_000_000, 1_300_000_000]


# --- what is wrong -------------------------------------------------------------------------------


def test_what_is_missing_is_one_line_with_what_to_write(bag, tmp_path, capsys):
    frames = frames_of(bag)
    rig = write_rig(tmp_path / "rig.yaml", frames[0].calibration)
    drive, poses = write_drive(tmp_path, frames)

    def error(*args: object) -> str:
        assert run(*args, "-o", tmp_path / "o.mcap") == 2
        return capsys.readouterr().err

    assert "`alocc rig example -o rig.yaml` writes one" in error(drive)
    assert "give --poses FILE" in error(drive, "--config", rig)
    assert "--poses is for pictures" in error(bag, "--poses", poses)
    (drive / "cam_back").rename(drive / "rear")
    said = error(drive, "--config", rig, "--poses", poses)
    assert "nothing called cam_back" in said and "rear" in said and "`images: NAME`" in said
    entries = yaml.safe_load(rig.read_text())
    entries["cameras"]["cam_back"]["images"] = "rear"
    rig.write_text(yaml.safe_dump(entries))
    with Pictures(drive, rig, Motion(poses=poses)) as pictures:
        assert len(list(FrameSource(pictures, pictures.preset))) == 3
    del entries["cameras"]["cam_back"]["base_T_camera"]
    rig.write_text(yaml.safe_dump(entries))
    assert "cam_back needs a place; `alocc rig example`" in error(drive, "--config", rig)
    assert not (tmp_path / "o.mcap").exists()


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("1532402927612460", 1532402927612460000),
        ("1532402927.612460", 1532402927612460000),
        ("1532402927612460123", 1532402927612460123),
        ("1532402927612", 1532402927612000000),
        ("1532402927", 1532402927000000000),
        ("0.25", 250_000_000),
        ("1.5e1", 15_000_000_000),
    ],
)
def test_times_are_read_by_their_digits(text, ns):
    assert nanoseconds(text) == ns


@pytest.mark.parametrize(
    "text",
    [
        *("", "soon", "nan", "-1.0", "1e300", "99999999999999999999"),
        "1e999999999",  # as a whole number it would take hours and all memory
        "9" * 5000,
    ],
)
def test_what_is_no_time_is_an_error(text):
    with pytest.raises(StampError):
        nanoseconds(text)


def test_poses_of_all_formats_are_the_same(tmp_path):
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_euler("z", 0.3).as_matrix()
    pose[:3, 3] = (1.0, -2.0, 0.5)
    q = quaternion_xyzw(pose)
    (tmp_path / "tum.txt").write_text(tum_line(1_500_000_000, pose))
    row = f"{q[3]},{q[0]},{q[1]},{q[2]},1.0,-2.0,0.5,1.5"
    (tmp_path / "a.csv").write_text(f"qw,qx,qy,qz,tx,ty,tz,timestamp\n{row}\n")
    (tmp_path / "kitti.txt").write_text(" ".join(repr(float(v)) for v in pose[:3].ravel()))
    (tmp_path / "times.txt").write_text("1.5\n")
    for name in ("tum.txt", "a.csv", "kitti.txt"):
        found = read_poses(tmp_path / name)
        assert found.stamps == [1_500_000_000]
        np.testing.assert_allclose(found.world_T[0], pose, atol=1e-12)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("1 2 3", "TUM"),
        ("1.0 0 0 0 0 0 0 0", "line 1"),
        ("1.0 0 0 0 0 0 0 1\n2.0 0 0 nan 0 0 0 1", "line 2"),
        ("1.0 0 0 0 0 0 0 1\n2.0 0 0", "line 2"),
        ("stamp,x,y,qx,qy,qz,qw\n1,2,3,0,0,0,1", "no column z"),
        ("1 0 0 0 0 2 0 0 0 0 1 0", "line 1"),
    ],
)
def test_a_pose_that_is_none_is_named_by_its_line(tmp_path, text, words):
    file = tmp_path / "poses.txt"
    file.write_text(text)
    with pytest.raises(PoseError, match=f"poses.txt.*{words}"):
        read_poses(file)


def test_poses_of_a_camera_move_the_vehicle(bag, tmp_path):
    """KITTI's poses are of the left camera, in its first frame."""
    frames = frames_of(bag)
    rig_file = write_rig(tmp_path / "rig.yaml", frames[0].calibration)
    drive, _ = write_drive(tmp_path, frames)
    front = frames[0].calibration["cam_front"].base_T_camera
    map_T_camera = [f.map_T_base_at["cam_front"] @ front for f in frames]
    rows = [inverse(map_T_camera[0]) @ pose for pose in map_T_camera]
    poses = tmp_path / "kitti.txt"
    poses.write_text("\n".join(" ".join(repr(float(v)) for v in p[:3].ravel()) for p in rows))
    pictures = Pictures(drive, rig_file, Motion(poses=poses, poses_of="cam_front"))
    found = [pose for _, pose in pictures._ego_poses()]
    for frame, pose in zip(frames, found, strict=True):
        moved = inverse(frames[0].map_T_base) @ frame.map_T_base
        np.testing.assert_allclose(pose, moved, atol=1e-9)


# --- rig files -----------------------------------------------------------------------------------


def test_the_example_rig_file_says_the_same_in_both_directions(tmp_path, capsys):
    assert main(["rig", "example"]) == 0
    file = tmp_path / "rig.yaml"
    file.write_text(capsys.readouterr().out)
    rig = load_rig(file, rectified=False)
    assert set(rig) == {"cam_front", "cam_back"}
    np.testing.assert_allclose(rig["cam_front"].base_T_camera[:3, 2], (1, 0, 0), atol=1e-12)
    np.testing.assert_allclose(rig["cam_back"].base_T_camera[:3, 2], (-1, 0, 0), atol=1e-12)
    np.testing.assert_allclose(rig["cam_back"].base_T_camera[:3, 3], (-0.6, 0, 1.15), atol=1e-12)


@pytest.mark.parametrize("direction", ["base_T_camera", "camera_T_base"])
@pytest.mark.parametrize("form", ["matrix", "rotation_xyzw", "rotation_wxyz", "rotation"])
def test_extrinsics_as_people_have_them(tmp_path, direction, form):
    wanted = np.eye(4)
    wanted[:3, :3] = Rotation.from_euler("zyx", [0.4, -0.2, 1.1]).as_matrix()
    wanted[:3, 3] = (1.0, 0.5, 1.5)
    given = wanted if direction == "base_T_camera" else inverse(wanted)
    q = [float(v) for v in quaternion_xyzw(given)]
    rotation = {
        "rotation_xyzw": q,
        "rotation_wxyz": [q[3], *q[:3]],
        "rotation": given[:3, :3].tolist(),
    }
    entry = given.tolist()
    if form != "matrix":
        entry = {"translation": given[:3, 3].tolist(), form: rotation[form]}
    file = tmp_path / "rig.yaml"
    file.write_text(yaml.safe_dump({"cameras": {"cam_front": {direction: entry}}}))
    found = load_rig(file, rectified=True)["cam_front"].base_T_camera
    np.testing.assert_allclose(found, wanted, atol=1e-9)


def test_both_directions_or_two_rotations_are_refused(tmp_path):
    file = tmp_path / "rig.yaml"
    place = {"translation": [0, 0, 1], "rotation_xyzw": [0.0, 0, 0, 1]}
    both = {"base_T_camera": place, "camera_T_base": place}
    twice = {"base_T_camera": place | {"rotation_wxyz": [1.0, 0, 0, 0]}}
    for entry, words in ((both, "inverses of each other"), (twice, "2 rotations")):
        file.write_text(yaml.safe_dump({"cameras": {"cam_front": entry}}))
        with pytest.raises(CalibrationError, match=words):
            load_rig(file, rectified=True)


def test_a_preset_written_from_a_bag_runs_it(bag, tmp_path, capsys):
    file = tmp_path / "mine.yaml"
    assert main(["rig", "example", str(bag), "-o", str(file)]) == 0
    mine, shipped = load_preset(file), load_preset("nuscenes")
    for camera in CAMERAS:
        assert mine.cameras[camera].image == shipped.cameras[camera].image
        assert mine.cameras[camera].camera_info == shipped.cameras[camera].camera_info
    assert (mine.base_frame, mine.world_frame) == ("base_link", "map")
    assert main(["rig", "example", str(bag), "-o", str(file)]) == 2
    assert "there is a file of that name" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("yaws", "wanted"),
    [
        ((0, 90, 180, -90), ("cam_front", "cam_back_left", "cam_back", "cam_back_right")),
        ((2, 45, -45, 135, -135), ("cam_front", "cam_front_left", "cam_front_right",
                                   "cam_back_left", "cam_back_right")),
        ((0, 30, -30), ("cam_front", "cam_front_left", "cam_front_right")),
        ((180,), ("cam_back",)),
    ],
)  # fmt: skip
def test_names_go_by_where_cameras_look(yaws, wanted):
    cameras = [FoundCamera(f"/{y}", "", "", float(y), "") for y in yaws]
    found = {camera.image: place for place, camera in assign(cameras).items()}
    assert tuple(found[f"/{y}"] for y in yaws) == wanted


def test_of_eight_cameras_six_are_proposed_and_two_are_named():
    yaws = (0, 5, 55, -55, 110, -110, 180, 90)
    cameras = [FoundCamera(f"/{y}", "", "", float(y), "") for y in yaws]
    places = assign(cameras)
    assert len(places) == 6
    assert {c.image for c in cameras} - {c.image for c in places.values()} == {"/5", "/90"}


def test_the_rig_is_drawn_into_its_pictures(bag, tmp_path, capsys):
    picture = tmp_path / "rig.png"
    assert main(["rig", "draw", str(bag), "-o", str(picture)]) == 0
    pixels = np.asarray(Image.open(picture).convert("RGB")).astype(int)
    front = pixels[: pixels.shape[0] // 3, 640:1280]
    # cam_front is second: the red line begins ahead of the vehicle, in the middle, below the
    # horizon, and the crop's blue frame is around all but the top.
    red = np.argwhere(np.abs(front - (255, 70, 60)).max(-1) < 8)
    assert len(red) > 50 and abs(np.median(red[:, 1]) - 320) < 12
    assert red[:, 0].min() > 0.5 * 360
    assert (np.abs(front - (80, 200, 255)).max(-1) < 8).sum() > 500
    assert "ahead red" in capsys.readouterr().out
