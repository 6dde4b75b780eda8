# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Voxels drawn into the camera images, and from above: the picture that proves the geometry.

If frames, axes, stamps or the lattice were wrong anywhere, the blocks would not lie on what
they stand for.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from alocc_ros.arrays import flow_lines, voxel_centres
from alocc_ros.geometry import inverse, project
from alocc_ros.stream.decoding import decode
from alocc_ros.stream.image_geometry import Undistortion
from alocc_ros.types import CameraImage, FrameSet, Occupancy

# As people look at it: ahead on top, left on the left; the last two as seen over the shoulder.
_LAYOUT = (
    ("cam_front_left", "cam_front", "cam_front_right"),
    ("cam_back_left", "cam_back", "cam_back_right"),
)
_TILE_WIDTH = 480  # px
_STRENGTH = 0.55  # of the blocks over the image
_NEAR = 1.0  # m; blocks nearer than this would cover the whole image
_FIRST_BATCH = 256  # blocks, see not_covered
_CAPTION = 22  # px
_DARK, _LIGHT = (24, 24, 28), (230, 230, 230)


def camera_T_grid(
    frame: FrameSet, camera: str, base_T_grid: np.ndarray | None = None
) -> np.ndarray:  # [4, 4]
    """From the grid, valid at the frame's stamp, into a camera at that camera's own stamp."""
    map_T_camera = frame.map_T_base_at[camera] @ frame.calibration[camera].base_T_camera
    map_T_grid = frame.map_T_base if base_T_grid is None else frame.map_T_base @ base_T_grid
    return inverse(map_T_camera) @ map_T_grid


def overlay(
    picture: np.ndarray,  # [h, w, 3] uint8 RGB
    occupancy: Occupancy,
    camera_T_grid: np.ndarray,  # [4, 4]
    intrinsics: np.ndarray,  # [3, 3] px of ``picture``
) -> np.ndarray:  # [h, w, 3] uint8 RGB
    """The picture with every occupied voxel as a square of its class's colour, near ones on top."""
    height, width = picture.shape[:2]
    flat = np.flatnonzero(occupancy.labels != occupancy.classes.free)
    centres = np.stack(voxel_centres(occupancy.grid, flat), axis=1)
    pixels, depth = project(centres, camera_T_grid, intrinsics)
    half = 0.5 * intrinsics[0, 0] * occupancy.grid.resolution / np.maximum(depth, _NEAR)
    inside = (depth > _NEAR) & np.all(
        (pixels > -half[:, None]) & (pixels < (width, height) + half[:, None]), axis=1
    )
    order = np.flatnonzero(inside)[np.argsort(-depth[inside], kind="stable")]
    corners = np.hstack([pixels[order] - half[order, None], pixels[order] + half[order, None]])
    corners = corners.round()
    seen = not_covered(corners, (width, height))
    order, corners = order[seen], corners[seen].tolist()
    blocks = Image.new("RGBA", (width, height))
    painter = ImageDraw.Draw(blocks)
    colours = [tuple(c) for c in occupancy.classes.colours.tolist()]
    edges = [tuple(int(0.7 * v) for v in c) for c in colours]
    labels = occupancy.labels.reshape(-1)[flat[order]].tolist()
    for (left, top, right, bottom), label in zip(corners, labels, strict=True):
        outline = edges[label] if right - left > 4 else None
        painter.rectangle((left, top, right, bottom), fill=colours[label], outline=outline)
    drawn = np.asarray(blocks)
    mixed = (1 - _STRENGTH) * picture + _STRENGTH * drawn[..., :3]
    return np.where(drawn[..., 3:] > 0, mixed, picture).astype(np.uint8)


def not_covered(
    corners: np.ndarray,  # [n, 4] whole px: left, top, right, bottom; all of them inside
    size: tuple[int, int],  # width, height, px
) -> np.ndarray:  # indices, ascending
    """Which of the rectangles show, if each is painted over those before it.

    Painting costs the same for all of them, and behind the first rows of a full grid nothing
    shows. So the last ones go first, in batches that double, and what by then is covered
    is left out.
    """
    width, height = size
    left, top = (corners[:, i].clip(0, size[i]).astype(int) for i in (0, 1))
    right, bottom = ((corners[:, i + 2] + 1).clip(0, size[i]).astype(int) for i in (0, 1))
    free = np.ones((height, width), np.uint8)
    sums = np.zeros((height + 1, width + 1), np.int32)
    rest = np.arange(len(corners))[::-1]
    kept = []
    batch = _FIRST_BATCH
    while len(rest):
        chosen, rest = rest[:batch], rest[batch:]
        batch *= 2
        kept.append(chosen)
        for i in chosen.tolist():
            free[top[i] : bottom[i], left[i] : right[i]] = 0
        np.cumsum(free.cumsum(axis=0, dtype=np.int32), axis=1, out=sums[1:, 1:])
        u, v, to_u, to_v = (side[rest] for side in (left, top, right, bottom))
        rest = rest[sums[to_v, to_u] - sums[v, to_u] - sums[to_v, u] + sums[v, u] > 0]
    return np.sort(np.concatenate(kept)) if kept else np.zeros(0, int)


