# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Colours of what rays hit: sky, ground and surfaces, lit by the sun and the sky.

Everything painted is a function of the place in the map (or on the object), so the same surface
looks the same from every camera and in every frame; otherwise a network could not learn depth
from motion.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from alocc_ros.labels import OCC3D
from alocc_ros.synthetic.raycast import Solids
from alocc_ros.synthetic.scene import Scene
from alocc_ros.synthetic.shadows import ShadowMap
from alocc_ros.synthetic.textures import SHADERS, SurfacePoints, hashed, line, noise


@dataclass(frozen=True)
class Materials:
    """The looks of all parts of a scene, and whose they are; [N] or [N, 3].

    Attributes:
        colour, accent: linear RGB.
        texture: number of the texture.
        variation: a random number in [0, 1) that varies the texture.
        label: class, Occ3D.
        owner: index into ``scene.actors``, -1 for none.
    """

    colour: Tensor
    accent: Tensor
    texture: Tensor
    variation: Tensor
    label: Tensor
    owner: Tensor


@lru_cache(maxsize=4)
def materials_of(scene: Scene, device: torch.device) -> Materials:
    """The looks of a scene's parts."""
    variation = np.random.default_rng(scene.seed + 1).random(len(scene.parts))
    return Materials(
        colour=torch.tensor([p.colour for p in scene.parts], device=device),
        accent=torch.tensor([p.accent for p in scene.parts], device=device),
        texture=torch.tensor([int(p.texture) for p in scene.parts], device=device),
        variation=torch.as_tensor(variation, dtype=torch.float32, device=device),
        label=torch.as_tensor(scene.labels, device=device),
        owner=torch.as_tensor(scene.owner, device=device).int(),
    )


def shade_sky(scene: Scene, rays: Tensor) -> Tensor:
    """Light [n, 3] from the sky along rays [n, 3]."""
    weather = scene.weather
    ray = torch.nn.functional.normalize(rays, dim=1)
    up = ray[:, 2].clamp(min=0.0)
    blend = (1 - up).pow(4)[:, None]
    colour = torch.lerp(
        rays.new_tensor(weather.sky_colour), rays.new_tensor(weather.horizon_colour), blend
    )
    across = 1.0 / (up + 0.12)
    u, v = ray[:, 0] * across * 8 + scene.seed * 7.3, ray[:, 1] * across * 8
    fine = torch.full_like(up, 1e-3)
    heap = noise(v, u, 0.02, fine) * 0.3 + noise(u, v, 0.05, fine) * 0.6
    cover = torch.sigmoid((heap + 3.2 * weather.clouds - 1.9) * 3.0)[:, None] * (
        0.2 + 0.8 * (1 - blend)
    )
    white = rays.new_tensor(weather.horizon_colour) * 0.6 + 0.4
    white = white * (0.9 + 0.06 * heap[:, None]) * (1.0 if weather.clouds < 0.8 else 0.85)
    colour = torch.lerp(colour, white * max(0.35, min(1.0, sum(weather.horizon_colour) / 2)), cover)
    facing = (ray * rays.new_tensor(weather.sun)).sum(dim=1).clamp(min=0.0)
    glow = (facing.pow(8) * 0.25 + facing.pow(400) * 6.0)[:, None] * (1 - 0.8 * weather.clouds)
    return colour + glow * rays.new_tensor(weather.sun_colour) * 0.5


