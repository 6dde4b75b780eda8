# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""From files and folders to moments: bags, recordings of results, NPZ files, datasets.

What a path is, is told by what is there: nothing has to be said about it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from alocc_ros.bags.frames import FrameSource, preset_of
from alocc_ros.bags.reader import IMAGE_TYPES, Bag
from alocc_ros.bags.reader import topic_name as named
from alocc_ros.bags.results import RecordedGrids, npz_stamp, read_npz, recorded_grids
from alocc_ros.datasets.tables import OnProgress, nothing
from alocc_ros.errors import BagError
from alocc_ros.stream.preset import Preset
from alocc_ros.types import FrameSet
from alocc_ros.viewer.moments import Layer, Moment, View, joined

TOLERANCE = 100_000_000  # ns between what belongs together; key frames are 500 ms apart
PREDICTION, TRUTH = "prediction", "ground truth"


@dataclass(frozen=True)
class Wishes:
    """How inputs are to be read.

    Attributes:
        preset: topics and frames of bags; None: the shipped one that fits.
        calibration: takes the place of the preset's.
        scene: of a dataset; None: the first one, unless ``all_scenes``.
        benchmark: whose ground truth of a dataset; None: the first that is there.
        classes: name of the class list that this ground truth has to have; "": any.
        all_scenes: any of them may be the one that belongs to something else.
    """

    preset: Preset | None = None
    calibration: Path | None = None
    scene: str | None = None
    benchmark: str | None = None
    classes: str = ""
    all_scenes: bool = False


@dataclass(frozen=True)
class Source:
    """Moments of one kind out of one input, in order of time.

    Attributes:
        path: of the input.
        name: ``prediction``, ``ground truth``, or "" for images.
        moments: begins anew each time it is called.
        has_images: whether there are any.
        classes: name of the voxels' class list.
        topic: where the voxels are in a recording.
        warning: empty, or how the input is incomplete.
    """

    path: Path
    name: str
    moments: Callable[[], Iterator[Moment]]
    has_images: bool = False
    classes: str = ""
    topic: str = ""
    warning: str = ""


def open_sources(
    path: Path, wishes: Wishes, stack: ExitStack, on_progress: OnProgress = nothing
) -> list[Source]:
    """Everything there is to see in ``path``.

    Args:
        path: file or folder.
        wishes: how it is to be read.
        stack: what has to be closed goes on it.
        on_progress: is told how far reading the tables of a dataset is.

    Raises:
        AloccError: there is nothing, or it cannot be read; the message says why.
    """
    if not path.exists():
        raise BagError(f"there is no file or folder {path}")
    if path.suffix == ".npz":
        return [_npz_source(path, [path])]
    if path.is_dir():
        files = sorted(path.glob("*.npz"))
        if files:
            return [_npz_source(path, files)]
        if any(p.is_dir() for p in path.glob("v1.0-*")):
            from alocc_ros.viewer.dataset import dataset_sources

            return dataset_sources(path, wishes, on_progress)
        if not any(p.suffix in (".mcap", ".db3", ".yaml") for p in path.iterdir()):
            raise BagError(
                f"{path} holds no bag (.mcap, .db3), no .npz files of `alocc run --npz` and no "
                "nuScenes tables (v1.0-*)"
            )
    return _bag_sources(stack.enter_context(Bag(path)), wishes)


def in_order(sources: Sequence[Source]) -> list[Source]:
    """The one that sets the pace first: predictions, then ground truth, then images."""
    ranks = {PREDICTION: 0, TRUTH: 1, "": 2}
    return sorted(sources, key=lambda source: ranks.get(source.name, 0))


def moments_of(sources: Sequence[Source], on_pair: Callable[[Source], None]) -> Iterator[Moment]:
    """The moments of the first source, with what the others add to them.

    Args:
        sources: of all inputs.
        on_pair: told each time a source adds something.
    """
    moments = sources[0].moments()
    for other in sources[1:]:
        moments = joined(moments, other.moments(), TOLERANCE, partial(on_pair, other))
    return moments


