# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""What street furniture, vehicles, people and plants are made of.

Everything is put together from three upright solids (see ``Part``). They turn only about the
vertical axis, which keeps the ray caster short; slopes of their sides make windscreens, roofs,
booms and legs.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

Colour = tuple[float, float, float]  # linear RGB in [0, 1]


class Kind(enum.IntEnum):
    """The three solids."""

    BLOCK = 0
    ELLIPSOID = 1
    CONE = 2  # and cylinders, upright, elliptic


class Texture(enum.IntEnum):
    """How the surface of a part is painted; the code is in render.py."""

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
    """One solid of a thing, in the thing's frame (x forward, y left, z up from the ground).

    Attributes:
        kind: block, ellipsoid or cone.
        x, y, z: m, bounds (low, high); of x and y at the foot, in the part's own frame.
        slope_x, slope_y: m per m of height by which the low and the high bound move. A cone
            uses only the high slope of x: how much of its radius it gains per m.
        origin, yaw: m, rad; the part's frame in the thing's.
        colour, accent: main and second colour.
        texture: how it is painted.
        hollow: buildings: voxels deep inside are free.
    """

    kind: Kind
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


Built = tuple[list[Part], tuple[float, float, float]]  # parts; length, width, height in m

_DARK: Colour = (0.02, 0.02, 0.022)
_GLASS: Colour = (0.03, 0.04, 0.05)
_STEEL: Colour = (0.32, 0.33, 0.34)
_SKIN = ((0.55, 0.36, 0.26), (0.38, 0.22, 0.14), (0.16, 0.09, 0.06), (0.6, 0.42, 0.32))
_PAINTS: tuple[Colour, ...] = (
    (0.75, 0.76, 0.77),
    (0.8, 0.8, 0.78),
    (0.42, 0.43, 0.45),
    (0.18, 0.19, 0.2),
    (0.03, 0.03, 0.035),
    (0.02, 0.02, 0.025),
    (0.38, 0.03, 0.03),
    (0.05, 0.12, 0.34),
    (0.03, 0.07, 0.18),
    (0.25, 0.2, 0.13),
    (0.04, 0.16, 0.09),
    (0.62, 0.38, 0.04),
)


def _pick(random: np.random.Generator, choices: Sequence[Colour], spread: float = 0.12) -> Colour:
    r, g, b = np.clip(
        np.asarray(choices[random.integers(len(choices))])
        * random.uniform(1 - spread, 1 + spread, 3)
        * random.uniform(1 - spread, 1 + spread),
        0.0,
        1.0,
    )
    return (float(r), float(g), float(b))


def block(
    x: tuple[float, float], y: tuple[float, float], z: tuple[float, float], **look: object
) -> Part:
    """A block with perhaps sloping sides."""
    return Part(Kind.BLOCK, x, y, z, **look)  # type: ignore[arg-type]


def ellipsoid(
    centre: tuple[float, float, float], radii: tuple[float, float, float], **look: object
) -> Part:
    """An ellipsoid with upright axis."""
    (cx, cy, cz), (rx, ry, rz) = centre, radii
    return Part(Kind.ELLIPSOID, (-rx, rx), (-ry, ry), (cz - rz, cz + rz), origin=(cx, cy), **look)  # type: ignore[arg-type]


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
    return Part(Kind.CONE, (-rx, rx), (-ry, ry), z, slope_x=(0.0, growth), origin=at, **look)  # type: ignore[arg-type]


def _wheels(xs: Sequence[float], width: float, radius: float, thick: float = 0.13) -> list[Part]:
    return [
        ellipsoid(
            (x, side * (width / 2 - thick * 0.6), radius),
            (radius, thick, radius),
            colour=_DARK,
            accent=_STEEL,
            texture=Texture.WHEEL,
        )
        for x in xs
        for side in (-1, 1)
    ]


