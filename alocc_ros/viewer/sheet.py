# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""One instant on one page: images with the voxels in them, the voxels, what moves, a legend.

The page is as wide whatever is on it; rows that have nothing to show are left out.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timezone
from functools import lru_cache

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from alocc_ros.errors import ImageError
from alocc_ros.geometry import inverse, project
from alocc_ros.labels import ClassList
from alocc_ros.stream.decoding import decode
from alocc_ros.stream.image_geometry import Undistortion
from alocc_ros.stream.overlay import camera_T_grid
from alocc_ros.types import Calibration, FrameSet, Occupancy
from alocc_ros.viewer import above, voxels
from alocc_ros.viewer.moments import Layer, View, placed, upright
from alocc_ros.viewer.motion import Motion, motions

# As people look at it: ahead on top, left on the left; the last row as seen over the shoulder.
LAYOUT = (
    ("cam_front_left", "cam_front", "cam_front_right"),
    ("cam_back_left", "cam_back", "cam_back_right"),
)

# px
WIDTH = 1600
_MARGIN, _GAP = 24, 12
_HEADER, _LEGEND_ROW = 58, 27
_SQUARE = 400  # views from above, and how high their row is; whole pixels for 200 cells
_ROUND = 7  # radius of corners
_INNER = WIDTH - 2 * _MARGIN

_BACKGROUND, _PANEL = (13, 16, 21), (21, 25, 32)
_TEXT, _FAINT, _RING = (232, 235, 240), (139, 148, 160), (255, 255, 255)
_AMBER, _RED = (255, 190, 80), (255, 107, 107)

_GROUND_OPACITY, _OPACITY = 0.42, 0.66  # of voxels over an image
_ROOM = 1.2  # m around a camera; there it is free, whatever the network says
_RINGS = (10.0, 20.0, 30.0, 40.0)  # m
# m, lower and upper corner of a car of usual size whose base frame is below its rear axle.
_VEHICLE = ((-1.0, -0.95, 0.2), (3.7, 0.95, 1.6))
_ARROWS = 40  # more of them only hide each other
_ARROW_HEAD = 7.0  # px


def sheet(view: View, *, plain_images: bool = False) -> Image.Image:
    """The page of one instant.

    Args:
        view: what there is to see.
        plain_images: no voxels are drawn into the images.

    Raises:
        ImageError: an image cannot be decoded, or there is nothing to see at all.
    """
    if view.frame is None and not view.layers:
        raise ImageError(f"there is nothing to see at {view.stamp} ns: no images and no voxels")
    layers = [upright(placed(layer, view.frame)) for layer in view.layers]
    rows: list[Image.Image] = []
    if view.frame is not None:
        rows.append(_cameras(view.frame, layers[0] if layers and not plain_images else None))
    rows += [_panels(layer, captioned=len(layers) > 1) for layer in layers]
    lists = {layer.occupancy.classes.name: layer.occupancy.classes for layer in layers}
    rows += [_legend(classes) for classes in lists.values()]

    height = _HEADER + sum(row.height + _GAP for row in rows) - _GAP + _MARGIN
    page = Image.new("RGB", (WIDTH, height), _BACKGROUND)
    _write_header(page, view)
    top = _HEADER
    for row in rows:
        page.paste(row, (_MARGIN, top))
        top += row.height + _GAP
    return page


# --- header and legend -----------------------------------------------------------------------


def _write_header(page: Image.Image, view: View) -> None:
    painter = ImageDraw.Draw(page)
    baseline = _HEADER - 22
    when = _time_of_day(view.stamp)
    painter.text((WIDTH - _MARGIN, baseline), when, _FAINT, _font(16), "rs")
    end = WIDTH - _MARGIN - painter.textlength(when, _font(16)) - 24
    left: float = _MARGIN
    title = [f"{layer.name}   {layer.detail}" for layer in view.layers[:1]] or ["cameras"]
    for text, colour, size in [(title[0], _TEXT, 24), *_remarks(view)]:
        text = _fitting(text, _font(size), end - left)
        painter.text((left, baseline), text, colour, _font(size), "ls")
        left += painter.textlength(text, _font(size)) + 18


