# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Motor vehicles: cars, trucks, buses, trailers and construction vehicles."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from alocc_ros.synthetic.assets.palette import (
    DARK,
    GLASS,
    PAINTS,
    STEEL,
    random_colour,
)
from alocc_ros.synthetic.primitives import ActorModel, Part, Texture, block, ellipsoid


def car(random: np.random.Generator) -> ActorModel:
    """Saloon, estate, hatchback, van or SUV."""
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
    paint = random_colour(random, PAINTS)
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
            accent=GLASS,
            texture=Texture.CABIN,
        ),
    ]
    parts += _wheels((-0.3 * length, 0.31 * length), width, random.uniform(0.31, 0.36))
    return ActorModel(parts, (length, width, height))


def truck(random: np.random.Generator) -> ActorModel:
    """A cab and a box, a flatbed with load, or a pickup."""
    if random.random() < 0.3:
        return _pickup(random)
    length, width = random.uniform(6.0, 9.5), random.uniform(2.2, 2.55)
    height, cab_height = random.uniform(2.9, 3.7), random.uniform(2.3, 2.9)
    hl, hw, cab = length / 2, width / 2, random.uniform(1.7, 2.2)
    paint = random_colour(random, [*PAINTS, (0.75, 0.76, 0.77), (0.1, 0.2, 0.5), (0.6, 0.1, 0.05)])
    load = random_colour(random, [(0.8, 0.8, 0.8), (0.75, 0.73, 0.65), paint, (0.1, 0.25, 0.45)])
    load_height = height if random.random() < 0.75 else random.uniform(1.6, 2.2)
    parts = [
        block((-hl, hl), (-hw * 0.8, hw * 0.8), (0.5, 0.95), colour=(0.05, 0.05, 0.05)),
        block(
            (hl - cab, hl),
            (-hw, hw),
            (0.45, cab_height),
            slope_x=(0.0, -0.1),
            colour=paint,
            accent=GLASS,
            texture=Texture.WINDOW_BAND,
        ),
        block(
            (-hl, hl - cab - 0.15),
            (-hw, hw),
            (0.9, load_height),
            colour=load,
            accent=random_colour(random, PAINTS),
            texture=Texture.CARGO,
        ),
    ]
    parts += _wheels((-0.33 * length, -0.2 * length, 0.36 * length), width, 0.48, 0.17)
    return ActorModel(parts, (length, width, max(load_height, cab_height)))


def _pickup(random: np.random.Generator) -> ActorModel:
    length, width, height = (
        random.uniform(5.3, 5.9),
        random.uniform(1.95, 2.1),
        random.uniform(1.8, 1.95),
    )
    hl, hw, paint = length / 2, width / 2, random_colour(random, PAINTS)
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
            accent=GLASS,
            texture=Texture.CABIN,
        ),
    ]
    parts += _wheels((-0.3 * length, 0.32 * length), width, 0.4, 0.15)
    return ActorModel(parts, (length, width, height))


def bus(random: np.random.Generator) -> ActorModel:
    """A city bus or a coach."""
    length, width, height = (
        random.uniform(10.0, 12.5),
        random.uniform(2.5, 2.65),
        random.uniform(3.0, 3.6),
    )
    hl, hw = length / 2, width / 2
    paint = random_colour(
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
            accent=GLASS,
            texture=Texture.WINDOW_BAND,
        ),
        block(
            (-hl * 0.7, hl * 0.3),
            (-hw * 0.7, hw * 0.7),
            (height, height + 0.2),
            colour=(0.6, 0.6, 0.6),
        ),
    ]
    parts += _wheels((-0.28 * length, 0.29 * length), width, 0.5, 0.17)
    return ActorModel(parts, (length, width, height + 0.2))


def trailer(random: np.random.Generator) -> ActorModel:
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
            colour=random_colour(
                random, [(0.6, 0.6, 0.58), (0.4, 0.18, 0.08), (0.12, 0.25, 0.35), (0.55, 0.5, 0.4)]
            ),
            accent=random_colour(random, PAINTS),
            texture=Texture.CARGO,
        ),
        block((-hl, hl), (-0.45, 0.45), (foot - 0.3, foot), colour=(0.04, 0.04, 0.04)),
        block((0.28 * length, 0.3 * length), (-0.9, -0.75), (0.0, foot), colour=STEEL),
        block((0.28 * length, 0.3 * length), (0.75, 0.9), (0.0, foot), colour=STEEL),
    ]
    parts += _wheels(axles, width, 0.48 if foot > 1 else 0.32, 0.17)
    return ActorModel(parts, (length, width, height))


def construction_vehicle(random: np.random.Generator) -> ActorModel:
    """An excavator, a wheel loader or a roller."""
    paint = random_colour(random, [(0.75, 0.45, 0.03), (0.8, 0.52, 0.05), (0.7, 0.3, 0.03)])
    shape = random.choice(["excavator", "loader", "roller"], p=[0.45, 0.35, 0.2])
    cab = {"colour": paint, "accent": GLASS, "texture": Texture.WINDOW_BAND}
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
        return ActorModel(parts, (6.6, 2.8, 3.6))
    if shape == "loader":
        parts = [
            block((-3.0, 0.2), (-1.1, 1.1), (0.8, 1.9), slope_x=(0.1, 0.0), colour=paint),
            block((-1.0, 0.6), (-0.85, 0.85), (1.9, 3.2), slope_x=(0.05, -0.12), **cab),
            block((0.2, 2.2), (-0.6, 0.6), (0.7, 1.3), colour=paint),
            block(
                (2.0, 3.2), (-1.35, 1.35), (0.15, 1.1), slope_x=(0.2, 0.0), colour=(0.2, 0.18, 0.14)
            ),
        ]
        parts += _wheels((-1.8, 1.2), 2.5, 0.75, 0.3)
        return ActorModel(parts, (6.4, 2.7, 3.2))
    drum = {"colour": (0.14, 0.14, 0.14), "accent": STEEL, "texture": Texture.WHEEL}
    parts = [
        block((-1.9, 1.6), (-0.75, 0.75), (0.7, 1.5), colour=paint),
        block((-0.9, 0.5), (-0.7, 0.7), (1.5, 2.7), **cab),
        ellipsoid((1.6, 0.0, 0.75), (0.75, 1.05, 0.75), **drum),
        ellipsoid((-1.6, 0.0, 0.75), (0.75, 1.05, 0.75), **drum),
    ]
    return ActorModel(parts, (4.7, 2.1, 2.7))


def _wheels(xs: Sequence[float], width: float, radius: float, thick: float = 0.13) -> list[Part]:
    return [
        ellipsoid(
            (x, side * (width / 2 - thick * 0.6), radius),
            (radius, thick, radius),
            colour=DARK,
            accent=STEEL,
            texture=Texture.WHEEL,
        )
        for x in xs
        for side in (-1, 1)
    ]
