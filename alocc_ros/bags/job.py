# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""The main job: every frame of a bag through the network, into a recording that can be resumed.

While it runs there are ``OUT.mcap.partial`` (whole frames only) and ``OUT.mcap.partial.json``
(what is being done). The final name appears when all is there. The same job started again
goes on behind the last whole frame, and ends with the same bytes as an undisturbed one.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import alocc_ros
from alocc_ros.bags.frames import FrameSource
from alocc_ros.bags.outputs import Provenance, frame_outputs, save_npz
from alocc_ros.bags.tracks import recorded_voxels
from alocc_ros.bags.writer import Recorder
from alocc_ros.errors import AloccError, BagError, ImageError, OutputError
from alocc_ros.files import refuse_link, whole_file
from alocc_ros.objects.tracking import ObjectTracker
from alocc_ros.stream.keyframes import KeyframePolicy
from alocc_ros.stream.preprocessing import has_usable_image, note_damaged, without_damaged
from alocc_ros.types import FrameSet, Occupancy


class Stream(Protocol):
    """What a job needs of ``pipeline.Pipeline``."""

    keyframes: KeyframePolicy
    timings: dict[str, float]

    def step(self, frame: FrameSet) -> Occupancy:
        """One frame."""


@dataclass(frozen=True)
class Job:
    """What to do and where to put it.

    Attributes:
        output: the recording.
        provenance: what the messages say about their origin.
        identity: everything that the output depends on; a job is resumed only by an equal one.
        history: key frames that the network's memory goes back; None: to the last reset.
        max_frames: stop after so many; None: all.
        npz: folder for one NPZ a frame, or None.
        overlay: folder for one contact sheet a frame, or None.
        restart: throw away what an earlier run left.
    """

    output: Path
    provenance: Provenance
    identity: dict[str, Any]
    history: int | None
    max_frames: int | None = None
    npz: Path | None = None
    overlay: Path | None = None
    restart: bool = False

    @property
    def partial(self) -> Path:
        """The unfinished recording."""
        return self.output.with_name(self.output.name + ".partial")

    @property
    def manifest(self) -> Path:
        """What the unfinished recording is."""
        return self.output.with_name(self.output.name + ".partial.json")


@dataclass
class JobStatistics:
    """Counters and latencies of a job, updated after each frame.

    Attributes:
        frames: in the recording, those of an earlier run included.
        resumed: frames of an earlier run.
        complete: frames with all six images.
        missing: frames by camera that was missing.
        latencies: seconds by stage for each frame of this run; ``total`` is preprocessing and
            network, ``write`` comes on top.
        interrupted: the user wanted to stop; the rest can be resumed.
    """

    frames: int = 0
    resumed: int = 0
    complete: int = 0
    missing: Counter[str] = field(default_factory=Counter)
    latencies: dict[str, list[float]] = field(default_factory=dict)
    interrupted: bool = False

    def count(self, frame: FrameSet) -> None:
        """One more frame."""
        self.frames += 1
        self.missing.update(frame.missing.keys())
        self.complete += not frame.missing


def process(
    job: Job,
    source: FrameSource,
    stream: Stream,
    on_stage: Callable[[str, JobStatistics], None],
    stopping: Callable[[], bool],
) -> JobStatistics:
    """Does the job.

    Args:
        job: what to do.
        source: frame sets of the bag.
        stream: network and memory, at their beginning.
        on_stage: called before each stage of a frame, and after each frame.
        stopping: asked after each frame; True ends the run, to be resumed.

    Raises:
        AloccError: bad input, or an output that cannot be written. What is done is kept for
            another try; if nothing is, nothing is left behind.
    """
    with _locked(job):
        return _run(job, source, stream, on_stage, stopping)


