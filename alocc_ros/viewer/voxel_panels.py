# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""The voxels of a page: from behind, bird's-eye view, and the flow."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from PIL import Image, ImageDraw

from alocc_ros.geometry import inverse, project
from alocc_ros.viewer import bev, voxels
from alocc_ros.viewer.bev import BevCanvas
from alocc_ros.viewer.drawing import (
    draw_arrows,
    load_font,
    paste_rounded,
    write_caption,
    write_outlined,
)
from alocc_ros.viewer.frames import Layer
from alocc_ros.viewer.layout import BACKGROUND, CONTENT_WIDTH, GAP, PANEL, PANEL_SIDE, WHITE
from alocc_ros.viewer.motion import Motion, motions

_RINGS = (10.0, 20.0, 30.0, 40.0)  # m
# m, lower and upper corner of a car of usual size whose base frame is below its rear axle.
_VEHICLE = ((-1.0, -0.95, 0.2), (3.7, 0.95, 1.6))
_ARROWS = 40  # more of them only hide each other


def voxel_row(layer: Layer, *, captioned: bool) -> Image.Image:
    """The overview from behind, the bird's-eye view, and what moves if there is flow."""
    occupancy = layer.occupancy
    moving = motions(occupancy)[:_ARROWS]
    squares = [_class_panel(layer)]
    if occupancy.flow is not None:
        squares.append(_flow_panel(layer, moving))
    rest = CONTENT_WIDTH - len(squares) * (PANEL_SIDE + GAP)
    caption = f"{layer.name}   {layer.detail}".rstrip() if captioned else "voxels"
    panels = [_overview_panel(layer, moving, (rest, PANEL_SIDE), caption), *squares]
    picture = Image.new("RGB", (CONTENT_WIDTH, PANEL_SIDE), BACKGROUND)
    left = 0
    for panel in panels:
        paste_rounded(picture, panel, (left, 0))
        left += panel.width + GAP
    return picture


def _overview_panel(
    layer: Layer, moving: list[Motion], size: tuple[int, int], caption: str
) -> Image.Image:
    camera_T_grid, intrinsics = voxels.overview(layer.occupancy.grid, size)
    drawn = voxels.draw_faces(_with_vehicle(layer), camera_T_grid, intrinsics, size)
    backdrop = np.empty((size[1], size[0], 3), np.uint8)
    backdrop[:] = PANEL
    picture = Image.fromarray(voxels.blend(backdrop, drawn))
    ends = np.array([(m.start, m.end) for m in moving]).reshape(-1, 3)
    pixels, _ = project(ends, camera_T_grid, intrinsics)
    draw_arrows(picture, pixels.reshape(-1, 2, 2), [WHITE] * len(moving))
    write_caption(picture, caption)
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
        replace(occupancy, labels=labels), np.vstack([occupancy.classes.colours, WHITE])
    )


def _class_panel(layer: Layer) -> Image.Image:
    occupancy, background = layer.occupancy, np.array(PANEL)
    canvas = BevCanvas(occupancy.grid, PANEL_SIDE)
    cells = bev.class_colours(occupancy, background)
    picture = Image.fromarray(canvas.draw(cells, PANEL_SIDE, background))
    _draw_vehicle_and_rings(picture, canvas, layer)
    write_caption(picture, "from above")
    return picture


def _flow_panel(layer: Layer, moving: list[Motion]) -> Image.Image:
    occupancy, background = layer.occupancy, np.array(PANEL)
    canvas = BevCanvas(occupancy.grid, PANEL_SIDE)
    cells = bev.flow_colours(occupancy, background)
    picture = Image.fromarray(canvas.draw(cells, PANEL_SIDE, background))
    _draw_vehicle_and_rings(picture, canvas, layer)
    ends = [[canvas.pixel(*m.start[:2]), canvas.pixel(*m.end[:2])] for m in moving]
    draw_arrows(picture, np.array(ends).reshape(-1, 2, 2), [WHITE] * len(moving))
    _write_speeds(picture, [m.speed for m in moving], ends)
    _draw_colour_wheel(picture)
    write_caption(picture, "flow, m/s")
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
            write_outlined(painter, place, f"{speed:.1f}", load_font(12), "rm" if left else "lm")
            written.append((u, v))


def _draw_vehicle_and_rings(picture: Image.Image, canvas: BevCanvas, layer: Layer) -> None:
    """Distances, and the vehicle as a car of usual size: the base frame is all we know."""
    grid_T_base = np.eye(4) if layer.base_T_grid is None else inverse(layer.base_T_grid)
    x, y = grid_T_base[:2, 3]
    lines = Image.new("L", (picture.width * 2, picture.height * 2))
    painter = ImageDraw.Draw(lines)
    for radius in _RINGS:
        corners = (*canvas.pixel(x + radius, y + radius), *canvas.pixel(x - radius, y - radius))
        painter.ellipse([2 * c for c in corners], outline=70, width=2)
    (rear, right, _), (front, left, _) = _VEHICLE
    outline = np.array([(rear, right), (front, right), (front, left), (rear, left)])
    body = [canvas.pixel(*p) for p in outline @ grid_T_base[:2, :2].T + (x, y)]
    painter.polygon([(2 * u, 2 * v) for u, v in body], 255, 255, width=3)
    mask = lines.resize(picture.size, Image.Resampling.BOX)
    picture.paste(WHITE, (0, 0), mask)
    painter = ImageDraw.Draw(picture)
    for radius in _RINGS[1::2]:
        u, v = canvas.pixel(x - radius / 2**0.5, y + radius / 2**0.5)
        if u > 20 and 0 < v < picture.height - 12:
            write_outlined(painter, (u, v), f"{radius:.0f} m", load_font(12), "mm")


def _draw_colour_wheel(picture: Image.Image) -> None:
    """Which colour is which direction: the wheel stands as the view does, ahead is up."""
    radius, edge = 26, 12
    side = 2 * radius * 2
    v, u = np.mgrid[:side, :side] + 0.5 - side / 2
    away = np.hypot(u, v) / (side / 2)
    flow = np.stack([-v, -u], axis=-1) / (side / 2) * bev.FULL_COLOUR_SPEED
    colours = bev.speed_colours(flow.reshape(-1, 2)).reshape(side, side, 3).astype(np.uint8)
    disc = Image.fromarray(colours).resize((2 * radius, 2 * radius), Image.Resampling.BOX)
    mask = Image.fromarray(np.where(away <= 1, 255, 0).astype(np.uint8))
    mask = mask.resize(disc.size, Image.Resampling.BOX)
    corner = (picture.width - edge - 2 * radius, picture.height - edge - 2 * radius)
    picture.paste(disc, corner, mask)
    text = f"{bev.FULL_COLOUR_SPEED:.0f} m/s"
    middle = (corner[0] + radius, corner[1] - 8)
    write_outlined(ImageDraw.Draw(picture), middle, text, load_font(12), "mm")
