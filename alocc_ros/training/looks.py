# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""How a camera may see the same street: light, colours, noise, blur, the sun in the lens, and
the own vehicle in view.

Drawn streets are clean; cameras are not. One draw is for all cameras of a key frame and of the one
before it, which stereo looks at: a vehicle's cameras look at one evening through one kind of glass.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from alocc_ros.training.targets import BLOCK
from alocc_ros.types import CAMERAS

# Cameras that may see the own vehicle, at the bottom of their images.
_SEES_ITSELF = ("cam_front", "cam_back")
# How often, of those drawn in another light or with the own vehicle in view.
_FLARES, _RACKS = 0.15, 0.3


@dataclass(frozen=True)
class Look:
    """What is done to the pixels.

    Attributes:
        gain: of the exposure.
        gamma: above 1 for dusk and night: what is dark becomes darker.
        balance: [3] of red, green and blue.
        noise: standard deviation, grey levels; half of it goes with light.
        blur: pixels along a row over which a moving image is smeared; 1: none.
        flare: camera that the sun shines into; empty: none.
        sun: where in its image, shares of width and height, and how bright, grey levels.
        bonnet: height of the own vehicle in view by camera, share of the image.
        rack: likewise, of what hangs into view from the roof.
        paint: [3] grey levels of both.
    """

    gain: float = 1.0
    gamma: float = 1.0
    balance: tuple[float, float, float] = (1.0, 1.0, 1.0)
    noise: float = 0.0
    blur: int = 1
    flare: str = ""
    sun: tuple[float, float, float] = (0.0, 0.0, 0.0)
    bonnet: Mapping[str, float] = field(default_factory=dict)
    rack: Mapping[str, float] = field(default_factory=dict)
    paint: tuple[float, float, float] = (0.0, 0.0, 0.0)

    @staticmethod
    def sample(light: float, bonnet: float, random: np.random.Generator) -> Look:
        """A random one.

        Args:
            light: probability that it is another light and another camera.
            bonnet: probability that the own vehicle is in view.
            random: where numbers are drawn from.
        """
        values: dict = {}
        if random.random() < light:
            dark = random.random() < 0.3
            values = {
                "gain": float(np.exp(random.normal(-0.4 if dark else 0.0, 0.25))),
                "gamma": float(random.uniform(1.2, 2.2) if dark else random.uniform(0.8, 1.2)),
                "balance": tuple(np.exp(random.normal(0, 0.08, 3)).tolist()),
                "noise": float(random.uniform(4, 16) if dark else random.uniform(0, 6)),
                "blur": int(random.choice([1, 1, 1, 2, 3])),
            }
            if not dark and random.random() < _FLARES:
                values["flare"] = str(random.choice(CAMERAS))
                low, high = (0.0, 0.0, 60.0), (1.0, 0.4, 220.0)
                values["sun"] = tuple(random.uniform(low, high).tolist())
        if random.random() < bonnet:
            heights = random.uniform(0.05, 0.22, len(_SEES_ITSELF))
            values["bonnet"] = dict(zip(_SEES_ITSELF, heights.tolist(), strict=True))
            if random.random() < _RACKS:
                values["rack"] = dict.fromkeys(_SEES_ITSELF, float(random.uniform(0.03, 0.12)))
            values["paint"] = tuple(random.uniform(5, 230) + random.normal(0, 15, 3))
        return Look(**values)

    def apply(
        self, pixels: np.ndarray, camera: str, random: np.random.Generator
    ) -> np.ndarray:  # [H, W, 3] uint8
        """The image as this camera sees it."""
        seen = pixels.astype(np.float32)
        covered = self.covered(camera, pixels.shape[:2])
        if covered.any():
            # Paint mirrors the sky: brighter towards its upper edge.
            rows = np.linspace(1.3, 0.7, len(seen), dtype=np.float32)[:, None, None]
            seen = np.where(covered[..., None], np.float32(self.paint) * rows, seen)
        elif self == Look():
            return pixels
        if camera == self.flare:
            seen = seen + self._glare(pixels.shape[:2])[..., None]
        seen = np.clip(seen * self.gain * np.float32(self.balance), 0, 255)
        seen = 255 * (seen / 255) ** np.float32(self.gamma)
        if self.blur > 1:
            seen = sum(np.roll(seen, i, axis=1) for i in range(self.blur)) / self.blur
        if self.noise > 0:
            deviation = self.noise * (0.5 + 0.5 * np.sqrt(seen / 255))
            seen = seen + deviation * random.standard_normal(seen.shape, np.float32)
        return np.clip(np.rint(seen), 0, 255).astype(np.uint8)

    def covered(self, camera: str, size: tuple[int, int]) -> np.ndarray:  # [H, W] bool
        """Pixels that show the own vehicle, which no label is about."""
        height, width = size
        share, rack = self.bonnet.get(camera, 0.0), self.rack.get(camera, 0.0)
        x, row = np.linspace(-1, 1, width), np.arange(height)[:, None] + 0.5
        top = height * (1 - share * (1 - 0.5 * x**2))  # rounded, lower at the sides
        return (row > (top if share else np.full(width, np.inf))) | (row < height * rack)

    def _glare(self, size: tuple[int, int]) -> np.ndarray:  # [H, W] grey levels
        """A halo around the sun, and fainter ones on the line through the middle of the image."""
        height, width = size
        row, column = np.mgrid[:height, :width].astype(np.float32)
        x, y, strength = self.sun
        light = np.zeros(size, np.float32)
        for at, share, radius in ((1.0, 1.0, 0.12), (-0.6, 0.25, 0.05), (-1.2, 0.15, 0.08)):
            u = width * (0.5 + at * (x - 0.5))
            v = height * (0.5 + at * (y - 0.5))
            distance = np.hypot(column - u, row - v) / (radius * width)
            light += share / (1 + distance**2)
        return strength * light

    def covered_blocks(self, camera: str, size: tuple[int, int]) -> np.ndarray:  # [h, w] bool
        """The pixel blocks of which half is covered."""
        height, width = size
        covered = self.covered(camera, size)
        blocks = covered.reshape(height // BLOCK, BLOCK, width // BLOCK, BLOCK)
        return blocks.mean((1, 3)) >= 0.5