def _run(
    job: Job,
    source: FrameSource,
    stream: Stream,
    on_stage: Callable[[str, JobStatistics], None],
    stopping: Callable[[], bool],
) -> JobStatistics:
    statistics = JobStatistics()
    recorder = _open_recorder(job)
    statistics.resumed = recorder.frames
    try:
        end = max(recorder.frames, job.max_frames or 1 << 62)
        on_stage("reading what is done" if recorder.frames else "", statistics)
        done = recorder.frames
        needed = frames_to_remember(_usable(source, done), done, stream.keyframes, job.history)
        frames = iter(_usable(source, done))
        voxels, tracker = recorded_voxels(job.partial), ObjectTracker()
        while statistics.frames < end and (frame := next(frames, None)) is not None:
            number = statistics.frames
            if number >= done:
                used = _process_frame(
                    job, number, frame, stream, recorder, tracker, statistics, on_stage
                )
                note_damaged(source.skips, frame, used)
                if used is None:
                    continue
                frame = used
            elif number in needed:
                on_stage("remembering", statistics)
                reset = _step(stream, frame)[1].reset
                _follow(tracker, next(voxels), frame, reset)
            else:
                reset = stream.keyframes.plan(frame).reset
                stream.keyframes.update(frame, ran=False)
                _follow(tracker, next(voxels), frame, reset)
            statistics.count(frame)
            on_stage("", statistics)
            if statistics.frames >= recorder.frames and stopping():
                statistics.interrupted = True
                break
        if recorder.frames == 0 and not statistics.interrupted:
            raise BagError(_no_frames(source))
    except BaseException as error:
        _close_unfinished(job, recorder)
        if isinstance(error, AloccError) and recorder.frames:
            kept = f"the {recorder.frames} frames before it are in {job.partial}"
            raise type(error)(f"{error} ({kept})") from error
        raise
    if statistics.interrupted:
        _close_unfinished(job, recorder)
    else:
        recorder.publish(job.output)
        job.manifest.unlink(missing_ok=True)
    return statistics


def _usable(source: FrameSource, done: int) -> Iterator[FrameSet]:
    """The frame sets; of the first ``done`` those that were recorded, others had no good image."""
    for frame in source:
        if done > 0 and not has_usable_image(frame):
            continue
        done -= 1
        yield frame


def _step(stream: Stream, frame: FrameSet) -> tuple[FrameSet, Occupancy]:
    """The answer, and what it was made of: a damaged image costs its camera, not the set.

    Raises:
        ImageError: no image can be used.
    """
    try:
        return frame, stream.step(frame)
    except ImageError:
        frame = without_damaged(frame)  # finding it takes time only now
        return frame, stream.step(frame)


def _follow(tracker: ObjectTracker, recorded: Occupancy, frame: FrameSet, reset: str) -> None:
    """What a frame that is recorded already has changed of the tracks."""
    recorded = replace(recorded, map_T_base=frame.map_T_base, reset=reset)
    tracker.step(recorded, frame.base_T_grid)


def frames_to_remember(
    frames: Iterable[FrameSet], done: int, keyframes: KeyframePolicy, history: int | None
) -> frozenset[int]:
    """Which of the first ``done`` frames the network must see again to remember the same.

    A memory is made of the last ``history`` key frames, and a key frame's own part depends on
    the one before it (stereo). So after ``history + 1`` key frames, or after a reset, nothing
    is left of how it began. Reference frames may lie before the last key frame,
    so it needs one more, and the images of what it was compared with itself.

    A recurrent network (``history`` None) never forgets how it began: it sees all key frames since
    the last reset again.
    """
    # The policy alone, without the network, tells which frames were key frames.
    rehearsal = KeyframePolicy(keyframes.settings, keyframes.cameras)
    key_frames: list[int] = []
    numbers: dict[int, int] = {}  # by stamp, since the last reset
    compared_with: dict[int, int] = {}  # stamp to stamp
    for number, frame in zip(range(done), frames, strict=False):
        decision = rehearsal.plan(frame)
        rehearsal.update(frame)
        if decision.reset:
            key_frames.clear()
            numbers.clear()
        if decision.is_keyframe:
            key_frames.append(number)
        numbers.setdefault(frame.stamp, number)
        if decision.reference is not None:
            compared_with.setdefault(frame.stamp, decision.reference.stamp)
    kept = {reference.stamp for reference in rehearsal.references}
    kept |= {compared_with[stamp] for stamp in kept if stamp in compared_with}
    first = 0 if history is None else -(history + 2)
    return frozenset(key_frames[first:]) | {numbers[stamp] for stamp in kept}


