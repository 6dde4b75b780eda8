# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""The node's /diagnostics: states of the cameras with reasons, counts of camera sets, timing.

Made by a timer from snapshots, so that it also comes, with the reason, when nothing else does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

from alocc_ros.ros.inputs import Camera
from alocc_ros.ros.worker import WorkerStatistics
from alocc_ros.stream.camera_queue import CameraStatistics
from alocc_ros.stream.collector import CollectorStatistics

# States of a camera. External monitors match on these words: keep them.
WAITING = "waiting"  # nothing came yet, or no CameraInfo
STALE = "stale"  # nothing came for a while
REJECTED = "rejected"  # images come but cannot be used
ACTIVE = "active"

# Part, key, meaning; the documentation is made of it. External monitors match on these too.
KEYS = (
    ("camera", "state", f"`{WAITING}`, `{STALE}`, `{REJECTED}` or `{ACTIVE}`"),
    ("camera", "reason", "why it is not active, in plain words"),
    ("camera", "age_s", "since its last image"),
    ("camera", "topic", "after remapping"),
    ("camera", "type", "of its messages; empty: nobody publishes"),
    ("camera", "frame", "TF name of its optical frame"),
    ("camera", "received", "images"),
    ("camera", "lost", "images that the middleware knows it has lost"),
    ("camera", "missing_percent", "of recent images, judged by the gaps between stamps"),
    ("camera", "used", "images that found a place in a set"),
    ("camera", "dropped: REASON", "images that did not"),
    ("sets", "complete", "sets of all cameras"),
    ("sets", "partial", "sets that went ahead without a camera"),
    (
        "sets",
        "incomplete",
        "left out: fewer images than `min_cameras`, or none of a required camera",
    ),
    ("sets", "time_jumps", "how often stamps or the clock went back"),
    ("sets", "spread_ms", "between the first and the last image of the newest set"),
    (
        "sets",
        "offered",
        "to the network; the sum of the next four, and those that wait or are at work",
    ),
    ("sets", "processed", "results"),
    ("sets", "superseded", "a newer set came while it waited"),
    (
        "sets",
        "ignored",
        "while disabled, waiting at a reset, or left over from the last lap of a loop",
    ),
    ("sets", "failed: ERROR", "without a result, by kind of error"),
    ("network", "rate_hz", "results a second since the last report"),
    ("network", "latency_pNN_ms", "from the anchor's stamp to publish; NN: 50 and 95"),
    ("network", "STAGE_pNN_ms", "time by stage, see below"),
    ("network", "early: WHAT", "what was done ahead of sets, see below; only with `early`"),
    ("network", "reset: REASON", "how often the memory was thrown away"),
    (
        "network",
        "flow_overflow",
        "moving voxels that got no flow: too many at once; only if any did",
    ),
    ("network", "device_memory_mb", "held on the GPU; on a CPU there is none"),
    ("network", "backend", "how the network is run, as of `alocc benchmark --backend`"),
    ("network", "precision", "of its activations"),
    ("network", "fallback", "why it is not run as asked for, or not the fastest way; only if so"),
    ("callbacks", "failed: ERROR", "exceptions in callbacks, by topic and kind of error"),
)

# Of every status, so that they can be told from others' whatever the node's name and namespace.
HARDWARE_ID = "alocc_ros"
_OK, _WARN, _ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR
_LOSS_HINT = (
    "the camera skips them, or they are lost on the way: run its driver with the shared-memory "
    "profile config/fastdds_shm.xml (see `alocc doctor`)"
)
_SHARE = 0.05  # of missing images that is worth a warning
_FEW = 20  # gaps; of fewer no period can be estimated
_PAUSE = 10  # periods; a longer gap is a camera that was off
# A latency beyond this compares clocks that have nothing to do with each other: a bag is
# played without use_sim_time.
_PLAUSIBLE = 60.0  # s


@dataclass(frozen=True)
class CameraState:
    """One camera, as of now.

    Attributes:
        state: one of the constants above.
        reason: in plain words; "" if active.
        age: s since the last image, None before the first one.
    """

    state: str
    reason: str
    age: float | None


