# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""The solids that every object of a scene is put together from.

They turn only about the vertical axis, which keeps the ray caster short; slopes of their sides
make windscreens, roofs, booms and legs. ``assets`` builds objects of them.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

Colour = tuple[float, float, float]  # linear RGB in [0, 1]


class SolidKind(enum.IntEnum):
    """Shape of a part."""

    BLOCK = 0
    ELLIPSOID = 1
    CONE = 2  # and cylinders, upright, elliptic


class Texture(enum.IntEnum):
    """Surface of a part; its shader is in textures.py."""

    PLAIN = 0
    FACADE = 1
    BRICK = 2
    CURTAIN_WALL = 3
    VEHICLE_BODY = 4
    CABIN = 5
    WINDOW_BAND = 6
    BANDS = 7
    BARRIER = 8
    FOLIAGE = 9
    WHEEL = 10
    CLOTH = 11
    PLANKS = 12
    CARGO = 13
    SIGN = 14
    SIGNAL = 15


@dataclass(frozen=True)
class Part:
    """One solid of an object, in the object's frame (x forward, y left, z up from the ground).

    Attributes:
        kind: block, ellipsoid or cone.
        x, y, z: m, bounds (low, high); of x and y at the foot, in the part's own frame.
        slope_x, slope_y: m per m of height by which the low and the high bound move. A cone
            uses only the high slope of x: how much of its radius it gains per m.
        origin, yaw: m, rad; the part's frame in the object's.
        colour, accent: main and second colour.
        texture: which shader colours it.
        hollow: buildings: voxels deep inside are free.
    """

    kind: SolidKind
    x: tuple[float, float]
    y: tuple[float, float]
    z: tuple[float, float]
    slope_x: tuple[float, float] = (0.0, 0.0)
    slope_y: tuple[float, float] = (0.0, 0.0)
    origin: tuple[float, float] = (0.0, 0.0)
    yaw: float = 0.0
    colour: Colour = (0.5, 0.5, 0.5)
    accent: Colour = (0.1, 0.1, 0.1)
    texture: Texture = Texture.PLAIN
    hollow: bool = False


class ActorModel(NamedTuple):
    """The parts of an actor, and its box: length, width and height in m."""

    parts: list[Part]
    size: tuple[float, float, float]


def block(
    x: tuple[float, float], y: tuple[float, float], z: tuple[float, float], **look: object
) -> Part:
    """A block with perhaps sloping sides."""
    return Part(SolidKind.BLOCK, x, y, z, **look)  # type: ignore[arg-type]


def ellipsoid(
    centre: tuple[float, float, float], radii: tuple[float, float, float], **look: object
) -> Part:
    """An ellipsoid with upright axis."""
    (cx, cy, cz), (rx, ry, rz) = centre, radii
    x, y, z = (-rx, rx), (-ry, ry), (cz - rz, cz + rz)
    return Part(SolidKind.ELLIPSOID, x, y, z, origin=(cx, cy), **look)  # type: ignore[arg-type]


def cone(
    at: tuple[float, float],
    radii: tuple[float, float],
    z: tuple[float, float],
    top: float = 1.0,
    **look: object,
) -> Part:
    """A cylinder whose radii at the top are ``top`` times those at the foot."""
    rx, ry = radii
    growth = (top - 1.0) / (z[1] - z[0])
    return Part(SolidKind.CONE, (-rx, rx), (-ry, ry), z, slope_x=(0.0, growth), origin=at, **look)  # type: ignore[arg-type]


def transformed(parts: list[Part], x: float, y: float, yaw: float) -> list[Part]:
    """Parts in the map, for an object at ``x``, ``y`` (m) with heading ``yaw`` (rad)."""
    c, s = np.cos(yaw), np.sin(yaw)
    return [
        replace(
            p,
            origin=(
                float(x + c * p.origin[0] - s * p.origin[1]),
                float(y + s * p.origin[0] + c * p.origin[1]),
            ),
            yaw=float(p.yaw + yaw),
        )
        for p in parts
    ]


def mirrored(part: Part) -> Part:
    """The part on the other side of the x axis."""
    return replace(
        part,
        y=(-part.y[1], -part.y[0]),
        slope_y=(-part.slope_y[1], -part.slope_y[0]),
        origin=(part.origin[0], -part.origin[1]),
        yaw=-part.yaw,
    )
