# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""What a camera sees: ray casting, procedural surfaces, sun, shadows, haze and sensor noise.

Everything painted is a function of the place in the map (or on the thing), so the same surface
looks the same from every camera and in every frame; otherwise a network could not learn depth
from motion.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from alocc_ros.labels import OCC3D
from alocc_ros.synthetic.cast import Solids, nearest, tile_image, turned
from alocc_ros.synthetic.shapes import Kind, Texture
from alocc_ros.synthetic.world import Scene
from alocc_ros.types import Calibration

SKY = 255  # label of pixels that show neither thing nor ground
FAR = 300.0  # m of depth; the ground ends here
_TILE = 8  # px
_SHADOW_CELLS, _SHADOW_SPAN = 384, 104.0  # cells and m across the map of shadows


@dataclass(frozen=True)
class View:
    """One image with its truth.

    Attributes:
        image: [H, W, 3] uint8 RGB.
        depth: [H, W] float32 m along the optical axis; inf in the sky.
        labels: [H, W] uint8 class (Occ3D), SKY in the sky.
        things: [H, W] int32 index into ``scene.things``, -1 for none.
    """

    image: Tensor
    depth: Tensor
    labels: Tensor
    things: Tensor


@dataclass(frozen=True)
class Shadows:
    """Which places of the ground the sun does not reach.

    Attributes:
        light: [n, n] 1 in the sun, 0 in the shadow; rows along x.
        corner: m, map x and y of the first cell's corner.
    """

    light: Tensor
    corner: tuple[float, float]

    def at(self, x: Tensor, y: Tensor) -> Tensor:
        """Light at points of the ground; 1 outside of the map."""
        n = self.light.shape[0]
        u = ((x - self.corner[0]) / _SHADOW_SPAN) * 2 - 1
        v = ((y - self.corner[1]) / _SHADOW_SPAN) * 2 - 1
        where = torch.stack([v, u], dim=-1).view(1, 1, -1, 2)
        light = torch.nn.functional.grid_sample(
            self.light.view(1, 1, n, n), where, align_corners=False, padding_mode="border"
        ).view(-1)
        edge = torch.maximum(u.abs(), v.abs())
        return torch.lerp(light, torch.ones_like(light), ((edge - 0.8) * 5).clamp(0, 1))


@dataclass(frozen=True)
class Paint:
    """The looks of all parts of a scene, and whose they are; [N] or [N, 3].

    Attributes:
        colour, accent: linear RGB.
        texture: number of the texture.
        whim: a random number in [0, 1) that varies the texture.
        label: class, Occ3D.
        owner: index into ``scene.things``, -1 for none.
    """

    colour: Tensor
    accent: Tensor
    texture: Tensor
    whim: Tensor
    label: Tensor
    owner: Tensor


@lru_cache(maxsize=4)
def paint_of(scene: Scene, device: torch.device) -> Paint:
    """The looks of a scene's parts."""
    whim = np.random.default_rng(scene.seed + 1).random(len(scene.parts))
    return Paint(
        colour=torch.tensor([p.colour for p in scene.parts], device=device),
        accent=torch.tensor([p.accent for p in scene.parts], device=device),
        texture=torch.tensor([int(p.texture) for p in scene.parts], device=device),
        whim=torch.as_tensor(whim, dtype=torch.float32, device=device),
        label=torch.as_tensor(scene.labels, device=device),
        owner=torch.as_tensor(scene.owner, device=device).int(),
    )


@lru_cache(maxsize=4)
def _noise_image(device: str) -> Tensor:
    """[1024 * 1024] smooth noise that repeats, mean 0, deviation 1; 1/f, so it has all sizes."""
    random = np.random.default_rng(20260101)
    white = np.fft.fft2(random.standard_normal((1024, 1024)))
    f = np.hypot(np.fft.fftfreq(1024)[:, None], np.fft.fftfreq(1024)[None, :])
    f[0, 0] = 1.0
    pink = np.real(np.fft.ifft2(white * np.minimum(f, 0.3) ** -0.9 * (f > 0.004)))
    pink = np.clip(pink / pink.std(), -3, 3).astype(np.float32)
    return torch.as_tensor(pink.reshape(-1), device=device)


def _noise(u: Tensor, v: Tensor, grain: float, footprint: Tensor) -> Tensor:
    """Noise with details of ``grain`` m, faded where a pixel covers more than that."""
    a = torch.floor(u * (1 / grain)).int() & 1023
    b = torch.floor(v * (1 / grain)).int() & 1023
    value = _noise_image(str(u.device)).take((a * 1024 + b).long())
    return value * (2 * grain / footprint.clamp(min=1e-4)).clamp(max=1.0)


def _hash(a: Tensor, b: Tensor) -> Tensor:
    """A number in [0, 1) for each pair of whole numbers (given as floats)."""
    mixed = torch.sin(a * 12.9898 + b * 78.233) * 43758.547
    return mixed - torch.floor(mixed)


def _line(distance: Tensor, half: float, footprint: Tensor) -> Tensor:
    """How much of a pixel a line of this half width covers, at ``distance`` from its middle."""
    return ((half - distance.abs()) / footprint.clamp(min=1e-3) + 0.5).clamp(0, 1)


