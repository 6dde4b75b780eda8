# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""A bag and a preset in, frame sets out.

Two passes. The first one reads what is small: transforms, odometry, camera infos and one
usable image of each camera, so that what every frame needs is known to be there before the second
pass, over the images.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from alocc_ros.bags.cameras import RecordedCameras
from alocc_ros.bags.order import WINDOW, StampClock, StampOrder, in_order
from alocc_ros.bags.poses import NO_POSE, RecordedPoses
from alocc_ros.bags.reader import CAMERA_INFO_TYPE, POSE_TYPES, TF_TYPE, Bag, Record, camera_types
from alocc_ros.bags.reader import topic_name as named
from alocc_ros.errors import AloccError, BagError, CalibrationError, PoseError, StampError
from alocc_ros.stream import conversions
from alocc_ros.stream.assembler import FrameAssembler
from alocc_ros.stream.collector import FrameCollector
from alocc_ros.stream.collector_config import CollectorConfig
from alocc_ros.stream.decoding import check_size, image_size
from alocc_ros.stream.preset import (
    DEFAULT_PRESET,
    Preset,
    load_preset,
    other_transforms,
    preset_names,
)
from alocc_ros.stream.rig import load_rig
from alocc_ros.stream.skips import BAD_CAMERA_INFO, BAD_STAMP, NO_SUCH_MESSAGE, Skips
from alocc_ros.stream.video import VideoStreams, how_to_decode
from alocc_ros.types import CameraImage, CameraSet, FrameSet

# ns by which the cameras' times of recording may lag differently behind their stamps; what is
# held back to put images in order covers as much at any usual rate.
_IN_STEP = 250_000_000


