# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Voxels as shaded cubes, drawn by a pinhole camera from anywhere.

Only faces that border on free space and look at the camera are drawn, far ones first. In a
lattice that order is exact: a cell can only hide another one if it is, along every axis, at
least as near to the camera.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from scipy.ndimage import uniform_filter

from alocc_ros.geometry import inverse, project
from alocc_ros.grid import VoxelGrid
from alocc_ros.types import Occupancy

_SUPERSAMPLING = 2  # pixels a side are drawn for each of the result
_SUBPIXEL_BITS = 4  # cv2 draws corners to a sixteenth of a pixel
_NEAR = 0.4  # m; what reaches nearer to the camera is left out
# Larger faces (px, as drawn) get an edge, so that cubes can be told apart; from the second size
# on it is as dark as it gets.
_EDGED = (5.0, 20.0)

# By direction of the face: -x, +x, -y, +y, -z, +z. Light comes from above and a little from
# behind, so that the sides that the usual view shows differ.
_LIGHT = np.array([0.80, 0.72, 0.62, 0.88, 0.45, 1.0], np.float32)
_HEADING = 190.0  # degrees, from which the overview is taken
# Elevation (degrees) by how wide the picture is for its height: lower, the grid looks wider.
_ELEVATION = ((1.8, 2.8), (36.0, 28.0))
_DISTANCE = 0.8  # to the grid's middle, as a share of the grid's diagonal
_ZOOM = 1.16  # 1 shows every corner of the grid, which matter least
_EDGE = 0.72  # brightness of an edge, of its face
# Corners of the six faces of a unit cube, around the face.
_CORNERS = np.array(
    [
        [(0, 0, 0), (0, 1, 0), (0, 1, 1), (0, 0, 1)],
        [(1, 0, 0), (1, 1, 0), (1, 1, 1), (1, 0, 1)],
        [(0, 0, 0), (1, 0, 0), (1, 0, 1), (0, 0, 1)],
        [(0, 1, 0), (1, 1, 0), (1, 1, 1), (0, 1, 1)],
        [(0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 1, 0)],
        [(0, 0, 1), (1, 0, 1), (1, 1, 1), (0, 1, 1)],
    ],
    np.float32,
)


@dataclass(frozen=True)
class Faces:
    """The faces of a voxel grid that border on free space.

    Attributes:
        cells: [n, 3] int32, the voxel of each face.
        sides: [n] uint8, which of its six faces: -x, +x, -y, +y, -z, +z.
        colours: [n, 3] float32 in [0, 255], lit.
        labels: [n] uint8.
        lower, resolution: of the grid, m.
    """

    cells: np.ndarray
    sides: np.ndarray
    colours: np.ndarray
    labels: np.ndarray
    lower: tuple[float, float, float]
    resolution: float

    @cached_property
    def corners(self) -> np.ndarray:  # [n, 4, 3] float32 m
        """Where they are, in the grid's frame."""
        offsets = _CORNERS[self.sides]
        return (self.cells[:, None] + offsets) * np.float32(self.resolution) + np.array(
            self.lower, np.float32
        )


def faces(occupancy: Occupancy, colours: np.ndarray | None = None) -> Faces:
    """All faces that can be seen from somewhere.

    Args:
        occupancy: the voxels.
        colours: [classes, 3] uint8 to use instead of the class list's.
    """
    labels, classes = occupancy.labels, occupancy.classes
    occupied = np.pad(labels != classes.free, 1)
    # A corner between cubes gets less light: what share of the 27 cells around the free cell
    # before a face is occupied. A third is what open, flat ground has.
    crowded = uniform_filter(occupied.astype(np.float32), 3, mode="constant")
    palette = (classes.colours if colours is None else colours).astype(np.float32)
    inner = slice(1, -1)
    parts = []
    for side in range(6):
        axis, forward = divmod(side, 2)
        before = [inner, inner, inner]
        before[axis] = slice(2, None) if forward else slice(0, -2)
        seen = occupied[inner, inner, inner] & ~occupied[tuple(before)]
        cells = np.argwhere(seen).astype(np.int32)
        label = labels[seen]
        shade = _LIGHT[side] * np.clip(1.3 - 0.9 * crowded[tuple(before)][seen], 0.5, 1.0)
        shade *= 0.86 + 0.14 * cells[:, 2] / max(labels.shape[2] - 1, 1)
        sides = np.full(len(cells), side, np.uint8)
        parts.append((cells, sides, palette[label] * shade[:, None].astype(np.float32), label))
    cells, sides, lit, label = (np.concatenate(p) for p in zip(*parts, strict=True))
    return Faces(cells, sides, lit, label, occupancy.grid.lower, occupancy.grid.resolution)


