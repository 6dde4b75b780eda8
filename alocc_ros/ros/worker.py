# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""The worker thread, which runs the network, and the queue of one camera set in front of it.

A newer camera set replaces an older one that still waits, so that latency is bounded by the
time of one frame, and memory never grows.

While no set waits, images that came can be worked on ahead of the set that they will be in, the
newest first, one a camera: decoded by the preprocessor's threads, and seen by the network one after
the other. As soon as stamp and pose of the set are known, the network sums up what it remembers for
it. A set that comes meanwhile waits for the one image, or the sum, that the network is at.
"""

from __future__ import annotations

import threading
import traceback
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from time import monotonic
from typing import TypeVar

from alocc_ros.errors import AloccError, ImageError, PoseError
from alocc_ros.pipeline import Pipeline
from alocc_ros.stream.early import EarlyImage
from alocc_ros.stream.preprocessing import note_damaged, without_damaged
from alocc_ros.stream.skips import Skips
from alocc_ros.types import Calibration, CameraImage, CameraSet, FrameSet, Occupancy

# What was done ahead, or was not; the documentation is made of it.
EARLY = (
    ("decoded", "images that were decoded before their set was whole"),
    ("seen", "images whose part of the network was done then, too"),
    ("superseded", "a newer one of the camera, or a set, came before it was their turn"),
    ("left", "to their set: calibration not known yet, cannot be used, or has to be converted"),
    ("recalled", "sets whose sum over the remembered volumes was made before they were whole"),
)
# What the time of a set goes into; the documentation is made of it.
STAGES = (
    ("arrival", "from the newest image's stamp until the set is whole"),
    ("wait", "until the network is done with the set before"),
    ("poses", "poses and calibration, and waiting for them"),
    ("preprocess", "decoding and scaling six images"),
    ("network", "to the device, the network, and back"),
    ("early", "what was done on the set's images before it was whole; part of no other time"),
    ("publish", "filling and publishing the messages that somebody wants"),
    (
        "added",
        "what the node adds to preprocessing and network: from the set's being whole, or the "
        "network's being free if that is later, until all is published",
    ),
)
_RECENT = 200  # results that the times are of
_JOIN_TIMEOUT = 30.0  # s
_Early = TypeVar("_Early", CameraImage, EarlyImage, int)
_LAP = 1_000_000_000  # ns; a set so far ahead of what comes is of the lap before


@dataclass(frozen=True)
class WorkerStatistics:
    """What became of the camera sets; submitted = the other numbers together, plus one at work.

    Attributes:
        submitted, processed, superseded, ignored: sets; ``ignored`` while it was disabled.
        failed: sets by kind of error.
        last_failure: the newest error, or "" if a result came since.
        stages: s of recent results by stage (``STAGES``).
        latencies: s from sensor stamp to publish of recent results.
        resets: of the temporal memory by reason.
        flow_overflow: moving voxels so far that got no flow because there were too many at once.
        waiting: whether a set is waiting.
        early: images by what became of them ahead of their set, and sets (``EARLY``); empty:
            nothing is done ahead.
    """

    submitted: int
    processed: int
    superseded: int
    ignored: int
    failed: dict[str, int]
    last_failure: str
    stages: dict[str, list[float]]
    latencies: list[float]
    resets: dict[str, int]
    flow_overflow: int
    waiting: bool
    early: dict[str, int] = field(default_factory=dict)


class Worker:
    """Runs camera sets through the pipeline, newest first, one at a time.

    Attributes:
        enabled: while False, sets are ignored.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        assemble: Callable[[CameraSet], FrameSet],
        publish: Callable[[FrameSet, Occupancy], None],
        now: Callable[[], int],
        report_error: Callable[[str], None],
        skips: Skips | None = None,
        calibrate: Callable[[CameraImage], Calibration] | None = None,
        foresee: Callable[[int], FrameSet] | None = None,
    ) -> None:
        """Starts the thread.

        Args:
            pipeline: network and memory; nobody else may use it until ``stop``.
            assemble: completes a camera set; may wait, may raise AloccError.
            publish: gets every result.
            now: ns on the clock of the stamps.
            report_error: gets each failure, as one text.
            skips: takes note of images that cannot be decoded.
            calibrate: calibration of an image that has no set yet, as it is known at once, the
                same object that its frame will have; may raise AloccError. None: nothing is done
                ahead of sets.
            foresee: the set at a stamp (ns) without its images, as far as it is known at once; may
                raise AloccError. None: no sum is made ahead.
        """
        self.enabled = True
        self._pipeline, self._assemble, self._publish = pipeline, assemble, publish
        self._now, self._report_error = now, report_error
        self._skips = Skips() if skips is None else skips
        self._calibrate = calibrate
        self._foresee = foresee if pipeline.runner.recalls else None
        self._changed = threading.Condition()
        self._newest: dict[str, int] = {}  # stamps of the newest set's images, ns
        self._offered: dict[str, CameraImage] = {}  # by camera, the newest last
        self._begun: dict[str, EarlyImage] = {}
        self._forming: int | None = None  # stamp of the set to come, if it is to be looked at
        self._recalled: tuple[int, bytes] | None = None  # stamp and pose of the newest sum
        names = [] if calibrate is None else [name for name, _ in EARLY]
        self._early = Counter(dict.fromkeys(names, 0))
        self._next: tuple[CameraSet, float, float] | None = None
        self._stopping = self._reset_requested = False
        self._submitted = self._processed = self._superseded = self._ignored = 0
        self._failed: Counter[str] = Counter()
        self._last_failure = ""
        self._stages: dict[str, deque[float]] = {}
        self._latencies: deque[float] = deque(maxlen=_RECENT)
        self._free_since = 0.0  # monotonic
        self._thread = threading.Thread(target=self._run, name="alocc worker", daemon=True)
        self._thread.start()

    def submit(self, camera_set: CameraSet) -> None:
        """Takes a set in, in place of one that is still waiting. Returns at once."""
        with self._changed:
            self._submitted += 1
            if not self.enabled:
                self._ignored += 1
                return
            self._superseded += self._next is not None
            self._newest = {c: image.stamp for c, image in camera_set.images.items()}
            self._give_up_early(lambda image: image.stamp <= self._newest.get(image.camera, 0))
            self._forming = None
            newest = max(self._newest.values())
            self._next = (camera_set, monotonic(), (self._now() - newest) * 1e-9)
            self._changed.notify()

    def offer(self, image: CameraImage, forming: int | None = None) -> None:
        """Takes note of an image that came, after the set that it closed, and of the stamp (ns) of
        the set that is being put together. Returns at once.
        """
        with self._changed:
            if self._calibrate is None or not self.enabled or self._stopping:
                return
            if self._foresee is not None and forming is not None:
                self._forming = forming
                self._changed.notify()
            if image.stamp <= 0 or image.stamp == self._newest.get(image.camera):
                return  # nobody wants it, or it has its set already
            self._give_up_early(lambda older: older.camera == image.camera)
            self._offered[image.camera] = image
            self._changed.notify()

    def reset(self) -> None:
        """Forgets the past and what is waiting, before the next set."""
        with self._changed:
            self._give_up_early(lambda image: True)
            self._forming, self._reset_requested = None, True
            self._ignored += self._next is not None
            self._next = None

    def stop(self, timeout: float = _JOIN_TIMEOUT) -> bool:
        """Ends the thread after the set that it is at; False if that takes too long (s)."""
        with self._changed:
            self._stopping = True
            self._give_up_early(lambda image: True)
            self._ignored += self._next is not None
            self._next = None
            self._changed.notify()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    @property
    def statistics(self) -> WorkerStatistics:
        """A snapshot."""
        with self._changed:
            return WorkerStatistics(
                submitted=self._submitted,
                processed=self._processed,
                superseded=self._superseded,
                ignored=self._ignored,
                failed=dict(self._failed),
                last_failure=self._last_failure,
                stages={name: list(times) for name, times in self._stages.items()},
                latencies=list(self._latencies),
                resets=dict(self._pipeline.keyframes.resets),
                flow_overflow=self._pipeline.flow_overflow,
                waiting=self._next is not None,
                early=dict(self._early),
            )

    def _run(self) -> None:
        while (job := self._wait()) is not None:
            job()
            self._free_since = monotonic()

    def _wait(self) -> Callable[[], None] | None:
        """What to do next: the set that waits, else what can be done ahead; None: end."""
        with self._changed:
            while not self._stopping:
                if self._next is not None:
                    waiting, self._next = self._next, None
                    reset, self._reset_requested = self._reset_requested, False
                    return partial(self._work, *waiting, reset)
                if self._offered:
                    _, image = self._offered.popitem()
                    return partial(self._ahead, self._begin, image)
                if self._forming is not None:
                    forming, self._forming = self._forming, None
                    return partial(self._ahead, self._recall, forming)
                for camera, early in reversed(self._begun.items()):
                    if early.pixels.done():
                        del self._begun[camera]
                        return partial(self._ahead, self._pipeline.images.see, early)
                self._changed.wait()
        return None

    def _work(self, camera_set: CameraSet, submitted: float, age: float, reset: bool) -> None:
        try:
            if reset:
                self._pipeline.reset()
            self._process(camera_set, submitted, age)
        except AloccError as error:
            if isinstance(error, PoseError) and self._is_left_over(camera_set):
                with self._changed:
                    self._ignored += 1
            else:
                self._fail(type(error).__name__, str(error))
        except Exception as error:  # a defect, or a device out of memory: the next may work
            if not self._stopping:  # else ROS was shut down under our feet
                self._fail(type(error).__name__, traceback.format_exc().strip())

    def _ahead(self, job: Callable[[_Early], None], of: _Early) -> None:
        try:
            job(of)
        except AloccError:  # no failure yet: the set says so if it comes, and counts it
            with self._changed:
                self._early["left"] += 1
        except Exception:  # a defect, or a device out of memory: sets may still work
            if not self._stopping:
                self._calibrate = None
                story = traceback.format_exc().strip()
                self._report_error(f"from now on nothing is done ahead of sets: {story}")

    def _begin(self, image: CameraImage) -> None:
        early = self._pipeline.images.begin(image, self._calibrate(image))
        with self._changed:
            self._begun[image.camera] = early
        early.pixels.add_done_callback(self._wake)

    def _recall(self, stamp: int) -> None:
        try:
            frame = self._foresee(stamp)
            of = stamp, frame.map_T_base.tobytes()
            if of != self._recalled and self._pipeline.recall(frame):
                self._recalled = of
        except PoseError:
            return  # it is not there yet: the next image asks again, and at last the set

    def _wake(self, _: Future) -> None:
        with self._changed:
            self._changed.notify()

    def _give_up_early(self, which: Callable[[CameraImage], bool]) -> None:
        offered = [c for c, image in self._offered.items() if which(image)]
        begun = [c for c, early in self._begun.items() if which(early.image)]
        for camera in offered:
            del self._offered[camera]
        for camera in begun:
            del self._begun[camera]
        if offered or begun:
            self._early["superseded"] += len(offered) + len(begun)

    def _process(self, camera_set: CameraSet, submitted: float, age: float) -> None:
        begin, self._recalled = monotonic(), None
        frame = self._assemble(camera_set)
        assembled = monotonic()
        try:
            occupancy = self._pipeline.step(frame)
        except ImageError:
            # One damaged image must not cost the others; finding it takes time only now.
            whole, frame = frame, without_damaged(frame)
            note_damaged(self._skips, whole, frame)
            occupancy = self._pipeline.step(frame)
        stepped = monotonic()
        self._publish(frame, occupancy)
        end = monotonic()
        timings = self._pipeline.timings
        stages = {
            "arrival": age,
            "wait": max(self._free_since - submitted, 0.0),
            "poses": assembled - begin,
            "preprocess": timings["preprocess"],
            "network": timings["network"],
            "early": timings["early"],
            "publish": end - stepped,
            "added": end - max(submitted, self._free_since) - timings["total"],
        }
        latency = (self._now() - occupancy.stamp) * 1e-9
        with self._changed:
            self._processed += 1
            done = Counter(recalled=self._pipeline.state.recalled_frames)
            self._early.update(done + self._pipeline.images.done - self._early)
            self._last_failure = ""
            self._latencies.append(latency)
            for name, seconds in stages.items():
                self._stages.setdefault(name, deque(maxlen=_RECENT)).append(seconds)

    def _is_left_over(self, camera_set: CameraSet) -> bool:
        """Whether a set is of the last lap of a loop, whose poses are forgotten already."""
        with self._changed:
            newer = self._next[0].stamp if self._next is not None else self._now()
        return camera_set.stamp > newer + _LAP

    def _fail(self, kind: str, text: str) -> None:
        with self._changed:
            self._failed[kind] += 1
            self._last_failure = text
        self._report_error(text)
