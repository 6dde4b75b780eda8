# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""The few values that travel from a message to a voxel grid.

Stamps are integer nanoseconds since the epoch; frames are named ``a_T_b`` (see geometry.py).
Nothing here imports torch or ROS.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from alocc_ros.grid import VoxelGrid
from alocc_ros.labels import ClassList

# The order in which the network was trained; everything indexes cameras by it.
CAMERAS = (
    "cam_front_left",
    "cam_front",
    "cam_front_right",
    "cam_back_left",
    "cam_back",
    "cam_back_right",
)


@dataclass(frozen=True)
class CameraImage:
    """One image as it arrived; nothing is decoded or copied yet.

    Attributes:
        camera: name out of the rig, e.g. ``cam_front``.
        stamp: ns, when the image was taken.
        data: encoded bytes (JPEG, PNG) or raw pixels, row after row.
        encoding: ``jpeg``/``png`` (or ``compressed``: told by its first bytes; or the ``format``
            of a CompressedImage), else a sensor_msgs encoding such as ``rgb8``.
        height, width, step: raw images only; rows are ``step`` bytes apart.
        big_endian: of raw images with sixteen bits, the first byte is the more significant one.
    """

    camera: str
    stamp: int
    data: bytes | memoryview | np.ndarray
    encoding: str
    height: int = 0
    width: int = 0
    step: int = 0
    big_endian: bool = False


@dataclass(frozen=True)
class Calibration:
    """One camera of the rig.

    Attributes:
        camera: name out of the rig.
        width, height: pixels of the full image that ``intrinsics`` belong to.
        intrinsics: [3, 3] float64 pixels.
        base_T_camera: [4, 4] float64, camera optical frame into the vehicle's base frame.
        distortion: coefficients in OpenCV order; empty or zeros: the image is rectified.
        distortion_model: ``plumb_bob``, ``rational_polynomial``, ``equidistant`` or ``""``.
        crop: which part of the image the network gets: ``auto`` (as the camera looks, see
            ``stream/crop_placement.py``), ``lowest`` (rows), or left, top and width in pixels.
    """

    camera: str
    width: int
    height: int
    intrinsics: np.ndarray
    base_T_camera: np.ndarray
    distortion: tuple[float, ...] = ()
    distortion_model: str = ""
    crop: str | tuple[int, int, int] = "auto"


@dataclass(frozen=True)
class CameraSet:
    """Images that belong together: one instant of the rig, as the collector closed it.

    Attributes:
        stamp: ns, the anchor camera's (the set's reference time).
        images: by camera name; a missing camera is absent.
        missing: camera name to the reason, in plain words.
    """

    stamp: int
    images: Mapping[str, CameraImage]
    missing: Mapping[str, str] = field(default_factory=dict)

    @property
    def spread(self) -> int:
        """ns between the first and the last image of the set."""
        stamps = [i.stamp for i in self.images.values()]
        return max(stamps) - min(stamps) if stamps else 0


@dataclass(frozen=True)
class FrameSet:
    """A camera set with everything that is known about where it was taken.

    Attributes:
        stamp: ns, as in the camera set; the output is valid at this instant.
        images, missing: as in the camera set.
        calibration: by camera name, for the whole rig.
        map_T_base: [4, 4] ego pose at ``stamp``.
        map_T_base_at: by camera name, [4, 4] ego pose at that camera's own stamp.
        map_frame, base_frame: TF names; a change of either resets the memory.
        base_T_grid: [4, 4], where the voxel grid's frame is on the vehicle, if that is another
            frame than the base (the LiDAR's, for SurroundOcc models) and the source knows it.
        fitted: the cameras that the vehicle has; that the others send nothing is no fault.
    """

    stamp: int
    images: Mapping[str, CameraImage]
    calibration: Mapping[str, Calibration]
    map_T_base: np.ndarray
    map_T_base_at: Mapping[str, np.ndarray]
    missing: Mapping[str, str] = field(default_factory=dict)
    map_frame: str = "map"
    base_frame: str = "base_link"
    base_T_grid: np.ndarray | None = None
    fitted: tuple[str, ...] = CAMERAS


@dataclass(frozen=True)
class Occupancy:
    """What the network says about one frame set.

    Attributes:
        labels: [X, Y, Z] uint8, index into ``classes.names``.
        flow: [X, Y, Z, 2] float16 m/s (vx, vy) in ``frame_id``, or None for models without flow.
            Only meaningful where a voxel is occupied.
        confidence: [X, Y, Z] float32 in [0, 1], sigmoid of the winning class, if asked for.
        grid: geometry of the three arrays above, in ``frame_id``.
        classes: what the labels mean.
        stamp: ns, the anchor camera's stamp.
        frame_id: the base frame (for SurroundOcc models the LiDAR frame).
        map_T_base: [4, 4] ego pose at ``stamp``.
        degraded: empty, or why the result is worse than it could be (missing cameras).
        reset: empty, or why the temporal memory was empty for this frame.
        random_weights: True if no trained weights were loaded.
        short_memory: True if fewer key frames were remembered than the network can use.
    """

    labels: np.ndarray
    flow: np.ndarray | None
    grid: VoxelGrid
    classes: ClassList
    stamp: int
    frame_id: str
    map_T_base: np.ndarray
    confidence: np.ndarray | None = None
    degraded: str = ""
    reset: str = ""
    random_weights: bool = False
    short_memory: bool = False
