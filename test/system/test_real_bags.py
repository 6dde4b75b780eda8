# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Real recordings: they run, and voxels of known geometry lie where the images show them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rosbags.highlevel import AnyReader
from scipy.spatial.transform import Rotation

from alocc_ros.bags.frames import FrameSource
from alocc_ros.bags.reader import Bag
from alocc_ros.cli.main import main
from alocc_ros.geometry import inverse, project
from alocc_ros.grid import OCC3D_GRID
from alocc_ros.labels import OCC3D
from alocc_ros.stream.overlay import camera_T_grid, contact_sheet
from alocc_ros.stream.preset import load_preset
from alocc_ros.types import CAMERAS, FrameSet, Occupancy

DATA = Path(__file__).parents[2] / ".." / "shared" / "data"
NUSCENES, DDAD = DATA / "nuscenes_scene0061_bag", DATA / "ddad_scene02_bag"
SAMPLE = DATA / "nuscenes_scene0061_sample"

pytestmark = [
    pytest.mark.usefixtures("tiny"),
    pytest.mark.system,
    pytest.mark.skipif(not DATA.is_dir(), reason="real recordings are not here (../shared/data)"),
]


@pytest.mark.parametrize(
    ("bag", "frames"),
    [
        (NUSCENES, 1),
        (NUSCENES / "nuscenes_real.mcap", 1),
        (DDAD, 3),
        (DDAD / "ddad_scene02_real.mcap", 3),
    ],
    ids=lambda v: v.name if isinstance(v, Path) else None,
)
def test_real_bags_run(bag, frames, tmp_path, capsys):
    out = tmp_path / "out.mcap"
    options = ["--model", "tiny", "--random-weights", "--overlay", str(tmp_path)]
    assert main(["run", str(bag), "-o", str(out), *options]) == 0
    said = capsys.readouterr().out
    assert f"frames   {frames} ({frames} complete, 0 partial)" in said
    assert "preset   nuscenes_lower\n" in said, "the one preset whose topics are in the bag"
    with AnyReader([out]) as reader:
        assert reader.topics["/alocc/occupancy"].msgcount == frames
    assert len(list(tmp_path.glob("*.png"))) == frames


def test_the_wrong_preset_names_the_right_one(tmp_path, capsys):
    options = ["--preset", "nuscenes", "--model", "tiny", "--random-weights"]
    assert main(["run", str(NUSCENES), "-o", str(tmp_path / "out.mcap"), *options]) == 2
    error = capsys.readouterr().err
    assert "/CAM_FRONT/image_rect_compressed" in error
    assert "preset nuscenes_lower fits" in error


def test_the_real_spread_of_the_cameras_makes_one_set():
    frame, _ = first_frame_and_cloud(NUSCENES)
    stamps = [image.stamp for image in frame.images.values()]
    assert max(stamps) - min(stamps) == 42_579_000
    assert frame.stamp == frame.images["cam_front"].stamp


# --- the proof of frames, axes and lattice ---------------------------------------------------


def clouds(bag: Bag) -> list[tuple[int, np.ndarray]]:
    """(stamp ns, points [n, 3] m in the LiDAR's frame) of every sweep."""
    sweeps = []
    for record in bag.messages(["/lidar_top"]):
        message = bag.decode(record)
        offsets = {f.name: f.offset for f in message.fields}
        rows = message.data.reshape(-1, message.point_step)
        axes = [rows[:, offsets[a] : offsets[a] + 4].copy().view("<f4")[:, 0] for a in "xyz"]
        stamp = message.header.stamp
        sweeps.append((stamp.sec * 10**9 + stamp.nanosec, np.stack(axes, axis=1)))
    return sweeps


def first_frame_and_cloud(path: Path) -> tuple[FrameSet, np.ndarray]:
    """The first frame set, and a sweep [n, 3] m in its base frame at its stamp."""
    with Bag(path) as bag:
        source = FrameSource(bag, load_preset("nuscenes_lower"))
        frame = next(iter(source))
        stamp, points = clouds(bag)[0]
        map_T_lidar = source.poses.map_T_base(stamp) @ source.poses.base_T("lidar_top")
        return frame, moved(inverse(frame.map_T_base) @ map_T_lidar, points)


def moved(a_T_b: np.ndarray, points: np.ndarray) -> np.ndarray:  # [n, 3] m -> [n, 3] m
    return points @ a_T_b[:3, :3].T + a_T_b[:3, 3]


def vehicles() -> list[tuple[np.ndarray, np.ndarray]]:
    """(lidar_T_box [4, 4], size [3] m) of annotated cars, trucks and the like."""
    found = []
    for box in json.loads((SAMPLE / "boxes_lidar_frame.json").read_text()):
        if box["label"] < 5 and box["num_lidar_pts"] >= 20:
            lidar_T_box = np.eye(4)
            lidar_T_box[:3, :3] = Rotation.from_euler("z", box["box"][6]).as_matrix()
            lidar_T_box[:3, 3] = box["box"][:3]
            found.append((lidar_T_box, np.array(box["box"][3:6])))
    return found


_CORNERS = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)])