def car(random: np.random.Generator) -> Built:
    """Saloon, estate, hatchback, van or SUV; (parts, size l w h)."""
    shape = random.choice(["saloon", "hatch", "suv", "van"], p=[0.4, 0.25, 0.2, 0.15])
    length = {"saloon": 4.6, "hatch": 4.0, "suv": 4.7, "van": 4.9}[shape] * random.uniform(
        0.95, 1.05
    )
    width = {"saloon": 1.82, "hatch": 1.75, "suv": 1.92, "van": 1.95}[shape] * random.uniform(
        0.97, 1.04
    )
    height = {"saloon": 1.45, "hatch": 1.5, "suv": 1.75, "van": 2.0}[shape] * random.uniform(
        0.96, 1.05
    )
    waist = {"saloon": 0.6, "hatch": 0.6, "suv": 0.58, "van": 0.52}[shape] * height
    paint = _pick(random, _PAINTS)
    hl, hw = length / 2, width / 2
    # Cabin from the foot of the rear window to that of the windscreen.
    rear, front = {
        "saloon": (-0.36, 0.2),
        "hatch": (-0.485, 0.22),
        "suv": (-0.48, 0.22),
        "van": (-0.49, 0.36),
    }[shape]
    rear_slope = {"saloon": 1.1, "hatch": 0.35, "suv": 0.2, "van": 0.08}[shape]
    front_slope = {"saloon": -1.25, "hatch": -1.0, "suv": -0.8, "van": -0.75}[shape]
    body = {"colour": paint, "texture": Texture.VEHICLE_BODY}
    parts = [
        block(
            (-hl, hl), (-hw, hw), (0.22, waist), slope_x=(0.1, -0.16), slope_y=(0.03, -0.03), **body
        ),
        block(
            (rear * length, front * length),
            (-hw * 0.95, hw * 0.95),
            (waist, height),
            slope_x=(rear_slope, front_slope),
            slope_y=(0.28, -0.28),
            colour=paint,
            accent=_GLASS,
            texture=Texture.CABIN,
        ),
    ]
    parts += _wheels((-0.3 * length, 0.31 * length), width, random.uniform(0.31, 0.36))
    return parts, (length, width, height)


def truck(random: np.random.Generator) -> Built:
    """A cab and a box, a flatbed with load, or a pickup."""
    if random.random() < 0.3:
        return _pickup(random)
    length, width = random.uniform(6.0, 9.5), random.uniform(2.2, 2.55)
    height, cab_height = random.uniform(2.9, 3.7), random.uniform(2.3, 2.9)
    hl, hw, cab = length / 2, width / 2, random.uniform(1.7, 2.2)
    paint = _pick(random, [*_PAINTS, (0.75, 0.76, 0.77), (0.1, 0.2, 0.5), (0.6, 0.1, 0.05)])
    load = _pick(random, [(0.8, 0.8, 0.8), (0.75, 0.73, 0.65), paint, (0.1, 0.25, 0.45)])
    load_height = height if random.random() < 0.75 else random.uniform(1.6, 2.2)
    parts = [
        block((-hl, hl), (-hw * 0.8, hw * 0.8), (0.5, 0.95), colour=(0.05, 0.05, 0.05)),
        block(
            (hl - cab, hl),
            (-hw, hw),
            (0.45, cab_height),
            slope_x=(0.0, -0.1),
            colour=paint,
            accent=_GLASS,
            texture=Texture.WINDOW_BAND,
        ),
        block(
            (-hl, hl - cab - 0.15),
            (-hw, hw),
            (0.9, load_height),
            colour=load,
            accent=_pick(random, _PAINTS),
            texture=Texture.CARGO,
        ),
    ]
    parts += _wheels((-0.33 * length, -0.2 * length, 0.36 * length), width, 0.48, 0.17)
    return parts, (length, width, max(load_height, cab_height))


def _pickup(random: np.random.Generator) -> Built:
    length, width, height = (
        random.uniform(5.3, 5.9),
        random.uniform(1.95, 2.1),
        random.uniform(1.8, 1.95),
    )
    hl, hw, paint = length / 2, width / 2, _pick(random, _PAINTS)
    body = {"colour": paint, "texture": Texture.VEHICLE_BODY}
    parts = [
        block((-hl, hl), (-hw, hw), (0.35, 1.02), slope_x=(0.02, -0.1), **body),
        block((-hl, -0.06 * length), (-hw, -hw + 0.12), (1.0, 1.25), **body),
        block((-hl, -0.06 * length), (hw - 0.12, hw), (1.0, 1.25), **body),
        block((-hl, -hl + 0.12), (-hw, hw), (1.0, 1.25), **body),
        block(
            (-0.08 * length, 0.24 * length),
            (-hw * 0.95, hw * 0.95),
            (1.0, height),
            slope_x=(0.12, -0.8),
            slope_y=(0.2, -0.2),
            colour=paint,
            accent=_GLASS,
            texture=Texture.CABIN,
        ),
    ]
    return parts + _wheels((-0.3 * length, 0.32 * length), width, 0.4, 0.15), (
        length,
        width,
        height,
    )


