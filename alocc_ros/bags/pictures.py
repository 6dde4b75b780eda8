# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Pictures, films and poses in plain files, read as if they were a recording.

A folder with one picture for each camera of a rig file is one set. A folder or a film for each
camera is a drive: stamps come from file names, from a CSV, or from a frame rate. What follows
(``frames.py``, the network, ``alocc convert images``) sees messages, as of any bag.
"""

from __future__ import annotations

import hashlib
import heapq
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alocc_ros import messages
from alocc_ros.bags import cdr
from alocc_ros.bags.pose_files import nanoseconds, read_poses, read_stamps
from alocc_ros.bags.reader import Record
from alocc_ros.bags.writer import Recorder
from alocc_ros.errors import BagError, CalibrationError, ParameterError, PoseError, StampError
from alocc_ros.geometry import inverse
from alocc_ros.stream.preset import CameraTopics, Preset
from alocc_ros.stream.rig import RigCamera, load_rig
from alocc_ros.types import CAMERAS, Calibration, CameraImage

_PICTURES = (".jpg", ".jpeg", ".png")
_FILMS = (".mp4", ".avi", ".mkv", ".mov", ".m4v", ".webm")
_RECORDINGS = (".mcap", ".db3", ".zstd", ".bag")
Entry = tuple[str, int, messages.Message]
_WORLD, _BASE = "map", "base_link"
_SECOND = 1_000_000_000
# Two images of a set are at most one period apart where cameras run free, and no more than this.
_LEAST_SPREAD, _MOST_SPREAD = 0.055, 0.1  # s
_CHUNK = 24  # messages
_TIME_IN_NAME = re.compile(r"(\d{9,11})[._](\d{9})$|(\d{9,19}(?:\.\d+)?)$")
_NUMBER_IN_NAME = re.compile(r"(\d+)$")


def is_pictures(path: Path) -> bool:
    """Whether it is a folder of pictures, of films, or of folders, and of no recording."""
    there = list(path.iterdir()) if path.is_dir() else []
    if any(p.name == "metadata.yaml" or p.suffix in _RECORDINGS for p in there):
        return False
    return any(p.is_dir() or p.suffix.lower() in (*_PICTURES, *_FILMS) for p in there)


@dataclass(frozen=True)
class Motion:
    """What is known about time and motion apart from the pictures.

    Attributes:
        poses: file with poses, or None.
        poses_of: what they are poses of: ``base``, or a camera (KITTI's are the left one's).
        stamps: CSV ``file,stamp``, or None.
        rate: Hz, of numbered pictures and films; None: file names or the film tell.
        standing: the vehicle stands still.
    """

    poses: Path | None = None
    poses_of: str = "base"
    stamps: Path | None = None
    rate: float | None = None
    standing: bool = False


class Pictures:
    """What ``reader.Bag`` is to a recording; has the same attributes and methods.

    Attributes:
        preset: topics and frames of the messages.
        is_one_set: there is one picture a camera, so the network remembers nothing.
    """

    warning = ""

    def __init__(self, path: Path, rig_file: Path, motion: Motion | None = None) -> None:
        """Finds all files; none is opened but films.

        Raises:
            BagError, CalibrationError, StampError, PoseError, ParameterError: what is missing, and
                what to write.
        """
        self.path, self._rig_file, self._motion = path, rig_file, motion or Motion()
        cameras = load_rig(rig_file, rectified=False)
        if not cameras:
            raise CalibrationError(f"{rig_file} names no camera")
        ordered = {c: cameras[c] for c in CAMERAS if c in cameras}
        self._calibrations = {c: _mounted(c, entry, rig_file) for c, entry in ordered.items()}
        self._anchor = "cam_front" if "cam_front" in ordered else next(iter(ordered))
        places = {c: _place(path, c, entry) for c, entry in ordered.items()}
        self.is_one_set = all(place.suffix.lower() in _PICTURES for place in places.values())
        listed = read_stamps(self._motion.stamps) if self._motion.stamps else {}
        self._streams = {c: self._stream(place, listed) for c, place in places.items()}
        self._poses = self._ego_poses()
        stamps = [s for stream in self._streams.values() for s in stream.stamps]
        stamps += [stamp for stamp, _ in self._poses]
        self._shift = _SECOND if min(stamps) <= 0 else 0  # a stamp of zero means that there is none
        self.preset = self._make_preset()
        topics = self.preset.used_cameras
        self.types: dict[str, str] = {"/tf": messages.TF_MESSAGE, "/tf_static": messages.TF_MESSAGE}
        self.counts: Counter[str] = Counter({"/tf": len(self._poses), "/tf_static": 1})
        for camera, stream in self._streams.items():
            self.types[topics[camera].image] = stream.type
            self.types[topics[camera].camera_info] = messages.CAMERA_INFO
            self.counts[topics[camera].image] = len(stream.stamps)
            self.counts[topics[camera].camera_info] = 1

    def __enter__(self) -> Pictures:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Nothing stays open."""

    def identity(self) -> dict[str, Any]:
        """What tells these files from others without reading all of them."""
        digest = hashlib.sha256(self._rig_file.read_bytes())
        for file in filter(None, (self._motion.poses, self._motion.stamps)):
            digest.update(file.read_bytes())
        for stream in self._streams.values():
            for file in stream.files:
                digest.update(
                    f"{file.name} {file.stat().st_size} {file.stat().st_mtime_ns}".encode()
                )
        return {"name": self.path.name, "sha256_of_names": digest.hexdigest()}

    def messages(self, topics: Collection[str]) -> Iterator[Record]:
        """Messages of ``topics`` by stamp; pictures are read one by one.

        Raises:
            BagError: a file cannot be read.
        """
        for topic, stamp, message in self.entries(topics):
            yield Record(topic, message.type, stamp, cdr.encode(message))

    def entries(self, topics: Collection[str] = ()) -> Iterator[Entry]:
        """The same as (topic, stamp in ns, message), to be written; of all topics if none is named.

        Raises:
            BagError: a file cannot be read.
        """
        topics = topics or self.types.keys()
        streams: list[Iterator[Entry]] = []
        if "/tf_static" in topics:
            mounts = [(_BASE, c, cal.base_T_camera) for c, cal in self._calibrations.items()]
            first = min(s.stamps[0] for s in self._streams.values()) + self._shift
            streams.append(iter([("/tf_static", first, messages.transforms(first, mounts))]))
        if "/tf" in topics:
            streams.append(
                ("/tf", t, messages.transforms(t, [(_WORLD, _BASE, pose)]))
                for t, pose in ((s + self._shift, p) for s, p in self._poses)
            )
        for camera, entry in self.preset.used_cameras.items():
            stream, calibration = self._streams[camera], self._calibrations[camera]
            first = stream.stamps[0] + self._shift
            if entry.camera_info in topics:
                info = messages.camera_info(calibration, first, camera)
                streams.append(iter([(entry.camera_info, first, info)]))
            if entry.image in topics:
                images = stream.images(camera, self._shift)
                streams.append(_messages(entry.image, camera, images))
        return heapq.merge(*streams, key=lambda entry: entry[1])

    def decode(self, record: Record) -> Any:
        """The message in ``record``."""
        return cdr.TYPESTORE.deserialize_cdr(record.data, record.type)

    # --- time ------------------------------------------------------------------------------------

    def _stream(self, place: Path, listed: Mapping[str, int]) -> _Stills | _Film:
        if place.suffix.lower() in _FILMS:
            return _Film(place, self._motion.rate)
        if place.suffix.lower() in _PICTURES:
            stamp = listed.get(place.name) if listed else self._time_of_single(place)
            if stamp is None:
                raise StampError(f"{self._motion.stamps} has no line for {place.name}")
            return _Stills([place], [stamp])
        files = sorted(f for f in place.iterdir() if f.suffix.lower() in _PICTURES)
        if not files:
            raise BagError(f"{place} holds no pictures ({', '.join(_PICTURES)})")
        stamps = [self._time_of(file, listed) for file in files]
        order = np.argsort(stamps, kind="stable")
        if len(set(stamps)) < len(stamps):
            raise StampError(f"{place}: two pictures have the same time")
        return _Stills([files[i] for i in order], [stamps[i] for i in order])

    def _time_of_single(self, file: Path) -> int:
        """Of one picture a camera the time matters only where poses have times."""
        found = _TIME_IN_NAME.search(file.stem)
        return _time(found) if found and self._motion.poses else _SECOND

    def _time_of(self, file: Path, listed: Mapping[str, int]) -> int:
        if listed:
            names = (f"{file.parent.name}/{file.name}", file.name)
            stamp = next((listed[n] for n in names if n in listed), None)
            if stamp is None:
                raise StampError(f"{self._motion.stamps} has no line for {names[0]}")
            return stamp
        if self._motion.rate is not None and (number := _NUMBER_IN_NAME.search(file.stem)):
            return round(int(number[1]) * _SECOND / self._motion.rate)
        if found := _TIME_IN_NAME.search(file.stem):
            return _time(found)
        raise StampError(
            f"{file}: its name tells no time; call it by its time (1532402927612460.jpg: us), or "
            "number the pictures and give --rate HZ, or give --stamps FILE with lines `file,stamp`"
        )

    def _ego_poses(self) -> list[tuple[int, np.ndarray]]:
        stamps = sorted({s for stream in self._streams.values() for s in stream.stamps})
        motion = self._motion
        if motion.poses is None:
            if not (self.is_one_set or motion.standing):
                raise PoseError(
                    f"{self.path}: the network has to know how the vehicle moves; give --poses "
                    "FILE (TUM, KITTI or CSV), or --standing if it does not"
                )
            return [(stamp, np.eye(4)) for stamp in stamps]
        if motion.standing:
            raise ParameterError("--standing: there are poses; give one of the two")
        found = read_poses(motion.poses)
        times = found.stamps
        if times is None:
            times = self._streams[self._anchor].stamps
            if len(times) != len(found.world_T):
                raise PoseError(
                    f"{motion.poses} has {len(found.world_T)} poses without stamps (no times.txt "
                    f"beside it), and there are {len(times)} images of {self._anchor}"
                )
        poses = found.world_T
        if motion.poses_of != "base":
            if motion.poses_of not in self._calibrations:
                raise ParameterError(
                    f"--poses-of {motion.poses_of}: expected base or one of "
                    f"{', '.join(self._calibrations)}"
                )
            base_T_camera = self._calibrations[motion.poses_of].base_T_camera
            poses = base_T_camera @ poses @ inverse(base_T_camera)
        return sorted(zip(times, poses, strict=True), key=lambda entry: entry[0])

    def _make_preset(self) -> Preset:
        cameras: dict[str, CameraTopics | None] = dict.fromkeys(CAMERAS)
        for camera, calibration in self._calibrations.items():
            bent = any(calibration.distortion)
            kind = "image_raw" if bent else "image_rect"
            compressed = self._streams[camera].type == messages.COMPRESSED_IMAGE
            cameras[camera] = CameraTopics(
                image=f"/{camera}/{kind}"
                + "_compressed" * (compressed and not bent)
                + "/compressed" * (compressed and bent),
                camera_info=f"/{camera}/camera_info",
                frame=camera,
                rectified=not bent,
            )
        periods = [b - a for s in self._streams.values() for a, b in _pairs(s.stamps)]
        period = float(np.median(periods)) / _SECOND if periods else 0.0
        return Preset(
            name=str(self._rig_file),
            cameras=cameras,
            base_frame=_BASE,
            world_frame=_WORLD,
            anchor=self._anchor,
            max_spread_s=min(max(period, _LEAST_SPREAD), _MOST_SPREAD),
        )