def test_voxels_of_annotated_vehicles_lie_in_their_boxes_in_the_images():
    """LiDAR -> voxels -> pixels by our way through the bag; boxes -> pixels by calib.json."""
    frame, points = first_frame_and_cloud(NUSCENES)
    calibration = json.loads((SAMPLE / "calib.json").read_text())
    lidar = calibration["lidar"]
    map_T_lidar = np.array(lidar["ego2global"]) @ np.array(lidar["sensor2ego"])
    seen, checked = set(), 0
    for lidar_T_box, size in vehicles():
        map_T_box = map_T_lidar @ lidar_T_box
        in_box = moved(inverse(map_T_box) @ frame.map_T_base, points)
        own = points[np.all(np.abs(in_box) <= size / 2 + 0.05, axis=1)]
        index, inside = OCC3D_GRID.indices(own)
        centres = OCC3D_GRID.centres(np.unique(index[inside], axis=0))
        for camera in CAMERAS:
            entry = calibration["cams"][camera.upper()]
            k = np.array(entry["intrinsic"])
            map_T_camera = np.array(entry["ego2global"]) @ np.array(entry["sensor2ego"])
            corners, corner_depth = project(_CORNERS * size, inverse(map_T_camera) @ map_T_box, k)
            if not len(centres) or corner_depth.min() < 1.0:
                continue
            pixels, depth = project(
                centres, camera_T_grid(frame, camera), frame.calibration[camera].intrinsics
            )
            visible = (depth > 1) & np.all((pixels > 0) & (pixels < (1600, 900)), axis=1)
            # A voxel's centre is at most half its diagonal from the points in it.
            margin = 0.5 * np.sqrt(3) * OCC3D_GRID.resolution * k[0, 0] / depth[visible]
            low, high = corners.min(0), corners.max(0)
            hit = np.all(
                (pixels[visible] > low - margin[:, None])
                & (pixels[visible] < high + margin[:, None]),
                axis=1,
            )
            assert hit.all(), f"{camera}: {(~hit).sum()} of {len(hit)} voxels beside their vehicle"
            checked += len(hit)
            seen |= {camera} if len(hit) else set()
    assert checked > 100
    assert {"cam_front", "cam_back"} <= seen


@pytest.mark.parametrize("shift", [(2.0, 0.0, 0.0), (0.0, 2.0, 0.0), (0.0, 0.0, 2.0)])
def test_that_proof_notices_a_grid_that_lies_elsewhere(shift, monkeypatch):
    true = camera_T_grid
    offset = np.eye(4)
    offset[:3, 3] = shift
    monkeypatch.setitem(
        globals(), "camera_T_grid", lambda frame, camera: true(frame, camera, offset)
    )
    with pytest.raises(AssertionError, match="beside their vehicle"):
        test_voxels_of_annotated_vehicles_lie_in_their_boxes_in_the_images()


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Share of the voxels around us that both sweeps (in the same frame) fill."""
    sets = []
    for points in (a, b):
        near = points[(np.abs(points[:, :2]) < 20).all(axis=1) & (points[:, 2] > 0.3)]
        index, inside = OCC3D_GRID.indices(near)
        sets.append({tuple(i) for i in index[inside].tolist()})
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


def test_sweeps_of_a_moving_vehicle_fall_into_the_same_voxels():
    """The DDAD vehicle drives 2.5 m in these 0.2 s; poses taken the wrong way would double it."""
    with Bag(DDAD) as bag:
        source = FrameSource(bag, load_preset("nuscenes_lower"))
        sweeps = clouds(bag)
        base_T_lidar = source.poses.base_T("lidar_top")
        map_T_base = [source.poses.map_T_base(stamp) for stamp, _ in sweeps]
    first, last = (moved(base_T_lidar, sweeps[i][1]) for i in (0, -1))
    base0_T_base2 = inverse(map_T_base[0]) @ map_T_base[-1]
    assert 2.0 < np.linalg.norm(base0_T_base2[:3, 3]) < 3.0
    right = overlap(first, moved(base0_T_base2, last))
    ignored = overlap(first, last)
    backwards = overlap(first, moved(inverse(base0_T_base2), last))
    assert right > 0.45
    assert right > 1.3 * ignored
    assert right > 1.3 * backwards


@pytest.mark.parametrize("bag", [NUSCENES, DDAD], ids=["nuscenes", "ddad"])
def test_the_picture_of_a_sweep_can_be_looked_at(bag, tmp_path):
    frame, points = first_frame_and_cloud(bag)
    ours = (np.abs(points[:, 0] - 1) < 2.8) & (np.abs(points[:, 1]) < 1.2)
    index, inside = OCC3D_GRID.indices(points[~ours])
    labels = np.full(OCC3D_GRID.shape, OCC3D.free, np.uint8)
    low = points[~ours][inside][:, 2] < 0.2
    kind = np.where(low, OCC3D.names.index("driveable_surface"), OCC3D.names.index("manmade"))
    labels[tuple(index[inside].T)] = kind
    sweep = Occupancy(labels, None, OCC3D_GRID, OCC3D, frame.stamp, "base_link", frame.map_T_base)
    contact_sheet(frame, sweep, f"LiDAR sweep of {bag.name}").save(tmp_path / "sheet.png")
    picture = np.asarray(Image.open(tmp_path / "sheet.png")).astype(int)
    shape = frame.calibration["cam_front"]
    height = round(480 * shape.height / shape.width)
    front = picture[22 : 22 + height, 480:960]
    magenta = (front[..., 0] > front[..., 1] + 60) & (front[..., 2] > front[..., 1] + 60)
    # The road is below the horizon, in every column of the front image and nowhere in the sky.
    assert magenta[-height // 4 :].mean() > 0.5
    assert magenta[: height // 3].mean() < 0.01
