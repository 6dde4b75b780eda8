# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Houses, offices and garden walls."""

from __future__ import annotations

import numpy as np

from alocc_ros.synthetic.assets.palette import (
    PAINTS,
    WALLS,
    random_colour,
)
from alocc_ros.synthetic.primitives import Part, Texture, block


def building(random: np.random.Generator, length: float, depth: float) -> list[Part]:
    """A house or office of this plan, its front looking along +y at y = depth / 2."""
    wall = random_colour(random, WALLS, 0.15)
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
                colour=random_colour(
                    random, [(0.22, 0.09, 0.06), (0.1, 0.1, 0.11), (0.2, 0.15, 0.11)]
                ),
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
        trim = {"colour": random_colour(random, PAINTS)}
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
            "colour": random_colour(random, WALLS),
            "accent": (0.2, 0.2, 0.2),
            "texture": Texture.BRICK,
        }
        return [block((-length / 2, length / 2), (-0.14, 0.14), (0.0, h), **look)]
    h, colour = (
        random.uniform(1.2, 2.0),
        random_colour(random, [(0.2, 0.13, 0.08), (0.4, 0.4, 0.4), (0.08, 0.1, 0.08)]),
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
