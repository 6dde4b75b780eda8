# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""The sensors of the synthetic vehicle: six cameras and a LiDAR, placed as on nuScenes cars.

The numbers are rounded from one of them. Cameras are fired by the turning LiDAR, so their
stamps lie up to 43 ms apart, in the order FL F FR BR B BL.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from scipy.spatial.transform import Rotation

from alocc_ros.geometry import pose_matrix
from alocc_ros.types import CAMERAS, Calibration

FULL_WIDTH, FULL_HEIGHT = 1600, 900  # px
CAMERA_PERIOD = 83_333_333  # ns, 12 Hz
KEY_FRAME_CYCLES = 6  # camera periods between two key frames: 2 Hz
# ns after the start of a cycle at which a sensor's data is stamped.
PHASES = {
    "cam_front_left": 0,
    "cam_front": 7_600_000,
    "cam_front_right": 15_500_000,
    "cam_back_right": 23_000_000,
    "cam_back": 32_700_000,
    "cam_back_left": 42_600_000,
}
LIDAR_PHASE = 43_100_000

# Name: translation (m), quaternion (x, y, z, w), focal length, cx, cy (px at 1600x900).
_MOUNTS = {
    "cam_front_left": (
        (1.524, 0.495, 1.509),
        (-0.67363, 0.21214, -0.21123, 0.67573),
        (1272.6, 826.6, 479.8),
    ),
    "cam_front": (
        (1.701, 0.016, 1.511),
        (-0.50303, 0.49978, -0.49737, 0.49980),
        (1266.4, 816.3, 491.5),
    ),
    "cam_front_right": (
        (1.551, -0.493, 1.496),
        (-0.20269, 0.68245, -0.67136, 0.20603),
        (1260.8, 808.0, 495.3),
    ),
    "cam_back_left": (
        (1.036, 0.485, 1.591),
        (-0.70316, -0.11648, 0.11203, 0.69242),
        (1256.7, 792.1, 492.8),
    ),
    "cam_back": (
        (0.028, 0.003, 1.579),
        (-0.49740, -0.49419, 0.50455, 0.50379),
        (809.2, 829.2, 481.8),
    ),
    "cam_back_right": (
        (1.015, -0.481, 1.562),
        (-0.13240, -0.70043, 0.69050, 0.12281),
        (1259.5, 807.3, 501.2),
    ),
}
_LIDAR_MOUNT = ((0.944, 0.0, 1.840), (-0.00649, 0.01065, -0.70631, 0.70780))


@dataclass(frozen=True)
class Lidar:
    """A spinning LiDAR with 32 beams.

    Attributes:
        elevations: rad, of each beam (ring), upwards.
        columns: firings in one revolution.
        reach: m; no return beyond.
        noise: m, standard deviation of a range.
        base_T_lidar: [4, 4] float64.
    """

    elevations: np.ndarray
    columns: int
    reach: float
    noise: float
    base_T_lidar: np.ndarray


def lidar() -> Lidar:
    """The one on the roof; its x axis looks to the right of the vehicle, as on nuScenes cars."""
    elevations = np.radians(-30.67 + 1.333 * np.arange(32))
    return Lidar(elevations, 1084, 70.0, 0.015, pose_matrix(*_LIDAR_MOUNT))


@dataclass(frozen=True)
class RigChange:
    """How the cameras of another vehicle differ from these.

    Attributes:
        zoom: factor of all focal lengths.
        lift: m by which all cameras lie higher.
        pitch: rad by which all of them look down.
        yaw: rad by which a camera looks further to the left, by camera.
    """

    zoom: float = 1.0
    lift: float = 0.0
    pitch: float = 0.0
    yaw: Mapping[str, float] = field(default_factory=dict)

    @staticmethod
    def sample(random: np.random.Generator) -> RigChange:
        """Of some vehicle between a small car and a van."""
        return RigChange(
            zoom=float(np.exp(random.uniform(-0.25, 0.2))),
            lift=float(random.uniform(-0.3, 0.9)),
            pitch=float(np.radians(random.uniform(-2, 6))),
            yaw={c: float(np.radians(random.normal(0, 3))) for c in CAMERAS},
        )

    def mounted(self, camera: str, base_T_camera: np.ndarray) -> np.ndarray:  # [4, 4]
        """Where a camera is on that vehicle."""
        moved = base_T_camera.copy()
        turn = Rotation.from_euler("z", self.yaw.get(camera, 0.0)).as_matrix()
        nod = Rotation.from_euler("x", -self.pitch).as_matrix()  # the camera's x looks right
        moved[:3, :3] = turn @ base_T_camera[:3, :3] @ nod
        moved[2, 3] += self.lift
        return moved


NO_CHANGE = RigChange()


def cameras(
    height: int = FULL_HEIGHT, width: int = FULL_WIDTH, change: RigChange = NO_CHANGE
) -> dict[str, Calibration]:
    """The six cameras in the network's order, or those of a vehicle that is changed so.

    An image of another shape than 16:9 is cut from the full one as the network's own
    preprocessing does it: scaled to the width, then cropped at the top, so the bottom stays.
    """
    scale = width / FULL_WIDTH
    cut = FULL_HEIGHT * scale - height
    rig = {}
    for camera in CAMERAS:
        translation, quaternion, (focal, cx, cy) = _MOUNTS[camera]
        focal *= change.zoom
        k = np.array(
            [[focal * scale, 0, cx * scale], [0, focal * scale, cy * scale - cut], [0, 0, 1]]
        )
        mount = pose_matrix(translation, quaternion)
        if change != NO_CHANGE:
            mount = change.mounted(camera, mount)
        rig[camera] = Calibration(camera, width, height, k, mount)
    return rig