def cast_shadows(scene: Scene, solids: Solids, centre: np.ndarray) -> Shadows:
    """The map of shadows around ``centre`` (x, y)."""
    device = solids.origin.device
    n, span = _SHADOW_CELLS, _SHADOW_SPAN
    # Half a cell more or less would make shadows crawl as the vehicle drives.
    cell = span / n
    corner = tuple(float(np.floor((c - span / 2) / cell) * cell) for c in centre[:2])
    sun = torch.tensor(scene.weather.sun, dtype=torch.float32, device=device)
    if scene.weather.shadow < 0.5:  # light from everywhere: dark only right below things
        sun = torch.nn.functional.normalize(
            sun * torch.tensor([1.0, 1.0, 0.0], device=device), dim=0
        )
        sun = torch.nn.functional.normalize(
            sun + torch.tensor([0.0, 0.0, 3.0], device=device), dim=0
        )
    eye = torch.tensor([*(c + span / 2 for c in corner), 0.0], device=device) + sun * 600.0
    index = torch.arange(n, device=device)
    axis = (index + 0.5) * cell
    x, y = torch.meshgrid(axis + corner[0], axis + corner[1], indexing="ij")
    rays = torch.stack([x, y, torch.zeros_like(x)], dim=-1) - eye
    pixels = tile_image(n, n, _TILE, device)
    rays = rays.view(-1, 3)[pixels]
    limit = torch.full(rays.shape[:2], 1.0, device=device)
    _, hit = nearest(solids, eye, rays, limit)
    light = torch.ones(n * n, device=device)
    light[pixels.view(-1)] = (hit.view(-1) < 0).float()
    # The sun is not a point, and a clouded sky even less so.
    blur = 3 if scene.weather.shadow > 0.85 else 7
    light = torch.nn.functional.avg_pool2d(
        light.view(1, 1, n, n), blur, 1, blur // 2, count_include_pad=False
    )
    return Shadows(light.view(n, n), (corner[0], corner[1]))


def render_camera(
    scene: Scene,
    calibration: Calibration,
    time: float,
    *,
    shadows: Shadows | None = None,
    device: torch.device | str = "cpu",
) -> View:
    """What a camera sees at ``time``. Cameras of one frame may share their ``shadows``."""
    device = torch.device(device)
    solids, paint = scene.solids(time, device), paint_of(scene, device)
    map_T_camera = scene.ego_pose(time) @ calibration.base_T_camera
    if shadows is None:
        shadows = cast_shadows(scene, solids, map_T_camera[:3, 3])
    height, width = calibration.height, calibration.width
    pixels = tile_image(height, width, _TILE, device)
    eye, rays = _camera_rays(calibration, map_T_camera, pixels)
    ground = torch.where(rays[..., 2] < -1e-4, -eye[2] / rays[..., 2].clamp(max=-1e-4), torch.inf)
    limit = torch.where(ground < FAR, ground, FAR)
    distance, hit = nearest(solids, eye, rays, limit)

    rays, distance, hit = rays.view(-1, 3), distance.view(-1), hit.view(-1)
    focal = float(calibration.intrinsics[0, 0])
    colour = torch.empty_like(rays)
    labels = torch.full_like(hit, SKY, dtype=torch.uint8)
    things = torch.full_like(hit, -1, dtype=torch.int32)
    solid, empty = hit >= 0, hit < 0
    on_ground = empty & (distance < FAR)
    sky = empty & ~on_ground

    i = torch.nonzero(sky)[:, 0]
    colour[i] = _sky(scene, rays[i])
    i = torch.nonzero(on_ground)[:, 0]
    point = eye + rays[i] * distance[i, None]
    colour[i], labels[i] = _ground(scene, point, distance[i] / focal, shadows)
    i = torch.nonzero(solid)[:, 0]
    part = hit[i]
    colour[i] = _surface(scene, solids, paint, part, eye, rays[i], distance[i], focal)
    labels[i] = paint.label[solids.part[part]]
    things[i] = paint.owner[solids.part[part]]

    i = torch.nonzero(~sky)[:, 0]
    haze = torch.exp(-distance[i] / scene.weather.visibility)[:, None]
    colour[i] = torch.lerp(colour.new_tensor(scene.weather.haze_colour), colour[i], haze)
    distance = torch.where(sky, torch.inf, distance)

    def picture(values: Tensor) -> Tensor:
        out = values.new_empty((height * width, *values.shape[1:]))
        out[pixels.view(-1)] = values
        return out.view(height, width, *values.shape[1:])

    image = _develop(scene, picture(colour), calibration.camera, time)
    return View(image, picture(distance), picture(labels), picture(things))


def _camera_rays(
    calibration: Calibration, map_T_camera: np.ndarray, pixels: Tensor
) -> tuple[Tensor, Tensor]:
    """The camera's place [3] and rays [T, R, 3] of depth 1 through pixel centres, map."""
    k = calibration.intrinsics
    v, u = pixels // calibration.width, pixels % calibration.width
    camera = torch.stack(
        [
            (u - float(k[0, 2])) / float(k[0, 0]),
            (v - float(k[1, 2])) / float(k[1, 1]),
            torch.ones_like(u, dtype=torch.float32),
        ],
        dim=-1,
    )
    pose = torch.as_tensor(map_T_camera, dtype=torch.float32, device=pixels.device)
    return pose[:3, 3], turned(camera, pose[:3, :3])


