# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""A scene: a street with everything that stands and moves on it, for some seconds.

Everything random is decided by ``generation.generate_scene``; what is seen at a time follows from
the scene. Times are seconds from the scene's start; the map is the frame of ``streets.py``, metres.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from alocc_ros.synthetic.primitives import Part, SolidKind
from alocc_ros.synthetic.raycast import Solids
from alocc_ros.synthetic.streets import Streets

TICK = 0.05  # s between the stored poses of what moves
LEAD_IN = 1.0  # s of motion before time 0 and after the end, for interpolation


@dataclass(frozen=True)
class Weather:
    """Light and air.

    Attributes:
        sun: unit vector towards the sun, map.
        sun_colour, sky_colour, horizon_colour, haze_colour: linear RGB.
        visibility: m, distance at which haze takes 63 %.
        clouds: 0 to 1, how much of the sky they cover.
        exposure: factor before the tone curve.
        noise: standard deviation of the sensor's noise, of full scale.
        wet: 0 to 1, how dark and shiny the ground is.
        shadow: 0 to 1, how dark shadows are.
    """

    sun: tuple[float, float, float]
    sun_colour: tuple[float, float, float]
    sky_colour: tuple[float, float, float]
    horizon_colour: tuple[float, float, float]
    haze_colour: tuple[float, float, float]
    visibility: float
    clouds: float
    exposure: float
    noise: float
    wet: float
    shadow: float


@dataclass(frozen=True)
class Actor:
    """An object with a bounding box and one class; it stands or moves.

    Attributes:
        kind: car, truck, bus, trailer, construction, motorcycle, bicycle, pedestrian, barrier,
            cone or bin; with ``detail`` it gives the category.
        label: class, Occ3D.
        size: m, length, width, height.
        detail: what tells subclasses apart, e.g. ``rider``, ``worker``.
        poses: [K, 3] x, y, heading at every TICK from -LEAD_IN, or [1, 3] for what stands.
    """

    kind: str
    label: int
    size: tuple[float, float, float]
    poses: np.ndarray
    detail: str = ""

    @property
    def moves(self) -> bool:
        """Whether it changes place at any time."""
        return len(self.poses) > 1 and bool(np.ptp(self.poses[:, :2], axis=0).max() > 0.05)