def bus(random: np.random.Generator) -> Built:
    """A city bus or a coach."""
    length, width, height = (
        random.uniform(10.0, 12.5),
        random.uniform(2.5, 2.65),
        random.uniform(3.0, 3.6),
    )
    hl, hw = length / 2, width / 2
    paint = _pick(
        random,
        [
            (0.75, 0.75, 0.72),
            (0.5, 0.05, 0.05),
            (0.05, 0.3, 0.12),
            (0.08, 0.18, 0.5),
            (0.8, 0.5, 0.05),
        ],
    )
    parts = [
        block(
            (-hl, hl),
            (-hw, hw),
            (0.32, height),
            slope_x=(0.0, -0.04),
            colour=paint,
            accent=_GLASS,
            texture=Texture.WINDOW_BAND,
        ),
        block(
            (-hl * 0.7, hl * 0.3),
            (-hw * 0.7, hw * 0.7),
            (height, height + 0.2),
            colour=(0.6, 0.6, 0.6),
        ),
    ]
    return parts + _wheels((-0.28 * length, 0.29 * length), width, 0.5, 0.17), (
        length,
        width,
        height + 0.2,
    )


def trailer(random: np.random.Generator) -> Built:
    """A semi-trailer on its legs, or a small flat one."""
    if random.random() < 0.35:
        length, width, height = (
            random.uniform(3.5, 6.0),
            random.uniform(1.9, 2.3),
            random.uniform(1.0, 1.7),
        )
        foot, axles = 0.55, (-0.1 * length, 0.08 * length)
    else:
        length, width, height = (
            random.uniform(9.5, 13.0),
            random.uniform(2.45, 2.6),
            random.uniform(3.5, 4.0),
        )
        foot, axles = 1.15, (-0.4 * length, -0.3 * length, -0.2 * length)
    hl, hw = length / 2, width / 2
    parts = [
        block(
            (-hl, hl),
            (-hw, hw),
            (foot, height),
            colour=_pick(
                random, [(0.6, 0.6, 0.58), (0.4, 0.18, 0.08), (0.12, 0.25, 0.35), (0.55, 0.5, 0.4)]
            ),
            accent=_pick(random, _PAINTS),
            texture=Texture.CARGO,
        ),
        block((-hl, hl), (-0.45, 0.45), (foot - 0.3, foot), colour=(0.04, 0.04, 0.04)),
        block((0.28 * length, 0.3 * length), (-0.9, -0.75), (0.0, foot), colour=_STEEL),
        block((0.28 * length, 0.3 * length), (0.75, 0.9), (0.0, foot), colour=_STEEL),
    ]
    return parts + _wheels(axles, width, 0.48 if foot > 1 else 0.32, 0.17), (length, width, height)


