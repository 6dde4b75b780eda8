# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Camera sets in, frame sets out: ego poses, calibration and the cameras that are missing.

The rule. A frame set needs the ego pose at the set's own stamp, within the preset's limits (see
``PoseLimits``). Each camera is placed with the ego pose at its own stamp. A camera whose image,
intrinsics, mounting or pose cannot be used counts as missing, with the reason; with fewer than
the minimum of usable cameras there is no frame set.

Nothing here knows whether a bag or a live vehicle asks: a ``PoseSource`` and a ``CameraSource``
bring what the messages say, and wait for it if there is something to wait for.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from time import monotonic
from typing import Protocol

import numpy as np

from alocc_ros.errors import AloccError, CalibrationError, PoseError
from alocc_ros.stream.keyframes import KeyframeSettings, same_rig
from alocc_ros.stream.preset import Preset
from alocc_ros.stream.rig import Intrinsics, RigCamera
from alocc_ros.types import CAMERAS, Calibration, CameraImage, CameraSet, FrameSet

# Interpolated mountings on /tf differ in the last digits.
_UNCHANGED = KeyframeSettings(pixel_tolerance=0.0, mount_tolerance=1e-9, mount_turn_tolerance=1e-7)
_NOT_IN_RIG_FILE = RigCamera(None, None)


class PoseSource(Protocol):
    """Where the vehicle was, and where things are mounted on it. No pose at a stamp is an error.

    A ``deadline`` is on the clock ``time.monotonic``: a live source waits until then for what is
    still to come, a recording knows at once.
    """

    @property
    def map_frame(self) -> str:
        """TF name of the frame in which the ego poses are."""

    def map_T_base(self, stamp: int, deadline: float) -> np.ndarray:  # [4, 4]
        """Ego pose at ``stamp`` (ns).

        Raises:
            PoseError: there is none within the preset's limits, with the reason.
        """

    def base_T(self, frame: str, deadline: float) -> np.ndarray:  # [4, 4]
        """Where a fixed frame is on the vehicle.

        Raises:
            PoseError: TF does not link it to the base frame.
        """


class CameraSource(Protocol):
    """What the messages of the cameras say about them; ``deadline`` as of ``PoseSource``."""

    def intrinsics(self, camera: str, stamp: int, deadline: float) -> Intrinsics:
        """Of the image at ``stamp`` (ns), as CameraInfo has them.

        Raises:
            CalibrationError: they are not known.
        """

    def frame(self, camera: str) -> str:
        """TF name of the optical frame; "" if neither preset nor messages name one."""


def unchanged(image: CameraImage, calibration: Calibration) -> CameraImage:
    """The image as it came: whoever decodes it finds out whether it can be used."""
    return image