def share_missing(gaps: Sequence[int]) -> float:
    """Share of a camera's images that did not come, estimated from the gaps between their stamps.

    Its period is estimated from the short gaps, so that it is found even if more than half of the
    images are missing; one and a half periods are still a late image.
    """
    if len(gaps) < _FEW:
        return 0.0
    short = float(np.percentile(gaps, 10))
    period = float(np.median([gap for gap in gaps if gap <= 1.5 * short]))
    steps = [max(int(gap / period + 0.25), 1) for gap in gaps if gap <= _PAUSE * period]
    return 1.0 - len(steps) / sum(steps)


class Diagnostics:
    """Statuses of one period after the other; keeps the counts of the last one, for rates.

    Attributes:
        stale_after: s without an image after which a camera is stale.
    """

    def __init__(self, node_name: str, stale_after: float, now: float) -> None:
        """``now`` and all later ones on the clock ``time.monotonic``."""
        self._name, self.stale_after, self._begin = node_name, stale_after, now
        self._before: dict[str, CameraStatistics] = {}
        self._lost: dict[str, int] = {}
        self._processed, self._time = 0, now
        self._failures = 0

    def statuses(
        self,
        *,
        cameras: Mapping[str, Camera],
        rejections: Mapping[str, str],
        collector: CollectorStatistics,
        worker: WorkerStatistics,
        problems: list[str],
        failures: Mapping[str, int],
        device_memory: int,
        runs: Mapping[str, str],
        now: float,
    ) -> list[DiagnosticStatus]:
        """One status a camera, one of the sets, one of the network, one of failed callbacks.

        Args:
            cameras: by name.
            rejections: by camera, why the worker could not use its last image.
            collector: what came in.
            worker: what became of it.
            problems: publishers that cannot be received.
            failures: of callbacks, by callback and kind of error.
            device_memory: bytes.
            runs: backend and precision, and fallback if there is one; see ``KEYS``.
            now: s.
        """
        out = []
        states = {}
        for name, camera in cameras.items():
            states[name] = self._state(
                camera, collector.cameras[name], rejections.get(name, ""), now
            )
            out.append(self._camera(camera, states[name], collector.cameras[name], now))
        out.append(self._sets(states, collector, worker, problems))
        out.append(self._network(worker, device_memory, runs, now))
        out.append(self._callbacks(failures))
        self._before = dict(collector.cameras)
        self._processed, self._time = worker.processed, now
        return out

    def inactive(
        self, state: str, defect: str, failures: Mapping[str, int]
    ) -> list[DiagnosticStatus]:
        """While the node is not active; ``defect``: why it was stopped, or ""."""
        level = _ERROR if defect else _WARN
        text = f"not active: {state}; {defect}" if defect else f"not active: {state}"
        return [self._status("node", level, text, {}), self._callbacks(failures)]

    def _state(
        self, camera: Camera, statistics: CameraStatistics, rejection: str, now: float
    ) -> CameraState:
        image = camera.image
        if image.last_arrival is None:
            reason = image.problem or (
                f"no message on {image.resolved} ({image.publishers} publishers)"
                if image.publishers
                else f"nobody publishes {image.resolved}"
            )
            return CameraState(WAITING, reason, None)
        age = now - image.last_arrival
        if age > self.stale_after:
            return CameraState(STALE, image.problem or f"no image for {age:.1f} s", age)
        if camera.intrinsics is None and camera.info is not None and not camera.info_rejection:
            reason = camera.info.problem or f"no CameraInfo on {camera.info.resolved}"
            return CameraState(WAITING, reason, age)
        reason = camera.rejection or camera.info_rejection or rejection
        reason = reason or self._unused(camera.name, statistics)
        return CameraState(REJECTED if reason else ACTIVE, reason, age)

    def _unused(self, name: str, statistics: CameraStatistics) -> str:
        """Why no image found a place in a set since the last time, or ""."""
        before = self._before.get(name)
        if before is None or statistics.used > before.used:
            return ""
        drops = sum(statistics.dropped.values()) - sum(before.dropped.values())
        return f"not used: {statistics.last_drop}" if drops >= 2 else ""

    def _camera(
        self, camera: Camera, state: CameraState, statistics: CameraStatistics, now: float
    ) -> DiagnosticStatus:
        lost = camera.image.lost - self._lost.get(camera.name, 0)
        self._lost[camera.name] = camera.image.lost
        values = {
            "state": state.state,
            "reason": state.reason,
            "age_s": "" if state.age is None else f"{state.age:.3f}",
            "topic": camera.image.resolved,
            "type": camera.image.type,
            "frame": camera.frame,
            "received": camera.image.received,
            "lost": camera.image.lost,
            "used": statistics.used,
        }
        share = share_missing(list(camera.gaps))
        values["missing_percent"] = f"{100 * share:.0f}"
        values |= {f"dropped: {why}": n for why, n in sorted(statistics.dropped.items())}
        level = _OK if state.state == ACTIVE else _ERROR
        if state.state == WAITING and now - self._begin < self.stale_after:
            level = _WARN  # it has just begun
        text = f"{state.state}: {state.reason}" if state.reason else state.state
        if lost > 0 or share >= _SHARE:
            many = (
                f"{lost} images" if share < _SHARE else f"about {100 * share:.0f} % of the images"
            )
            level, text = max(level, _WARN), f"{text}; {many} do not arrive: {_LOSS_HINT}"
        if camera.image.doubled:
            level, text = max(level, _WARN), f"{text}; {camera.image.doubled}"
        return self._status(f"camera {camera.name}", level, text, values)

    def _sets(
        self,
        states: Mapping[str, CameraState],
        collector: CollectorStatistics,
        worker: WorkerStatistics,
        problems: list[str],
    ) -> DiagnosticStatus:
        values = {
            "complete": collector.complete,
            "partial": collector.partial,
            "incomplete": collector.incomplete,
            "time_jumps": collector.time_jumps,
            "spread_ms": f"{collector.last_spread * 1e-6:.3f}",
            "offered": worker.submitted,
            "processed": worker.processed,
            "superseded": worker.superseded,
            "ignored": worker.ignored,
        }
        values |= {f"failed: {kind}": n for kind, n in sorted(worker.failed.items())}
        inactive = [name for name, state in states.items() if state.state != ACTIVE]
        texts = list(problems)
        if inactive:
            texts.append(f"without {', '.join(inactive)}")
        level = _ERROR if problems or len(inactive) == len(states) else _WARN if inactive else _OK
        return self._status("sets", level, "; ".join(texts) or "complete", values)

    def _network(
        self, worker: WorkerStatistics, device_memory: int, runs: Mapping[str, str], now: float
    ) -> DiagnosticStatus:
        rate = (worker.processed - self._processed) / max(now - self._time, 1e-3)
        values = {"rate_hz": f"{rate:.2f}"}
        if worker.latencies:
            p50, p95 = np.percentile(worker.latencies, (50, 95))
            values["latency_p50_ms"], values["latency_p95_ms"] = (
                f"{1e3 * v:.1f}" if abs(v) < _PLAUSIBLE else "stamps are of another clock"
                for v in (p50, p95)
            )
        for stage, seconds in worker.stages.items():
            p50, p95 = np.percentile(seconds, (50, 95))
            values[f"{stage}_p50_ms"], values[f"{stage}_p95_ms"] = (
                f"{1e3 * p50:.1f}",
                f"{1e3 * p95:.1f}",
            )
        values |= {f"early: {what}": n for what, n in worker.early.items()}
        values |= {f"reset: {why}": n for why, n in sorted(worker.resets.items())}
        if worker.flow_overflow:
            values["flow_overflow"] = worker.flow_overflow
        if device_memory:
            values["device_memory_mb"] = f"{device_memory / 1e6:.0f}"
        values |= runs
        if worker.last_failure:
            return self._status("network", _ERROR, worker.last_failure.splitlines()[-1], values)
        if worker.processed == 0:
            return self._status("network", _WARN, "no result yet", values)
        if "fallback" in runs:
            return self._status("network", _WARN, f"{rate:.1f} Hz; {runs['fallback']}", values)
        return self._status("network", _OK, f"{rate:.1f} Hz", values)

    def _callbacks(self, failures: Mapping[str, int]) -> DiagnosticStatus:
        """An error for as long as failures are new."""
        total, before = sum(failures.values()), self._failures
        self._failures = total
        values = {f"failed: {what}": n for what, n in sorted(failures.items())}
        if total > before:
            return self._status("callbacks", _ERROR, f"{total - before} failed", values)
        return self._status("callbacks", _OK, "none failed since the last report", values)

    def _status(
        self, part: str, level: bytes, text: str, values: Mapping[str, object]
    ) -> DiagnosticStatus:
        return DiagnosticStatus(
            level=level,
            name=f"{self._name}: {part}",
            message=text,
            hardware_id=HARDWARE_ID,
            values=[KeyValue(key=key, value=str(value)) for key, value in values.items()],
        )
