# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""A rig, drawn: the ground and the crop in each image, and from above where each camera looks.

If a mounting were wrong, the lines would not lie on the ground; if it were inverted, they would
not be there at all.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from alocc_ros.geometry import inverse
from alocc_ros.stream.crop_placement import crop_remark, horizon_row, place_crop
from alocc_ros.stream.decoding import decode
from alocc_ros.stream.image_geometry import Undistortion
from alocc_ros.types import Calibration, FrameSet

_TILE = 640  # px
_ABOVE = 640  # px, side of the view from above
_REACH = 40.0  # m
_STEP = 5.0  # m, from line to line
_NEAR = 0.1  # m
_AHEAD, _LEFT, _GROUND = (255, 70, 60), (70, 220, 80), (255, 210, 60)
_CROP, _HORIZON, _TEXT = (80, 200, 255), (255, 255, 255), (230, 230, 230)
_COLOURS = ((255, 120, 100), (255, 230, 90), (120, 220, 110), (90, 200, 255), (190, 140, 255),
            (255, 150, 220))  # fmt: skip


def rig_picture(frame: FrameSet, input_size: tuple[int, int]) -> Image.Image:
    """All cameras that have an image, each with its lines, and the view from above.

    Args:
        frame: images and calibrations.
        input_size: height and width of the network's input, for the crop.
    """
    tiles = [_tile(frame, camera, input_size) for camera in frame.images]
    tiles.append(_from_above({c: frame.calibration[c] for c in frame.images}))
    columns = min(3, len(tiles))
    rows = [tiles[i : i + columns] for i in range(0, len(tiles), columns)]
    heights = [max(tile.height for tile in row) for row in rows]
    sheet = Image.new("RGB", (columns * _TILE, sum(heights)), (24, 24, 28))
    for number, row in enumerate(rows):
        for column, tile in enumerate(row):
            sheet.paste(tile, (column * _TILE, sum(heights[:number])))
    return sheet


def _tile(frame: FrameSet, camera: str, input_size: tuple[int, int]) -> Image.Image:
    calibration = frame.calibration[camera]
    pixels = decode(frame.images[camera])
    if any(calibration.distortion):
        pixels = Undistortion(calibration)(pixels)
    picture = Image.fromarray(pixels)
    scale = _TILE / picture.width
    picture = picture.resize((_TILE, round(picture.height * scale)))
    painter = ImageDraw.Draw(picture)
    for a, b, colour in _lines():
        ends = _seen(calibration, a, b)
        if ends is not None:
            painter.line([tuple(scale * p) for p in ends], fill=colour, width=2)
    crop = place_crop(calibration, input_size)
    x, y = _TILE / crop.resized[0], picture.height / crop.resized[1]
    rows, columns = input_size
    box = (crop.left * x, crop.top * y, (crop.left + columns) * x - 1, (crop.top + rows) * y - 1)
    painter.rectangle(box, outline=_CROP, width=2)
    if (horizon := horizon_row(calibration)) is not None:
        painter.line([(0, horizon * scale), (_TILE, horizon * scale)], fill=_HORIZON)
    name = f"{camera}  {calibration.width}x{calibration.height}"
    remark = crop_remark(calibration, crop)
    painter.text((8, 6), name + ("  (!)" if remark else ""), fill=_TEXT, font_size=18)
    return picture


def _lines() -> list[tuple[np.ndarray, np.ndarray, tuple[int, int, int]]]:
    """Ends [3] m, on the ground, in pieces that are cut where they leave the view."""
    lines = []
    places = np.arange(-_REACH, _REACH + 0.1, _STEP)
    for place in places:
        for begin, end in zip(places[:-1], places[1:], strict=True):
            along = _AHEAD if place == 0 and begin >= 0 else _GROUND
            across = _LEFT if place == 0 and begin >= 0 else _GROUND
            lines.append((np.array([begin, place, 0.0]), np.array([end, place, 0.0]), along))
            lines.append((np.array([place, begin, 0.0]), np.array([place, end, 0.0]), across))
    return lines


def _seen(calibration: Calibration, a: np.ndarray, b: np.ndarray) -> np.ndarray | None:  # [2, 2]
    """Pixels of the part of a line that is in front of the camera."""
    camera_T_base = inverse(calibration.base_T_camera)
    a, b = (camera_T_base[:3, :3] @ p + camera_T_base[:3, 3] for p in (a, b))
    if max(a[2], b[2]) <= _NEAR:
        return None
    if a[2] <= _NEAR:
        a = b + (a - b) * (b[2] - _NEAR) / (b[2] - a[2])
    elif b[2] <= _NEAR:
        b = a + (b - a) * (a[2] - _NEAR) / (a[2] - b[2])
    ends = np.stack([a, b]) @ calibration.intrinsics.T
    pixels = ends[:, :2] / ends[:, 2:]
    far = 20 * max(calibration.width, calibration.height)  # what Pillow can draw
    return pixels if np.abs(pixels).max() < far else None


def _from_above(cameras: dict[str, Calibration]) -> Image.Image:
    """Ahead is on top; a frustum reaches 12 m."""
    picture = Image.new("RGB", (_TILE, _ABOVE), (24, 24, 28))
    painter = ImageDraw.Draw(picture)
    scale = _ABOVE / 32.0  # px/m

    def at(point: np.ndarray) -> tuple[float, float]:
        return _TILE / 2 - point[1] * scale, _ABOVE / 2 - point[0] * scale

    for place in np.arange(-15.0, 15.1, _STEP):
        painter.line([at((-15, place)), at((15, place))], fill=(60, 60, 66))
        painter.line([at((place, -15)), at((place, 15))], fill=(60, 60, 66))
    painter.line([at((0, 0)), at((4, 0))], fill=_AHEAD, width=3)
    painter.line([at((0, 0)), at((0, 4))], fill=_LEFT, width=3)
    for (camera, calibration), colour in zip(cameras.items(), _COLOURS, strict=False):
        k, pose = calibration.intrinsics, calibration.base_T_camera
        rays = [((u - k[0, 2]) / k[0, 0], 0.0, 1.0) for u in (0, calibration.width)]
        corners = [
            pose[:3, 3] + pose[:3, :3] @ (12 * np.array(r) / np.linalg.norm(r)) for r in rays
        ]
        painter.polygon([at(pose[:3, 3]), *map(at, corners)], outline=colour)
        painter.text(at(np.mean(corners, axis=0)), camera, fill=colour, font_size=14, anchor="mm")
    painter.text((8, 6), "from above, lines every 5 m", fill=_TEXT, font_size=18)
    return picture