def _process_frame(
    job: Job,
    number: int,
    frame: FrameSet,
    stream: Stream,
    recorder: Recorder,
    tracker: ObjectTracker,
    statistics: JobStatistics,
    on_stage: Callable[[str, JobStatistics], None],
) -> FrameSet | None:
    """The frame set as it was used; None if it has no image that can be."""
    on_stage("network", statistics)
    try:
        frame, occupancy = _step(stream, frame)
    except ImageError:
        return None
    on_stage("writing", statistics)
    begin = time.perf_counter()
    name = f"{number:06d}_{frame.stamp}"
    # Before the recording: a frame counts as done when it is in there.
    try:
        for folder in filter(None, (job.npz, job.overlay)):
            folder.mkdir(parents=True, exist_ok=True)
        if job.npz is not None:
            save_npz(job.npz / f"{name}.npz", occupancy, job.provenance.weights)
        if job.overlay is not None:
            _save_overlay(job, job.overlay / f"{name}.png", frame, occupancy)
    except OSError as error:
        place = error.filename or name
        raise OutputError(f"cannot write {place}: {error.strerror}") from error
    first = recorder.frames == 0
    for output in frame_outputs(frame, occupancy, job.provenance, first=first, tracker=tracker):
        recorder.write(*output)
    recorder.end_frame()
    timings = stream.timings | {"write": time.perf_counter() - begin}
    for stage, seconds in timings.items():
        statistics.latencies.setdefault(stage, []).append(seconds)
    return frame


def _save_overlay(job: Job, path: Path, frame: FrameSet, occupancy: Occupancy) -> None:
    from alocc_ros.stream.overlay import contact_sheet

    seconds = f"{frame.stamp // 10**9}.{frame.stamp % 10**9:09d}"
    weights = "RANDOM WEIGHTS" if occupancy.random_weights else job.provenance.weights[:19]
    title = f"{seconds}   {job.provenance.model}   {weights}"
    sheet = contact_sheet(frame, occupancy, title, job.provenance.base_T_grid)
    with whole_file(path) as scratch:
        sheet.save(scratch, format="PNG")


def _open_recorder(job: Job) -> Recorder:
    """A new recording, or the one that an equal job left."""
    metadata = {"alocc_ros": alocc_ros.__version__, "model": job.provenance.model}
    metadata["weights"] = job.provenance.weights
    if job.restart:
        job.partial.unlink(missing_ok=True)
    if not job.partial.exists():
        _write_manifest(job)
        return Recorder(job.partial, metadata)
    _check_manifest(job)
    return Recorder.resume(job.partial, metadata)


@contextlib.contextmanager
def _locked(job: Job) -> Iterator[None]:
    """Nobody else writes this output meanwhile; the lock ends with the process, however it ends."""
    for file in (job.manifest, job.partial):
        refuse_link(file)
    try:
        stream = job.manifest.open("a")
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            stream.close()
            raise OutputError(f"another run is writing {job.output} just now") from error
        if os.fstat(stream.fileno()).st_nlink == 0:  # it ended between those two lines
            stream.close()
            raise OutputError(f"another run was writing {job.output} a moment ago; try again")
    except OSError as error:
        raise OutputError(f"cannot write {job.manifest}: {error.strerror}") from error
    with stream:
        try:
            yield
        finally:
            with contextlib.suppress(FileNotFoundError):
                if job.manifest.stat().st_size == 0:
                    job.manifest.unlink()


def _write_manifest(job: Job) -> None:
    # In place, it holds the lock. Half of it does no harm: without a recording nobody reads it.
    try:
        job.manifest.write_text(json.dumps(job.identity, indent=1, default=str) + "\n")
    except OSError as error:
        raise OutputError(f"cannot write {job.manifest}: {error.strerror}") from error


def _check_manifest(job: Job) -> None:
    try:
        before = json.loads(job.manifest.read_text())
    except (OSError, ValueError) as error:
        raise OutputError(
            f"{job.partial} is there, but {job.manifest.name} does not say what it is; "
            "--restart throws it away"
        ) from error
    now = json.loads(json.dumps(job.identity, default=str))
    different = sorted(k for k in before.keys() | now.keys() if before.get(k) != now.get(k))
    if different:
        raise OutputError(
            f"{job.partial} was made with another {', '.join(different)}; use the same options "
            "to go on with it, or --restart to throw it away"
        )


def _close_unfinished(job: Job, recorder: Recorder) -> None:
    """Closes what is there; nothing is left if that is nothing."""
    if recorder.frames:
        recorder.abandon()
    else:
        recorder.discard()
        job.manifest.unlink(missing_ok=True)


def _no_frames(source: FrameSource) -> str:
    counts = [f"{number} x {reason}" for reason, number in source.drops.items()]
    counts += [str(source.skips)] if source.skips.counts else []
    reason = f"; the first: {source.no_pose}" if source.no_pose else ""
    return f"not one frame could be made of the bag ({', '.join(counts) or 'no images'}{reason})"
