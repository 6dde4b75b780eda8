# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Where a scene lies in its own map, and the image of that map."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from scipy.spatial.transform import Rotation

from alocc_ros.labels import OCC3D
from alocc_ros.synthetic.scene import Scene

_CELL = 0.1  # m, what the development kit expects
_STEP = 4  # cells; the layout of streets needs no centimetres
_WHITE = [OCC3D.names.index(n) for n in ("driveable_surface", "sidewalk")]


@dataclass(frozen=True)
class MapFrame:
    """The world of a scene: x, y >= 0, as the development kit wants it.

    Attributes:
        world_T_map: [4, 4]; a turn and a shift of the frame of ``streets.py``.
        height, width: px, of the image.
    """

    world_T_map: np.ndarray
    height: int
    width: int

    @staticmethod
    def around(scene: Scene) -> MapFrame:
        """With 100 m of room around the drive of the ego vehicle."""
        turn = Rotation.from_euler("z", float(np.random.default_rng(scene.seed).uniform(-3, 3)))
        path = np.pad(scene.ego[:, :2], ((0, 0), (0, 1))) @ turn.as_matrix().T
        low, high = path[:, :2].min(0) - 100.0, path[:, :2].max(0) + 100.0
        world_T_map = np.eye(4)
        world_T_map[:3, :3] = turn.as_matrix()
        world_T_map[:2, 3] = -low
        width, height = np.ceil((high - low) / _CELL).astype(int)
        return MapFrame(world_T_map, int(height), int(width))

    def png(self, scene: Scene) -> bytes:
        """Driveable surface and sidewalks, white; what the development kit draws tracks on."""
        height, width = -(-self.height // _STEP), -(-self.width // _STEP)
        v, u = np.mgrid[:height, :width].astype(np.float32)
        world = np.stack(
            [(u + 0.5) * _STEP * _CELL, self.height * _CELL - (v + 0.5) * _STEP * _CELL], -1
        )
        place = (world.reshape(-1, 2) - self.world_T_map[:2, 3]) @ self.world_T_map[:2, :2]
        x, y = torch.tensor(place.T, dtype=torch.float32)
        labels = scene.streets.labels(x, y).numpy().reshape(height, width)
        white = np.isin(labels, _WHITE)
        large = np.repeat(np.repeat(white, _STEP, 0), _STEP, 1)[: self.height, : self.width]
        buffer = io.BytesIO()
        Image.fromarray((large * 255).astype(np.uint8)).save(buffer, "PNG")
        return buffer.getvalue()