class FrameAssembler:
    """Completes the camera sets of one stream. Not thread-safe; a call may wait.

    Attributes:
        rejections: by camera, why its last image could not be used; empty if it could.
        base_T_grid: [4, 4], where the grid's frame is on the vehicle; None if that is the base
            frame, or not known before the first frame set.
    """

    def __init__(
        self,
        preset: Preset,
        poses: PoseSource,
        cameras: CameraSource,
        rig: Mapping[str, RigCamera],
        *,
        min_cameras: int = 0,
        grid_frame: str = "",
        timeout: float = 0.0,
        check_image: Callable[[CameraImage, Calibration], CameraImage] = unchanged,
    ) -> None:
        """Nothing is looked up before the first set.

        Args:
            preset: cameras, frames and where extrinsics come from.
            poses: ego poses and mountings.
            cameras: what is not in ``rig``.
            rig: out of a calibration file; goes before what the messages say.
            min_cameras: usable cameras that a frame set needs; 0: as in the preset.
            grid_frame: TF name of the grid's frame; "": the base frame.
            timeout: s to wait for the poses and calibrations of a set.
            check_image: an image in a form that the core knows; raises ImageError if there is
                none, and the camera counts as missing.
        """
        self._preset, self._poses, self._cameras, self._rig = preset, poses, cameras, rig
        self._grid_frame, self._check_image = grid_frame, check_image
        self.change(min_cameras=min_cameras, timeout=timeout)
        self._calibrations: dict[str, Calibration] = {}  # the newest
        self._not_waited_for: set[str] = set()
        self.rejections: dict[str, str] = {}
        self.base_T_grid: np.ndarray | None = None

    def change(self, *, min_cameras: int, timeout: float) -> None:
        """Takes over other bounds, from the next set on."""
        self._min_cameras = min_cameras or self._preset.min_cameras
        self._timeout = timeout

    def assemble(self, camera_set: CameraSet) -> FrameSet:
        """The frame set.

        Raises:
            PoseError: no ego pose at the set's stamp, or no place of the grid's frame.
            CalibrationError: too few cameras can be used.
        """
        self.locate_grid(monotonic() + self._timeout)
        deadline = monotonic() + self._timeout
        map_T_base = self._poses.map_T_base(camera_set.stamp, deadline)
        missing = dict(camera_set.missing)
        images, poses, rejections = {}, {}, {}
        for camera, image in camera_set.images.items():
            try:
                calibration = self._calibration(camera, image.stamp, deadline)
                checked = self._check_image(image, calibration)
                poses[camera] = self._poses.map_T_base(image.stamp, deadline)
                images[camera] = checked
            except AloccError as error:
                rejections[camera] = missing[camera] = str(error)
        self.rejections = rejections
        if len(images) < self._min_cameras:
            reasons = "; ".join(f"{camera}: {reason}" for camera, reason in missing.items())
            raise CalibrationError(
                f"{len(images)} cameras can be used, {self._min_cameras} are needed ({reasons})"
            )
        return FrameSet(
            stamp=camera_set.stamp,
            images=images,
            calibration=self._whole_rig(camera_set),
            map_T_base=map_T_base,
            map_T_base_at=poses,
            missing=missing,
            map_frame=self._poses.map_frame,
            base_frame=self._preset.base_frame,
            base_T_grid=self.base_T_grid,
            fitted=tuple(self._preset.used_cameras),
        )

    def calibration_ahead(self, image: CameraImage) -> Calibration:
        """What ``assemble`` would take for an image, as it is known now, without a pose.

        Raises:
            CalibrationError: it is not known yet.
            ImageError: the image cannot be used.
        """
        calibration = self._update(image.camera, image.stamp, deadline=0.0)
        self._check_image(image, calibration)
        return calibration

    def pose_ahead(self, stamp: int) -> FrameSet:
        """What is known at once of the frame set at a stamp (ns): not its images and calibrations.

        Raises:
            PoseError: see ``assemble``.
        """
        return FrameSet(
            stamp=stamp,
            images={},
            calibration={},
            map_T_base=self._poses.map_T_base(stamp, deadline=0.0),
            map_T_base_at={},
            map_frame=self._poses.map_frame,
            base_frame=self._preset.base_frame,
            base_T_grid=self.locate_grid(),
            fitted=tuple(self._preset.used_cameras),
        )

    def locate_grid(self, deadline: float = 0.0) -> np.ndarray | None:  # [4, 4]
        """``base_T_grid``, asked for until it is known; a mounting does not move.

        Raises:
            PoseError: TF does not link the grid's frame to the base frame.
        """
        if self._grid_frame and self.base_T_grid is None:
            self.base_T_grid = self._poses.base_T(self._grid_frame, deadline)
        return self.base_T_grid

    def _whole_rig(self, camera_set: CameraSet) -> dict[str, Calibration]:
        """Six calibrations, as the network has six places.

        A place without a known camera gets the anchor's geometry, or another camera's, of which
        nothing is used: no image comes from there and nothing is lifted.
        """
        for camera in self._preset.used_cameras:
            if camera not in camera_set.images or camera not in self._calibrations:
                try:  # a camera that sends nothing may still be known, and may have changed
                    self._update(camera, camera_set.stamp, deadline=0.0)
                except AloccError:
                    continue
        known = self._calibrations
        placeholder = known.get(self._preset.anchor) or next(iter(known.values()))
        return {c: known.get(c) or dataclasses.replace(placeholder, camera=c) for c in CAMERAS}

    def _calibration(self, camera: str, stamp: int, deadline: float) -> Calibration:
        """Of an image at ``stamp`` (ns).

        Raises:
            CalibrationError: something is not known, also after waiting until ``deadline``.
        """
        # Once it was in vain, what is missing is no longer waited for: it may never come.
        if camera in self._not_waited_for:
            deadline = 0.0
        try:
            calibration = self._update(camera, stamp, deadline)
        except CalibrationError:
            if deadline > 0.0:
                self._not_waited_for.add(camera)
            self._calibrations.pop(camera, None)
            raise
        self._not_waited_for.discard(camera)
        return calibration

    def _update(self, camera: str, stamp: int, deadline: float) -> Calibration:
        """As known now; the same object as long as nothing changed."""
        intrinsics = self._rig.get(camera, _NOT_IN_RIG_FILE).intrinsics
        if intrinsics is None:
            intrinsics = self._cameras.intrinsics(camera, stamp, deadline)
        place = self._base_T_camera(camera, deadline)
        calibration = intrinsics.mounted(camera, place, self._preset.crop_of(camera))
        known = self._calibrations.get(camera)
        if known is not None and same_rig({camera: known}, {camera: calibration}, _UNCHANGED):
            return known
        self._calibrations[camera] = calibration
        return calibration

    def _base_T_camera(self, camera: str, deadline: float) -> np.ndarray:  # [4, 4]
        from_file = self._rig.get(camera, _NOT_IN_RIG_FILE).base_T_camera
        if from_file is not None:
            return from_file
        if self._preset.extrinsics == "file":
            raise CalibrationError("no extrinsics: they are not in the calibration_file")
        frame = self._cameras.frame(camera)
        if not frame:
            raise CalibrationError("its messages have no frame_id; name it with `frame:` in YAML")
        try:
            return self._poses.base_T(frame, deadline)
        except PoseError as error:
            raise CalibrationError(f"no extrinsics on TF: {error}") from error
