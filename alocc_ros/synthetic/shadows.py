# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Where the sun does not reach the ground."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from alocc_ros.synthetic.raycast import Solids, first_hit, tile_image
from alocc_ros.synthetic.scene import Scene

_TILE = 8  # rays along each edge of a tile
_SHADOW_CELLS, _SHADOW_SPAN = 384, 104.0  # cells and m across the map of shadows


@dataclass(frozen=True)
class ShadowMap:
    """Which places of the ground the sun does not reach.

    Attributes:
        light: [n, n] 1 in the sun, 0 in the shadow; rows along x.
        corner: m, map x and y of the first cell's corner.
    """

    light: Tensor
    corner: tuple[float, float]

    def light_at(self, x: Tensor, y: Tensor) -> Tensor:
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


def shadow_map(scene: Scene, solids: Solids, centre: np.ndarray) -> ShadowMap:
    """Shadows on the ground around ``centre`` (x, y in m, map)."""
    device = solids.origin.device
    n, span = _SHADOW_CELLS, _SHADOW_SPAN
    # Half a cell more or less would make shadows crawl as the vehicle drives.
    cell = span / n
    corner = tuple(float(np.floor((c - span / 2) / cell) * cell) for c in centre[:2])
    sun = torch.tensor(scene.weather.sun, dtype=torch.float32, device=device)
    if scene.weather.shadow < 0.5:  # light from everywhere: dark only right below objects
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
    _, hit = first_hit(solids, eye, rays, limit)
    light = torch.ones(n * n, device=device)
    light[pixels.view(-1)] = (hit.view(-1) < 0).float()
    # The sun is not a point, and a clouded sky even less so.
    blur = 3 if scene.weather.shadow > 0.85 else 7
    light = torch.nn.functional.avg_pool2d(
        light.view(1, 1, n, n), blur, 1, blur // 2, count_include_pad=False
    )
    return ShadowMap(light.view(n, n), (corner[0], corner[1]))