class _Stills:
    """Picture files of one camera."""

    type = messages.COMPRESSED_IMAGE

    def __init__(self, files: list[Path], stamps: list[int]) -> None:
        self.files, self.stamps = files, stamps

    def images(self, camera: str, shift: int) -> Iterator[CameraImage]:
        for file, stamp in zip(self.files, self.stamps, strict=True):
            try:
                data = file.read_bytes()
            except OSError as error:
                raise BagError(f"cannot read {file}: {error.strerror}") from error
            yield CameraImage(camera, stamp + shift, data, "compressed")


class _Film:
    """A film of one camera, decoded by OpenCV."""

    type = messages.IMAGE

    def __init__(self, file: Path, rate: float | None) -> None:
        import cv2

        film = cv2.VideoCapture(str(file))
        count = int(film.get(cv2.CAP_PROP_FRAME_COUNT)) if film.isOpened() else 0
        rate = rate or film.get(cv2.CAP_PROP_FPS)
        film.release()
        if count <= 0 or not rate or not np.isfinite(rate):
            raise BagError(
                f"{file} is no film that OpenCV can read, or its rate is unknown (--rate)"
            )
        self.files = [file]
        self.stamps = [round(n * _SECOND / rate) for n in range(count)]

    def images(self, camera: str, shift: int) -> Iterator[CameraImage]:
        import cv2

        film = cv2.VideoCapture(str(self.files[0]))
        try:
            for stamp in self.stamps:
                there, pixels = film.read()
                if not there:  # containers may promise more than they hold
                    return
                height, width = pixels.shape[:2]
                data = np.ascontiguousarray(pixels).reshape(-1)
                yield CameraImage(camera, stamp + shift, data, "bgr8", height, width, 3 * width)
        finally:
            film.release()


