# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Which frames are key frames, what a frame is compared with, and when the past is thrown away.

The networks were trained on key frames half a second apart: each step of their history means
one interval, whatever the true time. So a stream of any rate is thinned: frames between key
frames use the memory of the last key frame but do not become part of it. And a
memory is only as good as the motion since it was made is known, hence the reset rules.

Depth from two images and flow from two maps want one interval between the two as well: a
step of 0.1 s taken for one of 0.5 s makes everything five times as slow. So of the last
interval a few frames are kept as references, which is cheap, and each frame compares itself
with the one that lies nearest to an interval ago.

Nothing here holds a tensor. Features of reference frames lie in numbered slots of the stream's
state (runtime/state.py); which number a frame gets is decided here.
"""

from __future__ import annotations

import copy
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from alocc_ros.errors import CalibrationError, ParameterError, TemporalMemoryError
from alocc_ros.geometry import check_rigid, inverse, rotation_angle
from alocc_ros.types import CAMERAS, Calibration, FrameSet

# Why there is no memory. External monitors match on these words: keep them.
FIRST_FRAME = "first frame"
BACKWARD_STAMP = "stamp went back"
GAP = "gap in time"
TELEPORT = "pose jumped"
CALIBRATION = "calibration changed"
FRAMES = "frame names changed"
MANUAL = "reset on request"
RESET_REASONS = (FIRST_FRAME, BACKWARD_STAMP, GAP, TELEPORT, CALIBRATION, FRAMES, MANUAL)


@dataclass(frozen=True)
class KeyframeSettings:
    """When a frame becomes a key frame and when to reset.

    Attributes:
        interval_ns: spacing of the key frames that the model expects.
        references: how many frames an interval are kept to be compared with; what a frame compares
            itself with is one interval old, give or take half an interval divided by this.
        tolerance: how far below the interval a key frame may lie, as a fraction of it. Within
            that, the frame nearest to the interval is taken: one at least ``interval`` minus
            half a frame period after the last key frame. nuScenes' own key frames are 0.4 to
            0.6 s apart, which 0.3 lets pass; at 10 Hz and more half a period is what counts.
        max_gap_ns: an older memory is thrown away. Four intervals: after three lost key
            frames the age that the network assumes is wrong by 1.5 s, moving objects are
            elsewhere, and the stereo baseline is far outside of what was trained.
        max_speed: m/s. A larger apparent speed is a jump of the localisation or of the bag.
        position_margin: m that a pose may jump at any rate (corrections of a localisation).
        max_turn_rate: rad/s, likewise for the heading.
        turn_margin: rad, likewise.
        pixel_tolerance: px that intrinsics may change without being another camera.
        mount_tolerance: m that a camera may move on the vehicle.
        mount_turn_tolerance: rad, likewise.
    """

    interval_ns: int = 500_000_000
    references: int = 4
    tolerance: float = 0.3
    max_gap_ns: int = 2_000_000_000
    max_speed: float = 60.0
    position_margin: float = 2.0
    max_turn_rate: float = 3.2
    turn_margin: float = 0.2
    pixel_tolerance: float = 0.1
    mount_tolerance: float = 0.005
    mount_turn_tolerance: float = 0.001

    def __post_init__(self) -> None:
        problems = []
        if self.interval_ns <= 0:
            problems.append(f"interval_ns must be positive, is {self.interval_ns}")
        if self.references < 1:
            problems.append(f"references must be at least 1, is {self.references}")
        if not 0.0 <= self.tolerance < 1.0:
            problems.append(f"tolerance must be in [0, 1), is {self.tolerance}")
        if self.max_gap_ns < self.interval_ns:
            problems.append(f"max_gap_ns must be at least interval_ns, is {self.max_gap_ns}")
        for name in ("max_speed", "max_turn_rate"):
            if not getattr(self, name) > 0:
                problems.append(f"{name} must be positive, is {getattr(self, name)}")
        for name in (
            "position_margin",
            "turn_margin",
            "pixel_tolerance",
            "mount_tolerance",
            "mount_turn_tolerance",
        ):
            if not getattr(self, name) >= 0:
                problems.append(f"{name} must not be negative, is {getattr(self, name)}")
        if problems:
            raise ParameterError("memory: " + "; ".join(problems))


@dataclass(frozen=True)
class PastFrame:
    """A key frame, or a reference frame: when and where it was.

    Attributes:
        slot: of the stream's state, which holds its features.
        ran: whether the network saw it; else nothing of it is in the state.
        stamp: ns.
        map_T_base: [4, 4] ego pose at ``stamp``.
        map_T_camera: [N, 4, 4] pose of each camera at its own stamp, in the rig's order; a
            missing camera is where it was at ``stamp``.
        missing: cameras whose image was absent.
        fingerprint: the calibrations, by camera name.
        frames: names of the map and the base frame.
    """

    slot: int
    ran: bool
    stamp: int
    map_T_base: np.ndarray
    map_T_camera: np.ndarray
    missing: frozenset[str]
    fingerprint: Mapping[str, Calibration]
    frames: tuple[str, str]


@dataclass(frozen=True)
class FrameDecision:
    """What the network is to do with one frame.

    Attributes:
        keyframe: whose memory to use, or None: the frame begins a sequence.
        reference: what to compare the images with: of key frames the key frame before, as in
            training, of others what lies nearest to an interval ago. None: there is no past.
        is_keyframe: whether the memory moves on with this frame.
        slot: where the features of this frame go.
        reset: why there is no memory (one of ``RESET_REASONS``), or "".
        elapsed_ns: time since the key frame, 0 without one.
    """

    keyframe: PastFrame | None
    reference: PastFrame | None
    is_keyframe: bool
    slot: int
    reset: str
    elapsed_ns: int


class _Seen(NamedTuple):
    stamp: int
    map_T_base: np.ndarray


class KeyframePolicy:
    """Knows the last key frame and decides, frame by frame, what becomes of it.

    ``plan`` before the network runs, ``update`` after it. A frame without an ``update``
    (the network failed) leaves the key frame as it was.

    Attributes:
        resets: how often the memory was found unfit or empty, by reason.
        remembered: key frames since the memory was empty.
    """

    def __init__(
        self, settings: KeyframeSettings | None = None, cameras: tuple[str, ...] = CAMERAS
    ) -> None:
        self.settings = settings or KeyframeSettings()
        self.cameras = cameras
        self.resets: Counter[str] = Counter()
        self._empty_because = ""
        self._forget()

    @property
    def keyframe(self) -> PastFrame | None:
        """The last key frame, or None."""
        return self._keyframe

    @property
    def references(self) -> tuple[PastFrame, ...]:
        """What later frames may be compared with, oldest first."""
        return tuple(self._references)

    def plan(self, frame: FrameSet) -> FrameDecision:
        """Decides whether the memory fits ``frame`` and whether it is to be renewed by it.

        Raises:
            PoseError: the pose of the frame is not a rigid transform.
        """
        check_rigid(frame.map_T_base, f"pose of {frame.base_frame} in {frame.map_frame}")
        reason = self._reset_reason(frame)
        if reason:
            self.reset(reason)
        self._see(frame)
        key = self._keyframe
        if key is None:
            decision = FrameDecision(None, None, True, 0, self._empty_because, elapsed_ns=0)
        else:
            elapsed = frame.stamp - key.stamp
            due = elapsed >= self._keyframe_after()
            reference = self._reference(frame.stamp, key, due)
            decision = FrameDecision(key, reference, due, self._free_slot(), "", elapsed)
        self._planned = (frame, decision)
        return decision

    def foresee(self, frame: FrameSet) -> FrameDecision:
        """What ``plan`` would decide about a frame that is still to come; takes note of nothing.

        Raises:
            PoseError: see ``plan``.
        """
        other = copy.copy(self)
        other.resets, other._periods = self.resets.copy(), self._periods.copy()
        return other.plan(frame)

    def update(self, frame: FrameSet, ran: bool = True) -> None:
        """Goes on from ``frame``.

        Args:
            frame: the one that was planned last.
            ran: whether the network saw it, so that the state holds its features.

        Raises:
            TemporalMemoryError: ``frame`` is not the one that was planned last.
        """
        if self._planned is None or self._planned[0] is not frame:
            raise TemporalMemoryError(
                f"update with the frame at {frame.stamp} ns, which was not the last one planned"
            )
        decision = self._planned[1]
        self._planned = None
        seen = PastFrame(
            slot=decision.slot,
            ran=ran,
            stamp=frame.stamp,
            map_T_base=frame.map_T_base,
            map_T_camera=map_T_camera(frame, self.cameras),
            missing=frozenset(c for c in self.cameras if c not in frame.images),
            fingerprint=dict(frame.calibration),
            frames=(frame.map_frame, frame.base_frame),
        )
        if decision.is_keyframe:
            self._keyframe = seen
            self.remembered += 1
        self._keep_reference(seen, decision.is_keyframe)

    def reset(self, reason: str = MANUAL) -> None:
        """Throws the memory away; the next frame begins a sequence.

        Raises:
            ParameterError: the reason is none of ``RESET_REASONS``.
        """
        if reason not in RESET_REASONS:
            raise ParameterError(
                f"memory: {reason!r} is no reason for a reset; reasons: {', '.join(RESET_REASONS)}"
            )
        self.resets[reason] += 1
        self._empty_because = reason
        self._forget()

    def _forget(self) -> None:
        self._keyframe: PastFrame | None = None
        self.remembered = 0
        self._references: deque[PastFrame] = deque()
        self._seen: _Seen | None = None
        self._periods: deque[int] = deque(maxlen=2)
        self._planned: tuple[FrameSet, FrameDecision] | None = None

    def _free_slot(self) -> int:
        taken = {r.slot for r in self._references}
        if self._keyframe is not None:
            taken.add(self._keyframe.slot)
        return next(n for n in range(len(taken) + 1) if n not in taken)

    def _reference(self, stamp: int, key: PastFrame, due: bool) -> PastFrame:
        wanted = key.stamp if due else stamp - self.settings.interval_ns
        nearest = min(self._references, key=lambda r: abs(r.stamp - wanted), default=key)
        return nearest if nearest.ran else key

    def _keep_reference(self, frame: PastFrame, is_keyframe: bool) -> None:
        references, interval = self._references, self.settings.interval_ns
        if references and not is_keyframe:
            # Half a period early is nearer than half a period late, as for key frames.
            early = min(self._periods) / 2 if self._periods else 0
            # One nanosecond at least: the same frame again and again must not take slot after slot.
            apart = max(1, interval / self.settings.references - early)
            if frame.stamp - references[-1].stamp < apart:
                return
        references.append(frame)
        while len(references) > 2 and references[1].stamp <= frame.stamp - interval:
            references.popleft()  # from now on its successor is always nearer

    def _reset_reason(self, frame: FrameSet) -> str:
        """Why there is no memory that fits the frame, or ""."""
        key, seen = self._keyframe, self._seen
        if not self._empty_because:
            return FIRST_FRAME
        if seen is not None and frame.stamp < seen.stamp:
            return BACKWARD_STAMP
        if key is None:
            return ""
        if frame.stamp - key.stamp > self.settings.max_gap_ns:
            return GAP
        if (frame.map_frame, frame.base_frame) != key.frames:
            return FRAMES
        if not same_rig(frame.calibration, key.fingerprint, self.settings):
            return CALIBRATION
        # From frame to frame, also over those that were never run: the shorter the time,
        # the smaller the jump that is noticed.
        if seen is not None and frame.stamp > seen.stamp and self._is_teleport(seen, frame):
            return TELEPORT
        return ""

    def _is_teleport(self, seen: _Seen, frame: FrameSet) -> bool:
        settings = self.settings
        seconds = (frame.stamp - seen.stamp) * 1e-9
        motion = inverse(seen.map_T_base) @ frame.map_T_base
        distance = float(np.linalg.norm(motion[:3, 3]))
        return (
            distance > settings.max_speed * seconds + settings.position_margin
            or rotation_angle(motion) > settings.max_turn_rate * seconds + settings.turn_margin
        )

    def _see(self, frame: FrameSet) -> None:
        if self._seen is not None:
            if frame.stamp == self._seen.stamp:
                return
            self._periods.append(frame.stamp - self._seen.stamp)
        self._seen = _Seen(frame.stamp, frame.map_T_base)

    def _keyframe_after(self) -> float:
        """ns after the last key frame from which a frame is the nearest to the interval.

        Half a period early is nearer than half a period late; the shorter of the last two
        periods counts, so that one lost frame changes nothing.
        """
        early = self.settings.tolerance * self.settings.interval_ns
        if self._periods:
            early = min(early, min(self._periods) / 2)
        return self.settings.interval_ns - early


def map_T_camera(frame: FrameSet, cameras: tuple[str, ...]) -> np.ndarray:  # [N, 4, 4]
    """Pose of each camera at its own stamp; a missing camera is where it was at the frame's.

    Raises:
        CalibrationError: a camera of the rig has no calibration.
    """
    if without := [c for c in cameras if c not in frame.calibration]:
        raise CalibrationError(f"no calibration of {', '.join(without)}")
    return np.stack(
        [
            frame.map_T_base_at.get(c, frame.map_T_base) @ frame.calibration[c].base_T_camera
            for c in cameras
        ]
    )


def same_rig(
    a: Mapping[str, Calibration], b: Mapping[str, Calibration], settings: KeyframeSettings
) -> bool:
    """Whether two calibrations of a rig agree within the tolerances of the settings."""
    return a.keys() == b.keys() and all(_same_camera(a[name], b[name], settings) for name in a)


def _same_camera(a: Calibration, b: Calibration, settings: KeyframeSettings) -> bool:
    if a is b:
        return True
    if (a.width, a.height, a.distortion_model) != (b.width, b.height, b.distortion_model):
        return False
    if not np.array_equal(a.distortion, b.distortion):
        return False
    if not np.abs(a.intrinsics - b.intrinsics).max() <= settings.pixel_tolerance:
        return False
    motion = inverse(a.base_T_camera) @ b.base_T_camera
    return (
        float(np.linalg.norm(motion[:3, 3])) <= settings.mount_tolerance
        and rotation_angle(motion) <= settings.mount_turn_tolerance
    )
