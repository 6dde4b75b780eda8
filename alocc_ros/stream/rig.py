# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""What is known about the cameras of a vehicle: intrinsics, and where they are mounted.

Intrinsics come from CameraInfo messages or from files, mounting from TF or from files. A rig
file is YAML, one entry a camera::

    cameras:
      cam_front:
        width: 1600
        height: 900
        intrinsics: [[1260.0, 0.0, 800.0], [0.0, 1260.0, 450.0], [0.0, 0.0, 1.0]]
        distortion_model: plumb_bob   # left out: no distortion
        distortion: [-0.3, 0.1, 0.0, 0.0, 0.0]
        base_T_camera:                # left out: TF has it
          translation: [1.7, 0.0, 1.5]          # metres, in the base frame
          rotation_xyzw: [0.5, -0.5, 0.5, -0.5] # camera optical frame into the base frame
        images: front                 # for pictures without a bag (bags/pictures.py)
      cam_back:
        camera_info: calibration/back.yaml      # a ROS camera_info YAML, for the intrinsics
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import yaml
from pydantic import BeforeValidator

from alocc_ros import schema
from alocc_ros.errors import AloccError, CalibrationError
from alocc_ros.geometry import check_rigid, inverse, pose_matrix
from alocc_ros.schema import (
    Count,
    EmptyText,
    Number,
    Numbers3,
    Text,
    described,
    parse,
    said,
    unknown_name,
)
from alocc_ros.types import CAMERAS, Calibration

# What drivers call the models, and the number of coefficients that each may have.
DISTORTION_COUNTS = {
    "plumb_bob": (4, 5),
    "rational_polynomial": (8, 12, 14),
    "equidistant": (4,),
}
_DISTORTION_ALIASES = {"fisheye": "equidistant", "radtan": "plumb_bob", "pinhole": "plumb_bob"}
# Beyond these a focal length, in image widths, or a principal point, in images from the edge, is
# no camera's: telephoto lenses have 30 widths.
_FOCAL_RANGE = (0.02, 100.0)
_CENTRE_MARGIN = 2.0


@dataclass(frozen=True)
class Intrinsics:
    """A camera apart from where it is mounted; fields as in ``Calibration``."""

    width: int
    height: int
    matrix: np.ndarray
    distortion: tuple[float, ...] = ()
    distortion_model: str = ""

    def mounted(
        self,
        camera: str,
        base_T_camera: np.ndarray,  # [4, 4]
        crop: str | tuple[int, int, int] = "auto",
    ) -> Calibration:
        """The calibration of ``camera`` at that place; ``crop`` as there."""
        return Calibration(
            camera=camera,
            width=self.width,
            height=self.height,
            intrinsics=self.matrix,
            base_T_camera=check_rigid(base_T_camera, f"extrinsics of {camera}"),
            distortion=self.distortion,
            distortion_model=self.distortion_model,
            crop=crop,
        )


@dataclass(frozen=True)
class RigCamera:
    """What a rig file says about one camera; either part may be missing.

    Attributes:
        intrinsics: None if other sources have them.
        base_T_camera: [4, 4], or None.
        images: name of its picture, folder of pictures or film, where there is no bag.
    """

    intrinsics: Intrinsics | None
    base_T_camera: np.ndarray | None
    images: str = ""


def make_intrinsics(
    width: int,
    height: int,
    matrix: Any,  # [3, 3] or 9 numbers, px
    distortion: Any = (),
    distortion_model: str = "",
    *,
    where: str,
    name: str = "K",
) -> Intrinsics:
    """Checked intrinsics; ``name`` is what messages call the matrix.

    Raises:
        CalibrationError: naming ``where`` and what is impossible.
    """
    try:
        k = np.asarray(matrix, dtype=np.float64).reshape(3, 3)
        d = tuple(float(v) for v in np.asarray(distortion, dtype=np.float64).reshape(-1))
    except (TypeError, ValueError) as error:
        raise CalibrationError(f"{where}: the intrinsics are no 3x3 numbers ({error})") from error
    if not (isinstance(width, int) and isinstance(height, int) and width > 0 and height > 0):
        raise CalibrationError(f"{where}: an image of {width} x {height} pixels cannot be")
    if not (np.isfinite(k).all() and np.isfinite(d).all()):
        raise CalibrationError(f"{where}: the intrinsics hold NaN or inf")
    if k[0, 0] <= 0 or k[1, 1] <= 0 or np.abs(k[2] - [0, 0, 1]).max() > 1e-9:
        raise CalibrationError(
            f"{where}: {name} {k.tolist()} is no camera matrix (an uncalibrated camera sends zeros)"
        )
    for axis, size, index in (("x", width, 0), ("y", height, 1)):
        focal, centre = k[index, index], k[index, 2]
        if not _FOCAL_RANGE[0] * width <= focal <= _FOCAL_RANGE[1] * width:
            raise CalibrationError(
                f"{where}: f{axis} of {name} is {focal:g} pixels, which no camera with "
                f"{width} x {height} pixels has"
            )
        if not -_CENTRE_MARGIN * size <= centre <= (1 + _CENTRE_MARGIN) * size:
            raise CalibrationError(
                f"{where}: c{axis} of {name} is {centre:g} pixels, far outside of an image of "
                f"{width} x {height}"
            )
    model = _DISTORTION_ALIASES.get(distortion_model.lower(), distortion_model.lower())
    if model and model not in DISTORTION_COUNTS:
        raise CalibrationError(
            f"{where}: distortion_model {distortion_model!r} is not one of "
            f"{', '.join((*DISTORTION_COUNTS, *_DISTORTION_ALIASES))}"
        )
    if not any(d):
        return Intrinsics(width, height, k)
    # Without a name, or with too few numbers for it, it is OpenCV's of so many.
    if len(d) in DISTORTION_COUNTS["plumb_bob"] and model in ("", "rational_polynomial"):
        model = "plumb_bob"
    model = model or "rational_polynomial"
    known = DISTORTION_COUNTS[model]
    if len(d) not in known:
        # Some drivers always send as many as the longest model has.
        fitting = [n for n in known if n < len(d) and not any(d[n:])]
        if not fitting:
            raise CalibrationError(
                f"{where}: d has {len(d)} coefficients, {model} has {' or '.join(map(str, known))}"
            )
        d = d[: fitting[0]]
    return Intrinsics(width, height, k, d, model)


