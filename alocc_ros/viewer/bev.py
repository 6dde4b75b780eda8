# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Bird's-eye view of the grid, ahead is up: classes, and what moves where."""

from __future__ import annotations

import cv2
import numpy as np

from alocc_ros.arrays import direction_colours
from alocc_ros.grid import VoxelGrid
from alocc_ros.types import Occupancy
from alocc_ros.viewer.motion import moving_columns

FULL_COLOUR_SPEED = 10.0  # m/s; slower objects are paler
_RELIEF = 0.09  # brightness a level that a column is higher than its neighbours ahead and left
_STATIC_BRIGHTNESS = 0.20  # how bright the surroundings are where motion is what counts


class BevCanvas:
    """Maps metres of the grid to pixels of a square picture of ``side`` pixels.

    Attributes:
        size: width and height of the part of the picture that the grid takes.
        corner: pixel of the grid's front left corner in the square.
        scale: pixels a metre.
    """

    def __init__(self, grid: VoxelGrid, side: int) -> None:
        """Cells become whole pixels where there is room for that."""
        rows, columns = grid.shape[:2]
        cell = side / max(rows, columns)
        if cell > 1:
            cell = float(int(cell))
        self.size = (max(1, round(columns * cell)), max(1, round(rows * cell)))
        self.corner = ((side - self.size[0]) // 2, (side - self.size[1]) // 2)
        self.scale = cell / grid.resolution
        self._upper = grid.upper

    def pixel(self, x: float, y: float) -> tuple[float, float]:
        """Pixel (u, v) of a point of the grid's frame, m."""
        u = self.corner[0] + (self._upper[1] - y) * self.scale
        return u, self.corner[1] + (self._upper[0] - x) * self.scale

    def draw(self, cells: np.ndarray, side: int, background: np.ndarray) -> np.ndarray:
        """[X, Y, 3] uint8 colours as the square picture [side, side, 3]."""
        upright = np.ascontiguousarray(cells[::-1, ::-1])
        larger = self.size[0] >= upright.shape[1]
        interpolation = cv2.INTER_NEAREST if larger else cv2.INTER_AREA
        picture = np.empty((side, side, 3), np.uint8)
        picture[:] = background
        u, v = self.corner
        picture[v : v + self.size[1], u : u + self.size[0]] = cv2.resize(
            upright, self.size, interpolation=interpolation
        )
        return picture


def class_colours(occupancy: Occupancy, background: np.ndarray) -> np.ndarray:
    """[X, Y, 3] uint8: each column in the colour of its highest voxel, lit from the front left."""
    colours, occupied = _relief(occupancy)
    return np.where(occupied[..., None], colours, background).astype(np.uint8)


def flow_colours(occupancy: Occupancy, background: np.ndarray) -> np.ndarray:
    """[X, Y, 3] uint8: what moves in the colour of its direction, the rest dim and grey."""
    colours, occupied = _relief(occupancy)
    grey = colours.mean(axis=-1, keepdims=True)
    static = background + (grey - background) * _STATIC_BRIGHTNESS
    cells = np.where(occupied[..., None], static, background)
    label, flow = moving_columns(occupancy)
    moves = label != occupancy.classes.free
    cells[moves] = speed_colours(flow[moves])
    return cells.astype(np.uint8)


def speed_colours(flow: np.ndarray) -> np.ndarray:  # [n, 2] m/s -> [n, 3] float in [0, 255]
    """The hue tells the direction, how strong it is the speed."""
    hue = direction_colours(np.arctan2(flow[:, 1], flow[:, 0]))
    strength = np.clip(np.hypot(flow[:, 0], flow[:, 1]) / FULL_COLOUR_SPEED, 0.35, 1.0)
    return 255 * (1 - strength[:, None] * (1 - hue))


def _relief(occupancy: Occupancy) -> tuple[np.ndarray, np.ndarray]:
    """Colours of the columns [X, Y, 3] float, and which of them hold anything [X, Y] bool."""
    occupied = occupancy.labels != occupancy.classes.free
    top = occupied.shape[2] - 1 - np.argmax(occupied[:, :, ::-1], axis=2)
    highest = np.take_along_axis(occupancy.labels, top[..., None], axis=2)[..., 0]
    filled = occupied.any(axis=2)
    level = np.where(filled, top, 0).astype(np.float32)
    padded = np.pad(level, ((0, 1), (0, 1)), mode="edge")
    slope = 2 * level - padded[1:, :-1] - padded[:-1, 1:]
    light = 0.84 + 0.16 * level / max(occupied.shape[2] - 1, 1)
    light = np.clip(light + _RELIEF * np.clip(slope, -4, 1), 0.45, 1.1)
    colours = occupancy.classes.colours[highest] * light[..., None]
    return colours.clip(0, 255), filled
