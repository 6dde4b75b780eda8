# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Random transforms of images and grid; the geometry is transformed with them.

Every image operation goes with its homography, so the network is always told truly where a
pixel looks. What changes colours is in ``looks.py``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from alocc_ros.stream.image_geometry import Crop


@dataclass(frozen=True)
class ImageAugmentation:
    """The ranges of random image transforms.

    Attributes:
        scale: added to the scale, as a fraction of it. The reference adds -0.06 to 0.11 to the
            0.44 of a 704 pixels wide input.
        flip: probability of a mirror image.
        turn: degrees about the centre, either way.
    """

    scale: tuple[float, float] = (-0.06 / 0.44, 0.11 / 0.44)
    flip: float = 0.5
    turn: float = 5.4


@dataclass(frozen=True)
class ImageTransform:
    """Scale, crop, mirror, rotation, in this order.

    Attributes:
        resized: width and height after scaling.
        left, top: where the crop begins; negative or beyond the image is black.
        flip: mirror left and right.
        turn: degrees counter-clockwise about the centre.
        size: width and height of the camera's image.
        input_size: height and width of the result.
    """

    resized: tuple[int, int]
    left: int
    top: int
    flip: bool
    turn: float
    size: tuple[int, int]
    input_size: tuple[int, int]

    @staticmethod
    def none(crop: Crop) -> ImageTransform:
        """What is done outside training."""
        size = crop.width, crop.height
        return ImageTransform(crop.resized, crop.left, crop.top, False, 0.0, size, crop.input_size)

    @staticmethod
    def sample(
        crop: Crop,
        ranges: ImageAugmentation,
        random: np.random.Generator,
    ) -> ImageTransform:
        """A random one about ``crop``; the same part below it is left out (of nuScenes none)."""
        rows, columns = crop.input_size
        factor = 1 + random.uniform(*ranges.scale)
        scale = crop.scale * factor
        resized = int(crop.width * scale), int(crop.height * scale)
        left = int(random.uniform(0, max(0, resized[0] - columns)))
        below = round((crop.resized[1] - rows - crop.top) * factor)
        flip = bool(random.random() < ranges.flip)
        turn = random.uniform(-ranges.turn, ranges.turn)
        top, size = resized[1] - rows - below, (crop.width, crop.height)
        return ImageTransform(resized, left, top, flip, turn, size, crop.input_size)

    def apply(self, image: Image.Image) -> np.ndarray:  # [H, W, 3] uint8 RGB
        """The transformed image."""
        rows, columns = self.input_size
        image = image.convert("RGB").resize(self.resized, Image.Resampling.BICUBIC)
        image = image.crop((self.left, self.top, self.left + columns, self.top + rows))
        if self.flip:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if self.turn:
            image = image.rotate(self.turn)  # nearest pixel, black where nothing was
        return np.asarray(image)

    def homography(self) -> tuple[np.ndarray, np.ndarray]:  # [3, 3], [3]
        """R, t: a pixel p of the camera's image lies at R p + t of the transformed one.

        Continuous pixels, 0 at the edge of the first one.
        """
        rows, columns = self.input_size
        scale = [now / before for now, before in zip(self.resized, self.size, strict=True)]
        rotation, shift = np.diag(scale), -np.array([self.left, self.top], dtype=np.float64)
        if self.flip:
            mirror = np.diag([-1.0, 1.0])
            rotation, shift = mirror @ rotation, mirror @ shift + [columns, 0]
        angle = math.radians(self.turn)
        turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
        centre = np.array([columns / 2, rows / 2])
        rotation, shift = turn @ rotation, turn @ shift + centre - turn @ centre
        whole, move = np.eye(3), np.zeros(3)
        whole[:2, :2], move[:2] = rotation, shift
        return whole, move


@dataclass(frozen=True)
class GridFlip:
    """Mirroring of the grid: front with back, left with right.

    Attributes:
        x, y: negate that axis.
    """

    x: bool = False
    y: bool = False

    @staticmethod
    def sample(probability: float, random: np.random.Generator) -> GridFlip:
        """A random one, each axis on its own."""
        return GridFlip(*(bool(v) for v in random.random(2) < probability))

    def matrix(self) -> np.ndarray:  # [3, 3]
        """Points of the world -> points of the mirrored one."""
        return np.diag([-1.0 if self.x else 1.0, -1.0 if self.y else 1.0, 1.0])

    def voxels(self, values: np.ndarray) -> np.ndarray:  # [X, Y, Z, ...]
        """What stands in the cells of the mirrored world (the grid is symmetric about 0)."""
        axes = [axis for axis, flipped in ((0, self.x), (1, self.y)) if flipped]
        return np.flip(values, axes)

    def volume(self, volume: np.ndarray) -> np.ndarray:  # [C, Y, X, Z]
        """What is lifted of the mirrored world, in the network's layout.

        It is lifted to nodes, which lie at the lower edges of the cells: node i comes to where node
        n - i is. To the first one comes what would be lifted beyond the last: nothing is known of
        it, and it becomes 0.
        """
        for axis, flipped in ((2, self.x), (1, self.y)):
            if flipped:
                volume = np.roll(np.flip(volume, axis), 1, axis)
                volume[(slice(None),) * axis + (0,)] = 0
        return volume

    def flow(self, flow: np.ndarray) -> np.ndarray:  # [X, Y, Z, 2] m/s
        """Velocities of the mirrored world, in its cells."""
        sign = np.diag(self.matrix())[:2].astype(flow.dtype)
        return self.voxels(flow) * sign
