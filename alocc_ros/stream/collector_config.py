# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""How images become sets: the settings of ``FrameCollector``, made here and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from alocc_ros.errors import ParameterError
from alocc_ros.stream.preset import Preset
from alocc_ros.types import CAMERAS


@dataclass(frozen=True)
class CollectorConfig:
    """How images become sets. Times in nanoseconds.

    Attributes:
        cameras: the rig, in the order in which cameras stand in for a dead anchor.
        anchor: the camera whose stamp is the stamp of the set.
        offsets_ns: by camera, its expected stamp minus the anchor's; 0 where not named. With
            unknown offsets the nearest images are taken, which is right as long as every
            true offset is well below half a frame period.
        max_spread_ns: largest distance between two base times of a set. The six nuScenes
            cameras are spread over 42.6 ms of an 83.3 ms period; sets that mix two cycles
            begin at 73 ms, so 55 ms tells them apart.
        timeout_ns: how long after its arrival an anchor image waits for the others.
        min_cameras: sets with fewer images are dropped; None means all of ``cameras``, that
            is, no partial sets.
        must_have: sets without one of these are dropped.
        max_queue: images held per camera; the oldest goes when it is full.
        silent_after_ns: a camera that sent nothing for so long is not waited for.
        time_jump_ns: a stamp (or ``now_ns``) further back than this means that time itself
            jumped, as when a bag loops; less is an image out of order, and two of those in a
            row from one camera are a jump as well.
    """

    cameras: tuple[str, ...] = CAMERAS
    anchor: str = "cam_front"
    offsets_ns: Mapping[str, int] = field(default_factory=dict)
    max_spread_ns: int = 55_000_000
    timeout_ns: int = 100_000_000
    min_cameras: int | None = None
    must_have: tuple[str, ...] = ()
    max_queue: int = 8
    silent_after_ns: int = 1_500_000_000
    time_jump_ns: int = 150_000_000

    @staticmethod
    def from_preset(
        preset: Preset,
        *,
        timeout_s: float = 0.0,
        min_cameras: int = 0,
        silent_after_s: float = 0.0,
    ) -> CollectorConfig:
        """The preset's rules; what is 0 is left to the preset, or to the default.

        Args:
            preset: cameras, anchor, offsets and bounds.
            timeout_s: in place of the preset's ``set_timeout_s``.
            min_cameras: in place of the preset's, but never more than the vehicle has.
            silent_after_s: see ``silent_after_ns``; the preset does not have it.
        """
        cameras = preset.used_cameras
        silent = {"silent_after_ns": round(silent_after_s * 1e9)} if silent_after_s else {}
        return CollectorConfig(
            cameras=tuple(cameras),
            anchor=preset.anchor,
            offsets_ns={name: round(t.offset_s * 1e9) for name, t in cameras.items()},
            max_spread_ns=round(preset.max_spread_s * 1e9),
            timeout_ns=round((timeout_s or preset.set_timeout_s) * 1e9),
            min_cameras=min(min_cameras or preset.min_cameras, len(cameras)),
            must_have=preset.must_have,
            **silent,
        )

    def __post_init__(self) -> None:
        problems = []
        if not self.cameras or len(set(self.cameras)) != len(self.cameras):
            problems.append(f"cameras must be distinct names, at least one: {self.cameras}")
        if self.anchor not in self.cameras:
            problems.append(f"anchor {self.anchor!r} is none of the cameras {self.cameras}")
        if unknown := sorted(set(self.offsets_ns) - set(self.cameras)):
            problems.append(f"offsets_ns names unknown cameras {unknown}")
        if self.offsets_ns.get(self.anchor, 0) != 0:
            problems.append(f"offsets_ns of the anchor {self.anchor!r} must be 0")
        for name in ("max_spread_ns", "timeout_ns", "silent_after_ns", "time_jump_ns"):
            if getattr(self, name) <= 0:
                problems.append(f"{name} must be positive, is {getattr(self, name)}")
        if not 1 <= self.required <= len(self.cameras):
            problems.append(f"min_cameras must be in 1..{len(self.cameras)}, is {self.min_cameras}")
        if self.max_queue < 2:
            problems.append(f"max_queue must be at least 2, is {self.max_queue}")
        if problems:
            raise ParameterError("collector: " + "; ".join(problems))

    @property
    def required(self) -> int:
        """Number of images that a set needs at least."""
        return len(self.cameras) if self.min_cameras is None else self.min_cameras
