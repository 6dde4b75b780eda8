# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Colours of objects, linear RGB in [0, 1], and how one is drawn."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from alocc_ros.synthetic.primitives import Colour

DARK: Colour = (0.02, 0.02, 0.022)


GLASS: Colour = (0.03, 0.04, 0.05)


STEEL: Colour = (0.32, 0.33, 0.34)


SKIN = ((0.55, 0.36, 0.26), (0.38, 0.22, 0.14), (0.16, 0.09, 0.06), (0.6, 0.42, 0.32))


PAINTS: tuple[Colour, ...] = (
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


CLOTHES: tuple[Colour, ...] = (
    (0.03, 0.04, 0.08),
    (0.05, 0.05, 0.05),
    (0.4, 0.05, 0.06),
    (0.55, 0.55, 0.53),
    (0.1, 0.2, 0.4),
    (0.12, 0.3, 0.15),
    (0.6, 0.5, 0.1),
    (0.3, 0.15, 0.3),
)


LEAVES: tuple[Colour, ...] = (
    (0.068, 0.112, 0.035),
    (0.052, 0.092, 0.032),
    (0.092, 0.128, 0.042),
    (0.044, 0.078, 0.04),
    (0.12, 0.125, 0.045),
)


WALLS: tuple[Colour, ...] = (
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


def random_colour(
    random: np.random.Generator, choices: Sequence[Colour], spread: float = 0.12
) -> Colour:
    """One of the colours, its channels and its brightness varied by a factor up to ``spread``."""
    r, g, b = np.clip(
        np.asarray(choices[random.integers(len(choices))])
        * random.uniform(1 - spread, 1 + spread, 3)
        * random.uniform(1 - spread, 1 + spread),
        0.0,
        1.0,
    )
    return (float(r), float(g), float(b))
