# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""What ``alocc run`` puts into a recording for one frame: topics, log times, messages.

Everything is stamped with the anchor camera's stamp and logged at it, in the grid's frame; the
same input gives the same bytes. Nothing that depends on the machine (times, rates) is in here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from alocc_ros import messages
from alocc_ros.files import whole_file
from alocc_ros.messages import Message
from alocc_ros.objects.tracking import ObjectTracker
from alocc_ros.outputs import OUTPUTS, RECORDING_NAMESPACE, Result
from alocc_ros.types import FrameSet, Occupancy

TF, TF_STATIC = "/tf", "/tf_static"

Entry = tuple[str, int, Message]  # topic, log time (ns), message


@dataclass(frozen=True)
class Provenance:
    """Where a frame's numbers come from.

    Attributes:
        model: name of the model record.
        weights: ``sha256:...`` of the checkpoint, or how the weights were made up.
        camera_frames: TF name of each camera's optical frame.
        image_topics: where copies of the input images go; empty: they are not copied.
        base_T_grid: [4, 4], where the grid's frame is on the vehicle, if it is not the base.
    """

    model: str
    weights: str
    camera_frames: Mapping[str, str]
    image_topics: Mapping[str, str]
    base_T_grid: np.ndarray | None = None


def frame_outputs(
    frame: FrameSet,
    occupancy: Occupancy,
    provenance: Provenance,
    *,
    first: bool,
    tracker: ObjectTracker | None = None,
) -> Iterator[Entry]:
    """Every message of one frame; ``first`` adds those that come once in a recording.

    ``tracker`` gives the objects of the recording their ids.
    """
    result = Result(
        frame,
        occupancy,
        model=provenance.model,
        weights=provenance.weights,
        clear_markers=bool(occupancy.reset),
        tracker=tracker,
    )
    mounts = _mounts(frame, occupancy, provenance)
    if first:
        # Players need not latch these: the mounts come again with every frame.
        yield TF_STATIC, occupancy.stamp, messages.transforms(occupancy.stamp, mounts)
        yield from _built(result, latched=True)
    yield from _ego_motion(frame, mounts)
    yield from _input_images(frame, provenance)
    yield from _built(result, latched=False)


def _built(result: Result, *, latched: bool) -> Iterator[Entry]:
    """The rows of the table that are made of a result."""
    for output in OUTPUTS:
        if output.recording and output.build is not None and output.latched == latched:
            topic = output.topic(RECORDING_NAMESPACE)
            yield topic, result.occupancy.stamp, output.build(result)


def _mounts(
    frame: FrameSet, occupancy: Occupancy, provenance: Provenance
) -> list[tuple[str, str, np.ndarray]]:
    """(base frame, frame, base_T_frame [4, 4]) of the cameras and of the grid."""
    mounts = [
        (frame.base_frame, tf_frame, frame.calibration[camera].base_T_camera)
        for camera, tf_frame in provenance.camera_frames.items()
        if tf_frame
    ]
    if provenance.base_T_grid is not None:
        mounts.append((frame.base_frame, occupancy.frame_id, provenance.base_T_grid))
    return mounts


def _ego_motion(frame: FrameSet, mounts: list[tuple[str, str, np.ndarray]]) -> Iterator[Entry]:
    """/tf at the frame's stamp and at each image's own."""
    poses = {image.stamp: frame.map_T_base_at[camera] for camera, image in frame.images.items()}
    poses[frame.stamp] = frame.map_T_base
    for stamp, map_T_base in sorted(poses.items(), key=lambda item: item[0]):
        entries = [(frame.map_frame, frame.base_frame, map_T_base)]
        if stamp == frame.stamp:
            entries += mounts
        yield TF, stamp, messages.transforms(stamp, entries)


def _input_images(frame: FrameSet, provenance: Provenance) -> Iterator[Entry]:
    for camera, topic in provenance.image_topics.items():
        if camera not in frame.images:
            continue
        source, tf_frame = frame.images[camera], provenance.camera_frames[camera]
        yield topic, source.stamp, messages.image(source, tf_frame)
        info = messages.camera_info(frame.calibration[camera], source.stamp, tf_frame)
        # Where image tools look for it: the topic's neighbour.
        yield topic.rsplit("/", 1)[0] + "/camera_info", source.stamp, info


def save_npz(path: Path, occupancy: Occupancy, weights: str = "") -> None:
    """One frame as a compressed NPZ, whole or not at all.

    Holds ``labels`` [X, Y, Z], ``flow`` [X, Y, Z, 2] if there is any, the lattice
    (``lower`` m, ``resolution`` m, ``frame_id``), ``stamp`` (ns), ``map_T_base`` [4, 4],
    ``class_names``, and why the frame is worse than it could be; ``weights`` as in
    ``Provenance``, if they are told.
    """
    arrays_of = {
        "labels": occupancy.labels,
        "lower": np.array(occupancy.grid.lower),
        "resolution": np.array(occupancy.grid.resolution),
        "frame_id": np.array(occupancy.frame_id),
        "stamp": np.array(occupancy.stamp),
        "map_T_base": occupancy.map_T_base,
        "class_names": np.array(occupancy.classes.names),
        "degraded": np.array(occupancy.degraded),
        "reset": np.array(occupancy.reset),
        "random_weights": np.array(occupancy.random_weights),
    }
    if weights:
        arrays_of["weights"] = np.array(weights)
    if occupancy.flow is not None:
        arrays_of["flow"] = occupancy.flow
    if occupancy.confidence is not None:
        arrays_of["confidence"] = occupancy.confidence
    with whole_file(path) as scratch, scratch.open("wb") as stream:
        np.savez_compressed(stream, **arrays_of)