def draw_faces(
    faces: Faces,
    camera_T_grid: np.ndarray,  # [4, 4]
    intrinsics: np.ndarray,  # [3, 3] px of the picture
    size: tuple[int, int],  # width, height, px
    opacity: np.ndarray | None = None,  # [classes] in [0, 1]
    haze: float = np.inf,  # m
) -> np.ndarray:  # [height, width, 4] uint8
    """What the camera sees, on nothing: R, G, B times opacity, and opacity.

    Args:
        faces: what there is.
        camera_T_grid: where the camera is; optical axes (x right, y down, z ahead).
        intrinsics: of the picture that is drawn.
        size: of the picture.
        opacity: by label; None: all of it is solid.
        haze: distance at which colours have faded to a third of their opacity.
    """
    width, height = size[0] * _SUPERSAMPLING, size[1] * _SUPERSAMPLING
    canvas = np.zeros((height, width, 4), np.uint8)
    chosen, pixels, depth = _visible(faces, camera_T_grid, intrinsics, (width, height))
    if len(chosen):
        fade = np.exp(-depth / haze)[:, None]
        alpha = fade if opacity is None else fade * opacity[faces.labels[chosen], None]
        fills = np.hstack([faces.colours[chosen] * alpha, 255.0 * alpha])
        _paint(canvas, pixels, fills)
    return cv2.resize(canvas, size, interpolation=cv2.INTER_AREA)