def told_apart(sources: Sequence[Source]) -> list[Source]:
    """Several predictions get the names of their files, as much of them as it takes."""
    predictions = [s for s in sources if s.name == PREDICTION]
    if len(predictions) < 2:
        return list(sources)
    ways = (
        [s.path.name for s in predictions],
        [str(s.path) for s in predictions],
        [f"{s.path} {s.topic}" for s in predictions],
    )
    names = next((names for names in ways if len({*names}) == len(names)), ways[-1])
    named = iter(names)
    return [_called(s, next(named)) if s.name == PREDICTION else s for s in sources]


def as_truth(sources: Sequence[Source]) -> list[Source]:
    """Voxels of an input that was given as the ground truth; its images are left out."""
    return [_called(s, TRUTH) for s in sources if s.name]


def _called(source: Source, name: str) -> Source:
    def renamed(look: Callable[[], View]) -> View:
        view = look()
        return replace(view, layers=tuple(replace(layer, name=name) for layer in view.layers))

    def moments() -> Iterator[Moment]:
        for moment in source.moments():
            yield Moment(moment.stamp, partial(renamed, moment.look))

    return replace(source, name=name, moments=moments)


# --- bags ------------------------------------------------------------------------------------


def _bag_sources(bag: Bag, wishes: Wishes) -> list[Source]:
    base_frame = {"base_frame": wishes.preset.base_frame} if wishes.preset else {}
    grids = recorded_grids(bag, **base_frame)
    sources = []
    for recorded in grids:
        name = TRUTH if "truth" in recorded.name else PREDICTION
        moments = partial(_grid_moments, recorded, name)
        source = Source(bag.path, name, moments, topic=recorded.topic, warning=bag.warning)
        sources.append(replace(source, classes=recorded.info.classes.name))
    preset = wishes.preset or preset_of(bag)
    images = {topic for topic, kind in bag.types.items() if kind in IMAGE_TYPES}
    fits = {named(topics.image) for topics in preset.used_cameras.values()} <= images
    # A recording of results may hold pictures of other kinds. With nothing else to look at, or
    # with a preset that was asked for, what does not fit is an error and not a choice.
    if fits or not grids or wishes.preset:
        frames = FrameSource(bag, preset, wishes.calibration)
        moments = partial(_frame_moments, frames)
        sources.append(Source(bag.path, "", moments, has_images=True, warning=bag.warning))
    return sources


def _frame_moments(frames: FrameSource) -> Iterator[Moment]:
    for frame in frames:
        yield Moment(frame.stamp, partial(_view_of_frame, frame))


def _view_of_frame(frame: FrameSet) -> View:
    return View(frame.stamp, frame)


def _grid_moments(recorded: RecordedGrids, name: str) -> Iterator[Moment]:
    def look(stamp: int, read: Callable) -> View:
        occupancy = read()
        base_T_grid = recorded.base_T_grid(occupancy.frame_id)
        return View(stamp, None, (Layer(name, recorded.info.model, occupancy, base_T_grid),))

    for stamp, read in recorded:
        yield Moment(stamp, partial(look, stamp, read))


# --- NPZ -------------------------------------------------------------------------------------


def _npz_source(path: Path, files: Sequence[Path]) -> Source:
    stamped = sorted((npz_stamp(file), file) for file in files)

    def moments() -> Iterator[Moment]:
        for stamp, file in stamped:
            yield Moment(stamp, partial(_npz_view, file))

    classes = read_npz(stamped[0][1]).classes.name
    return Source(path, PREDICTION, moments, classes=classes)


def _npz_view(file: Path) -> View:
    occupancy = read_npz(file)
    return View(occupancy.stamp, None, (Layer(PREDICTION, "", occupancy),))
