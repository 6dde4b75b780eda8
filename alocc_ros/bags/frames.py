# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""A bag and a preset in, frame sets out.

Two passes. The first one reads what is small: transforms, odometry, camera infos and one
image of each camera. Offline there is no reason to guess poses: one that was recorded after
the image is known when the second pass, over the images, comes to it.
"""

from __future__ import annotations

import dataclasses
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from alocc_ros.bags.reader import CAMERA_INFO_TYPE, IMAGE_TYPES, POSE_TYPES, TF_TYPE, Bag, Record
from alocc_ros.bags.reader import topic_name as named
from alocc_ros.errors import BagError, CalibrationError, PoseError, StampError
from alocc_ros.stream import conversions
from alocc_ros.stream.collector import FrameCollector
from alocc_ros.stream.collector_config import CollectorConfig
from alocc_ros.stream.preset import DEFAULT_PRESET, Preset, load_preset, preset_names
from alocc_ros.stream.rig import Intrinsics, RigCamera, intrinsics_from_camera_info, load_rig
from alocc_ros.stream.trajectory import Trajectory
from alocc_ros.stream.transforms import TransformTree
from alocc_ros.types import CAMERAS, Calibration, CameraImage, CameraSet, FrameSet

TF, TF_STATIC = "/tf", "/tf_static"
NOT_FITTED = "the vehicle has no such camera"
NO_POSE = "no ego pose"


class FrameSource:
    """The frame sets of a bag, in order; can be iterated again.

    Attributes:
        camera_frames: TF name of each camera's optical frame.
        expected: about how many frame sets there will be.
        drops: how many images or sets were left out, by reason; of the last iteration.
    """

    def __init__(self, bag: Bag, preset: Preset, calibration_file: Path | None = None) -> None:
        """First pass.

        Args:
            bag: open recording.
            preset: where things are in it.
            calibration_file: takes the place of the preset's.

        Raises:
            BagError, PresetError, CalibrationError, PoseError, StampError: something that
                every frame needs is missing or impossible; the message names it.
        """
        self._bag, self._preset = bag, preset
        self._topics = {named(t.image): camera for camera, t in preset.used_cameras.items()}
        self._check_topics()
        self.expected = bag.counts[named(preset.used_cameras[preset.anchor].image)]
        self.drops: Counter[str] = Counter()
        bounds = {
            "history_ns": None,
            "max_gap_ns": round(preset.pose_gap_s * 1e9),
            "max_extrapolation_ns": round(preset.pose_extrapolation_s * 1e9),
        }
        self._tree = TransformTree(**bounds)
        self._odometry = Trajectory(**bounds)
        # By camera: stamps from which on its intrinsics hold, and these.
        self._infos: dict[str, tuple[list[int], list[Intrinsics]]] = defaultdict(lambda: ([], []))
        self.camera_frames = {camera: t.frame for camera, t in preset.used_cameras.items()}
        calibration_file = calibration_file or preset.calibration_file
        self._rig = load_rig(calibration_file, preset.rectified) if calibration_file else {}
        self._read_motion_and_cameras()
        self._look_at_first_images()
        self._mounts = {camera: self._mount(camera) for camera in preset.used_cameras}
        self._check_ego_motion()

    def __iter__(self) -> Iterator[FrameSet]:
        """Second pass.

        Raises:
            BagError, StampError: the bag is damaged.
        """
        collector = FrameCollector(CollectorConfig.from_preset(self._preset))
        self.drops = Counter()
        try:
            for record in self._bag.messages(self._topics):
                for camera_set in collector.add(self._image(record), record.log_time):
                    yield from self._framed(camera_set)
            for camera_set in collector.flush():
                yield from self._framed(camera_set)
        finally:  # also when nobody wants the rest
            for statistics in collector.statistics.cameras.values():
                self.drops.update(statistics.dropped)

    def map_T_base(self, stamp: int) -> np.ndarray:  # [4, 4]
        """Ego pose at ``stamp`` (ns).

        Raises:
            PoseError: the recording does not cover it.
        """
        if self._preset.ego_pose_source == "odometry":
            return self._odometry.at(stamp)
        return self._tree.lookup(self._preset.world_frame, self._preset.base_frame, stamp)

    def base_T(self, frame: str) -> np.ndarray:  # [4, 4]
        """Where a fixed frame (a LiDAR's, say) is on the vehicle.

        Raises:
            PoseError: TF does not link it to the base frame.
        """
        return self._tree.lookup(self._preset.base_frame, frame, None)

    # --- second pass ---------------------------------------------------------------------

    def _image(self, record: Record) -> CameraImage:
        message = self._bag.decode(record)
        stamp = self._stamp(record, message)
        camera = self._topics[record.topic]
        return conversions.camera_image(message, camera, stamp, self._preset.assume_8uc3)

    def _framed(self, camera_set: CameraSet) -> Iterator[FrameSet]:
        """The set with its poses; nothing if it was taken where there are none."""
        try:
            map_T_base = self.map_T_base(camera_set.stamp)
        except PoseError:
            self.drops[NO_POSE] += 1
            return
        images, poses = {}, {}
        missing = {c: NOT_FITTED for c in CAMERAS if c not in self._preset.used_cameras}
        missing.update(camera_set.missing)
        for camera, image in camera_set.images.items():
            try:
                poses[camera] = self.map_T_base(image.stamp)
                images[camera] = image
            except PoseError as error:
                missing[camera] = f"{NO_POSE}: {error}"
        if len(images) < self._preset.min_cameras:
            self.drops[NO_POSE] += 1
            return
        yield FrameSet(
            stamp=camera_set.stamp,
            images=images,
            calibration=self._calibration(camera_set),
            map_T_base=map_T_base,
            map_T_base_at=poses,
            missing=missing,
            map_frame=self._map_frame,
            base_frame=self._preset.base_frame,
        )

    def _calibration(self, camera_set: CameraSet) -> Mapping[str, Calibration]:
        """The rig as CameraInfo described it for each image (the first one holds before it).

        The network has six places. One without a camera gets the anchor's geometry, of which
        nothing is used: no image comes from there and nothing is lifted.
        """
        rig = {}
        for camera, base_T_camera in self._mounts.items():
            image = camera_set.images.get(camera)
            stamp = image.stamp if image else camera_set.stamp
            rig[camera] = self._intrinsics_at(camera, stamp).mounted(camera, base_T_camera)
        anchor = rig[self._preset.anchor]
        return {c: rig.get(c) or dataclasses.replace(anchor, camera=c) for c in CAMERAS}

    def _intrinsics_at(self, camera: str, stamp: int) -> Intrinsics:
        since, intrinsics = self._infos[camera]
        return intrinsics[max(bisect_right(since, stamp) - 1, 0)]

    @property
    def _map_frame(self) -> str:
        return self._odometry.parent or self._preset.world_frame

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
        infos = {}
        for camera, entry in preset.used_cameras.items():
            from_file = self._rig[camera].intrinsics if camera in self._rig else None
            if from_file is not None:
                self._infos[camera] = ([0], [from_file])
            elif entry.camera_info and types.get(named(entry.camera_info)) == CAMERA_INFO_TYPE:
                infos[named(entry.camera_info)] = camera
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
        broken = _BrokenLinks()
        for record in self._bag.messages(topics):
            message = self._bag.decode(record)
            if record.topic in infos:
                self._add_camera_info(infos[record.topic], record, message)
            elif record.topic == odometry:
                self._add_odometry(message)
            else:
                self._add_transforms(record.topic, message, broken)
        frames = {preset.base_frame, *filter(None, self.camera_frames.values())}
        broken.raise_if_above(frames)
        for camera, entry in preset.used_cameras.items():
            if camera not in self._infos:
                where = named(entry.camera_info) if entry.camera_info else "no topic"
                raise CalibrationError(
                    f"no intrinsics of {camera}: there is no CameraInfo (preset {preset.name} "
                    f"expects it on {where}); give them with --calibration FILE"
                )

    def _add_camera_info(self, camera: str, record: Record, message: Any) -> None:
        intrinsics = intrinsics_from_camera_info(message, self._preset.rectified, record.topic)
        since, known = self._infos[camera]
        if not known or not _same(known[-1], intrinsics):
            # A recording that loops goes back in time; its camera infos do not change, though.
            since.append(max([self._stamp(record, message), *since[-1:]]))
            known.append(intrinsics)
        self.camera_frames[camera] = self.camera_frames[camera] or conversions.frame_name(
            message.header.frame_id
        )

    def _add_odometry(self, message: Any) -> None:
        pose = conversions.pose(message)
        if pose.child not in ("", self._preset.base_frame):
            raise PoseError(
                f"{self._preset.odometry_topic} is the motion of {pose.child}, "
                f"not of base_frame {self._preset.base_frame}"
            )
        parent = pose.parent or self._preset.world_frame
        self._odometry.add(pose.stamp, pose.parent_T_child, parent, self._preset.base_frame)

    def _add_transforms(self, topic: str, message: Any, broken: _BrokenLinks) -> None:
        for entry in message.transforms:
            try:
                stamp, parent, child, pose = conversions.transform(entry)
                if topic == TF_STATIC:
                    self._tree.add_static(parent, child, pose)
                else:
                    self._tree.add(stamp, parent, child, pose)
            except (PoseError, StampError) as error:
                parent = conversions.frame_name(entry.header.frame_id)
                broken.errors.setdefault(conversions.frame_name(entry.child_frame_id), error)
            broken.parents[conversions.frame_name(entry.child_frame_id)].add(parent)

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
            self.camera_frames[camera] = self.camera_frames[camera] or conversions.frame_name(
                message.header.frame_id
            )

    def _mount(self, camera: str) -> np.ndarray:  # [4, 4] base_T_camera
        entry = self._rig.get(camera, RigCamera(None, None))
        if entry.base_T_camera is not None:
            return entry.base_T_camera
        if self._preset.extrinsics == "file":
            raise CalibrationError(
                f"no extrinsics of {camera}: preset {self._preset.name} takes base_T_camera from "
                "a file; give it with --calibration FILE"
            )
        frame = self.camera_frames[camera]
        if not frame:
            raise CalibrationError(
                f"images of {camera} have no frame_id; name it with `frame:` in the preset"
            )
        try:
            return self._tree.lookup(self._preset.base_frame, frame, None)
        except PoseError as error:
            raise CalibrationError(f"no extrinsics of {camera} on TF: {error}") from error

    def _check_ego_motion(self) -> None:
        if self._preset.ego_pose_source == "odometry":
            if not len(self._odometry):
                raise PoseError(f"{self._preset.odometry_topic} has no messages")
            return
        # Whether the frames are linked at all; whether a stamp is covered is seen later.
        self._tree.lookup(self._preset.world_frame, self._preset.base_frame, None)

    def _stamp(self, record: Record, message: Any) -> int:
        if self._preset.stamp_source == "receive":
            return record.log_time
        return conversions.stamp_ns(message.header.stamp)


class _BrokenLinks:
    """Transforms that cannot be used. Only those above frames that we need matter."""

    def __init__(self) -> None:
        self.errors: dict[str, Exception] = {}  # by child
        self.parents: dict[str, set[str]] = defaultdict(set)

    def raise_if_above(self, frames: set[str]) -> None:
        seen: set[str] = set()
        waiting = set(frames)
        while waiting:
            frame = waiting.pop()
            seen.add(frame)
            if frame in self.errors:
                raise self.errors[frame]
            waiting |= self.parents[frame] - seen


def _same(a: Intrinsics, b: Intrinsics) -> bool:
    return (
        np.array_equal(a.matrix, b.matrix)
        and (a.width, a.height, a.distortion) == (b.width, b.height, b.distortion)
        and a.distortion_model == b.distortion_model
    )


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
