# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""A bag and a preset in, frame sets out.

Two passes. The first one reads what is small: transforms, odometry, camera infos and one
image of each camera, so that what every frame needs is known to be there before the second
pass, over the images.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from alocc_ros.bags.cameras import RecordedCameras
from alocc_ros.bags.poses import NO_POSE, RecordedPoses
from alocc_ros.bags.reader import CAMERA_INFO_TYPE, IMAGE_TYPES, POSE_TYPES, TF_TYPE, Bag, Record
from alocc_ros.bags.reader import topic_name as named
from alocc_ros.errors import BagError, CalibrationError, PoseError, StampError
from alocc_ros.stream import conversions
from alocc_ros.stream.assembler import FrameAssembler
from alocc_ros.stream.collector import FrameCollector
from alocc_ros.stream.collector_config import CollectorConfig
from alocc_ros.stream.preset import DEFAULT_PRESET, Preset, load_preset, preset_names
from alocc_ros.stream.rig import load_rig
from alocc_ros.types import CameraImage, CameraSet, FrameSet

TF, TF_STATIC = "/tf", "/tf_static"


class FrameSource:
    """The frame sets of a bag, in order; can be iterated again.

    Attributes:
        poses: of the vehicle, and where things are mounted on it.
        expected: about how many frame sets there will be.
        drops: how many images or sets were left out, by reason; of the last iteration.
    """

    def __init__(
        self,
        bag: Bag,
        preset: Preset,
        calibration_file: Path | None = None,
        grid_frame: str | None = None,
    ) -> None:
        """First pass.

        Args:
            bag: open recording.
            preset: where things are in it.
            calibration_file: takes the place of the preset's.
            grid_frame: TF name of the grid's frame, if that is not the base frame.

        Raises:
            BagError, PresetError, CalibrationError, PoseError, StampError: something that
                every frame needs is missing or impossible; the message names it.
        """
        self._bag, self._preset = bag, preset
        self._topics = {named(t.image): camera for camera, t in preset.used_cameras.items()}
        self._check_topics()
        self.expected = bag.counts[named(preset.used_cameras[preset.anchor].image)]
        self.drops: Counter[str] = Counter()
        self.poses = RecordedPoses(preset)
        self._cameras = RecordedCameras(preset)
        calibration_file = calibration_file or preset.calibration_file
        self._rig = load_rig(calibration_file, preset.rectified) if calibration_file else {}
        self._assembler = FrameAssembler(
            preset, self.poses, self._cameras, self._rig, grid_frame=grid_frame or ""
        )
        self._read_motion_and_cameras()
        self._look_at_first_images()
        self._check_mounts()
        self.poses.check_ego_motion()
        self._assembler.locate_grid()

    @property
    def camera_frames(self) -> dict[str, str]:
        """TF name of each camera's optical frame."""
        return self._cameras.frames

    @property
    def base_T_grid(self) -> np.ndarray | None:  # [4, 4]
        """Where the grid's frame is on the vehicle; None: it is the base frame."""
        return self._assembler.base_T_grid

    def __iter__(self) -> Iterator[FrameSet]:
        """Second pass.

        Raises:
            BagError, StampError: the bag is damaged.
        """
        collector = FrameCollector(CollectorConfig.from_preset(self._preset))
        self.drops = Counter()
        try:
            for record in self._bag.messages(self._topics):
                closed = collector.add(self._image(record), record.log_time)
                yield from filter(None, map(self._assembled, closed))
            yield from filter(None, map(self._assembled, collector.flush()))
        finally:  # also if the iteration is abandoned
            for statistics in collector.statistics.cameras.values():
                self.drops.update(statistics.dropped)

    # --- second pass ---------------------------------------------------------------------

    def _image(self, record: Record) -> CameraImage:
        message = self._bag.decode(record)
        stamp = self._stamp(record, message)
        camera = self._topics[record.topic]
        return conversions.camera_image(message, camera, stamp, self._preset.assume_8uc3)

    def _assembled(self, camera_set: CameraSet) -> FrameSet | None:
        """None, and counted, if the set was taken where there are too few ego poses."""
        try:
            return self._assembler.assemble(camera_set)
        except (PoseError, CalibrationError):  # of the latter, all but poses is known to be there
            self.drops[NO_POSE] += 1
            return None

    # --- first pass ----------------------------------------------------------------------

    def _check_topics(self) -> None:
        types = self._bag.types
        missing = [t for t in self._topics if types.get(t) not in IMAGE_TYPES]
        if not missing:
            return
        there = sorted(t for t, kind in types.items() if kind in IMAGE_TYPES)
        fitting = _presets_for(set(there))
        raise BagError(
            f"bag {self._bag.path} has no images on {', '.join(missing)} "
            f"(preset {self._preset.name}); there are images on {', '.join(there) or 'no topic'}"
            + (f"; preset {' or '.join(fitting)} fits" if fitting else "")
        )

    def _read_motion_and_cameras(self) -> None:
        preset, types = self._preset, self._bag.types
        without_file = {
            camera: topics
            for camera, topics in preset.used_cameras.items()
            if camera not in self._rig or self._rig[camera].intrinsics is None
        }
        infos = {
            named(topics.camera_info): camera
            for camera, topics in without_file.items()
            if topics.camera_info and types.get(named(topics.camera_info)) == CAMERA_INFO_TYPE
        }
        odometry = named(preset.odometry_topic) if preset.odometry_topic else ""
        topics = [*infos, *(t for t in (TF, TF_STATIC) if types.get(t) == TF_TYPE)]
        if preset.ego_pose_source == "odometry":
            if types.get(odometry) not in POSE_TYPES:
                there = ", ".join(sorted(t for t, k in types.items() if k in POSE_TYPES))
                raise BagError(
                    f"bag {self._bag.path} has no odometry on {odometry} "
                    f"(preset {preset.name}); there is odometry on {there or 'no topic'}"
                )
            topics.append(odometry)
        for record in self._bag.messages(topics):
            message = self._bag.decode(record)
            if record.topic in infos:
                stamp = self._stamp(record, message)
                self._cameras.add_info(infos[record.topic], message, stamp, record.topic)
            elif record.topic == odometry:
                self.poses.add_odometry(message)
            else:
                self.poses.add_transforms(message, static=record.topic == TF_STATIC)
        self.poses.check_transforms({preset.base_frame, *filter(None, self.camera_frames.values())})
        for camera, entry in without_file.items():
            if not self._cameras.has_info(camera):
                where = named(entry.camera_info) if entry.camera_info else "no topic"
                raise CalibrationError(
                    f"no intrinsics of {camera}: there is no CameraInfo (preset {preset.name} "
                    f"expects it on {where}); give them with --calibration FILE"
                )

    def _look_at_first_images(self) -> None:
        """One image of each camera tells its frame, and whether stamps can be used."""
        for topic, camera in self._topics.items():
            record = next(self._bag.messages([topic]), None)
            if record is None:
                raise BagError(f"bag {self._bag.path}: {topic} has no messages")
            message = self._bag.decode(record)
            if self._stamp(record, message) == 0:
                raise StampError(
                    f"images on {topic} have stamp zero; if the bag was recorded live, use the "
                    "time of recording: `stamp_source: receive` in the preset, or the preset "
                    "nuscenes2bag_ros2"
                )
            self._cameras.add_header(camera, message)

    def _check_mounts(self) -> None:
        """Extrinsics that would be missing in every set are an error now, with the remedy."""
        preset = self._preset
        for camera in preset.used_cameras:
            if camera in self._rig and self._rig[camera].base_T_camera is not None:
                continue
            if preset.extrinsics == "file":
                raise CalibrationError(
                    f"no extrinsics of {camera}: preset {preset.name} takes base_T_camera from "
                    "a file; give it with --calibration FILE"
                )
            frame = self.camera_frames[camera]
            if not frame:
                raise CalibrationError(
                    f"images of {camera} have no frame_id; name it with `frame:` in the preset"
                )
            try:
                self.poses.base_T(frame)
            except PoseError as error:
                raise CalibrationError(f"no extrinsics of {camera} on TF: {error}") from error

    def _stamp(self, record: Record, message: Any) -> int:
        if self._preset.stamp_source == "receive":
            return record.log_time
        return conversions.stamp_ns(message.header.stamp)


def preset_of(bag: Bag) -> Preset:
    """The shipped preset whose topics are in the bag; the default one if several or none are."""
    fitting = _presets_for({t for t, kind in bag.types.items() if kind in IMAGE_TYPES})
    return load_preset(fitting[0] if len(fitting) == 1 else DEFAULT_PRESET)


def _presets_for(image_topics: set[str]) -> list[str]:
    """Shipped presets whose every camera is among the topics."""
    presets = {name: load_preset(name) for name in preset_names()}
    return [
        name
        for name, preset in presets.items()
        if all(named(t.image) in image_topics for t in preset.used_cameras.values())
    ]