# -- surfaces --------------------------------------------------------------------------------


def _sky(scene: Scene, rays: Tensor) -> Tensor:
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
    heap = _noise(v, u, 0.02, fine) * 0.3 + _noise(u, v, 0.05, fine) * 0.6
    cover = torch.sigmoid((heap + 3.2 * weather.clouds - 1.9) * 3.0)[:, None] * (
        0.2 + 0.8 * (1 - blend)
    )
    white = rays.new_tensor(weather.horizon_colour) * 0.6 + 0.4
    white = white * (0.9 + 0.06 * heap[:, None]) * (1.0 if weather.clouds < 0.8 else 0.85)
    colour = torch.lerp(colour, white * max(0.35, min(1.0, sum(weather.horizon_colour) / 2)), cover)
    facing = (ray * rays.new_tensor(weather.sun)).sum(dim=1).clamp(min=0.0)
    glow = (facing.pow(8) * 0.25 + facing.pow(400) * 6.0)[:, None] * (1 - 0.8 * weather.clouds)
    return colour + glow * rays.new_tensor(weather.sun_colour) * 0.5


def _ground(
    scene: Scene, point: Tensor, footprint: Tensor, shadows: Shadows
) -> tuple[Tensor, Tensor]:
    """Lit colour and class of points of the ground."""
    streets, weather = scene.streets, scene.weather
    x, y = point[:, 0], point[:, 1]
    labels, kerb, s, d = streets.survey(x, y)
    shift = float(scene.seed % 97) * 3.7
    coarse = _noise(x + shift, y, 0.07, footprint)
    fine = _noise(y + shift, x, 0.018, footprint)
    wide = _noise(y, x - shift, 0.3, footprint)
    tint = np.random.default_rng(scene.seed + 2)
    asphalt = tint.uniform(0.09, 0.2)
    colour = _asphalt(scene, s, d, kerb, x, y, coarse, fine, wide, footprint, asphalt)

    name = OCC3D.names
    # Pavers: joints and a shade of its own for each.
    size = tint.uniform(0.6, 1.6)
    cell_s, cell_d = s / size, d / size
    joint = torch.minimum((cell_s - cell_s.round()).abs(), (cell_d - cell_d.round()).abs()) * size
    shade = _hash(torch.floor(cell_s), torch.floor(cell_d)) - 0.5
    fade = (size / footprint.clamp(min=1e-3) / 12).clamp(max=1.0)
    paver = (
        0.3
        + 0.06 * shade * fade
        + 0.03 * coarse
        + 0.02 * fine
        - 0.12 * _line(joint, 0.02, footprint) * fade
    )
    warm = torch.tensor(tint.uniform(0.9, 1.1, 3), dtype=torch.float32, device=x.device)
    mask = (labels == name.index("sidewalk"))[:, None]
    colour = torch.where(mask, paver[:, None] * warm, colour)
    slab = 0.24 + 0.05 * coarse + 0.03 * fine + 0.03 * wide
    ruddy = torch.tensor(
        [1.25, 0.9, 0.75] if tint.random() < 0.5 else [1.0, 1.0, 0.95], device=x.device
    )
    stripe = _line(torch.remainder(s + d, 3.0) - 1.5, 0.25, footprint) * 0.12
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
    edge = _line(kerb - 0.09, 0.09, footprint)[:, None]
    colour = torch.lerp(colour, stone[:, None].expand(-1, 3), edge)

    light = shadows.at(x, y)
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
    cell = _hash(torch.floor(s / 7.0), torch.floor((d + 40) / 2.3) + scene.seed % 13)
    grey = torch.where(cell > 0.93, grey * 0.68, torch.where(cell < 0.04, grey * 1.3, grey))
    seam = torch.remainder(s + 0.4 * wide, 11.0) - 5.5
    grey = grey * (1 - 0.4 * _line(seam, 0.02, footprint))
    colour = grey[:, None].expand(-1, 3)

    paint = torch.zeros_like(s)
    clear = ~streets.in_crossing(x, y, s) & (d.abs() < main.half)
    a = d.abs()
    for n in range(1, main.lanes):
        dash = torch.remainder(s, 9.0) < 3.0
        paint = torch.maximum(
            paint, _line(a - main.median / 2 - n * main.lane_width, 0.07, footprint) * dash
        )
    edge = main.half - main.parking - (0.15 if main.parking == 0 else 0.0)
    paint = torch.maximum(paint, _line(a - edge, 0.06, footprint))
    if main.parking > 0:
        bay = _line(torch.remainder(s, 6.0) - 3.0, 0.05, footprint) * (a > edge)
        paint = torch.maximum(paint, bay)
    middle = torch.zeros_like(s)
    if main.median > 0:
        paint = torch.maximum(paint, _line(a - main.median / 2 - 0.2, 0.06, footprint))
    elif main.lanes == 1:
        middle = _line(d, 0.07, footprint) * (torch.remainder(s, 6.0) < 3.0)
    else:
        middle = _line(a - 0.14, 0.06, footprint)
    paint, middle = paint * clear, middle * clear
    if streets.side is not None:
        side = streets.side
        along, across = streets.side_coordinates(x, y)
        # On the side road: its own middle line and edges, away from the main road.
        off = (a > main.half + 6.5) & (across.abs() < side.half)
        dashes = torch.remainder(along, 6.0) < 3.0
        paint = torch.maximum(paint, _line(across, 0.07, footprint) * off * dashes)
        paint = torch.maximum(
            paint, _line(across.abs() - side.half + side.parking + 0.15, 0.06, footprint) * off
        )
        # Zebra stripes before the crossing on each arm, and stop lines behind them.
        on_main = (a < main.half) & (kerb < 0)
        zone = across.abs() - side.half
        zebra = (zone > 2.2) & (zone < 4.6) & on_main & (torch.remainder(d, 1.0) < 0.5)
        paint = torch.maximum(paint, zebra.float())
        stop = (
            _line(zone - 5.8, 0.2, footprint) * on_main * (d * across * _side_of_driving(scene) < 0)
        )
        paint = torch.maximum(paint, stop)
        on_side = (across.abs() < side.half) & (kerb < 0)
        zone = a - main.half
        zebra = (zone > 2.2) & (zone < 4.6) & on_side & (torch.remainder(across, 1.0) < 0.5)
        paint = torch.maximum(paint, zebra.float())
    worn = (0.85 + 0.25 * coarse).clamp(0.3, 1.0)
    colour = torch.lerp(colour, colour.new_full((1, 3), 0.62), (paint * worn)[:, None])
    yellow = [0.6, 0.4, 0.06] if streets.lane_marks else [0.62, 0.62, 0.62]
    return torch.lerp(colour, colour.new_tensor(yellow), (middle * worn)[:, None])