class FrameSource:
    """The frame sets of a bag, in order; can be iterated again.

    Attributes:
        poses: of the vehicle, and where things are mounted on it.
        expected: about how many frame sets there will be.
        drops: how many images or sets were not needed or not complete, by reason; of the last
            iteration.
        skips: messages that cannot be used; of the first pass and of the last iteration.
        no_pose: why the first set without an ego pose has none, or "".
        warnings: what else went wrong in the last iteration.
    """

    def __init__(
        self,
        bag: Bag,
        preset: Preset,
        calibration_file: Path | None = None,
        grid_frame: str | None = None,
        skips: Skips | None = None,
    ) -> None:
        """First pass.

        Args:
            bag: open recording.
            preset: where things are in it.
            calibration_file: takes the place of the preset's.
            grid_frame: TF name of the grid's frame, if that is not the base frame.
            skips: takes note of messages that cannot be used.

        Raises:
            BagError, PresetError, CalibrationError, PoseError, StampError: something that
                every frame needs is missing or impossible; the message names it.
        """
        self._bag, self._preset = bag, preset
        self.skips = Skips() if skips is None else skips
        self.no_pose = ""
        self.warnings: list[str] = []
        self._topics = {named(t.image): camera for camera, t in preset.used_cameras.items()}
        self._check_topics()
        self.expected = bag.counts[named(preset.used_cameras[preset.anchor].image)]
        self.drops: Counter[str] = Counter()
        self.poses = RecordedPoses(preset, self.skips)
        self._cameras = RecordedCameras(preset)
        calibration_file = calibration_file or preset.calibration_file
        self._rig = load_rig(calibration_file, preset.is_rectified) if calibration_file else {}
        self._assembler = FrameAssembler(
            preset, self.poses, self._cameras, self._rig, grid_frame=grid_frame or ""
        )
        self._read_motion_and_cameras()
        self._lags = self._look_at_first_images()
        self._check_mounts()
        try:
            self.poses.check_ego_motion()
        except PoseError as error:
            raise PoseError(f"{error}{self._other_transforms()}") from error
        self._assembler.locate_grid()
        self._skipped_at_first = self.skips.counts.copy()

    @property
    def cameras(self) -> tuple[str, ...]:
        """Those that the vehicle has."""
        return tuple(self._preset.used_cameras)

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

        The collector's clock is that of the stamps: offline nothing is late, and log times may
        be those of a converter.

        Raises:
            BagError: the bag is damaged.
        """
        collector = FrameCollector(CollectorConfig.from_preset(self._preset))
        self.drops, self.no_pose, self.warnings = Counter(), "", []
        self._forget_skips()
        order = StampOrder()
        apart = max(self._lags) - min(self._lags) > _IN_STEP
        clock = StampClock()
        try:
            images = in_order(
                order, self._topics, self._images, apart=apart, begin_again=self._forget_skips
            )
            for image in images:
                now = clock.at(image.stamp)
                yield from filter(None, map(self._assembled, collector.add(image, now)))
            yield from filter(None, map(self._assembled, collector.flush()))
        finally:  # also if the iteration is abandoned
            for statistics in collector.statistics.cameras.values():
                self.drops.update(statistics.dropped)
            self.warnings = [*self._cameras.remarks.values(), *self.poses.held] + [
                f"{number} images on {topic} were recorded up to {order.latest[camera] / 1e9:.3f} "
                f"s after others that were taken later, which is more than the {WINDOW} images a "
                "camera that are held back can put in order; sets may lack them"
                for topic, camera in self._topics.items()
                if (number := order.late[camera])
            ]

    # --- second pass ---------------------------------------------------------------------

    def _forget_skips(self) -> None:
        """Those of the second pass."""
        self.skips.counts = self._skipped_at_first.copy()

    def _images(self, topics: Iterable[str]) -> Iterator[CameraImage]:
        """Those that can be used, in the order of recording; the rest is counted."""
        names = {camera: topic for topic, camera in self._topics.items()}
        streams = VideoStreams(lambda camera, *why: self.skips.add(names[camera], *why))
        for record in self._bag.messages(list(topics)):
            image, reason, detail = self._image(record)
            if reason:
                self.skips.add(record.topic, reason, detail)
            if image is not None:
                yield from (i for i in streams.add(image) if i.stamp > 0)
        yield from (i for i in streams.flush() if i.stamp > 0)

    def _image(self, record: Record) -> tuple[CameraImage | None, str, str]:
        """The image, or None, and why it cannot be used, in general and here.

        One without a stamp, which is then zero, may be a packet of video that others need.
        """
        try:
            message = self._bag.decode(record)
        except BagError as error:
            return None, NO_SUCH_MESSAGE, str(error)
        stamp, detail = 0, ""
        try:
            stamp = max(self._stamp(record, message), 0)
        except StampError as error:
            detail = str(error)
        camera = self._topics[record.topic]
        image = conversions.camera_image(message, camera, stamp, self._preset.assume_8uc3)
        return image, "" if stamp else BAD_STAMP, detail

    def _assembled(self, camera_set: CameraSet) -> FrameSet | None:
        """None, and counted, if the set was taken where there are too few ego poses."""
        try:
            return self._assembler.assemble(camera_set)
        # Of the latter, all but poses is known to be there.
        except (PoseError, CalibrationError) as error:
            self.drops[NO_POSE] += 1
            self.no_pose = self.no_pose or str(error)
            return None

    # --- first pass ----------------------------------------------------------------------

    def _check_topics(self) -> None:
        types = self._bag.types
        missing = [t for t in self._topics if types.get(t) not in camera_types()]
        if not missing:
            return
        if unreadable := [t for t in missing if t in types]:
            kinds = sorted({types[t] for t in unreadable})
            raise BagError(
                f"bag {self._bag.path}: {', '.join(unreadable)} is of type {', '.join(kinds)}, not "
                f"sensor_msgs/msg/Image or CompressedImage{how_to_decode(kinds)}"
            )
        there = sorted(t for t, kind in types.items() if kind in camera_types())
        fitting = _presets_for(set(there))
        video = sorted(t for t in types.keys() - set(there) if how_to_decode([types[t]]))
        kinds = sorted({types[t] for t in video})
        raise BagError(
            f"bag {self._bag.path} has no images on {', '.join(missing)} "
            f"(preset {self._preset.name}); there are images on {', '.join(there) or 'no topic'}"
            + (
                f"; preset {' or '.join(fitting)} fits"
                if fitting
                else f"; for these `alocc rig example {self._bag.path} -o my_rig.yaml` writes a "
                "preset (config/presets/custom_example.yaml explains every entry) to give with "
                "--config"
                if there
                else ""
            )
            + (f"; there is video on {', '.join(video)}{how_to_decode(kinds)}" if video else "")
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
        static = {named(topic) for topic in preset.tf_static_topics}
        moving = {named(topic) for topic in preset.tf_topics}
        topics = [*infos, *(t for t in sorted(moving | static) if types.get(t) == TF_TYPE)]
        if preset.ego_pose_source == "odometry":
            if types.get(odometry) not in POSE_TYPES:
                there = ", ".join(sorted(t for t, k in types.items() if k in POSE_TYPES))
                raise BagError(
                    f"bag {self._bag.path} has no odometry on {odometry} "
                    f"(preset {preset.name}); there is odometry on {there or 'no topic'}"
                )
            topics.append(odometry)
        unusable: dict[str, CalibrationError] = {}  # CameraInfo, by camera
        for record in self._bag.messages(topics):
            try:
                message = self._bag.decode(record)
            except BagError as error:
                self.skips.add(record.topic, NO_SUCH_MESSAGE, str(error))
                continue
            if record.topic in infos:
                camera = infos[record.topic]
                try:
                    self._cameras.add_info(
                        camera, message, self._info_stamp(record, message), record.topic
                    )
                except CalibrationError as error:
                    self.skips.add(record.topic, BAD_CAMERA_INFO, str(error))
                    unusable[camera] = error
            elif record.topic == odometry:
                self.poses.add_odometry(message)
            else:
                is_static = record.topic in static
                self.poses.add_transforms(message, static=is_static, topic=record.topic)
        self.poses.check_transforms({preset.base_frame, *filter(None, self.camera_frames.values())})
        for camera, entry in without_file.items():
            if not self._cameras.has_info(camera):
                if camera in unusable:
                    raise unusable[camera]
                where = named(entry.camera_info) if entry.camera_info else "no topic"
                raise CalibrationError(
                    f"no intrinsics of {camera}: there is no CameraInfo (preset {preset.name} "
                    f"expects it on {where}); give them with --calibration FILE"
                )

    def _look_at_first_images(self) -> list[int]:
        """A usable image of each camera tells its frame, and that stamps and sizes are right.

        Returns:
            For each camera, ns from the stamp to the time of recording.

        Raises:
            BagError, StampError, ImageError: a topic has not one; with what is wrong with its
                first message.
        """
        lags = []
        for topic, camera in self._topics.items():
            problems: list[AloccError] = []
            streams = VideoStreams(partial(_note_packet, problems, topic))
            for record in self._bag.messages([topic]):
                try:
                    lag = self._look_at(record, camera, streams)
                except AloccError as error:
                    _note_first(problems, error)
                    continue
                if lag is not None:
                    lags.append(lag)
                    break
            else:
                none = BagError(f"bag {self._bag.path}: {topic} has no messages")
                raise next(iter(problems), none)
        return lags

    def _look_at(self, record: Record, camera: str, streams: VideoStreams) -> int | None:
        """ns from stamp to recording; None for a packet of video that no picture comes of yet."""
        image, reason, detail = self._image(record)
        if image is not None and reason:
            streams.add(image)
            raise StampError(
                f"all images on {record.topic} have stamp zero or none that can be; if the bag was "
                "recorded live, use the time of recording: `stamp_source: receive` in the preset, "
                "or the preset nuscenes2bag_ros2"
            )
        if image is None:
            raise BagError(f"{record.topic}: {detail or reason}")
        self._cameras.add_header(camera, self._bag.decode(record))
        entry = self._rig.get(camera)
        known = entry.intrinsics if entry is not None else None
        known = known or self._cameras.intrinsics(camera, image.stamp)
        image = next(iter(streams.add(image)), None)
        if image is None:
            return None
        check_size(image, *image_size(image), (known.width, known.height))
        return record.log_time - image.stamp

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
                raise CalibrationError(
                    f"no extrinsics of {camera} on TF: {error}{self._other_transforms()}"
                ) from error

    def _other_transforms(self) -> str:
        """Topics of transforms that the preset does not name, and how to name them."""
        there = [t for t, kind in self._bag.types.items() if kind == TF_TYPE]
        return other_transforms(self._preset, there, named)

    def _info_stamp(self, record: Record, message: Any) -> int:
        """From when on a CameraInfo holds; drivers that never change it may leave it at zero."""
        try:
            return self._stamp(record, message)
        except StampError:
            return 0

    def _stamp(self, record: Record, message: Any) -> int:
        if self._preset.stamp_source == "receive":
            return record.log_time
        return conversions.stamp_ns(conversions.header(message).stamp)


def _note_packet(
    problems: list[AloccError], topic: str, camera: str, reason: str, detail: str
) -> None:
    _note_first(problems, BagError(f"{topic}: {reason}" + (f" ({detail})" if detail else "")))


def _note_first(problems: list[AloccError], problem: AloccError) -> None:
    if not problems:
        problems.append(problem)


def preset_of(bag: Bag) -> Preset:
    """The shipped preset whose topics are in the bag; the default one if several or none are.

    Of several the one with the most cameras.
    """
    fitting = _presets_for({t for t, kind in bag.types.items() if kind in camera_types()})
    presets = sorted((load_preset(n) for n in fitting), key=lambda p: -len(p.used_cameras))
    most = [p for p in presets if len(p.used_cameras) == len(presets[0].used_cameras)]
    return most[0] if len(most) == 1 else load_preset(DEFAULT_PRESET)


def _presets_for(image_topics: set[str]) -> list[str]:
    """Shipped presets whose every camera is among the topics."""
    presets = {name: load_preset(name) for name in preset_names()}
    return [
        name
        for name, preset in presets.items()
        if all(named(t.image) in image_topics for t in preset.used_cameras.values())
    ]