def construction_vehicle(
    random: np.random.Generator,
) -> Built:
    """An excavator, a wheel loader or a roller."""
    paint = _pick(random, [(0.75, 0.45, 0.03), (0.8, 0.52, 0.05), (0.7, 0.3, 0.03)])
    shape = random.choice(["excavator", "loader", "roller"], p=[0.45, 0.35, 0.2])
    cab = {"colour": paint, "accent": _GLASS, "texture": Texture.WINDOW_BAND}
    if shape == "excavator":
        parts = [
            block(
                (-2.0, 2.0),
                (-1.35, -0.8),
                (0.0, 0.8),
                slope_x=(0.25, -0.25),
                colour=(0.06, 0.055, 0.05),
            ),
            block(
                (-2.0, 2.0),
                (0.8, 1.35),
                (0.0, 0.8),
                slope_x=(0.25, -0.25),
                colour=(0.06, 0.055, 0.05),
            ),
            block((-1.0, 1.0), (-0.8, 0.8), (0.3, 0.9), colour=(0.1, 0.09, 0.07)),
            block((-2.3, 1.2), (-1.3, 1.3), (0.9, 1.9), colour=paint),
            block((-0.3, 1.2), (0.2, 1.3), (1.9, 2.9), slope_x=(0.0, -0.1), **cab),
            block((1.0, 1.7), (-0.6, -0.2), (1.3, 3.6), slope_x=(0.9, 0.8), colour=paint),
            block((3.0, 3.6), (-0.6, -0.2), (1.0, 3.6), slope_x=(0.25, 0.15), colour=paint),
            block(
                (2.6, 3.7), (-1.0, 0.2), (0.2, 1.0), slope_x=(-0.2, 0.1), colour=(0.12, 0.11, 0.1)
            ),
        ]
        return parts, (6.6, 2.8, 3.6)
    if shape == "loader":
        parts = [
            block((-3.0, 0.2), (-1.1, 1.1), (0.8, 1.9), slope_x=(0.1, 0.0), colour=paint),
            block((-1.0, 0.6), (-0.85, 0.85), (1.9, 3.2), slope_x=(0.05, -0.12), **cab),
            block((0.2, 2.2), (-0.6, 0.6), (0.7, 1.3), colour=paint),
            block(
                (2.0, 3.2), (-1.35, 1.35), (0.15, 1.1), slope_x=(0.2, 0.0), colour=(0.2, 0.18, 0.14)
            ),
        ]
        return parts + _wheels((-1.8, 1.2), 2.5, 0.75, 0.3), (6.4, 2.7, 3.2)
    drum = {"colour": (0.14, 0.14, 0.14), "accent": _STEEL, "texture": Texture.WHEEL}
    parts = [
        block((-1.9, 1.6), (-0.75, 0.75), (0.7, 1.5), colour=paint),
        block((-0.9, 0.5), (-0.7, 0.7), (1.5, 2.7), **cab),
        ellipsoid((1.6, 0.0, 0.75), (0.75, 1.05, 0.75), **drum),
        ellipsoid((-1.6, 0.0, 0.75), (0.75, 1.05, 0.75), **drum),
    ]
    return parts, (4.7, 2.1, 2.7)


_CLOTHES: tuple[Colour, ...] = (
    (0.03, 0.04, 0.08),
    (0.05, 0.05, 0.05),
    (0.4, 0.05, 0.06),
    (0.55, 0.55, 0.53),
    (0.1, 0.2, 0.4),
    (0.12, 0.3, 0.15),
    (0.6, 0.5, 0.1),
    (0.3, 0.15, 0.3),
)


def pedestrian(random: np.random.Generator, *, worker: bool = False, stride: float = 0.25) -> Built:
    """Somebody standing or walking; ``stride`` m between the feet and the hip."""
    tall = random.uniform(1.55, 1.9)
    hip, shoulder, broad = 0.49 * tall, 0.83 * tall, random.uniform(0.2, 0.26)
    coat = (0.75, 0.6, 0.02) if worker else _pick(random, _CLOTHES, 0.3)
    skin = _pick(random, _SKIN)
    step = stride * random.uniform(0.6, 1.0)
    leg = _clothes(random, _CLOTHES[:4])
    body = {"colour": coat, "accent": (0.7, 0.7, 0.7) if worker else coat, "texture": Texture.CLOTH}
    parts = [
        block(
            (step - 0.1, step + 0.1),
            (0.02, 0.18),
            (0.0, hip),
            slope_x=(-step / hip, -step / hip),
            **leg,
        ),
        block(
            (-step - 0.1, -step + 0.1),
            (-0.18, -0.02),
            (0.0, hip),
            slope_x=(step / hip, step / hip),
            **leg,
        ),
        cone((0.0, 0.0), (0.13, broad * 0.85), (hip - 0.05, shoulder), 1.08, **body),
        block(
            (step * 0.8 - 0.05, step * 0.8 + 0.05),
            (-broad - 0.09, -broad + 0.01),
            (hip, shoulder - 0.03),
            slope_x=(-step * 1.6, -step * 1.6),
            **body,
        ),
        block(
            (-step * 0.8 - 0.05, -step * 0.8 + 0.05),
            (broad - 0.01, broad + 0.09),
            (hip, shoulder - 0.03),
            slope_x=(step * 1.6, step * 1.6),
            **body,
        ),
        ellipsoid((0.0, 0.0, shoulder - 0.03), (0.13, broad, 0.09), **body),
        ellipsoid((0.0, 0.0, tall - 0.12), (0.1, 0.085, 0.125), colour=skin, accent=skin),
        ellipsoid(
            (-0.02, 0.0, tall - 0.085),
            (0.105, 0.092, 0.1),
            colour=(0.7, 0.55, 0.02)
            if worker
            else _pick(random, [(0.03, 0.02, 0.015), (0.1, 0.06, 0.03), (0.3, 0.2, 0.1)]),
            texture=Texture.CLOTH,
        ),
    ]
    return parts, (max(2 * step + 0.2, 0.6), 2 * broad + 0.2, tall)