def _side_of_driving(scene: Scene) -> float:
    """-1 where one drives on the right, 1 on the left (told by where our own lane is)."""
    s = torch.tensor(scene.ego[:1, 0]), torch.tensor(scene.ego[:1, 1])
    return float(torch.sign(scene.streets.main_coordinates(*s)[1])[0])


def _surface(
    scene: Scene,
    solids: Solids,
    paint: Paint,
    hit: Tensor,
    eye: Tensor,
    rays: Tensor,
    distance: Tensor,
    focal: float,
) -> Tensor:
    """Lit colour of points on parts: [n, 3]."""
    weather = scene.weather
    c, s = solids.cos[hit], solids.sin[hit]
    dx = eye[0] + rays[:, 0] * distance - solids.origin[hit, 0]
    dy = eye[1] + rays[:, 1] * distance - solids.origin[hit, 1]
    x, y, z = c * dx + s * dy, c * dy - s * dx, eye[2] + rays[:, 2] * distance
    place = _Place.of(solids, hit, x, y, z, distance / focal)
    number = solids.part[hit]
    texture = paint.texture[number]
    colour = paint.colour[number].clone()
    shine = torch.zeros_like(x)
    for kind, painter in _PAINTERS.items():
        i = torch.nonzero(texture == int(kind))[:, 0]
        if len(i):
            here = place.take(i)
            colour[i], shine[i] = painter(
                here, colour[i], paint.accent[number[i]], paint.whim[number[i]]
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
    # Glass and paint mirror the sky above and the street below.
    view = torch.nn.functional.normalize(rays, dim=1)
    along = view[:, 0] * nx + view[:, 1] * ny + view[:, 2] * place.nz
    mirror_z = view[:, 2] - 2 * along * place.nz
    mirrored = torch.lerp(
        horizon * 0.3, (sky + horizon) / 2, (mirror_z * 3 + 0.5).clamp(0, 1)[:, None]
    )
    fresnel = (shine * (0.25 + 0.75 * (1 - along.abs()).clamp(0, 1).pow(3)))[:, None]
    return torch.lerp(lit, mirrored, fresnel)


@dataclass(frozen=True)
class _Place:
    """Points on parts: all [n], in the frames of the parts.

    Attributes:
        nx, ny, nz: outward normal.
        face: 0 x low, 1 x high, 2 y low, 3 y high, 4 bottom, 5 top (blocks; else as nearest).
        u, v: m, along and up the face.
        fx, fy, fz: 0 to 1 between the bounds, with their slopes.
        x, z: m; wide, long, tall: m, extent.
        foot: m, size of a pixel there.
    """

    nx: Tensor
    ny: Tensor
    nz: Tensor
    face: Tensor
    u: Tensor
    v: Tensor
    fx: Tensor
    fy: Tensor
    fz: Tensor
    x: Tensor
    y: Tensor
    z: Tensor
    long: Tensor
    wide: Tensor
    tall: Tensor
    foot: Tensor

    def take(self, i: Tensor) -> _Place:
        return _Place(**{n: getattr(self, n)[i] for n in self.__dataclass_fields__})

    @staticmethod
    def of(solids: Solids, hit: Tensor, x: Tensor, y: Tensor, z: Tensor, foot: Tensor) -> _Place:
        low, high = solids.low[hit], solids.high[hit]
        a, b = solids.slope_low[hit], solids.slope_high[hit]
        kind = solids.kind[hit]
        rise = z - low[:, 2]
        x0, x1 = low[:, 0] + a[:, 0] * rise, high[:, 0] + b[:, 0] * rise
        y0, y1 = low[:, 1] + a[:, 1] * rise, high[:, 1] + b[:, 1] * rise
        # How far from each plane: the nearest one is the face.
        gaps = torch.stack(
            [
                (x - x0).abs() * torch.rsqrt(1 + a[:, 0] ** 2),
                (x1 - x).abs() * torch.rsqrt(1 + b[:, 0] ** 2),
                (y - y0).abs() * torch.rsqrt(1 + a[:, 1] ** 2),
                (y1 - y).abs() * torch.rsqrt(1 + b[:, 1] ** 2),
                rise.abs(),
                (high[:, 2] - z).abs(),
            ]
        )
        face = gaps.argmin(dim=0)
        is_x, is_y = face < 2, (face == 2) | (face == 3)
        slope = torch.where(
            face == 0,
            a[:, 0],
            torch.where(face == 1, b[:, 0], torch.where(face == 2, a[:, 1], b[:, 1])),
        )
        sign = torch.where((face & 1) == 1, 1.0, -1.0)
        nx, ny = torch.where(is_x, sign, 0.0), torch.where(is_y, sign, 0.0)
        nz = torch.where(is_x | is_y, -sign * slope, sign)
        round_ = kind != Kind.BLOCK
        half = (high - low) / 2
        middle = (high[:, 2] + low[:, 2]) / 2
        ellipsoid = kind == Kind.ELLIPSOID
        ex, ey = x / half[:, 0] ** 2, y / half[:, 1] ** 2
        ez = torch.where(ellipsoid, (z - middle) / half[:, 2] ** 2, -b[:, 0] / half[:, 0])
        lid = (kind == Kind.CONE) & (face >= 4) & (gaps[5] < 1e-3)
        nx, ny = (
            torch.where(round_, torch.where(lid, 0.0, ex), nx),
            torch.where(round_, torch.where(lid, 0.0, ey), ny),
        )
        nz = torch.where(round_, torch.where(lid, 1.0, ez), nz)
        scale = torch.rsqrt(nx * nx + ny * ny + nz * nz + 1e-12)
        angle = torch.atan2(y, x) * half[:, 0]
        u = torch.where(round_, angle, torch.where(is_x, y, x))
        v = torch.where(round_ | is_x | is_y, z, y)
        return _Place(
            nx * scale,
            ny * scale,
            nz * scale,
            face,
            u,
            v,
            (x - x0) / (x1 - x0).clamp(min=1e-3),
            (y - y0) / (y1 - y0).clamp(min=1e-3),
            rise / (high[:, 2] - low[:, 2]),
            x,
            y,
            z,
            high[:, 0] - low[:, 0],
            high[:, 1] - low[:, 1],
            high[:, 2] - low[:, 2],
            foot,
        )


Painted = tuple[Tensor, Tensor | float]  # colour [n, 3], and how much it mirrors, 0 to 1


def _grain(p: _Place, whim: Tensor, grain: float) -> Tensor:
    return _noise(p.u + whim * 50, p.v + whim * 20, grain, p.foot)


def _mix(colour: Tensor, other: Tensor | tuple[float, ...], share: Tensor) -> Tensor:
    other = other if isinstance(other, Tensor) else colour.new_tensor(other)
    return torch.lerp(colour, other.expand_as(colour), share.to(colour.dtype)[:, None])


def _plain(p: _Place, colour: Tensor, accent: Tensor, whim: Tensor) -> Painted:
    return colour * (1 + 0.1 * _grain(p, whim, 0.05) + 0.06 * _grain(p, whim, 0.12))[:, None], 0.02


def _cloth(p: _Place, colour: Tensor, accent: Tensor, whim: Tensor) -> Painted:
    colour = colour * (1 + 0.22 * _grain(p, whim, 0.03)).clamp(0.3, 1.8)[:, None]
    return _mix(colour, accent, (p.fz - 0.4).abs() < 0.06), 0.0


def _windows(
    p: _Place,
    colour: Tensor,
    glass: Tensor,
    whim: Tensor,
    bay: Tensor,
    storey: Tensor,
    share: tuple[float, float],
) -> tuple[Tensor, Tensor]:
    """Rows of windows on the upright faces."""
    a, b = p.u / bay + whim * 3, p.v / storey
    fa, fb = a - torch.floor(a), b - torch.floor(b)
    ground = p.v < storey
    half_w, half_h = torch.where(ground & (whim > 0.5), 0.42, share[0] / 2), share[1] / 2
    reach = torch.minimum(half_w - (fa - 0.5).abs(), half_h - (fb - 0.55).abs())
    foot = p.foot / bay
    side = (p.face < 4).float()
    inside = (reach / foot.clamp(min=1e-3) + 0.5).clamp(0, 1) * side
    frame = (((reach + 0.035) / foot.clamp(min=1e-3) + 0.5).clamp(0, 1) - inside).clamp(
        min=0
    ) * side
    fade = (bay / p.foot.clamp(min=1e-3) / 5).clamp(max=1.0)
    room = _hash(torch.floor(a), torch.floor(b) + torch.floor(whim * 97))
    curtain = (room > 0.72).float() * 0.5 * room
    pane = glass * (0.5 + 1.3 * room)[:, None] + curtain[:, None] * 0.5
    # From afar windows and wall run together.
    average = share[0] * share[1]
    inside = torch.lerp(torch.full_like(inside, average) * side, inside, fade)
    colour = _mix(colour, (0.55, 0.55, 0.53), frame * fade)
    return _mix(colour, pane, inside), inside * (0.75 - curtain)


def _facade(p: _Place, colour: Tensor, accent: Tensor, whim: Tensor) -> Painted:
    stain = _noise(p.u * 0.3 + whim * 9, p.v * 0.1, 0.03, p.foot)
    colour = (
        colour
        * (1 + 0.06 * _grain(p, whim, 0.05) + 0.08 * stain + 0.05 * _grain(p, whim, 0.12))[:, None]
    )
    ledge = _line(torch.remainder(p.v, 3.3) - 0.12, 0.08, p.foot) * (p.face < 4)
    colour = colour * (1 - 0.25 * ledge[:, None])
    bay = 2.2 + 1.6 * _hash(torch.floor(whim * 31), whim)
    return _windows(p, colour, accent, whim, bay, torch.full_like(bay, 3.3), (0.5, 0.5))


def _brick(p: _Place, colour: Tensor, accent: Tensor, whim: Tensor) -> Painted:
    row = torch.floor(p.v / 0.09)
    along = p.u / 0.27 + 0.5 * torch.remainder(row, 2.0)
    fade = (0.12 / p.foot.clamp(min=1e-3)).clamp(max=1.0)
    each = (_hash(torch.floor(along), row) - 0.5) * fade
    mortar = torch.maximum(
        _line(torch.remainder(p.v, 0.09) - 0.045, 0.006, p.foot),
        _line((along - along.round()) * 0.27, 0.006, p.foot),
    ) * (fade >= 1.0)
    colour = (
        colour
        * (1 + 0.4 * each + 0.05 * _grain(p, whim, 0.03) + 0.06 * _grain(p, whim, 0.09))[:, None]
    )
    colour = _mix(colour, (0.4, 0.38, 0.35), mortar * 0.6)
    tall = p.tall > 2.5
    bay = 2.4 + 1.2 * _hash(torch.floor(whim * 17), whim)
    painted, shine = _windows(p, colour, accent, whim, bay, torch.full_like(bay, 3.1), (0.42, 0.48))
    return torch.where(tall[:, None], painted, colour), shine * tall


def _curtain_wall(p: _Place, colour: Tensor, accent: Tensor, whim: Tensor) -> Painted:
    bay = 1.2 + 0.8 * whim
    a, b = p.u / bay, p.v / 3.6
    fade = (bay / p.foot.clamp(min=1e-3) / 6).clamp(max=1.0)
    bars = (
        torch.maximum(
            _line((a - a.round()) * bay, 0.05, p.foot), _line((b - b.round()) * 3.6, 0.16, p.foot)
        )
        * fade
    )
    pane = accent + 0.1 * (_hash(torch.floor(a), torch.floor(b)) * fade)[:, None]
    pane = pane * (1 + 0.2 * _grain(p, whim, 0.15))[:, None]
    solid = torch.maximum(bars, (p.face >= 4).float())
    return _mix(pane, colour, solid), 0.7 * (1 - solid)


def _vehicle_body(p: _Place, colour: Tensor, accent: Tensor, whim: Tensor) -> Painted:
    colour = colour * (1 + 0.015 * _grain(p, whim, 0.05))[:, None]
    end, front, side = p.face < 2, p.face == 1, (p.face == 2) | (p.face == 3)
    across = (p.fy - 0.5).abs()
    sill = p.fz < 0.16
    colour = _mix(colour, (0.03, 0.03, 0.03), sill & (p.face < 4))
    # Wheel arches, door seams and handles.
    arch = torch.minimum((p.fx - 0.2).abs(), (p.fx - 0.81).abs()) * p.long
    colour = _mix(colour, (0.01, 0.01, 0.01), side & (arch**2 + (p.z - 0.33) ** 2 < 0.16))
    seam = torch.minimum(
        torch.minimum((p.fx - 0.34).abs(), (p.fx - 0.52).abs()), (p.fx - 0.7).abs()
    )
    colour = colour * (1 - 0.6 * _line(seam * p.long, 0.012, p.foot) * side)[:, None]
    handle = torch.minimum((p.fx - 0.38).abs(), (p.fx - 0.56).abs()) * p.long
    colour = _mix(colour, (0.02, 0.02, 0.02), side & (handle < 0.09) & ((p.fz - 0.84).abs() < 0.03))
    lamp = end & (across > 0.29) & (across < 0.47) & (p.fz > 0.55) & (p.fz < 0.86)
    glow = torch.where(
        front[:, None], colour.new_tensor([0.75, 0.75, 0.72]), colour.new_tensor([0.5, 0.015, 0.01])
    )
    colour = _mix(colour, glow, lamp)
    grille = front & (across < 0.26) & (p.fz > 0.4) & (p.fz < 0.78)
    bars = 0.03 + 0.06 * (torch.remainder(p.v, 0.06) < 0.03).float()
    colour = _mix(colour, bars[:, None].expand(-1, 3), grille)
    plate = end & (across < 0.14) & (p.fz > 0.22) & (p.fz < 0.36)
    colour = _mix(colour, (0.7, 0.7, 0.66), plate)
    return colour, torch.where(sill, 0.0, 0.3)


def _cabin(p: _Place, colour: Tensor, accent: Tensor, whim: Tensor) -> Painted:
    side = (p.face == 2) | (p.face == 3)
    end = p.face < 2
    along = torch.where(side, p.fx, p.fy)
    pillar = torch.minimum(along, 1 - along) < torch.where(side, 0.07, 0.06)
    pillar |= side & ((p.fx - 0.5).abs() < 0.025)
    glass = (side | end) & ~pillar & (p.fz > 0.06) & (p.fz < 0.86)
    return _mix(colour, accent, glass), torch.where(glass, 0.8, 0.3)


def _window_band(p: _Place, colour: Tensor, accent: Tensor, whim: Tensor) -> Painted:
    side = (p.face == 2) | (p.face == 3)
    end, front = p.face < 2, p.face == 1
    colour = colour * (1 + 0.025 * _grain(p, whim, 0.06))[:, None]
    pillar = _line(torch.remainder(p.u, 1.5) - 0.75, 0.06, p.foot)
    glass = (side & (p.fz > 0.46) & (p.fz < 0.82)).float() * (1 - pillar)
    across = (p.fy - 0.5).abs()
    glass = torch.maximum(glass, (front & (across < 0.45) & (p.fz > 0.36) & (p.fz < 0.88)).float())
    glass = torch.maximum(
        glass, ((p.face == 0) & (across < 0.38) & (p.fz > 0.5) & (p.fz < 0.85)).float()
    )
    stripe = side & (p.fz > 0.34) & (p.fz < 0.4)
    colour = _mix(colour, (0.6, 0.6, 0.6), stripe & (whim > 0.4))
    colour = _mix(colour, (0.03, 0.03, 0.03), (p.face < 4) & (p.fz < 0.08))
    door = side & (p.fx > 0.86) & (p.fx < 0.93) & (p.fz > 0.1)
    glass = torch.maximum(glass, 0.8 * door.float())
    lamp = end & (across > 0.33) & (across < 0.46) & (p.fz > 0.12) & (p.fz < 0.22)
    glow = torch.where(
        front[:, None], colour.new_tensor([0.8, 0.8, 0.75]), colour.new_tensor([0.5, 0.015, 0.01])
    )
    colour = _mix(colour, glow, lamp)
    sign = front & (across < 0.32) & (p.fz > 0.9) & (p.fz < 0.97)
    colour = _mix(_mix(colour, accent, glass), (0.7, 0.4, 0.05), sign & (p.tall > 2.5))
    return colour, glass * 0.75 + 0.1


def _cargo(p: _Place, colour: Tensor, accent: Tensor, whim: Tensor) -> Painted:
    colour = colour * (1 + 0.03 * _grain(p, whim, 0.09) + 0.03 * _grain(p, whim, 0.03))[:, None]
    rib = _line(torch.remainder(p.u, 0.55 + 0.5 * whim) - 0.2, 0.02, p.foot)
    colour = colour * (1 - 0.25 * rib * (p.face < 4))[:, None]
    side = (p.face == 2) | (p.face == 3)
    logo = side & (whim > 0.35) & ((p.fx - 0.5).abs() < 0.28) & ((p.fz - 0.58).abs() < 0.2)
    colour = _mix(colour, accent, logo)
    letters = logo & (_hash(torch.floor(p.u / 0.35), torch.floor(whim * 50)) > 0.35)
    letters &= ((p.fz - 0.58).abs() < 0.1) & (torch.remainder(p.u, 0.35) < 0.24)
    colour = _mix(colour, (0.75, 0.75, 0.73), letters)
    rear = p.face == 0
    across = (p.fy - 0.5).abs()
    colour = colour * (1 - 0.7 * _line(across * p.wide, 0.02, p.foot) * rear)[:, None]
    colour = _mix(colour, (0.55, 0.02, 0.015), rear & (across > 0.36) & (p.fz < 0.08))
    hem = (p.face < 4) & (p.fz < 0.05)
    return _mix(colour, (0.06, 0.06, 0.06), hem & ~rear), 0.06


def _bands(p: _Place, colour: Tensor, accent: Tensor, whim: Tensor) -> Painted:
    band = ((p.fz - 0.48).abs() < 0.1) | ((p.fz - 0.78).abs() < 0.07)
    colour = colour * (1 + 0.1 * _grain(p, whim, 0.03))[:, None]
    return _mix(colour, accent, band), 0.05


def _barrier(p: _Place, colour: Tensor, accent: Tensor, whim: Tensor) -> Painted:
    colour = colour * (1 + 0.12 * _grain(p, whim, 0.04) + 0.1 * _grain(p, whim, 0.08))[:, None]
    strip = (whim > 0.5) & ((p.z - 0.7).abs() < 0.09) & (torch.remainder(p.u + p.z, 0.5) < 0.25)
    colour = _mix(colour, accent, strip)
    hole = ((torch.remainder(p.u, 0.98) - 0.49).abs() < 0.11) & (p.z < 0.14)
    seam = _line(torch.remainder(p.u, 0.5) - 0.25, 0.012, p.foot)
    return _mix(colour, (0.02, 0.02, 0.02), torch.maximum(hole.float(), 0.35 * seam)), 0.04


def _foliage(p: _Place, colour: Tensor, accent: Tensor, whim: Tensor) -> Painted:
    # Along the axis that the surface looks along, so that nothing is smeared.
    ax, ay, az = p.nx.abs(), p.ny.abs(), p.nz.abs()
    u = torch.where((ax > ay) & (ax > az), p.y, p.x) + whim * 40
    v = torch.where((az > ax) & (az > ay), p.y, p.z) + whim * 17
    leaf = _noise(u, v, 0.025, p.foot)
    clump = _noise(v, u, 0.06, p.foot)
    shade = (1 + 0.4 * leaf + 0.4 * clump).clamp(0.1, 2.4)
    hue = 0.12 * clump[:, None] * colour.new_tensor([1.0, 0.5, -0.4])
    return colour * (shade[:, None] + hue), 0.0


def _wheel(p: _Place, colour: Tensor, accent: Tensor, whim: Tensor) -> Painted:
    up = (p.fz - 0.5) * p.tall
    r = torch.sqrt(p.x * p.x + up * up) / (p.tall / 2)
    spoke = torch.remainder(torch.atan2(up, p.x) * (5 / np.pi), 2.0) < 1.2
    rim = (r < 0.62) & (spoke | (r < 0.2) | (r > 0.54))
    return _mix(colour, accent, rim), torch.where(rim, 0.15, 0.02)


def _planks(p: _Place, colour: Tensor, accent: Tensor, whim: Tensor) -> Painted:
    across = torch.where(p.tall > 2.0, p.y * 1.2, p.u)  # rows of tiles on a roof, boards on a fence
    pitch = 0.22
    each = _hash(torch.floor(across / pitch), torch.floor(whim * 40)) - 0.5
    gap = _line(torch.remainder(across, pitch) - pitch / 2, 0.012, p.foot)
    fade = (pitch / p.foot.clamp(min=1e-3) / 3).clamp(max=1.0)
    shade = 1 + (0.35 * each - 0.45 * gap) * fade + 0.12 * _grain(p, whim, 0.1)
    return colour * shade.clamp(min=0.2)[:, None], 0.0


def _sign(p: _Place, colour: Tensor, accent: Tensor, whim: Tensor) -> Painted:
    edge = torch.minimum(torch.minimum(p.fy, 1 - p.fy), torch.minimum(p.fz, 1 - p.fz)) < 0.08
    mark = _hash(torch.floor(p.fy * 5), torch.floor(p.fz * 5) + torch.floor(whim * 60)) > 0.62
    return _mix(colour, accent, (edge | mark) & (p.face < 4)), 0.1


def _signal(p: _Place, colour: Tensor, accent: Tensor, whim: Tensor) -> Painted:
    height = torch.where(accent[:, 0] > accent[:, 1], 0.8, 0.2)  # red is on top
    lamps = (torch.remainder(p.fz * 3, 1.0) - 0.5) ** 2 + (p.fy - 0.5) ** 2 < 0.12
    front = p.face == 0
    colour = _mix(colour, (0.07, 0.07, 0.07), front & lamps)
    return _mix(colour, accent * 1.6, front & lamps & ((p.fz - height).abs() < 0.16)), 0.05


_PAINTERS = {
    Texture.PLAIN: _plain,
    Texture.FACADE: _facade,
    Texture.BRICK: _brick,
    Texture.CURTAIN_WALL: _curtain_wall,
    Texture.VEHICLE_BODY: _vehicle_body,
    Texture.CABIN: _cabin,
    Texture.WINDOW_BAND: _window_band,
    Texture.BANDS: _bands,
    Texture.BARRIER: _barrier,
    Texture.FOLIAGE: _foliage,
    Texture.WHEEL: _wheel,
    Texture.CLOTH: _cloth,
    Texture.PLANKS: _planks,
    Texture.CARGO: _cargo,
    Texture.SIGN: _sign,
    Texture.SIGNAL: _signal,
}


def _develop(scene: Scene, colour: Tensor, camera: str, time: float) -> Tensor:
    """Linear light [H, W, 3] to an 8 bit image: exposure, vignette, noise, tone curve."""
    height, width = colour.shape[:2]
    y = torch.linspace(-1, 1, height, device=colour.device)[:, None]
    x = torch.linspace(-1, 1, width, device=colour.device)[None, :]
    # Half of what a camera's own exposure control would do: some images stay dark or bright.
    gain = (
        0.82
        * scene.weather.exposure
        * (0.3 / colour.double().mean().clamp(min=0.02)).sqrt().float()
    )
    light = colour * gain * (1 - 0.09 * (x * x + y * y))[..., None]
    tone = 1.0 - torch.exp(-1.3 * light.clamp(min=0.0))
    image = tone.pow(1 / 2.2)
    image = image + 0.45 * (image - 0.5) * (1 - (2 * image - 1) ** 2)  # contrast
    generator = torch.Generator(device=colour.device)
    generator.manual_seed(zlib.crc32(f"{scene.seed} {camera} {time:.6f}".encode()))
    grain = torch.randn(image.shape, generator=generator, device=colour.device)
    image = image + grain * scene.weather.noise
    return (image * 255.0 + 0.5).clamp(0, 255).to(torch.uint8)