def from_above(occupancy: Occupancy, size: int) -> Image.Image:
    """The grid from above, ahead is up: each column in the colour of its highest voxel."""
    occupied = occupancy.labels != occupancy.classes.free
    top = occupied.shape[2] - 1 - np.argmax(occupied[:, :, ::-1], axis=2)
    highest = np.take_along_axis(occupancy.labels, top[..., None], axis=2)[..., 0]
    cells = occupancy.classes.colours[highest]
    cells[~occupied.any(axis=2)] = _DARK
    picture = Image.fromarray(np.ascontiguousarray(cells[::-1, ::-1]))
    picture = picture.resize((size, size), Image.Resampling.NEAREST)
    painter = ImageDraw.Draw(picture)
    upper, lower = occupancy.grid.upper, occupancy.grid.lower
    scale_x, scale_y = (size / (upper[i] - lower[i]) for i in (0, 1))

    def pixel(x: float, y: float) -> tuple[float, float]:
        return (upper[1] - y) * scale_y, (upper[0] - x) * scale_x

    for radius in (10.0, 20.0, 30.0, 40.0):
        box = [*pixel(radius, radius), *pixel(-radius, -radius)]
        painter.ellipse(box, outline=(90, 90, 96))
    painter.rectangle([*pixel(3.5, 1.0), *pixel(-1.0, -1.0)], outline=_LIGHT, width=2)
    lines = flow_lines(occupancy)
    for (start, end), colour in zip(lines.ends.tolist(), lines.colours.tolist(), strict=True):
        fill = tuple(int(255 * c) for c in colour)
        painter.line([pixel(*start[:2]), pixel(*end[:2])], fill=fill, width=2)
    return picture


def contact_sheet(
    frame: FrameSet, occupancy: Occupancy, title: str, base_T_grid: np.ndarray | None = None
) -> Image.Image:
    """Six images with voxels and the view from above on one page.

    Raises:
        ImageError: an image cannot be decoded.
    """
    shape = next(iter(frame.calibration.values()))
    tile_height = round(_TILE_WIDTH * shape.height / shape.width)
    side = 2 * tile_height
    sheet = Image.new("RGB", (3 * _TILE_WIDTH + side, side + _CAPTION), _DARK)
    painter = ImageDraw.Draw(sheet)
    for row, cameras in enumerate(_LAYOUT):
        for column, camera in enumerate(cameras):
            place = (column * _TILE_WIDTH, _CAPTION + row * tile_height)
            if camera in frame.images:
                tile = _tile(frame, occupancy, camera, (_TILE_WIDTH, tile_height), base_T_grid)
                sheet.paste(tile, place)
            caption = f"{camera}  {frame.missing.get(camera, '')}".rstrip()
            corner = (place[0] + 6, place[1] + 4)
            left, top, right, bottom = painter.textbbox(corner, caption)
            painter.rectangle((left - 3, top - 2, right + 3, bottom + 2), fill=_DARK)
            painter.text(corner, caption, fill=_LIGHT)
    sheet.paste(from_above(occupancy, side), (3 * _TILE_WIDTH, _CAPTION))
    painter.text((6, 4), title, fill=(255, 120, 120) if occupancy.random_weights else _LIGHT)
    return sheet


def _tile(
    frame: FrameSet,
    occupancy: Occupancy,
    camera: str,
    size: tuple[int, int],  # width, height
    base_T_grid: np.ndarray | None,
) -> Image.Image:
    image: CameraImage = frame.images[camera]
    calibration = frame.calibration[camera]
    pixels = decode(image)
    if any(calibration.distortion):
        pixels = Undistortion(calibration)(pixels)
    picture = Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR)
    scale = np.diag([size[0] / calibration.width, size[1] / calibration.height, 1.0])
    drawn = overlay(
        np.asarray(picture),
        occupancy,
        camera_T_grid(frame, camera, base_T_grid),
        scale @ calibration.intrinsics,
    )
    return Image.fromarray(drawn)
