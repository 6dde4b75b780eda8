# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""A small generated recording with the names, rates and phases of a nuScenes bag.

Six cameras look at a drawn street: ground with lane marks and a metre grid, houses, parked cars
and one that drives ahead. The geometry is right (what is drawn at a place projects
there), the looks are not meant to fool anybody. For the demo and the tests.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from scipy.spatial.transform import Rotation

from alocc_ros import messages
from alocc_ros.bags.writer import Recorder
from alocc_ros.geometry import inverse
from alocc_ros.types import Calibration, CameraImage

START = 1_600_000_000_000_000_000  # ns
# Stamps of the cameras after the front left one's, ms: one turn of the LiDAR that fires them.
PHASES_MS = {
    "cam_front_left": 0,
    "cam_front": 8,
    "cam_front_right": 15,
    "cam_back_right": 23,
    "cam_back": 33,
    "cam_back_left": 43,
}
# Heading (degrees left of ahead), position (m), focal length (px at a width of 1600).
_MOUNTS = {
    "cam_front_left": (55, (1.5, 0.5, 1.5), 1260),
    "cam_front": (0, (1.7, 0.0, 1.5), 1260),
    "cam_front_right": (-55, (1.5, -0.5, 1.5), 1260),
    "cam_back_left": (110, (1.0, 0.5, 1.5), 1260),
    "cam_back": (180, (0.0, 0.0, 1.5), 810),
    "cam_back_right": (-110, (1.0, -0.5, 1.5), 1260),
}
_SPEED = 6.0  # m/s, ours
_NEAR = 0.3  # m; what is nearer to a camera is not drawn


@dataclass(frozen=True)
class Box:
    """A block on the ground, edges along the axes of the map."""

    centre: tuple[float, float]  # m, at t = 0
    size: tuple[float, float, float]  # m
    colour: tuple[int, int, int]
    speed: float = 0.0  # m/s along x


def street() -> list[Box]:
    """Houses and parked cars on both sides, and a car ahead that is a bit faster than us."""
    random = np.random.default_rng(7)
    boxes = [Box((14.0, 0.0), (4.5, 1.9, 1.6), (180, 40, 40), speed=8.0)]
    for side in (-1, 1):
        for x in np.arange(-60.0, 140.0, 16.0):
            height, shade = random.uniform(5, 14), int(random.integers(120, 200))
            boxes.append(Box((x, side * 17.0), (13, 8, height), (shade, shade - 15, shade - 40)))
        for x in np.arange(-40.0, 120.0, 9.0):
            if random.random() < 0.6:
                colour = tuple(int(c) for c in random.integers(40, 220, 3))
                boxes.append(Box((x, side * 6.5), (4.3, 1.8, 1.5), colour))
    return boxes


def rig(width: int = 1600, height: int = 900) -> dict[str, Calibration]:
    """The six cameras, with images of this size."""
    cameras = {}
    for camera, (heading, position, focal) in _MOUNTS.items():
        f = focal * width / 1600
        base_T_camera = np.eye(4)
        level = np.array(
            [[0, 0, 1], [-1, 0, 0], [0, -1, 0]]
        )  # optical axes of one that looks ahead
        base_T_camera[:3, :3] = Rotation.from_euler("z", heading, degrees=True).as_matrix() @ level
        base_T_camera[:3, 3] = position
        k = np.array([[f, 0, width / 2], [0, f, height * 0.54], [0, 0, 1]], dtype=float)
        cameras[camera] = Calibration(camera, width, height, k, base_T_camera)
    return cameras


def ego_pose(stamp: int) -> np.ndarray:  # ns -> [4, 4] map_T_base
    """A gentle curve to the left, with a little roll and pitch as on a real road."""
    t = (stamp - START) / 1e9
    map_T_base = np.eye(4)
    map_T_base[:3, :3] = Rotation.from_euler(
        "zyx", [0.02 * t, 0.004 * np.sin(1.3 * t), 0.004 * np.sin(t)]
    ).as_matrix()
    map_T_base[:3, 3] = (_SPEED * t, 0.06 * t * t, 0.0)
    return map_T_base