def blend(picture: np.ndarray, drawn: np.ndarray) -> np.ndarray:  # [h, w, 3], [h, w, 4] uint8
    """``drawn`` (of ``draw_faces``) alpha-blended over a picture."""
    rest = 255 - drawn[..., 3:].astype(np.uint16)
    return (drawn[..., :3] + (picture * rest + 127) // 255).clip(max=255).astype(np.uint8)


def _visible(
    faces: Faces, camera_T_grid: np.ndarray, intrinsics: np.ndarray, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which faces look at the camera and lie in its picture, far ones first.

    Returns:
        Indices [n], corners in the drawn pixels [n, 4, 2] and mean depths [n] m.
    """
    eye = inverse(camera_T_grid)[:3, 3]
    eye_cell = (eye - faces.lower) / faces.resolution
    axis, forward = faces.sides // 2, faces.sides % 2
    plane = np.take_along_axis(faces.cells, axis[:, None].astype(np.int64), axis=1)[:, 0] + forward
    chosen = np.flatnonzero((eye_cell[axis] > plane) == (forward == 1))

    points = faces.corners[chosen] @ camera_T_grid[:3, :3].T.astype(np.float32)
    points += camera_T_grid[:3, 3].astype(np.float32)
    front = np.flatnonzero((points[..., 2] > _NEAR).all(axis=1))
    chosen, points = chosen[front], points[front]
    depth = points[..., 2]
    matrix = intrinsics.astype(np.float32) * _SUPERSAMPLING
    pixels = (points @ matrix.T)[..., :2] / depth[..., None]
    inside = np.flatnonzero(
        ((pixels.max(axis=1) > 0) & (pixels.min(axis=1) < np.array(size, np.float32))).all(axis=1)
    )
    chosen, pixels, depth = chosen[inside], pixels[inside], depth[inside].mean(axis=1)

    away = np.abs(faces.cells[chosen] + 0.5 - eye_cell)
    ranks = [np.unique(away[:, i], return_inverse=True) for i in range(3)]
    order = ranks[0][1]
    for values, rank in ranks[1:]:
        order = order * len(values) + rank
    order = np.argsort(-order, kind="stable")
    return chosen[order], pixels[order], depth[order]


def _paint(
    canvas: np.ndarray,  # [h, w, 4] uint8
    pixels: np.ndarray,  # [n, 4, 2] float32
    fills: np.ndarray,  # [n, 4] float, in [0, 255]
) -> None:
    """Fills the quads one over the other; large ones with an edge."""
    centre = pixels.mean(axis=1, keepdims=True)
    spread = np.abs(pixels - centre).max(axis=1).min(axis=1) * 2  # px, the shorter side, about
    edged = spread > _EDGED[0]
    inset = np.where(edged, 1.0 - 1.6 / np.maximum(spread, 1.0), 1.0)[:, None, None]
    darkness = np.interp(spread, _EDGED, (0.0, 1.0 - _EDGE))[:, None]
    # A pixel's own middle lies at its whole number in cv2.
    fixed = 1 << _SUBPIXEL_BITS
    outer = np.rint((pixels - 0.5) * fixed).clip(-(1 << 24), 1 << 24).astype(np.int32)
    inner = ((pixels - centre) * inset + centre - 0.5) * fixed
    inner = np.rint(inner).clip(-(1 << 24), 1 << 24).astype(np.int32)
    dark = fills * (1.0 - darkness * (1.0, 1.0, 1.0, 0.0))
    draw = cv2.fillConvexPoly
    for quad, small, edge, fill, rim in zip(
        outer, inner, edged.tolist(), fills.tolist(), dark.tolist(), strict=True
    ):
        if edge:
            draw(canvas, quad, rim, cv2.LINE_8, _SUBPIXEL_BITS)
            draw(canvas, small, fill, cv2.LINE_8, _SUBPIXEL_BITS)
        else:
            draw(canvas, quad, fill, cv2.LINE_8, _SUBPIXEL_BITS)


def look_at(
    eye: Sequence[float],  # [3] m
    target: Sequence[float],  # [3] m
) -> np.ndarray:  # [4, 4] camera_T_grid
    """A camera at ``eye`` that looks at ``target``, upright; both in the grid's frame."""
    ahead = np.subtract(target, eye) / np.linalg.norm(np.subtract(target, eye))
    right = np.cross(ahead, (0.0, 0.0, 1.0))
    right /= np.linalg.norm(right)
    grid_T_camera = np.eye(4)
    grid_T_camera[:3, :3] = np.stack([right, np.cross(ahead, right), ahead], axis=1)
    grid_T_camera[:3, 3] = eye
    return inverse(grid_T_camera)


def overview(
    grid: VoxelGrid, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:  # [4, 4] camera_T_grid, [3, 3] intrinsics
    """A camera behind, above and a little to the right, that has the grid in view."""
    lower, upper = np.array(grid.lower), np.array(grid.upper)
    floor = np.array([(x, y, lower[2]) for x in (lower[0], upper[0]) for y in (lower[1], upper[1])])
    corners = np.vstack([floor, floor + (0, 0, 0.6 * (upper[2] - lower[2]))])
    target = (lower + upper) / 2
    extent = float(np.linalg.norm(upper - lower))
    heading, elevation = np.radians((_HEADING, np.interp(size[0] / size[1], *_ELEVATION)))
    towards = np.array(
        [
            np.cos(heading) * np.cos(elevation),
            np.sin(heading) * np.cos(elevation),
            np.sin(elevation),
        ]
    )
    camera_T_grid = look_at(target + extent * _DISTANCE * towards, target)
    unit, _ = project(corners, camera_T_grid, np.eye(3))
    span = unit.max(axis=0) - unit.min(axis=0)
    focal = _ZOOM * min(size[0] / span[0], size[1] / span[1])
    centre = np.array(size) / 2 - focal * (unit.max(axis=0) + unit.min(axis=0)) / 2
    return camera_T_grid, np.array([[focal, 0, centre[0]], [0, focal, centre[1]], [0, 0, 1]])