def _clothes(random: np.random.Generator, choices: Sequence[Colour]) -> dict[str, object]:
    colour = _pick(random, choices, 0.3)
    return {"colour": colour, "accent": colour, "texture": Texture.CLOTH}


def _rider(random: np.random.Generator, seat: float, helmet: bool) -> list[Part]:
    body, leg = _clothes(random, _CLOTHES), _clothes(random, _CLOTHES[:4])
    head = _pick(random, _PAINTS) if helmet else _pick(random, _SKIN)
    return [
        block((-0.3, -0.02), (-0.2, 0.2), (seat, seat + 0.58), slope_x=(0.45, 0.4), **body),
        block((0.1, 0.25), (-0.2, -0.07), (0.25, seat + 0.1), slope_x=(-0.35, -0.35), **leg),
        block((0.1, 0.25), (0.07, 0.2), (0.25, seat + 0.1), slope_x=(-0.35, -0.35), **leg),
        block((0.45, 0.56), (-0.28, 0.28), (seat + 0.15, seat + 0.5), slope_x=(-1.1, -1.1), **body),
        ellipsoid((0.12, 0.0, seat + 0.74), (0.13, 0.12, 0.15), colour=head),
    ]


def bicycle(random: np.random.Generator, *, ridden: bool) -> Built:
    """A bicycle, ridden or parked."""
    paint = _pick(random, _PAINTS)
    wheel = {"colour": (0.03, 0.03, 0.03), "accent": (0.25, 0.25, 0.25), "texture": Texture.WHEEL}
    parts = [
        ellipsoid((-0.52, 0.0, 0.34), (0.34, 0.035, 0.34), **wheel),
        ellipsoid((0.52, 0.0, 0.34), (0.34, 0.035, 0.34), **wheel),
        block((-0.5, 0.35), (-0.035, 0.035), (0.45, 0.56), colour=paint),
        block((-0.22, -0.16), (-0.035, 0.035), (0.3, 0.9), slope_x=(-0.1, -0.1), colour=paint),
        block((0.48, 0.55), (-0.03, 0.03), (0.34, 1.0), slope_x=(-0.2, -0.2), colour=paint),
        block((0.3, 0.4), (-0.28, 0.28), (0.96, 1.02), colour=_DARK),
        block((-0.4, -0.12), (-0.08, 0.08), (0.88, 0.95), colour=_DARK),
    ]
    if ridden:
        parts += _rider(random, 0.92, helmet=random.random() < 0.5)
    return parts, (1.75, 0.6, 1.8 if ridden else 1.05)


def motorcycle(random: np.random.Generator, *, ridden: bool) -> Built:
    """A motorcycle or scooter, ridden or parked."""
    paint = _pick(random, _PAINTS)
    wheel = {"colour": _DARK, "accent": _STEEL, "texture": Texture.WHEEL}
    parts = [
        ellipsoid((-0.68, 0.0, 0.31), (0.31, 0.09, 0.31), **wheel),
        ellipsoid((0.7, 0.0, 0.31), (0.31, 0.08, 0.31), **wheel),
        block((-0.45, 0.35), (-0.17, 0.17), (0.25, 0.62), colour=(0.1, 0.1, 0.1)),
        block((-0.95, 0.0), (-0.15, 0.15), (0.62, 0.82), slope_x=(0.3, 0.0), colour=_DARK),
        ellipsoid((0.22, 0.0, 0.82), (0.36, 0.18, 0.2), colour=paint),
        block((0.62, 0.78), (-0.16, 0.16), (0.35, 1.05), slope_x=(-0.3, -0.3), colour=paint),
        block((0.36, 0.46), (-0.38, 0.38), (1.02, 1.1), colour=_DARK),
    ]
    if ridden:
        parts += _rider(random, 0.82, helmet=True)
    return parts, (2.1, 0.8, 1.7 if ridden else 1.15)


