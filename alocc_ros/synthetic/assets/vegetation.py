# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Trees, bushes and hedges."""

from __future__ import annotations

import numpy as np

from alocc_ros.synthetic.assets.palette import (
    LEAVES,
    random_colour,
)
from alocc_ros.synthetic.primitives import Part, Texture, block, cone, ellipsoid


def tree(random: np.random.Generator) -> list[Part]:
    """A trunk and a crown of ellipsoids, or a conifer or palm-like one."""
    height, leaves = random.uniform(4.0, 10.0), random_colour(random, LEAVES, 0.2)
    bark = random_colour(random, [(0.13, 0.09, 0.06), (0.2, 0.17, 0.13), (0.09, 0.07, 0.05)])
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
                **{**crown, "colour": random_colour(random, [leaves], 0.16)},
            )
        )
    return parts


def bush(random: np.random.Generator, length: float = 1.5) -> list[Part]:
    """Some shrubs along x."""
    parts, colour = [], random_colour(random, LEAVES, 0.2)
    for x in np.arange(-length / 2, length / 2 + 0.01, 0.8):
        r = random.uniform(0.45, 0.75)
        parts.append(
            ellipsoid(
                (float(x), random.uniform(-0.15, 0.15), r * random.uniform(0.55, 0.85)),
                (r, r, r),
                colour=random_colour(random, [colour], 0.12),
                texture=Texture.FOLIAGE,
            )
        )
    return parts


def hedge(random: np.random.Generator, length: float) -> list[Part]:
    """A cut hedge along x."""
    h, w = random.uniform(0.8, 1.8), random.uniform(0.35, 0.6)
    look = {"colour": random_colour(random, LEAVES, 0.2), "texture": Texture.FOLIAGE}
    return [block((-length / 2, length / 2), (-w, w), (0.0, h), slope_y=(0.05, -0.05), **look)]
