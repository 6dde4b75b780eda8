# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""What surfaces look like: noise, and a shader for each texture.

A shader gives the colour of points on a part; it knows no camera and no light.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from alocc_ros.synthetic.primitives import SolidKind, Texture
from alocc_ros.synthetic.raycast import Solids


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


def noise(u: Tensor, v: Tensor, grain: float, footprint: Tensor) -> Tensor:
    """Noise with details of ``grain`` m, faded where a pixel covers more than that."""
    a = torch.floor(u * (1 / grain)).int() & 1023
    b = torch.floor(v * (1 / grain)).int() & 1023
    value = _noise_image(str(u.device)).take((a * 1024 + b).long())
    return value * (2 * grain / footprint.clamp(min=1e-4)).clamp(max=1.0)


def hashed(a: Tensor, b: Tensor) -> Tensor:
    """A number in [0, 1) for each pair of whole numbers (given as floats)."""
    mixed = torch.sin(a * 12.9898 + b * 78.233) * 43758.547
    return mixed - torch.floor(mixed)


def line(distance: Tensor, half: float, footprint: Tensor) -> Tensor:
    """How much of a pixel a line of this half width covers, at ``distance`` from its middle."""
    return ((half - distance.abs()) / footprint.clamp(min=1e-3) + 0.5).clamp(0, 1)