def intrinsics_from_camera_info(message: Any, rectified: bool, where: str) -> Intrinsics:
    """Intrinsics of the images that a sensor_msgs/CameraInfo ``message`` goes with.

    R is never used: it turns into a stereo frame that we have no part in, and
    nuScenes bags in the wild carry a wrong one. For rectified images of a camera with
    distortion, P holds the camera matrix after rectification; K is the lens's.

    Raises:
        CalibrationError: naming ``where``.
    """
    whole = _of_images(
        message.width,
        message.height,
        message.k,
        message.p,
        message.d,
        message.distortion_model,
        rectified,
        where,
    )
    return _binned_region(whole, message, where)


def _binned_region(whole: Intrinsics, message: Any, where: str) -> Intrinsics:
    """Of the part of the sensor that was read out; K, D and P are those of the full resolution.

    Raises:
        CalibrationError: the region is not on the sensor.
    """
    binning = (max(message.binning_x, 1), max(message.binning_y, 1))
    roi = message.roi
    width, height = roi.width or message.width, roi.height or message.height
    if roi.x_offset + width > message.width or roi.y_offset + height > message.height:
        raise CalibrationError(
            f"{where}: roi of {width} x {height} pixels at {roi.x_offset}, {roi.y_offset} is not "
            f"within {message.width} x {message.height}"
        )
    if binning == (1, 1) and (width, height) == (whole.width, whole.height):
        return whole
    matrix = whole.matrix.copy()
    matrix[0, 2] -= roi.x_offset
    matrix[1, 2] -= roi.y_offset
    # As image_geometry has it: pixel numbers are divided.
    matrix[0] /= binning[0]
    matrix[1] /= binning[1]
    size = (width // binning[0], height // binning[1])
    return replace(whole, width=size[0], height=size[1], matrix=matrix)


def _of_images(
    width: int, height: int, k: Any, p: Any, d: Any, model: str, rectified: bool, where: str
) -> Intrinsics:
    """Of rectified images P has the matrix, where it has one; of others K.

    nuScenes bags have no distortion and one matrix in both; K counts then.
    """
    from_k = not np.any(d) and np.any(k)
    if rectified and not from_k:
        try:
            matrix = np.asarray(p, dtype=np.float64).reshape(3, 4)[:, :3]
        except (TypeError, ValueError) as error:
            raise CalibrationError(f"{where}: P is no 3x4 matrix") from error
        return make_intrinsics(width, height, matrix, where=where, name="P")
    if not np.any(k) and p is not None and np.any(p):
        raise CalibrationError(
            f"{where}: K is all zero, only P is there, which is of rectified images: "
            "`rectified: true` in the preset if these are"
        )
    if not np.any(d):  # whatever the model is called
        return make_intrinsics(width, height, k, where=where)
    return make_intrinsics(width, height, k, d, model, where=where)


def load_rig(path: Path, rectified: bool | Callable[[str], bool]) -> dict[str, RigCamera]:
    """The cameras of a rig file, or of a folder of ROS camera_info YAMLs ``<camera>.yaml``.

    Args:
        path: file or folder.
        rectified: the images carry no distortion, for all cameras or by name; camera_info files
            then give P, not K.

    Raises:
        CalibrationError: naming the file and the entry.
    """
    is_rectified = rectified if callable(rectified) else lambda camera: rectified
    if path.is_dir():
        files = {camera: path / f"{camera}.yaml" for camera in CAMERAS}
        found = {camera: file for camera, file in files.items() if file.is_file()}
        if not found:
            raise CalibrationError(f"calibration folder {path} holds no <camera>.yaml")
        return {
            camera: RigCamera(_camera_info_file(f, is_rectified(camera)), None)
            for camera, f in found.items()
        }
    file = parse(_RigFile, _yaml_mapping(path), str(path), CalibrationError)
    return {
        camera: _rig_camera(entry, path, camera, is_rectified(camera))
        for camera, entry in file.cameras.items()
    }


# The layouts of the files, with what is allowed in them.


def _known_cameras(entries: Any) -> Any:
    if not isinstance(entries, dict):
        raise said("must map camera names to what is known of them")
    for camera in entries:
        if camera not in CAMERAS:
            raise said(unknown_name("camera", camera, CAMERAS))
    return entries


@dataclass(frozen=True)
class _CameraEntry:
    camera_info: EmptyText = ""
    width: Annotated[Count | None, described("a number of pixels")] = None
    height: Annotated[Count | None, described("a number of pixels")] = None
    intrinsics: Any = None
    distortion_model: EmptyText = ""
    distortion: Any = None
    base_T_camera: Any = None
    camera_T_base: Any = None
    images: EmptyText = ""


@dataclass(frozen=True)
class _RigFile:
    cameras: Annotated[dict[str, _CameraEntry], BeforeValidator(_known_cameras)]


_Quaternion = Annotated[tuple[Number, Number, Number, Number], described("a list of 4 numbers")]


@dataclass(frozen=True)
class _Pose:
    translation: Numbers3
    rotation_xyzw: _Quaternion | None = None
    rotation_wxyz: _Quaternion | None = None
    rotation: Any = None


@dataclass(frozen=True)
class _Matrix:
    __pydantic_config__ = {"extra": "ignore"}
    data: Annotated[list[Number], described("a list of numbers")]


@dataclass(frozen=True)
class _CameraInfoFile:
    """The YAML that camera_calibration writes and camera_info_manager reads."""

    __pydantic_config__ = {"extra": "ignore"}
    image_width: Count
    image_height: Count
    camera_matrix: _Matrix
    distortion_coefficients: _Matrix
    distortion_model: Text
    projection_matrix: _Matrix | None = None


def _rig_camera(entry: _CameraEntry, path: Path, camera: str, rectified: bool) -> RigCamera:
    where = f"{path}: cameras: {camera}"
    intrinsics = base_T_camera = None
    if entry.camera_info:
        intrinsics = _camera_info_file(path.parent / entry.camera_info, rectified)
    elif entry.intrinsics is not None:
        intrinsics = make_intrinsics(
            entry.width,
            entry.height,
            entry.intrinsics,
            entry.distortion or (),
            entry.distortion_model,
            where=where,
        )
        if rectified and any(intrinsics.distortion):
            raise CalibrationError(
                f"{where}: distortion is given but the preset says `rectified: true`"
            )
    if entry.base_T_camera is not None and entry.camera_T_base is not None:
        raise CalibrationError(
            f"{where}: base_T_camera and camera_T_base are inverses of each other; give one"
        )
    if entry.base_T_camera is not None:
        base_T_camera = _pose(entry.base_T_camera, f"{where}: base_T_camera")
    elif entry.camera_T_base is not None:
        base_T_camera = inverse(_pose(entry.camera_T_base, f"{where}: camera_T_base"))
    return RigCamera(intrinsics, base_T_camera, entry.images)


def _camera_info_file(path: Path, rectified: bool) -> Intrinsics:
    info = parse(_CameraInfoFile, _yaml_mapping(path), str(path), CalibrationError)
    return _of_images(
        info.image_width,
        info.image_height,
        info.camera_matrix.data,
        info.projection_matrix and info.projection_matrix.data,
        info.distortion_coefficients.data,
        info.distortion_model,
        rectified,
        str(path),
    )


def _pose(entry: Any, where: str) -> np.ndarray:  # [4, 4]
    pose = parse(_Pose, entry, where, CalibrationError) if isinstance(entry, dict) else None
    try:
        if pose is not None:
            return _placed(pose)
        return check_rigid(np.asarray(entry, dtype=np.float64), where)
    except (TypeError, ValueError, AloccError) as error:
        raise CalibrationError(
            f"{where}: expected translation and rotation_xyzw (or rotation_wxyz, or rotation, "
            f"3x3), or a 4x4 matrix ({error})"
        ) from error


def _placed(pose: _Pose) -> np.ndarray:  # [4, 4]
    given = [r for r in (pose.rotation_xyzw, pose.rotation_wxyz, pose.rotation) if r is not None]
    if len(given) != 1:
        what = f"there are {len(given)} rotations" if given else "rotation_xyzw is missing"
        raise ValueError(what)
    if pose.rotation is None:
        q = pose.rotation_xyzw or (*pose.rotation_wxyz[1:], pose.rotation_wxyz[0])
        return pose_matrix(pose.translation, q)
    matrix = np.eye(4)
    matrix[:3, :3] = np.asarray(pose.rotation, dtype=np.float64)
    matrix[:3, 3] = pose.translation
    return check_rigid(matrix, "rotation")


def _yaml_mapping(path: Path) -> dict[str, Any]:
    try:
        entries = schema.load_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CalibrationError(f"cannot read calibration {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise CalibrationError(
            f"calibration {path} is no YAML: {' '.join(str(error).split())}"
        ) from error
    if not isinstance(entries, dict):
        raise CalibrationError(f"calibration {path} is empty or not `name: value` entries")
    return entries