def barrier(random: np.random.Generator) -> Built:
    """One element of a row: concrete, or red and white plastic; 2 m along x."""
    plastic = random.random() < 0.6
    colour = (
        _pick(random, [(0.65, 0.12, 0.05), (0.72, 0.72, 0.7), (0.75, 0.3, 0.03)])
        if plastic
        else _pick(random, [(0.45, 0.44, 0.41)])
    )
    look = {
        "colour": colour,
        "accent": (0.7, 0.7, 0.68) if plastic else (0.3, 0.29, 0.27),
        "texture": Texture.BARRIER,
    }
    height = random.uniform(0.85, 1.05)
    parts = [
        block((-0.98, 0.98), (-0.3, 0.3), (0.0, 0.35), slope_y=(0.35, -0.35), **look),
        block((-0.96, 0.96), (-0.18, 0.18), (0.3, height), slope_y=(0.1, -0.1), **look),
    ]
    return parts, (2.0, 0.6, height)


def traffic_cone(random: np.random.Generator) -> Built:
    """A cone or, taller, a bollard-like channeliser."""
    height = random.uniform(0.65, 1.05)
    look = {"colour": (0.85, 0.18, 0.02), "accent": (0.8, 0.8, 0.78), "texture": Texture.BANDS}
    parts = [
        block((-0.2, 0.2), (-0.2, 0.2), (0.0, 0.06), colour=(0.05, 0.05, 0.05)),
        cone((0.0, 0.0), (0.16, 0.16), (0.05, height), 0.3, **look),
    ]
    return parts, (0.42, 0.42, height)


def litter_bin(random: np.random.Generator) -> Built:
    """A wheeled bin: one of the ``others``."""
    colour = _pick(
        random, [(0.05, 0.2, 0.08), (0.06, 0.1, 0.3), (0.05, 0.05, 0.05), (0.4, 0.3, 0.05)]
    )
    parts = [
        block((-0.3, 0.3), (-0.28, 0.28), (0.05, 1.0), slope_x=(-0.06, 0.06), colour=colour),
        block((-0.38, 0.38), (-0.36, 0.36), (1.0, 1.1), colour=tuple(c * 0.7 for c in colour)),
    ]
    return parts, (0.76, 0.72, 1.1)


_LEAVES: tuple[Colour, ...] = (
    (0.068, 0.112, 0.035),
    (0.052, 0.092, 0.032),
    (0.092, 0.128, 0.042),
    (0.044, 0.078, 0.04),
    (0.12, 0.125, 0.045),
)


def tree(random: np.random.Generator) -> list[Part]:
    """A trunk and a crown of ellipsoids, or a conifer or palm-like one."""
    height, leaves = random.uniform(4.0, 10.0), _pick(random, _LEAVES, 0.2)
    bark = _pick(random, [(0.13, 0.09, 0.06), (0.2, 0.17, 0.13), (0.09, 0.07, 0.05)])
    crown = {"colour": leaves, "accent": bark, "texture": Texture.FOLIAGE}
    radius = random.uniform(0.22, 0.34) * height
    trunk_top = height - 1.3 * radius
    girth = 0.02 * height + random.uniform(0.03, 0.1)
    if random.random() < 0.2:  # a conifer
        foot = random.uniform(0.3, 1.2)
        return [
            cone((0.0, 0.0), (girth, girth), (0.0, foot + 0.3), colour=bark),
            cone((0.0, 0.0), (0.17 * height, 0.17 * height), (foot, height), 0.05, **crown),
        ]
    parts = [cone((0.0, 0.0), (girth, girth), (0.0, max(trunk_top, 1.0)), 0.7, colour=bark)]
    core = 0.72 * radius
    parts.append(ellipsoid((0.0, 0.0, height - radius), (core, core, core), **crown))
    # Clumps all around make an outline that no ball has.
    for angle in np.arange(random.integers(6, 11)) * 2.4 + random.uniform(0, 6.28):
        r = radius * random.uniform(0.28, 0.52)
        at = radius * random.uniform(0.4, 0.8)
        up = height - random.uniform(0.35, 1.5) * radius
        parts.append(
            ellipsoid(
                (at * float(np.cos(angle)), at * float(np.sin(angle)), up),
                (r, r, r * random.uniform(0.6, 0.9)),
                **{**crown, "colour": _pick(random, [leaves], 0.16)},
            )
        )
    return parts


