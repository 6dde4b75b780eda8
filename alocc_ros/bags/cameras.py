# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""What the CameraInfo messages and the headers of a recording say about its cameras."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from typing import Any

import numpy as np

from alocc_ros.stream.conversions import frame_name, header
from alocc_ros.stream.preset import Preset, distortion_remark
from alocc_ros.stream.rig import Intrinsics, intrinsics_from_camera_info


class RecordedCameras:
    """A ``CameraSource``, once all messages are added.

    Attributes:
        frames: by camera, TF name of its optical frame; "" if nobody names it.
        remarks: by camera, what to know about its CameraInfo.
    """

    def __init__(self, preset: Preset) -> None:
        self._preset = preset
        self.remarks: dict[str, str] = {}
        # By camera: stamps from which on its intrinsics hold, and these.
        self._infos: dict[str, tuple[list[int], list[Intrinsics]]] = defaultdict(lambda: ([], []))
        self.frames = {camera: topics.frame for camera, topics in preset.used_cameras.items()}

    def add_info(self, camera: str, message: Any, stamp: int, topic: str) -> None:
        """A sensor_msgs/CameraInfo of ``stamp`` (ns) on ``topic``.

        Raises:
            CalibrationError: it cannot be used; the message names the topic.
        """
        rectified = self._preset.is_rectified(camera)
        intrinsics = intrinsics_from_camera_info(message, rectified, topic)
        since, known = self._infos[camera]
        if not known or not _same(known[-1], intrinsics):
            # A recording that loops goes back in time; its camera infos do not change, though.
            since.append(max([stamp, *since[-1:]]))
            known.append(intrinsics)
            if remark := distortion_remark(self._preset, camera, topic, message.d):
                self.remarks[camera] = remark
        self.add_header(camera, message)

    def add_header(self, camera: str, message: Any) -> None:
        """The first header that names a frame counts, if the preset names none."""
        self.frames[camera] = self.frames[camera] or frame_name(header(message).frame_id)

    def has_info(self, camera: str) -> bool:
        """Whether a CameraInfo was recorded."""
        return camera in self._infos

    def intrinsics(self, camera: str, stamp: int, deadline: float = 0.0) -> Intrinsics:
        """Those that held at ``stamp`` (ns); the first ones hold before it as well."""
        since, intrinsics = self._infos[camera]
        return intrinsics[max(bisect_right(since, stamp) - 1, 0)]

    def frame(self, camera: str) -> str:
        """See ``frames``."""
        return self.frames[camera]


def _same(a: Intrinsics, b: Intrinsics) -> bool:
    return (
        np.array_equal(a.matrix, b.matrix)
        and (a.width, a.height, a.distortion) == (b.width, b.height, b.distortion)
        and a.distortion_model == b.distortion_model
    )
