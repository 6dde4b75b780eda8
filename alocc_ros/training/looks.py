# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""How a camera may see the same street: light, colours, noise, blur, and the own bonnet in view.

Drawn streets are clean; cameras are not. One draw is for all cameras of a key frame and of the one
before it, which stereo looks at: a vehicle's cameras look at one evening through one kind of glass.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from alocc_ros.training.targets import BLOCK

# Cameras that may see the own vehicle, at the bottom of their images.
_SEES_ITSELF = ("cam_front", "cam_back")


@dataclass(frozen=True)
class Look:
    """What is done to the pixels.

    Attributes:
        gain: of the exposure.
        gamma: above 1 for dusk and night: what is dark becomes darker.
        balance: [3] of red, green and blue.
        noise: standard deviation, grey levels; half of it goes with light.
        blur: pixels along a row over which a moving image is smeared; 1: none.
        bonnet: height of the own vehicle in view by camera, share of the image.
        paint: [3] grey levels of that.
    """

    gain: float = 1.0
    gamma: float = 1.0
    balance: tuple[float, float, float] = (1.0, 1.0, 1.0)
    noise: float = 0.0
    blur: int = 1
    bonnet: Mapping[str, float] = field(default_factory=dict)
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
        if random.random() < bonnet:
            heights = random.uniform(0.05, 0.22, len(_SEES_ITSELF))
            values["bonnet"] = dict(zip(_SEES_ITSELF, heights.tolist(), strict=True))
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
        share = self.bonnet.get(camera, 0.0)
        x = np.linspace(-1, 1, width)
        top = height * (1 - share * (1 - 0.5 * x**2))  # rounded, lower at the sides
        return np.arange(height)[:, None] + 0.5 > (top if share else np.full(width, np.inf))

    def covered_blocks(self, camera: str, size: tuple[int, int]) -> np.ndarray:  # [h, w] bool
        """The pixel blocks of which half is covered."""
        height, width = size
        covered = self.covered(camera, size)
        blocks = covered.reshape(height // BLOCK, BLOCK, width // BLOCK, BLOCK)
        return blocks.mean((1, 3)) >= 0.5
