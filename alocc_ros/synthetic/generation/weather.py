# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Light and air of a scene, drawn around one of six conditions."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from alocc_ros.synthetic.primitives import Colour
from alocc_ros.synthetic.scene import Weather


class _Condition(NamedTuple):
    """Means of the fields of ``Weather``."""

    sun_colour: Colour
    sky_colour: Colour
    horizon_colour: Colour
    haze_colour: Colour
    visibility: float
    clouds: float
    exposure: float
    noise: float
    wet: float
    shadow: float


_CONDITIONS = {
    "sunny": _Condition(
        sun_colour=(2.3, 2.2, 2.0),
        sky_colour=(0.2, 0.38, 0.75),
        horizon_colour=(0.62, 0.74, 0.9),
        haze_colour=(0.6, 0.7, 0.82),
        visibility=900.0,
        clouds=0.35,
        exposure=1.0,
        noise=0.008,
        wet=0.0,
        shadow=1.0,
    ),
    "hazy": _Condition(
        sun_colour=(1.5, 1.45, 1.35),
        sky_colour=(0.45, 0.55, 0.72),
        horizon_colour=(0.8, 0.82, 0.85),
        haze_colour=(0.75, 0.77, 0.8),
        visibility=220.0,
        clouds=0.6,
        exposure=1.05,
        noise=0.01,
        wet=0.0,
        shadow=0.75,
    ),
    "overcast": _Condition(
        sun_colour=(0.35, 0.35, 0.36),
        sky_colour=(0.7, 0.72, 0.76),
        horizon_colour=(0.82, 0.83, 0.85),
        haze_colour=(0.75, 0.76, 0.78),
        visibility=420.0,
        clouds=1.0,
        exposure=1.35,
        noise=0.012,
        wet=0.15,
        shadow=0.3,
    ),
    "low": _Condition(
        sun_colour=(2.0, 1.5, 0.95),
        sky_colour=(0.28, 0.4, 0.62),
        horizon_colour=(0.95, 0.75, 0.5),
        haze_colour=(0.75, 0.65, 0.5),
        visibility=450.0,
        clouds=0.4,
        exposure=1.1,
        noise=0.012,
        wet=0.0,
        shadow=0.9,
    ),
    "dusk": _Condition(
        sun_colour=(0.5, 0.3, 0.18),
        sky_colour=(0.1, 0.14, 0.26),
        horizon_colour=(0.55, 0.36, 0.25),
        haze_colour=(0.28, 0.24, 0.24),
        visibility=350.0,
        clouds=0.6,
        exposure=1.7,
        noise=0.022,
        wet=0.0,
        shadow=0.4,
    ),
    "rain": _Condition(
        sun_colour=(0.15, 0.15, 0.16),
        sky_colour=(0.5, 0.53, 0.57),
        horizon_colour=(0.6, 0.62, 0.65),
        haze_colour=(0.55, 0.57, 0.6),
        visibility=130.0,
        clouds=1.0,
        exposure=1.4,
        noise=0.016,
        wet=0.8,
        shadow=0.15,
    ),
}


def random_weather(random: np.random.Generator) -> Weather:
    """Random light and air."""
    kind = random.choice(
        ["sunny", "hazy", "overcast", "low", "dusk", "rain"], p=[0.34, 0.16, 0.2, 0.14, 0.08, 0.08]
    )
    elevation = np.radians(
        {"low": random.uniform(9, 20), "dusk": random.uniform(4, 9)}.get(
            kind, random.uniform(28, 70)
        )
    )
    azimuth = random.uniform(0, 2 * np.pi)
    condition = _CONDITIONS[str(kind)]
    return Weather(
        sun=(
            float(np.cos(elevation) * np.cos(azimuth)),
            float(np.cos(elevation) * np.sin(azimuth)),
            float(np.sin(elevation)),
        ),
        sun_colour=condition.sun_colour,
        sky_colour=condition.sky_colour,
        horizon_colour=condition.horizon_colour,
        haze_colour=condition.haze_colour,
        visibility=condition.visibility * random.uniform(0.7, 1.4),
        clouds=float(np.clip(condition.clouds + random.uniform(-0.25, 0.25), 0.0, 1.0)),
        exposure=condition.exposure * random.uniform(0.8, 1.25),
        noise=condition.noise * random.uniform(0.6, 1.5),
        wet=condition.wet,
        shadow=condition.shadow,
    )
