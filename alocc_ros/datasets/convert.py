# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""A scene of nuScenes as a ROS 2 bag with the names of ``config/presets/nuscenes.yaml``.

| topic | what |
| --- | --- |
| ``/CAM_FRONT/image_rect_compressed``, ... | the JPEG files, byte for byte, stamped when taken |
| ``/CAM_FRONT/camera_info``, ... | K, P = [K, 0], R the identity, no distortion |
| ``/LIDAR_TOP`` | the LiDAR's points: x, y, z, intensity, ring |
| ``/tf_static`` | where the sensors are on ``base_link``; latched |
| ``/tf`` | ``map`` to ``base_link`` at the stamps of all sensors, radars too |
| ``/truth/occupancy``, ``/truth/grid_info`` | labels of key frames, as ``alocc run`` has them |
| ``/truth/flow_markers`` | how they move, if the benchmark tells |
| ``/truth/boxes`` | the annotated boxes of key frames, as lines |
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
from mcap.exceptions import McapError
from mcap.reader import make_reader

from alocc_ros import arrays, messages
from alocc_ros.bags.writer import Recorder
from alocc_ros.datasets.boxes import Box, box_lines, read_boxes
from alocc_ros.datasets.formats import find_format
from alocc_ros.datasets.nuscenes import NuScenes
from alocc_ros.datasets.samples import (
    ANCHOR,
    LIDAR,
    CameraSample,
    LidarSample,
    OtherSample,
    Reading,
    Sample,
    Scene,
    camera_image,
    lidar_points,
)
from alocc_ros.datasets.tables import OnProgress, nothing
from alocc_ros.datasets.truth import (
    UNKNOWN,
    check_present,
    missing_files,
    read_truth,
)
from alocc_ros.errors import DataError, OutputError
from alocc_ros.files import make_folder
from alocc_ros.messages import GridInfo, Message
from alocc_ros.types import Occupancy

MAP, BASE = "map", "base_link"
_LIDAR_DTYPE = np.dtype([(name, "<f4") for name in ("x", "y", "z", "intensity", "ring")])
_CHUNK_NS = 500_000_000  # of a recording: what is read at once to play from a place in it

_Message = tuple[str, int, Message]  # topic, log time (ns), message
_Seen = CameraSample | LidarSample


@dataclass(frozen=True)
class Converted:
    """What is in a bag that was made.

    Attributes:
        path: of the file.
        images, sweeps, grids: how many of them.
        seconds: from the first to the last message.
    """

    path: Path
    images: int
    sweeps: int
    grids: int
    seconds: float


def convert_scene(
    dataset: NuScenes,
    scene: Scene,
    path: Path,
    truth: str | None = None,
    *,
    key_frames_only: bool = False,
    boxes: bool = False,
    on_progress: OnProgress = nothing,
) -> Converted:
    """Writes one scene as one ``.mcap``, which appears whole or not at all.

    Args:
        dataset: the tables.
        scene: one of its scenes.
        path: of the file; one that exists is replaced.
        truth: a benchmark whose labels go in as well.
        key_frames_only: leave out what was recorded between key frames.
        boxes: annotated boxes go in as well.
        on_progress: is told how far it is.

    Raises:
        DataError: a table is damaged, or a file is missing.
        OutputError: the file cannot be written.
    """
    readings = dataset.readings([scene], on_progress)[scene.name]
    if key_frames_only:
        readings = [reading for reading in readings if reading.is_key_frame]
    seen = [reading for reading in readings if not isinstance(reading, OtherSample)]
    missing = [reading.path for reading in seen if not reading.path.is_file()]
    check_present(missing, _advised(scene, missing, seen))
    if truth is not None:
        check_present(missing_files(dataset.root, scene.samples, truth), truth)
    labels = _Labels(dataset, scene, truth, boxes, on_progress)
    metadata = describe(dataset, scene, truth, key_frames_only, boxes)
    make_folder(path.parent)
    recorder = Recorder(path.with_name(path.name + ".partial"), metadata)
    first, last = readings[0].stamp, readings[-1].stamp
    try:
        _write_static(recorder, seen, first)
        chunk_ends = first + _CHUNK_NS
        for stamp, together in groupby(readings, key=lambda reading: reading.stamp):
            if stamp >= chunk_ends:
                recorder.end_frame()
                chunk_ends = stamp + _CHUNK_NS
            for message in _instant(stamp, list(together), labels):
                recorder.write(*message)
            on_progress(scene.name, stamp - first, last - first)
        recorder.end_frame()
        recorder.publish(path)
    except BaseException:
        recorder.discard()
        raise
    images = sum(isinstance(reading, CameraSample) for reading in seen)
    return Converted(path, images, len(seen) - images, labels.grids, (last - first) / 1e9)


def describe(
    dataset: NuScenes, scene: Scene, truth: str | None, key_frames_only: bool, boxes: bool
) -> dict[str, str]:
    """What a bag says about itself."""
    return {
        "source": f"{scene.name} of nuScenes {dataset.version}",
        "scene token": scene.token,
        "truth": truth or "",
        "key frames only": str(key_frames_only),
        "boxes": str(boxes),
    }


def is_converted(path: Path, metadata: Mapping[str, str]) -> bool:
    """Whether ``path`` is there and says of itself just that.

    Raises:
        OutputError: it is there and something else.
    """
    if not path.exists():
        return False
    try:
        with path.open("rb") as stream:
            records = list(make_reader(stream).iter_metadata())
        if any(r.name == "alocc" and r.metadata == dict(metadata) for r in records):
            return True
    except (OSError, McapError, ValueError):
        pass  # not ours either
    raise OutputError(f"{path} is there and was made otherwise: remove it, or write elsewhere")


