# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""What a camera sees: rays are cast, what they hit is shaded, hazed and exposed."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from alocc_ros.synthetic.lens import pixel_rays
from alocc_ros.synthetic.raycast import first_hit, rotated, tile_image
from alocc_ros.synthetic.scene import Scene
from alocc_ros.synthetic.shading import materials_of, shade_ground, shade_sky, shade_surface
from alocc_ros.synthetic.shadows import ShadowMap, shadow_map
from alocc_ros.types import Calibration

SKY = 255  # label of pixels that show neither object nor ground
FAR = 300.0  # m of depth; the ground ends here
_TILE = 8  # px


@dataclass(frozen=True)
class View:
    """One image with its truth.

    Attributes:
        image: [H, W, 3] uint8 RGB.
        depth: [H, W] float32 m along the optical axis; inf in the sky.
        labels: [H, W] uint8 class (Occ3D), SKY in the sky.
        actors: [H, W] int32 index into ``scene.actors``, -1 for none.
    """

    image: Tensor
    depth: Tensor
    labels: Tensor
    actors: Tensor


def render_camera(
    scene: Scene,
    calibration: Calibration,
    time: float,
    *,
    shadows: ShadowMap | None = None,
    device: torch.device | str = "cpu",
) -> View:
    """What a camera sees at ``time``. Cameras of one frame may share their ``shadows``."""
    device = torch.device(device)
    solids, materials = scene.solids(time, device), materials_of(scene, device)
    map_T_camera = scene.ego_pose(time) @ calibration.base_T_camera
    if shadows is None:
        shadows = shadow_map(scene, solids, map_T_camera[:3, 3])
    height, width = calibration.height, calibration.width
    pixels = tile_image(height, width, _TILE, device)
    eye, rays = _camera_rays(calibration, map_T_camera, pixels)
    ground = torch.where(rays[..., 2] < -1e-4, -eye[2] / rays[..., 2].clamp(max=-1e-4), torch.inf)
    limit = torch.where(ground < FAR, ground, FAR)
    distance, hit = first_hit(solids, eye, rays, limit)

    rays, distance, hit = rays.view(-1, 3), distance.view(-1), hit.view(-1)
    focal = float(calibration.intrinsics[0, 0])
    colour = torch.empty_like(rays)
    labels = torch.full_like(hit, SKY, dtype=torch.uint8)
    actors = torch.full_like(hit, -1, dtype=torch.int32)
    solid, empty = hit >= 0, hit < 0
    on_ground = empty & (distance < FAR)
    sky = empty & ~on_ground

    i = torch.nonzero(sky)[:, 0]
    colour[i] = shade_sky(scene, rays[i])
    i = torch.nonzero(on_ground)[:, 0]
    point = eye + rays[i] * distance[i, None]
    colour[i], labels[i] = shade_ground(scene, point, distance[i] / focal, shadows)
    i = torch.nonzero(solid)[:, 0]
    part = hit[i]
    colour[i] = shade_surface(scene, solids, materials, part, eye, rays[i], distance[i], focal)
    labels[i] = materials.label[solids.part[part]]
    actors[i] = materials.owner[solids.part[part]]

    i = torch.nonzero(~sky)[:, 0]
    haze = torch.exp(-distance[i] / scene.weather.visibility)[:, None]
    colour[i] = torch.lerp(colour.new_tensor(scene.weather.haze_colour), colour[i], haze)
    distance = torch.where(sky, torch.inf, distance)

    def picture(values: Tensor) -> Tensor:
        out = values.new_empty((height * width, *values.shape[1:]))
        out[pixels.view(-1)] = values
        return out.view(height, width, *values.shape[1:])

    image = _expose(scene, picture(colour), calibration.camera, time)
    return View(image, picture(distance), picture(labels), picture(actors))


def _camera_rays(
    calibration: Calibration, map_T_camera: np.ndarray, pixels: Tensor
) -> tuple[Tensor, Tensor]:
    """The camera's place [3] and rays [T, R, 3] of depth 1 through pixel centres, map."""
    k = calibration.intrinsics
    v, u = pixels // calibration.width, pixels % calibration.width
    if any(calibration.distortion):
        seen = pixel_rays(calibration, u.flatten().cpu().numpy(), v.flatten().cpu().numpy())
        camera = torch.as_tensor(seen, dtype=torch.float32, device=pixels.device)
        camera = camera.view(*pixels.shape, 3)
    else:
        camera = torch.stack(
            [
                (u - float(k[0, 2])) / float(k[0, 0]),
                (v - float(k[1, 2])) / float(k[1, 1]),
                torch.ones_like(u, dtype=torch.float32),
            ],
            dim=-1,
        )
    pose = torch.as_tensor(map_T_camera, dtype=torch.float32, device=pixels.device)
    return pose[:3, 3], rotated(camera, pose[:3, :3])


def _expose(scene: Scene, colour: Tensor, camera: str, time: float) -> Tensor:
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