def draw(calibration: Calibration, stamp: int, boxes: list[Box]) -> np.ndarray:
    """What the camera sees at ``stamp``: [height, width, 3] uint8 RGB."""
    map_T_camera = ego_pose(stamp) @ calibration.base_T_camera
    picture = Image.fromarray(_ground_and_sky(calibration, map_T_camera))
    painter = ImageDraw.Draw(picture)
    for polygon, colour in _faces(calibration, inverse(map_T_camera), stamp, boxes):
        painter.polygon(polygon, fill=colour, outline=tuple(c // 2 for c in colour))
    return np.asarray(picture)


def _ground_and_sky(calibration: Calibration, map_T_camera: np.ndarray) -> np.ndarray:
    """[height, width, 3] uint8."""
    v, u = np.mgrid[: calibration.height, : calibration.width].astype(np.float32)
    k = calibration.intrinsics.astype(np.float32)
    map_T_camera = map_T_camera.astype(np.float32)
    rays = np.stack([(u - k[0, 2]) / k[0, 0], (v - k[1, 2]) / k[1, 1], np.ones_like(u)], axis=-1)
    rays = rays @ map_T_camera[:3, :3].T
    down = np.minimum(rays[..., 2], -1e-4)
    reach = -map_T_camera[2, 3] / down
    x = map_T_camera[0, 3] + rays[..., 0] * reach
    y = map_T_camera[1, 3] + rays[..., 1] * reach
    grey = 90 + 14 * ((np.floor(x) + np.floor(y)) % 2)
    grey += 110 * ((np.abs(np.abs(y) - 3.5) < 0.1) | ((np.abs(y) < 0.1) & (x % 6 < 3)))
    grey -= 25 * (np.abs(y) > 8.5)
    grey += (130 - grey) * np.minimum(reach / 120, 1)  # haze; a far checker would only flicker
    sky = np.linspace((150, 180, 215), (180, 210, 245), calibration.height).astype(np.uint8)
    return np.where(rays[..., 2:] < -1e-3, grey.astype(np.uint8)[..., None], sky[:, None])


_CORNERS = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (0, 1)])
_SIDES = ((0, 1, 3, 2), (4, 5, 7, 6), (0, 1, 5, 4), (2, 3, 7, 6), (1, 3, 7, 5))  # no underside


def _faces(
    calibration: Calibration, camera_T_map: np.ndarray, stamp: int, boxes: list[Box]
) -> Iterator[tuple[list[tuple[float, float]], tuple[int, int, int]]]:
    """Faces of the boxes in pixels, far ones first, so that near ones are painted over them."""
    faces = []
    for box in boxes:
        x = box.centre[0] + box.speed * (stamp - START) / 1e9
        corners = _CORNERS * box.size + (x, box.centre[1], 0.0)
        corners = corners @ camera_T_map[:3, :3].T + camera_T_map[:3, 3]
        for number, side in enumerate(_SIDES):
            shade = (0.8, 0.8, 0.65, 0.65, 1.0)[number]
            colour = tuple(int(c * shade) for c in box.colour)
            faces.append(
                (float(np.linalg.norm(corners[list(side)].mean(0))), corners[list(side)], colour)
            )
    for _, corners, colour in sorted(faces, key=lambda face: -face[0]):
        visible = _clip(corners)
        if len(visible) >= 3:
            pixels = visible @ calibration.intrinsics.T
            yield [(float(a), float(b)) for a, b in pixels[:, :2] / pixels[:, 2:]], colour


def _clip(polygon: np.ndarray) -> np.ndarray:  # [n, 3] m -> [m, 3] m
    """The part of a polygon in front of the camera."""
    kept = []
    for a, b in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        if a[2] > _NEAR:
            kept.append(a)
        if (a[2] > _NEAR) != (b[2] > _NEAR):
            kept.append(a + (b - a) * (_NEAR - a[2]) / (b[2] - a[2]))
    return np.array(kept).reshape(-1, 3)


def jpeg(picture: np.ndarray, quality: int = 90) -> bytes:
    """A picture [h, w, 3] as JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def write_sample(
    path: Path,
    seconds: float = 2.0,
    rate: float = 2.0,  # Hz
    width: int = 1600,
    height: int = 900,
) -> None:
    """Writes the recording as one .mcap with the topics and frames of the preset ``nuscenes``.

    Every image comes with the ego pose at its own stamp. The extrinsics are on /tf_static and,
    as in those bags, on /tf, so that they also arrive where latching is lost in playback.
    """
    cameras, boxes = rig(width, height), street()
    extrinsics = [("base_link", c.upper(), cal.base_T_camera) for c, cal in cameras.items()]
    recorder = Recorder(path.with_name(path.name + ".partial"), {"source": "alocc_ros sample"})
    try:
        recorder.write("/tf_static", START, messages.transforms(START, extrinsics))
        for number in range(round(seconds * rate)):
            for camera, phase in PHASES_MS.items():
                stamp = START + round(number * 1e9 / rate) + phase * 1_000_000
                poses = [("map", "base_link", ego_pose(stamp)), *extrinsics]
                source = CameraImage(
                    camera, stamp, jpeg(draw(cameras[camera], stamp, boxes)), "jpeg"
                )
                frame, info = camera.upper(), cameras[camera]
                for topic, message in {
                    "/tf": messages.transforms(stamp, poses),
                    f"/{frame}/camera_info": messages.camera_info(info, stamp, frame),
                    f"/{frame}/image_rect_compressed": messages.image(source, frame),
                }.items():
                    recorder.write(topic, stamp, message)
            recorder.end_frame()
    except BaseException:
        recorder.discard()
        raise
    recorder.publish(path)


def main() -> None:
    """``python -m alocc_ros.bags.sample OUT.mcap``."""
    parser = argparse.ArgumentParser(description="Write a small generated nuScenes-like bag.")
    parser.add_argument("path", metavar="OUT.mcap", type=Path)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rate", type=float, default=2.0, help="frames per second")
    parser.add_argument("--width", type=int, default=1600)
    parser.add_argument("--height", type=int, default=900)
    write_sample(**vars(parser.parse_args()))


if __name__ == "__main__":
    main()