def _remarks(view: View) -> list[tuple[str, tuple[int, int, int], int]]:
    """Words, colour and size (px) of what has to be known about the voxels."""
    remarks = []
    if any(layer.occupancy.random_weights for layer in view.layers):
        remarks.append(("RANDOM WEIGHTS: this means nothing", _RED, 16))
    for layer in view.layers[:1]:
        if layer.occupancy.degraded:
            remarks.append((f"degraded: {layer.occupancy.degraded}", _AMBER, 16))
        if layer.occupancy.reset:
            remarks.append((f"memory empty: {layer.occupancy.reset}", _FAINT, 16))
    return remarks


def _time_of_day(stamp: int) -> str:
    seconds, rest = divmod(stamp, 10**9)
    exact = f"{seconds}.{rest:09d} s"
    try:
        when = datetime.fromtimestamp(seconds, timezone.utc)
    except (OverflowError, OSError, ValueError):  # a stamp beyond any calendar
        return exact
    return f"{when:%Y-%m-%d %H:%M:%S}.{rest // 10**6:03d} UTC   {exact}"


def _legend(classes: ClassList) -> Image.Image:
    """Every class with its colour, in columns of equal width."""
    names = [(label, n) for label, n in enumerate(classes.names) if label != classes.free]
    columns = -(-len(names) // 2)
    picture = Image.new("RGB", (_INNER, 2 * _LEGEND_ROW), _BACKGROUND)
    painter = ImageDraw.Draw(picture)
    texts = [name.replace("_", " ") for _, name in names]
    widths = [
        max(painter.textlength(t, _font(14)) for t in texts[c::columns]) for c in range(columns)
    ]
    space = (_INNER - sum(widths)) / columns
    left = 0.0
    for column, width in enumerate(widths):
        for row, place in enumerate(range(column, len(names), columns)):
            top = row * _LEGEND_ROW + 6
            colour = tuple(classes.colours[names[place][0]].tolist())
            painter.rounded_rectangle((left, top, left + 16, top + 16), 4, colour, (70, 76, 86))
            painter.text((left + 24, top + 8), texts[place], _TEXT, _font(14), "lm")
        left += width + space
    return picture


# --- cameras ---------------------------------------------------------------------------------


def _cameras(frame: FrameSet, layer: Layer | None) -> Image.Image:
    faces = None if layer is None else voxels.faces(_with_room(frame, layer))
    width = (_INNER - 2 * _GAP) // 3
    shape = next(iter(frame.calibration.values()))
    height = round(width * shape.height / shape.width)
    picture = Image.new("RGB", (_INNER, 2 * height + _GAP), _BACKGROUND)
    for row, cameras in enumerate(LAYOUT):
        for column, camera in enumerate(cameras):
            tile = _camera(frame, camera, (width, height), layer, faces)
            _paste_round(picture, tile, (column * (width + _GAP), row * (height + _GAP)))
    return picture


def _camera(
    frame: FrameSet,
    camera: str,
    size: tuple[int, int],
    layer: Layer | None,
    faces: voxels.Faces | None,
) -> Image.Image:
    name = camera.removeprefix("cam_").replace("_", " ")
    if camera not in frame.images:
        tile = Image.new("RGB", size, _PANEL)
        reason = frame.missing.get(camera, "no image")
        _write_in_middle(tile, f"{name}: {reason}")
        return tile
    calibration, image = frame.calibration[camera], frame.images[camera]
    pixels = decode(image)
    if any(calibration.distortion):
        pixels = Undistortion(calibration)(pixels)
    pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    if layer is not None and faces is not None:
        pixels = _with_voxels(pixels, frame, calibration, layer, faces)
    tile = Image.fromarray(pixels)
    late = (image.stamp - frame.stamp) / 1e6
    _write_chip(tile, name if abs(late) < 0.05 else f"{name}  {late:+.0f} ms")
    return tile


def _with_room(frame: FrameSet, layer: Layer) -> Occupancy:
    """Without the voxels around the cameras, whose inside is all that one would see."""
    occupancy = layer.occupancy
    labels = occupancy.labels.copy()
    resolution, lower = occupancy.grid.resolution, occupancy.grid.lower
    for camera in frame.images:
        place = inverse(camera_T_grid(frame, camera, layer.base_T_grid))[:3, 3]
        # In steps of cells: the box around the ball, then the ball.
        first = np.floor((place - _ROOM - lower) / resolution).astype(int)
        last = np.ceil((place + _ROOM - lower) / resolution).astype(int)
        axes = [
            np.arange(max(a, 0), min(b, n))
            for a, b, n in zip(first, last, labels.shape, strict=True)
        ]
        cells = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
        near = np.linalg.norm(occupancy.grid.centres(cells) - place, axis=1) < _ROOM
        labels[tuple(cells[near].T)] = occupancy.classes.free
    return replace(occupancy, labels=labels)


def _with_voxels(
    pixels: np.ndarray,  # [h, w, 3] uint8
    frame: FrameSet,
    calibration: Calibration,
    layer: Layer,
    faces: voxels.Faces,
) -> np.ndarray:
    height, width = pixels.shape[:2]
    scale = np.diag([width / calibration.width, height / calibration.height, 1.0])
    opacity = np.where(layer.occupancy.classes.is_ground, _GROUND_OPACITY, _OPACITY)
    place = camera_T_grid(frame, calibration.camera, layer.base_T_grid)
    drawn = voxels.draw_faces(
        faces, place, scale @ calibration.intrinsics, (width, height), opacity
    )
    return voxels.over(pixels, drawn)


# --- voxels ----------------------------------------------------------------------------------


def _panels(layer: Layer, *, captioned: bool) -> Image.Image:
    """The voxels from behind, from above, and what moves."""
    occupancy = layer.occupancy
    moving = motions(occupancy)[:_ARROWS]
    squares = [_seen_from_above(layer)]
    if occupancy.flow is not None:
        squares.append(_flow(layer, moving))
    rest = _INNER - len(squares) * (_SQUARE + _GAP)
    caption = f"{layer.name}   {layer.detail}".rstrip() if captioned else "voxels"
    panels = [_overview(layer, moving, (rest, _SQUARE), caption), *squares]
    picture = Image.new("RGB", (_INNER, _SQUARE), _BACKGROUND)
    left = 0
    for panel in panels:
        _paste_round(picture, panel, (left, 0))
        left += panel.width + _GAP
    return picture


def _overview(
    layer: Layer, moving: list[Motion], size: tuple[int, int], caption: str
) -> Image.Image:
    place, intrinsics = voxels.overview(layer.occupancy.grid, size)
    drawn = voxels.draw_faces(_with_vehicle(layer), place, intrinsics, size)
    backdrop = np.empty((size[1], size[0], 3), np.uint8)
    backdrop[:] = _PANEL
    picture = Image.fromarray(voxels.over(backdrop, drawn))
    ends = np.array([(m.start, m.end) for m in moving]).reshape(-1, 3)
    pixels, _ = project(ends, place, intrinsics)
    _draw_arrows(picture, pixels.reshape(-1, 2, 2), [_RING] * len(moving))
    _write_chip(picture, caption)
    return picture


def _with_vehicle(layer: Layer) -> voxels.Faces:
    """The voxels, and our own car in the free ones among them as if it were another class."""
    occupancy = layer.occupancy
    cells = np.argwhere(occupancy.labels == occupancy.classes.free)
    centres = occupancy.grid.centres(cells)
    if layer.base_T_grid is not None:
        centres = centres @ layer.base_T_grid[:3, :3].T + layer.base_T_grid[:3, 3]
    inside = np.all((centres > _VEHICLE[0]) & (centres < _VEHICLE[1]), axis=1)
    labels = occupancy.labels.copy()
    ours = len(occupancy.classes.names)
    labels[tuple(cells[inside].T)] = ours
    return voxels.faces(
        replace(occupancy, labels=labels), np.vstack([occupancy.classes.colours, _RING])
    )


def _seen_from_above(layer: Layer) -> Image.Image:
    occupancy, background = layer.occupancy, np.array(_PANEL)
    place = above.Map(occupancy.grid, _SQUARE)
    cells = above.class_colours(occupancy, background)
    picture = Image.fromarray(place.drawn(cells, _SQUARE, background))
    _draw_vehicle_and_rings(picture, place, layer)
    _write_chip(picture, "from above")
    return picture


def _flow(layer: Layer, moving: list[Motion]) -> Image.Image:
    occupancy, background = layer.occupancy, np.array(_PANEL)
    place = above.Map(occupancy.grid, _SQUARE)
    cells = above.flow_colours(occupancy, background)
    picture = Image.fromarray(place.drawn(cells, _SQUARE, background))
    _draw_vehicle_and_rings(picture, place, layer)
    ends = [[place.pixel(*m.start[:2]), place.pixel(*m.end[:2])] for m in moving]
    _draw_arrows(picture, np.array(ends).reshape(-1, 2, 2), [_RING] * len(moving))
    _write_speeds(picture, [m.speed for m in moving], ends)
    _draw_wheel(picture)
    _write_chip(picture, "flow, m/s")
    return picture


def _write_speeds(
    picture: Image.Image, speeds: list[float], ends: list[list[tuple[float, float]]]
) -> None:
    """Beyond the arrows' heads, as far as there is room."""
    painter = ImageDraw.Draw(picture)
    written: list[tuple[float, float]] = []
    for speed, ((start, _), (u, v)) in zip(speeds, ends, strict=True):
        if all(abs(u - x) > 24 or abs(v - y) > 13 for x, y in written):
            left = u < start - 1
            place = (u - 7, v) if left else (u + 7, v)
            _write_outlined(painter, place, f"{speed:.1f}", _font(12), "rm" if left else "lm")
            written.append((u, v))


def _draw_vehicle_and_rings(picture: Image.Image, place: above.Map, layer: Layer) -> None:
    """Distances, and the vehicle as a car of usual size: the base frame is all we know."""
    grid_T_base = np.eye(4) if layer.base_T_grid is None else inverse(layer.base_T_grid)
    x, y = grid_T_base[:2, 3]
    lines = Image.new("L", (picture.width * 2, picture.height * 2))
    painter = ImageDraw.Draw(lines)
    for radius in _RINGS:
        corners = (*place.pixel(x + radius, y + radius), *place.pixel(x - radius, y - radius))
        painter.ellipse([2 * c for c in corners], outline=70, width=2)
    (rear, right, _), (front, left, _) = _VEHICLE
    outline = np.array([(rear, right), (front, right), (front, left), (rear, left)])
    body = [place.pixel(*p) for p in outline @ grid_T_base[:2, :2].T + (x, y)]
    painter.polygon([(2 * u, 2 * v) for u, v in body], 255, 255, width=3)
    mask = lines.resize(picture.size, Image.Resampling.BOX)
    picture.paste(_RING, (0, 0), mask)
    painter = ImageDraw.Draw(picture)
    for radius in _RINGS[1::2]:
        u, v = place.pixel(x - radius / 2**0.5, y + radius / 2**0.5)
        if u > 20 and 0 < v < picture.height - 12:
            _write_outlined(painter, (u, v), f"{radius:.0f} m", _font(12), "mm")


def _draw_wheel(picture: Image.Image) -> None:
    """Which colour is which direction: the wheel stands as the view does, ahead is up."""
    radius, edge = 26, 12
    side = 2 * radius * 2
    v, u = np.mgrid[:side, :side] + 0.5 - side / 2
    away = np.hypot(u, v) / (side / 2)
    flow = np.stack([-v, -u], axis=-1) / (side / 2) * above.FULL_COLOUR_SPEED
    colours = above.speed_colours(flow.reshape(-1, 2)).reshape(side, side, 3).astype(np.uint8)
    disc = Image.fromarray(colours).resize((2 * radius, 2 * radius), Image.Resampling.BOX)
    mask = Image.fromarray(np.where(away <= 1, 255, 0).astype(np.uint8))
    mask = mask.resize(disc.size, Image.Resampling.BOX)
    corner = (picture.width - edge - 2 * radius, picture.height - edge - 2 * radius)
    picture.paste(disc, corner, mask)
    text = f"{above.FULL_COLOUR_SPEED:.0f} m/s"
    middle = (corner[0] + radius, corner[1] - 8)
    _write_outlined(ImageDraw.Draw(picture), middle, text, _font(12), "mm")


# --- strokes and words -----------------------------------------------------------------------


def _draw_arrows(
    picture: Image.Image,
    ends: np.ndarray,  # [n, 2, 2] px, from and to
    colours: list[tuple[int, int, int]],
) -> None:
    """Arrows with a dark rim, drawn twice as large and made smaller: smooth on any ground."""
    if not len(ends):
        return
    large = picture.resize((picture.width * 2, picture.height * 2), Image.Resampling.NEAREST)
    painter = ImageDraw.Draw(large)
    for (start, end), colour in zip(2 * ends, colours, strict=True):
        length = float(np.hypot(*(end - start)))
        if length < 4 or not np.isfinite(length):
            continue
        along = (end - start) / length
        across = np.array([-along[1], along[0]])
        head = min(2 * _ARROW_HEAD, 0.6 * length)
        neck = end - head * along
        tip = [tuple(end), tuple(neck + 0.55 * head * across), tuple(neck - 0.55 * head * across)]
        for fill, extra in (((10, 12, 16), 4), (colour, 0)):
            painter.line([tuple(start), tuple(neck)], fill, 4 + extra)
            painter.polygon(tip, fill, fill, width=max(extra, 1))
    picture.paste(large.resize(picture.size, Image.Resampling.BOX))


def _write_chip(picture: Image.Image, text: str) -> None:
    """A caption in the upper left corner, readable on anything."""
    painter = ImageDraw.Draw(picture, "RGBA")
    text = _fitting(text, _font(14), picture.width - 40)
    width = painter.textlength(text, _font(14))
    painter.rounded_rectangle((8, 8, 8 + width + 16, 8 + 24), 6, (*_BACKGROUND, 190))
    painter.text((16, 20), text, _TEXT, _font(14), "lm")


def _fitting(text: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    """As much of it as there is room for; names out of files may hold anything."""
    whole = "".join(c if c.isprintable() else " " for c in text[:500]).strip()
    shown = whole
    while shown and font.getlength(shown) > width:
        shown = shown[:-1]
    return whole if shown == whole else shown[:-3].rstrip() + "..." if len(shown) > 3 else ""


def _write_in_middle(picture: Image.Image, text: str) -> None:
    painter = ImageDraw.Draw(picture)
    words, lines = text.split(), [""]
    for word in words:
        longer = f"{lines[-1]} {word}".strip()
        if painter.textlength(longer, _font(14)) > 0.85 * picture.width:
            lines.append(word)
        else:
            lines[-1] = longer
    middle = (picture.width / 2, picture.height / 2)
    painter.text(middle, "\n".join(lines[:6]), _FAINT, _font(14), "mm", align="center")


def _write_outlined(
    painter: ImageDraw.ImageDraw,
    place: tuple[float, float],
    text: str,
    font: ImageFont.FreeTypeFont,
    anchor: str,
) -> None:
    painter.text(place, text, _TEXT, font, anchor, stroke_width=2, stroke_fill=(10, 12, 16))


def _paste_round(page: Image.Image, tile: Image.Image, place: tuple[int, int]) -> None:
    page.paste(tile, place, _rounded(tile.size))


@lru_cache(maxsize=16)
def _rounded(size: tuple[int, int]) -> Image.Image:
    large = Image.new("L", (size[0] * 4, size[1] * 4))
    box = (0, 0, large.width - 1, large.height - 1)
    ImageDraw.Draw(large).rounded_rectangle(box, 4 * _ROUND, 255)
    return large.resize(size, Image.Resampling.BOX)


@lru_cache(maxsize=16)
def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)
    return font