@dataclass(frozen=True)
class SurfacePoints:
    """Points on parts: all [n], in the frames of the parts.

    Attributes:
        nx, ny, nz: outward normal.
        face: 0 x low, 1 x high, 2 y low, 3 y high, 4 bottom, 5 top (blocks; else as nearest).
        u, v: m, along and up the face.
        fx, fy, fz: 0 to 1 between the bounds, with their slopes.
        x, z: m; wide, long, tall: m, extent.
        footprint: m, size of a pixel there.
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
    footprint: Tensor

    def take(self, i: Tensor) -> SurfacePoints:
        """Those with the indices ``i``."""
        return SurfacePoints(**{n: getattr(self, n)[i] for n in self.__dataclass_fields__})

    @staticmethod
    def of(
        solids: Solids, hit: Tensor, x: Tensor, y: Tensor, z: Tensor, footprint: Tensor
    ) -> SurfacePoints:
        """Points [n] x, y, z in the frames of the parts that they lie on."""
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
        round_ = kind != SolidKind.BLOCK
        half = (high - low) / 2
        middle = (high[:, 2] + low[:, 2]) / 2
        ellipsoid = kind == SolidKind.ELLIPSOID
        ex, ey = x / half[:, 0] ** 2, y / half[:, 1] ** 2
        ez = torch.where(ellipsoid, (z - middle) / half[:, 2] ** 2, -b[:, 0] / half[:, 0])
        lid = (kind == SolidKind.CONE) & (face >= 4) & (gaps[5] < 1e-3)
        nx, ny = (
            torch.where(round_, torch.where(lid, 0.0, ex), nx),
            torch.where(round_, torch.where(lid, 0.0, ey), ny),
        )
        nz = torch.where(round_, torch.where(lid, 1.0, ez), nz)
        scale = torch.rsqrt(nx * nx + ny * ny + nz * nz + 1e-12)
        angle = torch.atan2(y, x) * half[:, 0]
        u = torch.where(round_, angle, torch.where(is_x, y, x))
        v = torch.where(round_ | is_x | is_y, z, y)
        return SurfacePoints(
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
            footprint,
        )


Shaded = tuple[Tensor, Tensor | float]  # colour [n, 3], and how much it mirrors, 0 to 1


def _grain(p: SurfacePoints, variation: Tensor, grain: float) -> Tensor:
    return noise(p.u + variation * 50, p.v + variation * 20, grain, p.footprint)


def _mix(colour: Tensor, other: Tensor | tuple[float, ...], share: Tensor) -> Tensor:
    other = other if isinstance(other, Tensor) else colour.new_tensor(other)
    return torch.lerp(colour, other.expand_as(colour), share.to(colour.dtype)[:, None])


def _plain(p: SurfacePoints, colour: Tensor, accent: Tensor, variation: Tensor) -> Shaded:
    return colour * (1 + 0.1 * _grain(p, variation, 0.05) + 0.06 * _grain(p, variation, 0.12))[
        :, None
    ], 0.02


def _cloth(p: SurfacePoints, colour: Tensor, accent: Tensor, variation: Tensor) -> Shaded:
    colour = colour * (1 + 0.22 * _grain(p, variation, 0.03)).clamp(0.3, 1.8)[:, None]
    return _mix(colour, accent, (p.fz - 0.4).abs() < 0.06), 0.0


def _windows(
    p: SurfacePoints,
    colour: Tensor,
    glass: Tensor,
    variation: Tensor,
    bay: Tensor,
    storey: Tensor,
    share: tuple[float, float],
) -> tuple[Tensor, Tensor]:
    """Rows of windows on the upright faces."""
    a, b = p.u / bay + variation * 3, p.v / storey
    fa, fb = a - torch.floor(a), b - torch.floor(b)
    ground = p.v < storey
    half_w, half_h = torch.where(ground & (variation > 0.5), 0.42, share[0] / 2), share[1] / 2
    reach = torch.minimum(half_w - (fa - 0.5).abs(), half_h - (fb - 0.55).abs())
    foot = p.footprint / bay
    side = (p.face < 4).float()
    inside = (reach / foot.clamp(min=1e-3) + 0.5).clamp(0, 1) * side
    frame = (((reach + 0.035) / foot.clamp(min=1e-3) + 0.5).clamp(0, 1) - inside).clamp(
        min=0
    ) * side
    fade = (bay / p.footprint.clamp(min=1e-3) / 5).clamp(max=1.0)
    room = hashed(torch.floor(a), torch.floor(b) + torch.floor(variation * 97))
    curtain = (room > 0.72).float() * 0.5 * room
    pane = glass * (0.5 + 1.3 * room)[:, None] + curtain[:, None] * 0.5
    # From afar windows and wall run together.
    average = share[0] * share[1]
    inside = torch.lerp(torch.full_like(inside, average) * side, inside, fade)
    colour = _mix(colour, (0.55, 0.55, 0.53), frame * fade)
    return _mix(colour, pane, inside), inside * (0.75 - curtain)


def _facade(p: SurfacePoints, colour: Tensor, accent: Tensor, variation: Tensor) -> Shaded:
    stain = noise(p.u * 0.3 + variation * 9, p.v * 0.1, 0.03, p.footprint)
    colour = (
        colour
        * (
            1 + 0.06 * _grain(p, variation, 0.05) + 0.08 * stain + 0.05 * _grain(p, variation, 0.12)
        )[:, None]
    )
    ledge = line(torch.remainder(p.v, 3.3) - 0.12, 0.08, p.footprint) * (p.face < 4)
    colour = colour * (1 - 0.25 * ledge[:, None])
    bay = 2.2 + 1.6 * hashed(torch.floor(variation * 31), variation)
    return _windows(p, colour, accent, variation, bay, torch.full_like(bay, 3.3), (0.5, 0.5))


def _brick(p: SurfacePoints, colour: Tensor, accent: Tensor, variation: Tensor) -> Shaded:
    row = torch.floor(p.v / 0.09)
    along = p.u / 0.27 + 0.5 * torch.remainder(row, 2.0)
    fade = (0.12 / p.footprint.clamp(min=1e-3)).clamp(max=1.0)
    each = (hashed(torch.floor(along), row) - 0.5) * fade
    mortar = torch.maximum(
        line(torch.remainder(p.v, 0.09) - 0.045, 0.006, p.footprint),
        line((along - along.round()) * 0.27, 0.006, p.footprint),
    ) * (fade >= 1.0)
    colour = (
        colour
        * (1 + 0.4 * each + 0.05 * _grain(p, variation, 0.03) + 0.06 * _grain(p, variation, 0.09))[
            :, None
        ]
    )
    colour = _mix(colour, (0.4, 0.38, 0.35), mortar * 0.6)
    tall = p.tall > 2.5
    bay = 2.4 + 1.2 * hashed(torch.floor(variation * 17), variation)
    painted, shine = _windows(
        p, colour, accent, variation, bay, torch.full_like(bay, 3.1), (0.42, 0.48)
    )
    return torch.where(tall[:, None], painted, colour), shine * tall


def _curtain_wall(p: SurfacePoints, colour: Tensor, accent: Tensor, variation: Tensor) -> Shaded:
    bay = 1.2 + 0.8 * variation
    a, b = p.u / bay, p.v / 3.6
    fade = (bay / p.footprint.clamp(min=1e-3) / 6).clamp(max=1.0)
    bars = (
        torch.maximum(
            line((a - a.round()) * bay, 0.05, p.footprint),
            line((b - b.round()) * 3.6, 0.16, p.footprint),
        )
        * fade
    )
    pane = accent + 0.1 * (hashed(torch.floor(a), torch.floor(b)) * fade)[:, None]
    pane = pane * (1 + 0.2 * _grain(p, variation, 0.15))[:, None]
    solid = torch.maximum(bars, (p.face >= 4).float())
    return _mix(pane, colour, solid), 0.7 * (1 - solid)


def _vehicle_body(p: SurfacePoints, colour: Tensor, accent: Tensor, variation: Tensor) -> Shaded:
    colour = colour * (1 + 0.015 * _grain(p, variation, 0.05))[:, None]
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
    colour = colour * (1 - 0.6 * line(seam * p.long, 0.012, p.footprint) * side)[:, None]
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


def _cabin(p: SurfacePoints, colour: Tensor, accent: Tensor, variation: Tensor) -> Shaded:
    side = (p.face == 2) | (p.face == 3)
    end = p.face < 2
    along = torch.where(side, p.fx, p.fy)
    pillar = torch.minimum(along, 1 - along) < torch.where(side, 0.07, 0.06)
    pillar |= side & ((p.fx - 0.5).abs() < 0.025)
    glass = (side | end) & ~pillar & (p.fz > 0.06) & (p.fz < 0.86)
    return _mix(colour, accent, glass), torch.where(glass, 0.8, 0.3)


def _window_band(p: SurfacePoints, colour: Tensor, accent: Tensor, variation: Tensor) -> Shaded:
    side = (p.face == 2) | (p.face == 3)
    end, front = p.face < 2, p.face == 1
    colour = colour * (1 + 0.025 * _grain(p, variation, 0.06))[:, None]
    pillar = line(torch.remainder(p.u, 1.5) - 0.75, 0.06, p.footprint)
    glass = (side & (p.fz > 0.46) & (p.fz < 0.82)).float() * (1 - pillar)
    across = (p.fy - 0.5).abs()
    glass = torch.maximum(glass, (front & (across < 0.45) & (p.fz > 0.36) & (p.fz < 0.88)).float())
    glass = torch.maximum(
        glass, ((p.face == 0) & (across < 0.38) & (p.fz > 0.5) & (p.fz < 0.85)).float()
    )
    stripe = side & (p.fz > 0.34) & (p.fz < 0.4)
    colour = _mix(colour, (0.6, 0.6, 0.6), stripe & (variation > 0.4))
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


def _cargo(p: SurfacePoints, colour: Tensor, accent: Tensor, variation: Tensor) -> Shaded:
    colour = (
        colour
        * (1 + 0.03 * _grain(p, variation, 0.09) + 0.03 * _grain(p, variation, 0.03))[:, None]
    )
    rib = line(torch.remainder(p.u, 0.55 + 0.5 * variation) - 0.2, 0.02, p.footprint)
    colour = colour * (1 - 0.25 * rib * (p.face < 4))[:, None]
    side = (p.face == 2) | (p.face == 3)
    logo = side & (variation > 0.35) & ((p.fx - 0.5).abs() < 0.28) & ((p.fz - 0.58).abs() < 0.2)
    colour = _mix(colour, accent, logo)
    letters = logo & (hashed(torch.floor(p.u / 0.35), torch.floor(variation * 50)) > 0.35)
    letters &= ((p.fz - 0.58).abs() < 0.1) & (torch.remainder(p.u, 0.35) < 0.24)
    colour = _mix(colour, (0.75, 0.75, 0.73), letters)
    rear = p.face == 0
    across = (p.fy - 0.5).abs()
    colour = colour * (1 - 0.7 * line(across * p.wide, 0.02, p.footprint) * rear)[:, None]
    colour = _mix(colour, (0.55, 0.02, 0.015), rear & (across > 0.36) & (p.fz < 0.08))
    hem = (p.face < 4) & (p.fz < 0.05)
    return _mix(colour, (0.06, 0.06, 0.06), hem & ~rear), 0.06


def _bands(p: SurfacePoints, colour: Tensor, accent: Tensor, variation: Tensor) -> Shaded:
    band = ((p.fz - 0.48).abs() < 0.1) | ((p.fz - 0.78).abs() < 0.07)
    colour = colour * (1 + 0.1 * _grain(p, variation, 0.03))[:, None]
    return _mix(colour, accent, band), 0.05


def _barrier(p: SurfacePoints, colour: Tensor, accent: Tensor, variation: Tensor) -> Shaded:
    colour = (
        colour * (1 + 0.12 * _grain(p, variation, 0.04) + 0.1 * _grain(p, variation, 0.08))[:, None]
    )
    strip = (
        (variation > 0.5) & ((p.z - 0.7).abs() < 0.09) & (torch.remainder(p.u + p.z, 0.5) < 0.25)
    )
    colour = _mix(colour, accent, strip)
    hole = ((torch.remainder(p.u, 0.98) - 0.49).abs() < 0.11) & (p.z < 0.14)
    seam = line(torch.remainder(p.u, 0.5) - 0.25, 0.012, p.footprint)
    return _mix(colour, (0.02, 0.02, 0.02), torch.maximum(hole.float(), 0.35 * seam)), 0.04


def _foliage(p: SurfacePoints, colour: Tensor, accent: Tensor, variation: Tensor) -> Shaded:
    # Along the axis that the surface looks along, so that nothing is smeared.
    ax, ay, az = p.nx.abs(), p.ny.abs(), p.nz.abs()
    u = torch.where((ax > ay) & (ax > az), p.y, p.x) + variation * 40
    v = torch.where((az > ax) & (az > ay), p.y, p.z) + variation * 17
    leaf = noise(u, v, 0.025, p.footprint)
    clump = noise(v, u, 0.06, p.footprint)
    shade = (1 + 0.4 * leaf + 0.4 * clump).clamp(0.1, 2.4)
    hue = 0.12 * clump[:, None] * colour.new_tensor([1.0, 0.5, -0.4])
    return colour * (shade[:, None] + hue), 0.0


def _wheel(p: SurfacePoints, colour: Tensor, accent: Tensor, variation: Tensor) -> Shaded:
    up = (p.fz - 0.5) * p.tall
    r = torch.sqrt(p.x * p.x + up * up) / (p.tall / 2)
    spoke = torch.remainder(torch.atan2(up, p.x) * (5 / np.pi), 2.0) < 1.2
    rim = (r < 0.62) & (spoke | (r < 0.2) | (r > 0.54))
    return _mix(colour, accent, rim), torch.where(rim, 0.15, 0.02)


def _planks(p: SurfacePoints, colour: Tensor, accent: Tensor, variation: Tensor) -> Shaded:
    across = torch.where(p.tall > 2.0, p.y * 1.2, p.u)  # rows of tiles on a roof, boards on a fence
    pitch = 0.22
    each = hashed(torch.floor(across / pitch), torch.floor(variation * 40)) - 0.5
    gap = line(torch.remainder(across, pitch) - pitch / 2, 0.012, p.footprint)
    fade = (pitch / p.footprint.clamp(min=1e-3) / 3).clamp(max=1.0)
    shade = 1 + (0.35 * each - 0.45 * gap) * fade + 0.12 * _grain(p, variation, 0.1)
    return colour * shade.clamp(min=0.2)[:, None], 0.0


def _sign(p: SurfacePoints, colour: Tensor, accent: Tensor, variation: Tensor) -> Shaded:
    edge = torch.minimum(torch.minimum(p.fy, 1 - p.fy), torch.minimum(p.fz, 1 - p.fz)) < 0.08
    mark = hashed(torch.floor(p.fy * 5), torch.floor(p.fz * 5) + torch.floor(variation * 60)) > 0.62
    return _mix(colour, accent, (edge | mark) & (p.face < 4)), 0.1


def _signal(p: SurfacePoints, colour: Tensor, accent: Tensor, variation: Tensor) -> Shaded:
    height = torch.where(accent[:, 0] > accent[:, 1], 0.8, 0.2)  # red is on top
    lamps = (torch.remainder(p.fz * 3, 1.0) - 0.5) ** 2 + (p.fy - 0.5) ** 2 < 0.12
    front = p.face == 0
    colour = _mix(colour, (0.07, 0.07, 0.07), front & lamps)
    return _mix(colour, accent * 1.6, front & lamps & ((p.fz - height).abs() < 0.16)), 0.05


SHADERS = {
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
