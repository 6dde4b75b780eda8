# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Rigid transforms and pinhole cameras, float64 numpy.

``a_T_b`` is a 4x4 matrix that maps points of frame b into frame a, so
``a_T_c = a_T_b @ b_T_c``. Lengths are metres. Camera frames are optical frames
(x right, y down, z forward; REP-103).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.spatial.transform import Rotation, Slerp

from alocc_ros.errors import PoseError

# How far R^T R may be from the identity before a matrix is refused as a pose. Float32
# matrices and hand-typed quaternions stay below 1e-5; a scaled or sheared one is far above.
_RIGID_TOLERANCE = 1e-3


def inverse(a_T_b: np.ndarray) -> np.ndarray:  # [..., 4, 4]
    """``b_T_a`` of rigid ``a_T_b`` (transposed rotation, no general matrix inverse)."""
    out = np.zeros_like(a_T_b)
    rotation_t = np.swapaxes(a_T_b[..., :3, :3], -1, -2)
    out[..., :3, :3] = rotation_t
    out[..., :3, 3] = -(rotation_t @ a_T_b[..., :3, 3:])[..., 0]
    out[..., 3, 3] = 1.0
    return out


def pose_matrix(translation: Sequence[float], quaternion_xyzw: Sequence[float]) -> np.ndarray:
    """4x4 float64 from a translation (m) and a quaternion (x, y, z, w; ROS order).

    Raises:
        PoseError: a number is not finite, or the quaternion has no length.
    """
    t = np.asarray(translation, dtype=np.float64)
    q = np.asarray(quaternion_xyzw, dtype=np.float64)
    if t.shape != (3,) or q.shape != (4,):
        raise PoseError(f"a pose needs 3 + 4 numbers, got {t.shape} and {q.shape}")
    if not (np.isfinite(t).all() and np.isfinite(q).all()):
        raise PoseError(f"pose is not finite: translation {t.tolist()}, quaternion {q.tolist()}")
    norm = math.hypot(*q)  # of any size without overflow
    if not 0.9 < norm < 1.1:
        raise PoseError(f"quaternion {q.tolist()} has length {norm:.3g}; a rotation has length 1")
    out = np.eye(4)
    out[:3, :3] = Rotation.from_quat(q).as_matrix()
    out[:3, 3] = t
    return out


def quaternion_xyzw(a_T_b: np.ndarray) -> np.ndarray:  # [4, 4] -> [4]
    """The rotation of a pose as a ROS quaternion."""
    return Rotation.from_matrix(a_T_b[:3, :3]).as_quat()


def check_rigid(a_T_b: np.ndarray, what: str) -> np.ndarray:  # [4, 4]
    """``a_T_b`` as float64 if it is a finite rigid transform.

    Raises:
        PoseError: naming ``what`` and the reason.
    """
    m = np.asarray(a_T_b, dtype=np.float64)
    if m.shape != (4, 4):
        raise PoseError(f"{what}: a pose is a 4x4 matrix, got shape {m.shape}")
    if not np.isfinite(m).all():
        raise PoseError(f"{what}: the pose holds NaN or inf")
    r = m[:3, :3]
    with np.errstate(over="ignore", invalid="ignore"):  # numbers may be of any size
        off = float(np.abs(r.T @ r - np.eye(3)).max())
    if (
        not off <= _RIGID_TOLERANCE
        or np.linalg.det(r) < 0
        or np.abs(m[3] - [0, 0, 0, 1]).max() > 1e-9
    ):
        raise PoseError(f"{what}: not a rigid transform (R^T R is off by {off:.2g})")
    return m


def interpolate(a_T_b0: np.ndarray, a_T_b1: np.ndarray, ratio: float) -> np.ndarray:  # [4, 4]
    """The pose ``ratio`` of the way from b0 to b1: linear translation, slerp rotation.

    A ratio outside [0, 1] extrapolates with constant velocity and turn rate.
    """
    out = np.eye(4)
    out[:3, 3] = (1.0 - ratio) * a_T_b0[:3, 3] + ratio * a_T_b1[:3, 3]
    r0 = Rotation.from_matrix(a_T_b0[:3, :3])
    if 0.0 <= ratio <= 1.0:
        both = Rotation.from_matrix(np.stack([a_T_b0[:3, :3], a_T_b1[:3, :3]]))
        rotation = Slerp([0.0, 1.0], both)(ratio)
    else:
        turn = (r0.inv() * Rotation.from_matrix(a_T_b1[:3, :3])).as_rotvec()
        rotation = r0 * Rotation.from_rotvec(ratio * turn)
    out[:3, :3] = rotation.as_matrix()
    return out


def rotation_angle(a_T_b: np.ndarray) -> float:  # [4, 4]
    """Angle of the rotation, radians in [0, pi]."""
    return float(Rotation.from_matrix(a_T_b[:3, :3]).magnitude())


def project(
    points: np.ndarray,  # [n, 3] m, in frame a
    camera_T_a: np.ndarray,  # [4, 4]
    intrinsics: np.ndarray,  # [3, 3] px
) -> tuple[np.ndarray, np.ndarray]:
    """Pinhole projection: (pixels [n, 2], depth [n] m). Only ``depth > 0`` is in front."""
    p = np.asarray(points, dtype=np.float64) @ camera_T_a[:3, :3].T + camera_T_a[:3, 3]
    depth = p[:, 2]
    safe = np.where(np.abs(depth) < 1e-6, 1e-6, depth)
    uv = (p @ intrinsics.T)[:, :2] / safe[:, None]
    return uv, depth
