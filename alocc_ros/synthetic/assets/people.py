# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Pedestrians, and two-wheelers with or without a rider."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from alocc_ros.synthetic.assets.palette import (
    CLOTHES,
    DARK,
    PAINTS,
    SKIN,
    STEEL,
    random_colour,
)
from alocc_ros.synthetic.primitives import ActorModel, Colour, Part, Texture, block, cone, ellipsoid


def pedestrian(
    random: np.random.Generator, *, worker: bool = False, stride: float = 0.25
) -> ActorModel:
    """Somebody standing or walking; ``stride`` m between the feet and the hip."""
    tall = random.uniform(1.55, 1.9)
    hip, shoulder, broad = 0.49 * tall, 0.83 * tall, random.uniform(0.2, 0.26)
    coat = (0.75, 0.6, 0.02) if worker else random_colour(random, CLOTHES, 0.3)
    skin = random_colour(random, SKIN)
    step = stride * random.uniform(0.6, 1.0)
    leg = _cloth(random, CLOTHES[:4])
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
            else random_colour(random, [(0.03, 0.02, 0.015), (0.1, 0.06, 0.03), (0.3, 0.2, 0.1)]),
            texture=Texture.CLOTH,
        ),
    ]
    return ActorModel(parts, (max(2 * step + 0.2, 0.6), 2 * broad + 0.2, tall))


def bicycle(random: np.random.Generator, *, ridden: bool) -> ActorModel:
    """A bicycle, ridden or parked."""
    paint = random_colour(random, PAINTS)
    wheel = {"colour": (0.03, 0.03, 0.03), "accent": (0.25, 0.25, 0.25), "texture": Texture.WHEEL}
    parts = [
        ellipsoid((-0.52, 0.0, 0.34), (0.34, 0.035, 0.34), **wheel),
        ellipsoid((0.52, 0.0, 0.34), (0.34, 0.035, 0.34), **wheel),
        block((-0.5, 0.35), (-0.035, 0.035), (0.45, 0.56), colour=paint),
        block((-0.22, -0.16), (-0.035, 0.035), (0.3, 0.9), slope_x=(-0.1, -0.1), colour=paint),
        block((0.48, 0.55), (-0.03, 0.03), (0.34, 1.0), slope_x=(-0.2, -0.2), colour=paint),
        block((0.3, 0.4), (-0.28, 0.28), (0.96, 1.02), colour=DARK),
        block((-0.4, -0.12), (-0.08, 0.08), (0.88, 0.95), colour=DARK),
    ]
    if ridden:
        parts += _rider(random, 0.92, helmet=random.random() < 0.5)
    return ActorModel(parts, (1.75, 0.6, 1.8 if ridden else 1.05))


def motorcycle(random: np.random.Generator, *, ridden: bool) -> ActorModel:
    """A motorcycle or scooter, ridden or parked."""
    paint = random_colour(random, PAINTS)
    wheel = {"colour": DARK, "accent": STEEL, "texture": Texture.WHEEL}
    parts = [
        ellipsoid((-0.68, 0.0, 0.31), (0.31, 0.09, 0.31), **wheel),
        ellipsoid((0.7, 0.0, 0.31), (0.31, 0.08, 0.31), **wheel),
        block((-0.45, 0.35), (-0.17, 0.17), (0.25, 0.62), colour=(0.1, 0.1, 0.1)),
        block((-0.95, 0.0), (-0.15, 0.15), (0.62, 0.82), slope_x=(0.3, 0.0), colour=DARK),
        ellipsoid((0.22, 0.0, 0.82), (0.36, 0.18, 0.2), colour=paint),
        block((0.62, 0.78), (-0.16, 0.16), (0.35, 1.05), slope_x=(-0.3, -0.3), colour=paint),
        block((0.36, 0.46), (-0.38, 0.38), (1.02, 1.1), colour=DARK),
    ]
    if ridden:
        parts += _rider(random, 0.82, helmet=True)
    return ActorModel(parts, (2.1, 0.8, 1.7 if ridden else 1.15))


def _rider(random: np.random.Generator, seat: float, helmet: bool) -> list[Part]:
    body, leg = _cloth(random, CLOTHES), _cloth(random, CLOTHES[:4])
    head = random_colour(random, PAINTS) if helmet else random_colour(random, SKIN)
    return [
        block((-0.3, -0.02), (-0.2, 0.2), (seat, seat + 0.58), slope_x=(0.45, 0.4), **body),
        block((0.1, 0.25), (-0.2, -0.07), (0.25, seat + 0.1), slope_x=(-0.35, -0.35), **leg),
        block((0.1, 0.25), (0.07, 0.2), (0.25, seat + 0.1), slope_x=(-0.35, -0.35), **leg),
        block((0.45, 0.56), (-0.28, 0.28), (seat + 0.15, seat + 0.5), slope_x=(-1.1, -1.1), **body),
        ellipsoid((0.12, 0.0, seat + 0.74), (0.13, 0.12, 0.15), colour=head),
    ]


def _cloth(random: np.random.Generator, choices: Sequence[Colour]) -> dict[str, object]:
    colour = random_colour(random, choices, 0.3)
    return {"colour": colour, "accent": colour, "texture": Texture.CLOTH}