def shade_ground(
    scene: Scene, point: Tensor, footprint: Tensor, shadows: ShadowMap
) -> tuple[Tensor, Tensor]:
    """Lit colour and class of points of the ground."""
    streets, weather = scene.streets, scene.weather
    x, y = point[:, 0], point[:, 1]
    labels, kerb, s, d = streets.ground_at(x, y)
    shift = float(scene.seed % 97) * 3.7
    coarse = noise(x + shift, y, 0.07, footprint)
    fine = noise(y + shift, x, 0.018, footprint)
    wide = noise(y, x - shift, 0.3, footprint)
    tint = np.random.default_rng(scene.seed + 2)
    asphalt = tint.uniform(0.09, 0.2)
    colour = _asphalt(scene, s, d, kerb, x, y, coarse, fine, wide, footprint, asphalt)

    name = OCC3D.names
    # Pavers: joints and a shade of its own for each.
    size = tint.uniform(0.6, 1.6)
    cell_s, cell_d = s / size, d / size
    joint = torch.minimum((cell_s - cell_s.round()).abs(), (cell_d - cell_d.round()).abs()) * size
    shade = hashed(torch.floor(cell_s), torch.floor(cell_d)) - 0.5
    fade = (size / footprint.clamp(min=1e-3) / 12).clamp(max=1.0)
    paver = (
        0.3
        + 0.06 * shade * fade
        + 0.03 * coarse
        + 0.02 * fine
        - 0.12 * line(joint, 0.02, footprint) * fade
    )
    warm = torch.tensor(tint.uniform(0.9, 1.1, 3), dtype=torch.float32, device=x.device)
    mask = (labels == name.index("sidewalk"))[:, None]
    colour = torch.where(mask, paver[:, None] * warm, colour)
    slab = 0.24 + 0.05 * coarse + 0.03 * fine + 0.03 * wide
    ruddy = torch.tensor(
        [1.25, 0.9, 0.75] if tint.random() < 0.5 else [1.0, 1.0, 0.95], device=x.device
    )
    stripe = line(torch.remainder(s + d, 3.0) - 1.5, 0.25, footprint) * 0.12
    mask = (labels == name.index("other_flat"))[:, None]
    colour = torch.where(mask, (slab + stripe)[:, None] * ruddy, colour)
    dry = (0.5 + 0.28 * wide + 0.22 * coarse).clamp(0, 1)[:, None]
    grass = torch.lerp(x.new_tensor([0.085, 0.15, 0.04]), x.new_tensor([0.22, 0.19, 0.1]), dry)
    grass = grass * (1 + 0.28 * coarse + 0.3 * fine).clamp(min=0.25)[:, None]
    colour = torch.where((labels == name.index("terrain"))[:, None], grass, colour)
    # The kerb stone, some painted black and white.
    stone = 0.36 + 0.05 * fine
    if tint.random() < 0.3:
        stone = torch.where(torch.remainder(s + d, 2.0) < 1.0, 0.05, 0.6)
    edge = line(kerb - 0.09, 0.09, footprint)[:, None]
    colour = torch.lerp(colour, stone[:, None].expand(-1, 3), edge)

    light = shadows.light_at(x, y)
    sun = (
        weather.sun[2] * light if weather.shadow >= 0.5 else weather.sun[2] * torch.ones_like(light)
    )
    ambient = (
        0.55 * (x.new_tensor(weather.sky_colour) + x.new_tensor(weather.horizon_colour)) / 2 + 0.05
    )
    occlusion = 1 - (0.35 if weather.shadow >= 0.5 else 0.55) * (1 - light)
    lit = ambient * occlusion[:, None] + x.new_tensor(weather.sun_colour) * (sun * 0.6)[:, None]
    return colour * lit * (1 - 0.35 * weather.wet), labels


def _asphalt(
    scene: Scene,
    s: Tensor,
    d: Tensor,
    kerb: Tensor,
    x: Tensor,
    y: Tensor,
    coarse: Tensor,
    fine: Tensor,
    wide: Tensor,
    footprint: Tensor,
    base: float,
) -> Tensor:
    """The carriageway with wear, patches and paint: [n, 3]."""
    streets, main = scene.streets, scene.streets.main
    grey = base * (1 + 0.07 * coarse + 0.12 * fine + 0.09 * wide)
    lane = torch.remainder(d.abs() - main.median / 2, main.lane_width) / main.lane_width
    track = torch.minimum((lane - 0.25).abs(), (lane - 0.75).abs())
    grey = grey * (1 - 0.12 * (1 - track * 6).clamp(min=0.0))
    # Mended places, cut along the road, and dark seams.
    cell = hashed(torch.floor(s / 7.0), torch.floor((d + 40) / 2.3) + scene.seed % 13)
    grey = torch.where(cell > 0.93, grey * 0.68, torch.where(cell < 0.04, grey * 1.3, grey))
    seam = torch.remainder(s + 0.4 * wide, 11.0) - 5.5
    grey = grey * (1 - 0.4 * line(seam, 0.02, footprint))
    colour = grey[:, None].expand(-1, 3)

    paint = torch.zeros_like(s)
    clear = ~streets.in_crossing(x, y, s) & (d.abs() < main.half)
    a = d.abs()
    for n in range(1, main.lanes):
        dash = torch.remainder(s, 9.0) < 3.0
        paint = torch.maximum(
            paint, line(a - main.median / 2 - n * main.lane_width, 0.07, footprint) * dash
        )
    edge = main.half - main.parking - (0.15 if main.parking == 0 else 0.0)
    paint = torch.maximum(paint, line(a - edge, 0.06, footprint))
    if main.parking > 0:
        bay = line(torch.remainder(s, 6.0) - 3.0, 0.05, footprint) * (a > edge)
        paint = torch.maximum(paint, bay)
    middle = torch.zeros_like(s)
    if main.median > 0:
        paint = torch.maximum(paint, line(a - main.median / 2 - 0.2, 0.06, footprint))
    elif main.lanes == 1:
        middle = line(d, 0.07, footprint) * (torch.remainder(s, 6.0) < 3.0)
    else:
        middle = line(a - 0.14, 0.06, footprint)
    paint, middle = paint * clear, middle * clear
    if streets.side is not None:
        side = streets.side
        along, across = streets.side_coordinates(x, y)
        # On the side road: its own middle line and edges, away from the main road.
        off = (a > main.half + 6.5) & (across.abs() < side.half)
        dashes = torch.remainder(along, 6.0) < 3.0
        paint = torch.maximum(paint, line(across, 0.07, footprint) * off * dashes)
        paint = torch.maximum(
            paint, line(across.abs() - side.half + side.parking + 0.15, 0.06, footprint) * off
        )
        # Zebra stripes before the crossing on each arm, and stop lines behind them.
        on_main = (a < main.half) & (kerb < 0)
        zone = across.abs() - side.half
        zebra = (zone > 2.2) & (zone < 4.6) & on_main & (torch.remainder(d, 1.0) < 0.5)
        paint = torch.maximum(paint, zebra.float())
        stop = line(zone - 5.8, 0.2, footprint) * on_main * (d * across * _driving_side(scene) < 0)
        paint = torch.maximum(paint, stop)
        on_side = (across.abs() < side.half) & (kerb < 0)
        zone = a - main.half
        zebra = (zone > 2.2) & (zone < 4.6) & on_side & (torch.remainder(across, 1.0) < 0.5)
        paint = torch.maximum(paint, zebra.float())
    worn = (0.85 + 0.25 * coarse).clamp(0.3, 1.0)
    colour = torch.lerp(colour, colour.new_full((1, 3), 0.62), (paint * worn)[:, None])
    yellow = [0.6, 0.4, 0.06] if streets.lane_marks else [0.62, 0.62, 0.62]
    return torch.lerp(colour, colour.new_tensor(yellow), (middle * worn)[:, None])