@dataclass(frozen=True, eq=False)
class Scene:
    """Everything about one scene; see the module.

    Attributes:
        seed: what it was generated from.
        duration: s.
        streets, weather: ground and light.
        actors: everything that has a box, in a fixed order.
        parts: all solids; ``owner`` tells the actor of each, -1 for static surroundings.
        labels: [N] uint8 class of each part, Occ3D.
        ego: [K, 3] x, y, heading of the vehicle at every TICK from -LEAD_IN.
        sway: amplitudes and phases of the vehicle's roll and pitch.
    """

    seed: int
    duration: float
    streets: Streets
    weather: Weather
    actors: tuple[Actor, ...]
    parts: tuple[Part, ...]
    owner: np.ndarray
    labels: np.ndarray
    ego: np.ndarray
    sway: np.ndarray

    def ego_pose(self, time: float) -> np.ndarray:  # [4, 4] map_T_base
        """Where the vehicle is: on the ground, with a little roll and pitch."""
        x, y, heading = _pose_at(self.ego, time)
        wave = np.sin(self.sway[:, 1] * time + self.sway[:, 2]) * self.sway[:, 0]
        push = (self.ego_speed(time + 0.2) - self.ego_speed(time - 0.2)) / 0.4
        pose = np.eye(4)
        pitch = wave[1] - 0.004 * np.clip(push, -3, 3)
        pose[:3, :3] = Rotation.from_euler("ZYX", [heading, pitch, wave[0]]).as_matrix()
        pose[:2, 3] = x, y
        return pose

    def ego_speed(self, time: float) -> float:
        """Speed of the vehicle over ground, m/s."""
        return float(np.linalg.norm(_velocity(self.ego, time)))

    def actor_poses(self, time: float) -> np.ndarray:
        """[actors, 3] x, y (m), heading (rad) of each actor, map."""
        return np.array([_pose_at(a.poses, time) for a in self.actors]).reshape(-1, 3)

    def actor_velocities(self, time: float) -> np.ndarray:
        """[actors, 2] m/s, map axes, over ground."""
        return np.array([_velocity(a.poses, time) for a in self.actors]).reshape(-1, 2)

    @cached_property
    def _part_table(self) -> dict[str, np.ndarray]:
        return _part_arrays(self.parts)

    def solids(self, time: float, device: torch.device | str = "cpu") -> Solids:
        """Every part where it is at ``time``."""
        table = self._part_table
        poses = np.concatenate([self.actor_poses(time), np.zeros((1, 3))])[self.owner]
        c, s = np.cos(poses[:, 2]), np.sin(poses[:, 2])
        x, y = table["origin"].T
        origin = poses[:, :2] + np.stack([c * x - s * y, s * x + c * y], axis=1)
        yaw = poses[:, 2] + table["yaw"]
        middle = (table["box_low"] + table["box_high"]) / 2
        c, s = np.cos(yaw), np.sin(yaw)
        centre = np.stack(
            [
                origin[:, 0] + c * middle[:, 0] - s * middle[:, 1],
                origin[:, 1] + s * middle[:, 0] + c * middle[:, 1],
                middle[:, 2],
            ],
            axis=1,
        )
        values = {
            **{n: table[n] for n in ("low", "high", "slope_low", "slope_high")},
            **{n: table[n] for n in ("box_low", "box_high", "radius")},
            "origin": origin,
            "cos": c,
            "sin": s,
            "centre": centre,
        }
        tensors = {
            n: torch.as_tensor(v, dtype=torch.float32, device=device) for n, v in values.items()
        }
        return Solids(
            kind=torch.as_tensor(table["kind"], device=device),
            part=torch.arange(len(self.parts), device=device),
            **tensors,
        )


def _part_arrays(parts: Sequence[Part]) -> dict[str, np.ndarray]:
    """The parts as arrays; bounding blocks include what slopes add."""
    low = np.array([(p.x[0], p.y[0], p.z[0]) for p in parts])
    high = np.array([(p.x[1], p.y[1], p.z[1]) for p in parts])
    slope_low = np.array([(p.slope_x[0], p.slope_y[0]) for p in parts])
    slope_high = np.array([(p.slope_x[1], p.slope_y[1]) for p in parts])
    kind = np.array([int(p.kind) for p in parts])
    rise = (high[:, 2] - low[:, 2])[:, None]
    box_low, box_high = low.copy(), high.copy()
    is_cone = (kind == SolidKind.CONE)[:, None]
    swell = np.maximum(1.0, 1.0 + slope_high[:, :1] * rise)
    box_low[:, :2] = np.where(
        is_cone, low[:, :2] * swell, low[:, :2] + np.minimum(0, slope_low * rise)
    )
    box_high[:, :2] = np.where(
        is_cone, high[:, :2] * swell, high[:, :2] + np.maximum(0, slope_high * rise)
    )
    return {
        "kind": kind,
        "low": low,
        "high": high,
        "slope_low": slope_low,
        "slope_high": slope_high,
        "box_low": box_low,
        "box_high": box_high,
        "radius": np.linalg.norm(box_high - box_low, axis=1) / 2,
        "origin": np.array([p.origin for p in parts]),
        "yaw": np.array([p.yaw for p in parts]),
    }


def _pose_at(poses: np.ndarray, time: float) -> np.ndarray:  # [K, 3] -> [3]
    if len(poses) == 1:
        return poses[0]
    at = np.clip((time + LEAD_IN) / TICK, 0.0, len(poses) - 1.001)
    i = int(at)
    return poses[i] + (at - i) * (poses[i + 1] - poses[i])


def _velocity(poses: np.ndarray, time: float) -> np.ndarray:  # [K, 3] -> [2] m/s
    if len(poses) == 1:
        return np.zeros(2)
    return (_pose_at(poses, time + TICK)[:2] - _pose_at(poses, time - TICK)[:2]) / (2 * TICK)