def _advised(scene: Scene, missing: Sequence[Path], readings: Sequence[_Seen]) -> str:
    """What is missing, in words, and what can be done without it."""
    lost = set(missing)
    if lost and not any(r.path in lost for r in readings if r.is_key_frame):
        return f"{scene.name} between its key frames (--keyframes-only does without)"
    return scene.name


def _write_static(recorder: Recorder, readings: Sequence[_Seen], stamp: int) -> None:
    mounts = {_frame(r): _mount(r) for r in readings}
    for reading in readings:
        if not np.array_equal(mounts[_frame(reading)], _mount(reading)):
            raise DataError(f"{_frame(reading)} moves on the vehicle: {reading.path.name}")
    entries = [(BASE, frame, mount) for frame, mount in sorted(mounts.items())]
    recorder.write("/tf_static", stamp, messages.transforms(stamp, entries))


def _instant(stamp: int, readings: list[Reading], labels: _Labels) -> Iterator[_Message]:
    """What was recorded at one stamp: where the vehicle was, and what was seen from there."""
    pose = messages.transforms(stamp, [(MAP, BASE, readings[0].map_T_base)])
    yield "/tf", stamp, pose
    for reading in readings:
        if isinstance(reading, OtherSample):
            continue
        frame = _frame(reading)
        if isinstance(reading, CameraSample):
            image = messages.image(camera_image(reading), frame)
            yield f"/{frame}/image_rect_compressed", stamp, image
            info = messages.camera_info(reading.calibration, stamp, frame)
            yield f"/{frame}/camera_info", stamp, info
        else:
            points = lidar_points(reading).view(_LIDAR_DTYPE).reshape(-1)
            yield f"/{frame}", stamp, messages.point_cloud(points, stamp, frame)
        yield from labels.at(reading)


class _Labels:
    """What people say there is in a scene, each with the reading at whose stamp it is true.

    Attributes:
        grids: how many voxel grids there have been.
    """

    def __init__(
        self,
        dataset: NuScenes,
        scene: Scene,
        benchmark: str | None,
        boxes: bool,
        on_progress: OnProgress,
    ) -> None:
        self._root, self._benchmark, self.grids = dataset.root, benchmark, 0
        self._samples: dict[str, Sample] = {}  # by token of the reading, as below
        self._boxes: dict[str, list[Box]] = {}
        if benchmark is not None:
            self._in_lidar_frame = find_format(benchmark).in_lidar_frame
            for sample in scene.samples:
                anchor = sample.lidar if self._in_lidar_frame else sample.cameras[ANCHOR]
                self._samples[anchor.token] = sample
        if boxes:
            stamps = {sample.token: sample.stamp for sample in scene.samples}
            found = read_boxes(dataset.root / dataset.version, stamps, on_progress)
            self._boxes = {s.lidar.token: found[s.token] for s in scene.samples}

    def at(self, reading: _Seen) -> Iterator[_Message]:
        """The messages that go with a reading; most have none."""
        if reading.token in self._boxes:
            lines = box_lines(self._boxes[reading.token])
            markers = messages.flow_markers(lines, reading.stamp, MAP, clear=True)
            yield "/truth/boxes", reading.stamp, markers
        if reading.token in self._samples:
            yield from self._grid(self._samples[reading.token], reading)

    def _grid(self, sample: Sample, reading: _Seen) -> Iterator[_Message]:
        stamp, frame = reading.stamp, LIDAR if self._in_lidar_frame else BASE
        occupancy = self._occupancy(sample, reading, frame)
        if not self.grids:
            info = GridInfo(
                grid=occupancy.grid,
                classes=occupancy.classes,
                model=f"{self._benchmark} labels",
                weights="none: these are labels",
                random_weights=False,
                has_flow=occupancy.flow is not None,
            )
            yield "/truth/grid_info", stamp, messages.grid_info(info, stamp, frame)
        points = arrays.occupied_points(occupancy)
        yield "/truth/occupancy", stamp, messages.point_cloud(points, stamp, frame)
        if occupancy.flow is not None:
            lines = arrays.flow_lines(occupancy)
            markers = messages.flow_markers(lines, stamp, frame, clear=not self.grids)
            yield "/truth/flow_markers", stamp, markers
        self.grids += 1

    def _occupancy(self, sample: Sample, reading: _Seen, frame: str) -> Occupancy:
        truth = read_truth(self._root, sample, str(self._benchmark))
        labels = np.where(truth.labels == UNKNOWN, truth.classes.free, truth.labels)
        flow = truth.flow
        if flow is not None:  # what cannot move stands still, whatever the file says
            moves = np.isin(labels, truth.classes.flow)[..., None]
            flow = np.where(moves, flow, 0).astype(np.float16)
        return Occupancy(
            labels=labels.astype(np.uint8),
            flow=flow,
            grid=truth.grid,
            classes=truth.classes,
            stamp=reading.stamp,
            frame_id=frame,
            map_T_base=reading.map_T_base,
        )


def _frame(reading: _Seen) -> str:
    return LIDAR if isinstance(reading, LidarSample) else reading.camera.upper()


def _mount(reading: _Seen) -> np.ndarray:  # [4, 4]
    if isinstance(reading, LidarSample):
        return reading.base_T_lidar
    return reading.calibration.base_T_camera