def _driving_side(scene: Scene) -> float:
    """-1 where one drives on the right, 1 on the left (told by where our own lane is)."""
    s = torch.tensor(scene.ego[:1, 0]), torch.tensor(scene.ego[:1, 1])
    return float(torch.sign(scene.streets.main_coordinates(*s)[1])[0])


def shade_surface(
    scene: Scene,
    solids: Solids,
    materials: Materials,
    hit: Tensor,
    eye: Tensor,
    rays: Tensor,
    distance: Tensor,
    focal: float,
) -> Tensor:
    """Lit colour [n, 3] of the points at which rays [n, 3] hit the solids ``hit`` [n]."""
    weather = scene.weather
    c, s = solids.cos[hit], solids.sin[hit]
    dx = eye[0] + rays[:, 0] * distance - solids.origin[hit, 0]
    dy = eye[1] + rays[:, 1] * distance - solids.origin[hit, 1]
    x, y, z = c * dx + s * dy, c * dy - s * dx, eye[2] + rays[:, 2] * distance
    place = SurfacePoints.of(solids, hit, x, y, z, distance / focal)
    number = solids.part[hit]
    texture = materials.texture[number]
    colour = materials.colour[number].clone()
    shine = torch.zeros_like(x)
    for kind, shader in SHADERS.items():
        i = torch.nonzero(texture == int(kind))[:, 0]
        if len(i):
            here = place.take(i)
            colour[i], shine[i] = shader(
                here, colour[i], materials.accent[number[i]], materials.variation[number[i]]
            )

    nx, ny = c * place.nx - s * place.ny, s * place.nx + c * place.ny
    sun = weather.sun
    facing = (nx * sun[0] + ny * sun[1] + place.nz * sun[2]).clamp(min=0.0)
    sky, horizon = x.new_tensor(weather.sky_colour), x.new_tensor(weather.horizon_colour)
    upward = (0.5 + 0.5 * place.nz)[:, None]
    ambient = 0.55 * (torch.lerp(horizon * 0.45, (sky + horizon) / 2, upward)) + 0.04
    # Near the ground less light comes in.
    ambient = ambient * (0.62 + 0.38 * (z / 1.2).clamp(0, 1))[:, None]
    direct = (
        x.new_tensor(weather.sun_colour) * (facing * 0.6 * (0.4 + 0.6 * weather.shadow))[:, None]
    )
    lit = colour * (ambient + direct)
    # Glass and materials mirror the sky above and the street below.
    view = torch.nn.functional.normalize(rays, dim=1)
    along = view[:, 0] * nx + view[:, 1] * ny + view[:, 2] * place.nz
    mirror_z = view[:, 2] - 2 * along * place.nz
    mirrored = torch.lerp(
        horizon * 0.3, (sky + horizon) / 2, (mirror_z * 3 + 0.5).clamp(0, 1)[:, None]
    )
    fresnel = (shine * (0.25 + 0.75 * (1 - along.abs()).clamp(0, 1).pow(3)))[:, None]
    return torch.lerp(lit, mirrored, fresnel)
