# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Camera sets in, frame sets out: what the worker does before the network can run.

A camera whose image, intrinsics, mounting or pose cannot be used counts as missing, with the
reason; only without an ego pose at the set's own stamp there is no frame set at all.
"""

from __future__ import annotations

import array
import dataclasses
import io
from collections.abc import Mapping
from time import monotonic, sleep

import numpy as np
from PIL import Image as PillowImage
from sensor_msgs.msg import Image

from alocc_ros.errors import AloccError, CalibrationError, ImageError, PoseError
from alocc_ros.ros.inputs import Camera
from alocc_ros.ros.poses import Poses
from alocc_ros.stream.decoding import SUPPORTED_ENCODINGS
from alocc_ros.stream.memory import MemoryPolicy, same_rig
from alocc_ros.stream.preset import Preset
from alocc_ros.stream.rig import RigCamera
from alocc_ros.types import CAMERAS, Calibration, CameraImage, CameraSet, FrameSet

NOT_FITTED = "the vehicle has no such camera"
_POLL = 0.005  # s


class FrameMaker:
    """Completes camera sets; to be called from one thread, which may wait.

    Attributes:
        refusals: by camera, why its last image could not be used; empty if it could.
    """

    def __init__(
        self,
        preset: Preset,
        cameras: Mapping[str, Camera],
        poses: Poses,
        rig: Mapping[str, RigCamera],
        min_cameras: int,
        timeout: float,  # s
    ) -> None:
        self._preset, self._cameras, self._poses, self._rig = preset, cameras, poses, rig
        self._min_cameras, self._timeout = min_cameras, timeout
        self._known: dict[str, Calibration] = {}
        self._not_waited_for: set[str] = set()
        self.refusals: dict[str, str] = {}

    def __call__(self, camera_set: CameraSet) -> FrameSet:
        """The frame set.

        Raises:
            PoseError: no ego pose at the set's stamp within the timeout.
            CalibrationError: too few cameras can be used.
        """
        deadline = monotonic() + self._timeout
        map_T_base = self._poses.map_T_base(camera_set.stamp, deadline)
        missing = {c: NOT_FITTED for c in CAMERAS if c not in self._preset.used_cameras}
        missing.update(camera_set.missing)
        images, poses, refusals = {}, {}, {}
        for name, image in camera_set.images.items():
            try:
                calibration = self._calibration(name, deadline)
                images[name] = _usable(image, calibration)
                poses[name] = self._poses.map_T_base(image.stamp, deadline)
            except AloccError as error:
                images.pop(name, None)
                refusals[name] = missing[name] = str(error)
        self.refusals = refusals
        if len(images) < self._min_cameras:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in missing.items())
            raise CalibrationError(
                f"{len(images)} cameras can be used, {self._min_cameras} are needed ({reasons})"
            )
        return FrameSet(
            stamp=camera_set.stamp,
            images=images,
            calibration=self._whole_rig(),
            map_T_base=map_T_base,
            map_T_base_at=poses,
            missing=missing,
            map_frame=self._poses.map_frame,
            base_frame=self._preset.base_frame,
        )

    def _whole_rig(self) -> dict[str, Calibration]:
        """Six calibrations, as the network has six places.

        One that is not known gets another camera's geometry, of which nothing is used: no
        image comes from there and nothing is lifted.
        """
        for name in self._preset.used_cameras:
            if name not in self._known:  # a dead camera may still be known
                try:
                    self._calibration(name, deadline=0.0)
                except AloccError:
                    continue
        stand_in = self._known.get(self._preset.anchor) or next(iter(self._known.values()))
        return {c: self._known.get(c) or dataclasses.replace(stand_in, camera=c) for c in CAMERAS}

    def _calibration(self, name: str, deadline: float) -> Calibration:
        """As known now; the same object as long as nothing changed.

        Raises:
            CalibrationError: something is not known, also after waiting until ``deadline``.
        """
        camera = self._cameras[name]
        # Once it was in vain, what is missing is no longer waited for: it may never come.
        if name in self._not_waited_for:
            deadline = 0.0
        try:
            calibration = self._now_known(camera, deadline)
        except CalibrationError:
            if deadline > 0.0:
                self._not_waited_for.add(name)
            self._known.pop(name, None)
            raise
        self._not_waited_for.discard(name)
        known = self._known.get(name)
        # Interpolated mounts on /tf differ in the last digits.
        if known is None or not same_rig({name: known}, {name: calibration}, _TINY):
            self._known[name] = calibration
        return self._known[name]

    def _now_known(self, camera: Camera, deadline: float) -> Calibration:
        while camera.intrinsics is None:
            if camera.info is None:
                raise CalibrationError(
                    "no intrinsics: the preset names no camera_info topic and there is no "
                    "calibration_file"
                )
            if monotonic() >= deadline:
                raise CalibrationError(
                    camera.info_refusal
                    or camera.info.problem
                    or f"no CameraInfo on {camera.info.resolved}"
                )
            sleep(_POLL)
        return camera.intrinsics.mounted(camera.name, self._mount(camera, deadline))

    def _mount(self, camera: Camera, deadline: float) -> np.ndarray:  # [4, 4] base_T_camera
        entry = self._rig.get(camera.name, RigCamera(None, None))
        if entry.base_T_camera is not None:
            return entry.base_T_camera
        if self._preset.extrinsics == "file":
            raise CalibrationError("no extrinsics: they are not in the calibration_file")
        if not camera.frame:
            raise CalibrationError("its messages have no frame_id; name it with `frame:` in YAML")
        try:
            return self._poses.base_T(camera.frame, deadline)
        except PoseError as error:
            raise CalibrationError(f"no extrinsics on TF: {error}") from error


_TINY = MemoryPolicy(pixel_tolerance=0.0, mount_tolerance=1e-9, mount_turn_tolerance=1e-7)


def _usable(image: CameraImage, calibration: Calibration) -> CameraImage:
    """The image, in an encoding that the core knows.

    Raises:
        ImageError: it is not of the calibration's size, or of an encoding that nobody knows.
    """
    if image.height:
        size = (image.width, image.height)
        if image.encoding not in SUPPORTED_ENCODINGS:
            image = _converted(image)
    else:
        try:
            with PillowImage.open(io.BytesIO(image.data), formats=("JPEG", "PNG")) as opened:
                size = opened.size
        except Exception as error:  # Pillow raises whatever the damage runs it into
            raise ImageError(f"{len(image.data)} bytes that are no JPEG or PNG image") from error
    if size != (calibration.width, calibration.height):
        raise ImageError(
            f"the image has {size[0]}x{size[1]} pixels, its CameraInfo is for "
            f"{calibration.width}x{calibration.height}"
        )
    return image


def _converted(image: CameraImage) -> CameraImage:
    """By cv_bridge, which is only needed for uncommon encodings and may be absent or broken."""
    message = Image(
        height=image.height, width=image.width, encoding=image.encoding, step=image.step
    )
    message.data = array.array("B")
    message.data.frombytes(image.data)
    try:
        from cv_bridge import CvBridge

        pixels = CvBridge().imgmsg_to_cv2(message, "rgb8")
    except Exception as error:  # its import fails in several ways, and its errors have no root
        raise ImageError(f"encoding {image.encoding!r} is not supported ({error})") from error
    pixels = np.ascontiguousarray(pixels)
    height, width = pixels.shape[:2]
    return dataclasses.replace(
        image, data=pixels, encoding="rgb8", height=height, width=width, step=3 * width
    )