def bush(random: np.random.Generator, length: float = 1.5) -> list[Part]:
    """Some shrubs along x."""
    parts, colour = [], _pick(random, _LEAVES, 0.2)
    for x in np.arange(-length / 2, length / 2 + 0.01, 0.8):
        r = random.uniform(0.45, 0.75)
        parts.append(
            ellipsoid(
                (float(x), random.uniform(-0.15, 0.15), r * random.uniform(0.55, 0.85)),
                (r, r, r),
                colour=_pick(random, [colour], 0.12),
                texture=Texture.FOLIAGE,
            )
        )
    return parts


def hedge(random: np.random.Generator, length: float) -> list[Part]:
    """A cut hedge along x."""
    h, w = random.uniform(0.8, 1.8), random.uniform(0.35, 0.6)
    look = {"colour": _pick(random, _LEAVES, 0.2), "texture": Texture.FOLIAGE}
    return [block((-length / 2, length / 2), (-w, w), (0.0, h), slope_y=(0.05, -0.05), **look)]


_WALLS: tuple[Colour, ...] = (
    (0.5, 0.48, 0.44),
    (0.42, 0.38, 0.32),
    (0.36, 0.36, 0.37),
    (0.55, 0.5, 0.4),
    (0.3, 0.16, 0.11),
    (0.35, 0.21, 0.15),
    (0.6, 0.6, 0.58),
    (0.25, 0.28, 0.32),
    (0.48, 0.4, 0.34),
)


def building(random: np.random.Generator, length: float, depth: float) -> list[Part]:
    """A house or office of this plan, its front looking along +y at y = depth / 2."""
    wall = _pick(random, _WALLS, 0.15)
    texture = random.choice(
        [Texture.FACADE, Texture.BRICK, Texture.CURTAIN_WALL], p=[0.5, 0.3, 0.2]
    )
    glass = (0.05, 0.07, 0.09)
    look = {"colour": wall, "accent": glass, "texture": Texture(int(texture)), "hollow": True}
    hl, hd = length / 2, depth / 2
    if random.random() < 0.35:  # a house under a gable roof
        eaves, rise = random.uniform(3.0, 6.5), random.uniform(1.5, 3.0)
        over, run = 0.35, hd + 0.35
        return [
            block((-hl, hl), (-hd, hd), (0.0, eaves), **look),
            block(
                (-hl - over, hl + over),
                (-run, run),
                (eaves, eaves + rise),
                slope_y=(run / rise, -run / rise),
                colour=_pick(random, [(0.22, 0.09, 0.06), (0.1, 0.1, 0.11), (0.2, 0.15, 0.11)]),
                texture=Texture.PLANKS,
                hollow=True,
            ),
        ]
    height = random.choice([random.uniform(4, 9), random.uniform(9, 18), random.uniform(18, 40)])
    parts = [block((-hl, hl), (-hd, hd), (0.0, height), **look)]
    if random.random() < 0.6:  # a cornice
        trim = {"colour": tuple(c * 0.8 for c in wall), "hollow": True}
        parts.append(
            block((-hl - 0.2, hl + 0.2), (-hd - 0.2, hd + 0.2), (height, height + 0.5), **trim)
        )
    if random.random() < 0.4:  # a canopy or a porch above the entrance
        x = random.uniform(-hl * 0.6, hl * 0.6)
        trim = {"colour": _pick(random, _PAINTS)}
        parts.append(block((x - 1.6, x + 1.6), (hd, hd + 1.3), (2.8, 3.1), **trim))
    if random.random() < 0.3:  # a set-back upper storey
        parts.append(
            block((-hl * 0.6, hl * 0.6), (-hd * 0.7, hd * 0.7), (height, height + 3.2), **look)
        )
    return parts


