# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Sources of frames: in which order, under which names and with which partners they are shown."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from alocc_ros.stream.preset import Preset
from alocc_ros.viewer.frames import FrameHandle, ViewFrame
from alocc_ros.viewer.matching import match_by_stamp

TOLERANCE = 100_000_000  # ns between what belongs together; key frames are 500 ms apart
PREDICTION, TRUTH = "prediction", "ground truth"


@dataclass(frozen=True)
class ReadOptions:
    """How inputs are to be read.

    Attributes:
        preset: topics and frames of bags; None: the shipped one that fits.
        calibration: takes the place of the preset's.
        scene: of a dataset; None: the first one, unless ``all_scenes``.
        split: of a dataset, all of its scenes; None: see ``scene``.
        benchmark: whose ground truth of a dataset; None: the first that is there.
        classes: name of the class list that this ground truth has to have; "": any.
        all_scenes: any of them may be the one that belongs to something else.
    """

    preset: Preset | None = None
    calibration: Path | None = None
    scene: str | None = None
    split: str | None = None
    benchmark: str | None = None
    classes: str = ""
    all_scenes: bool = False


@dataclass(frozen=True)
class Source:
    """Frames of one kind out of one input, in order of time.

    Attributes:
        path: of the input.
        name: ``prediction``, ``ground truth``, or "" for images.
        frames: begins anew each time it is called.
        has_images: whether there are any.
        classes: name of the voxels' class list.
        topic: where the voxels are in a recording.
        warning: empty, or how the input is incomplete.
    """

    path: Path
    name: str
    frames: Callable[[], Iterator[FrameHandle]]
    has_images: bool = False
    classes: str = ""
    topic: str = ""
    warning: str = ""


def in_display_order(sources: Sequence[Source]) -> list[Source]:
    """The one whose stamps are shown first: predictions, then ground truth, then images."""
    ranks = {PREDICTION: 0, TRUTH: 1, "": 2}
    return sorted(sources, key=lambda source: ranks.get(source.name, 0))


def matched_frames(
    sources: Sequence[Source], on_match: Callable[[Source], None]
) -> Iterator[FrameHandle]:
    """The frames of the first source, with what the others add to them.

    Args:
        sources: of all inputs.
        on_match: called with each source that adds something to a frame.
    """
    frames = sources[0].frames()
    for other in sources[1:]:
        frames = match_by_stamp(frames, other.frames(), TOLERANCE, partial(on_match, other))
    return frames


def with_distinct_names(sources: Sequence[Source]) -> list[Source]:
    """Several predictions get the names of their files, as much of them as it takes."""
    predictions = [s for s in sources if s.name == PREDICTION]
    if len(predictions) < 2:
        return list(sources)
    candidates = (
        [s.path.name for s in predictions],
        [str(s.path) for s in predictions],
        [f"{s.path} {s.topic}" for s in predictions],
    )
    names = next((names for names in candidates if len({*names}) == len(names)), candidates[-1])
    rest = iter(names)
    return [_renamed(s, next(rest)) if s.name == PREDICTION else s for s in sources]


def as_truth(sources: Sequence[Source]) -> list[Source]:
    """Voxels of an input that was given as the ground truth; its images are left out."""
    return [_renamed(s, TRUTH) for s in sources if s.name]


def _renamed(source: Source, name: str) -> Source:
    def renamed(load: Callable[[], ViewFrame]) -> ViewFrame:
        view = load()
        return replace(view, layers=tuple(replace(layer, name=name) for layer in view.layers))

    def frames() -> Iterator[FrameHandle]:
        for frame in source.frames():
            yield FrameHandle(frame.stamp, partial(renamed, frame.load))

    return replace(source, name=name, frames=frames)
