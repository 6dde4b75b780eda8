# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Street furniture: barriers, traffic cones, bins, lamps, signs, signals, shelters, bollards."""

from __future__ import annotations

import numpy as np

from alocc_ros.synthetic.assets.palette import (
    PAINTS,
    STEEL,
    random_colour,
)
from alocc_ros.synthetic.primitives import ActorModel, Part, Texture, block, cone


def barrier(random: np.random.Generator) -> ActorModel:
    """One element of a row: concrete, or red and white plastic; 2 m along x."""
    plastic = random.random() < 0.6
    colour = (
        random_colour(random, [(0.65, 0.12, 0.05), (0.72, 0.72, 0.7), (0.75, 0.3, 0.03)])
        if plastic
        else random_colour(random, [(0.45, 0.44, 0.41)])
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
    return ActorModel(parts, (2.0, 0.6, height))


def traffic_cone(random: np.random.Generator) -> ActorModel:
    """A cone or, taller, a bollard-like channeliser."""
    height = random.uniform(0.65, 1.05)
    look = {"colour": (0.85, 0.18, 0.02), "accent": (0.8, 0.8, 0.78), "texture": Texture.BANDS}
    parts = [
        block((-0.2, 0.2), (-0.2, 0.2), (0.0, 0.06), colour=(0.05, 0.05, 0.05)),
        cone((0.0, 0.0), (0.16, 0.16), (0.05, height), 0.3, **look),
    ]
    return ActorModel(parts, (0.42, 0.42, height))


def litter_bin(random: np.random.Generator) -> ActorModel:
    """A wheeled bin: one of the ``others``."""
    colour = random_colour(
        random, [(0.05, 0.2, 0.08), (0.06, 0.1, 0.3), (0.05, 0.05, 0.05), (0.4, 0.3, 0.05)]
    )
    parts = [
        block((-0.3, 0.3), (-0.28, 0.28), (0.05, 1.0), slope_x=(-0.06, 0.06), colour=colour),
        block((-0.38, 0.38), (-0.36, 0.36), (1.0, 1.1), colour=tuple(c * 0.7 for c in colour)),
    ]
    return ActorModel(parts, (0.76, 0.72, 1.1))


def lamp(random: np.random.Generator) -> list[Part]:
    """A street lamp; its arm reaches along +y."""
    h, colour = random.uniform(6.0, 9.0), random_colour(random, [STEEL, (0.05, 0.06, 0.06)])
    return [
        cone((0.0, 0.0), (0.1, 0.1), (0.0, h), 0.6, colour=colour),
        block((-0.05, 0.05), (0.0, 1.9), (h - 0.1, h), colour=colour),
        block((-0.12, 0.12), (1.4, 2.1), (h - 0.16, h - 0.04), colour=(0.6, 0.6, 0.55)),
    ]


def sign(random: np.random.Generator) -> list[Part]:
    """A traffic sign that looks along -x."""
    h = random.uniform(2.1, 2.8)
    colour = random_colour(
        random, [(0.7, 0.7, 0.7), (0.02, 0.08, 0.4), (0.55, 0.02, 0.02), (0.7, 0.5, 0.02)]
    )
    wide = random.uniform(0.28, 0.45)
    return [
        cone((0.0, 0.0), (0.045, 0.045), (0.0, h), colour=STEEL),
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
        "colour": random_colour(random, PAINTS),
        "accent": random_colour(random, PAINTS),
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
    return [cone((0.0, 0.0), (0.09, 0.09), (0.0, random.uniform(0.7, 1.0)), colour=STEEL)]