def _messages(topic: str, camera: str, images: Iterator[CameraImage]) -> Iterator[Entry]:
    for image in images:
        yield topic, image.stamp, messages.image(image, camera)


def _mounted(camera: str, entry: RigCamera, rig_file: Path) -> Calibration:
    for part, what in (
        ("intrinsics", "width, height and intrinsics"),
        ("base_T_camera", "a place"),
    ):
        if getattr(entry, part) is None:
            raise CalibrationError(
                f"{rig_file}: cameras: {camera} needs {what}; `alocc rig example` shows how"
            )
    return entry.intrinsics.mounted(camera, entry.base_T_camera)


def _place(folder: Path, camera: str, entry: RigCamera) -> Path:
    """The picture, folder or film of a camera."""
    wanted = entry.images or camera
    if (exact := folder / wanted).exists():
        return exact
    there = sorted(folder.iterdir()) if folder.is_dir() else []
    fitting = [p for p in there if wanted.lower() in (p.name.lower(), p.stem.lower())]
    usable = [p for p in fitting if p.is_dir() or p.suffix.lower() in (*_PICTURES, *_FILMS)]
    if len(usable) != 1:
        names = ", ".join(p.name for p in there[:20]) or "nothing"
        raise BagError(
            f"{folder} has {'several things' if usable else 'nothing'} called {wanted} for "
            f"{camera}; there is {names}; write `images: NAME` for this camera in the rig file (a "
            "picture, a folder of pictures, or a film)"
        )
    return usable[0]


def _time(found: re.Match[str]) -> int:
    seconds, fraction, whole = found.groups()
    return int(seconds) * _SECOND + int(fraction) if seconds else nanoseconds(whole)


def _pairs(stamps: list[int]) -> Iterator[tuple[int, int]]:
    return zip(stamps, stamps[1:], strict=False)


def write_bag(pictures: Pictures, path: Path) -> None:
    """Writes them as one ``.mcap``, which appears whole or not at all.

    Raises:
        BagError: a picture cannot be read.
        OutputError: the file cannot be written.
    """
    recorder = Recorder(path.with_name(path.name + ".partial"), {"source": "alocc convert images"})
    try:
        for number, (topic, stamp, message) in enumerate(pictures.entries(), 1):
            recorder.write(topic, stamp, message)
            if number % _CHUNK == 0:
                recorder.end_frame()
        recorder.end_frame()
    except BaseException:
        recorder.discard()
        raise
    recorder.publish(path)
