# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""The worker thread, which runs the network, and the queue of one camera set in front of it.

A newer camera set replaces an older one that still waits, so that latency is bounded by the
time of one frame, and memory never grows.
"""

from __future__ import annotations

import threading
import traceback
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

from alocc_ros.errors import AloccError, ImageError, PoseError
from alocc_ros.pipeline import Pipeline
from alocc_ros.stream.preprocessing import note_damaged, without_damaged
from alocc_ros.stream.skips import Skips
from alocc_ros.types import CameraSet, FrameSet, Occupancy

# What the time of a set goes into; the documentation is made of it.
STAGES = (
    ("arrival", "from the newest image's stamp until the set is whole"),
    ("wait", "until the network is done with the set before"),
    ("poses", "poses and calibration, and waiting for them"),
    ("preprocess", "decoding and scaling six images"),
    ("network", "to the device, the network, and back"),
    ("publish", "filling and publishing the messages that somebody wants"),
    (
        "added",
        "what the node adds to preprocessing and network: from the set's being whole, or the "
        "network's being free if that is later, until all is published",
    ),
)
_RECENT = 200  # results that the times are of
_JOIN_TIMEOUT = 30.0  # s
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
    ) -> None:
        """Starts the thread.

        Args:
            pipeline: network and memory; nobody else may use it until ``stop``.
            assemble: completes a camera set; may wait, may raise AloccError.
            publish: gets every result.
            now: ns on the clock of the stamps.
            report_error: gets each failure, as one text.
            skips: takes note of images that cannot be decoded.
        """
        self.enabled = True
        self._pipeline, self._assemble, self._publish = pipeline, assemble, publish
        self._now, self._report_error = now, report_error
        self._skips = Skips() if skips is None else skips
        self._changed = threading.Condition()
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
            newest = max(image.stamp for image in camera_set.images.values())
            self._next = (camera_set, monotonic(), (self._now() - newest) * 1e-9)
            self._changed.notify()

    def reset(self) -> None:
        """Forgets the past and what is waiting, before the next set."""
        with self._changed:
            self._reset_requested = True
            self._ignored += self._next is not None
            self._next = None

    def stop(self, timeout: float = _JOIN_TIMEOUT) -> bool:
        """Ends the thread after the set that it is at; False if that takes too long (s)."""
        with self._changed:
            self._stopping = True
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
            )

    def _run(self) -> None:
        while True:
            with self._changed:
                while self._next is None and not self._stopping:
                    self._changed.wait()
                if self._stopping:
                    return
                (camera_set, submitted, age), self._next = self._next, None
                reset, self._reset_requested = self._reset_requested, False
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
                if self._stopping:  # ROS was shut down under our feet
                    return
                self._fail(type(error).__name__, traceback.format_exc().strip())
            self._free_since = monotonic()

    def _process(self, camera_set: CameraSet, submitted: float, age: float) -> None:
        begin = monotonic()
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
            "publish": end - stepped,
            "added": end - max(submitted, self._free_since) - timings["total"],
        }
        latency = (self._now() - occupancy.stamp) * 1e-9
        with self._changed:
            self._processed += 1
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