def wall(random: np.random.Generator, length: float) -> list[Part]:
    """A garden wall or a fence along x."""
    if random.random() < 0.5:
        h = random.uniform(0.9, 2.2)
        look = {
            "colour": _pick(random, _WALLS),
            "accent": (0.2, 0.2, 0.2),
            "texture": Texture.BRICK,
        }
        return [block((-length / 2, length / 2), (-0.14, 0.14), (0.0, h), **look)]
    h, colour = (
        random.uniform(1.2, 2.0),
        _pick(random, [(0.2, 0.13, 0.08), (0.4, 0.4, 0.4), (0.08, 0.1, 0.08)]),
    )
    return [
        block(
            (-length / 2, length / 2),
            (-0.06, 0.06),
            (0.05, h),
            colour=colour,
            texture=Texture.PLANKS,
        )
    ]


def lamp(random: np.random.Generator) -> list[Part]:
    """A street lamp; its arm reaches along +y."""
    h, colour = random.uniform(6.0, 9.0), _pick(random, [_STEEL, (0.05, 0.06, 0.06)])
    return [
        cone((0.0, 0.0), (0.1, 0.1), (0.0, h), 0.6, colour=colour),
        block((-0.05, 0.05), (0.0, 1.9), (h - 0.1, h), colour=colour),
        block((-0.12, 0.12), (1.4, 2.1), (h - 0.16, h - 0.04), colour=(0.6, 0.6, 0.55)),
    ]


def sign(random: np.random.Generator) -> list[Part]:
    """A traffic sign that looks along -x."""
    h = random.uniform(2.1, 2.8)
    colour = _pick(
        random, [(0.7, 0.7, 0.7), (0.02, 0.08, 0.4), (0.55, 0.02, 0.02), (0.7, 0.5, 0.02)]
    )
    wide = random.uniform(0.28, 0.45)
    return [
        cone((0.0, 0.0), (0.045, 0.045), (0.0, h), colour=_STEEL),
        block(
            (-0.08, -0.04),
            (-wide, wide),
            (h - 2 * wide, h),
            colour=colour,
            accent=(0.75, 0.75, 0.75),
            texture=Texture.SIGN,
        ),
    ]


def traffic_light(arm: float, go: bool) -> list[Part]:
    """A signal on a mast; ``arm`` m over the road along +y (0: none). Looks along -x."""
    light = (0.03, 0.6, 0.2) if go else (0.8, 0.05, 0.02)
    head = {"colour": (0.02, 0.02, 0.02), "accent": light, "texture": Texture.SIGNAL}
    parts = [
        cone((0.0, 0.0), (0.09, 0.09), (0.0, 5.6 if arm else 3.3), colour=(0.06, 0.07, 0.07)),
        block((-0.35, -0.1), (-0.17, 0.17), (2.4, 3.3), **head),
    ]
    if arm:
        parts.append(block((-0.06, 0.06), (0.0, arm), (5.4, 5.55), colour=(0.06, 0.07, 0.07)))
        parts.append(block((-0.3, -0.05), (arm - 0.4, arm - 0.05), (4.6, 5.6), **head))
    return parts


def shelter(random: np.random.Generator) -> list[Part]:
    """A bus shelter, open to +y."""
    frame = {"colour": (0.15, 0.16, 0.17)}
    glass = {"colour": (0.2, 0.25, 0.27), "accent": (0.4, 0.42, 0.42), "texture": Texture.SIGN}
    advert = {
        "colour": _pick(random, _PAINTS),
        "accent": _pick(random, _PAINTS),
        "texture": Texture.SIGN,
    }
    return [
        block((-2.0, 2.0), (-0.75, 0.75), (2.4, 2.55), **frame),
        block((-2.0, 2.0), (-0.75, -0.68), (0.1, 2.4), **glass),
        block((1.9, 2.0), (-0.75, 0.6), (0.1, 2.4), **advert),
        block((-1.5, 1.0), (-0.6, -0.2), (0.4, 0.5), **frame),
        block((-2.0, -1.9), (0.55, 0.65), (0.0, 2.4), **frame),
    ]


def bollard(random: np.random.Generator) -> list[Part]:
    """A short post."""
    return [cone((0.0, 0.0), (0.09, 0.09), (0.0, random.uniform(0.7, 1.0)), colour=_STEEL)]


def placed(parts: list[Part], x: float, y: float, yaw: float) -> list[Part]:
    """The parts of a standing thing, moved to their place in the map."""
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
