# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""What a temporal memory is worth between key frames, and over drives longer than any scene.

    alocc synth streets --seed 9 --scenes 6 --frames 25 --size 160x440
    python tools/memory_over_time.py rate --model WEIGHTS --variant alocc_tiny_gf --data streets

The same drive at 2 Hz and at the rate of the cameras, scored at the same key frames. Of the faster
stream the memory's own key frames lie 0, 1, 2, ... frames before those (``late``): where it begins
decides.

    alocc synth drive --seed 11 --scenes 1 --frames 420 --size 160x440 --no-sweeps
    python tools/memory_over_time.py hours --model WEIGHTS --variant alocc_tiny_gf --data drive

Scores of each window of so many key frames, with the length of the sequence told as the variant
says, as it is (``endless``), and with a memory that begins anew with each window. ``--turns``
drives each scene there and back until there are so many key frames: then all windows show the same
street. Results as JSON with -o.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from alocc_ros.cli._models import add_model_arguments, find_model, load_network
from alocc_ros.datasets.nuscenes import NuScenes
from alocc_ros.datasets.samples import (
    ANCHOR,
    CameraSample,
    Sample,
    Scene,
    camera_image,
    frame_set,
)
from alocc_ros.datasets.truth import read_truth
from alocc_ros.errors import AloccError, DataError, ParameterError
from alocc_ros.evaluation.network import AS_IN_TRAINING
from alocc_ros.evaluation.scoring import find_scoring
from alocc_ros.metrics.sums import text_table
from alocc_ros.metrics.voxels import VoxelScores
from alocc_ros.network.model import Alocc
from alocc_ros.pipeline import Pipeline
from alocc_ros.records import ModelRecord
from alocc_ros.stream.keyframes import KeyframeSettings
from alocc_ros.types import FrameSet

_SCORING = find_scoring("openocc-mask")
# Scores at the beginning of a scene are of what there is to remember, not of how.
_FIRST_SCORED = 2
_NEVER = 10**6  # key frames, six days


@dataclass
class Scored:
    """The key frames of a drive, one after the other.

    Attributes:
        sums: of each what ``VoxelScores`` counts.
        largest: of each the largest magnitude in each part of the memory.
        changed: share of the voxels that a camera sees whose label is not that of another run.
        labels: the answers of the run, if they are kept to be compared with.
        seconds: of each step.
    """

    sums: list[Mapping[str, np.ndarray]] = field(default_factory=list)
    largest: list[dict[str, float]] = field(default_factory=list)
    changed: list[float] = field(default_factory=list)
    labels: list[np.ndarray] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


def total(sums: Iterable[Mapping[str, np.ndarray]]) -> dict[str, float]:
    """mIoU and IoU (%) of some key frames together."""
    scores = VoxelScores(_SCORING.classes)
    for one in sums:
        scores.merge(one)
    result = scores.result()
    return {"mIoU": round(result.miou, 2), "IoU": round(result.iou, 2)}


def with_memory_length(network: Alocc, key_frames: int) -> Alocc:
    """The same weights, told that they were trained on so many key frames in a row."""
    other = Alocc(replace(network.variant, memory_length=key_frames)).eval()
    other.load_state_dict(network.state_dict())
    return other.to(next(network.parameters()).device)


class Truths:
    """True labels and what counts of them, read once."""

    def __init__(self, root: Path) -> None:
        self._root, self._known = root, {}

    def of(self, sample: Sample) -> tuple[np.ndarray, np.ndarray]:  # [X, Y, Z] twice
        """Labels and camera mask.

        Raises:
            DataError: they are not there.
        """
        if sample.token not in self._known:
            truth = read_truth(self._root, sample, _SCORING.labels, camera_mask=True)
            if truth.mask_camera is None:
                raise DataError(f"{self._root}: the labels of {sample.name} have no camera mask")
            self._known[sample.token] = truth.labels, truth.mask_camera != 0
        return self._known[sample.token]


def count(scored: Scored, labels: np.ndarray, sample: Sample, truths: Truths) -> None:
    """One more key frame."""
    truth, mask = truths.of(sample)
    scores = VoxelScores(_SCORING.classes)
    scores.update(labels, truth, mask)
    scored.sums.append(scores.state())


# --- rate ------------------------------------------------------------------------------------


def cycles(readings: Sequence[Any], cameras: Iterable[str]) -> list[FrameSet]:
    """Every turn of the cameras: what each of them saw nearest to the anchor's image.

    Raises:
        DataError: of a camera there are no images.
    """
    images: dict[str, list[CameraSample]] = {c: [] for c in cameras}
    for one in readings:
        if isinstance(one, CameraSample):
            images[one.camera].append(one)
    if empty := [c for c, found in images.items() if not found]:
        raise DataError(f"there are no images of {', '.join(empty)}")
    stamps = {c: np.array([i.stamp for i in found]) for c, found in images.items()}
    turns = []
    for anchor in images[ANCHOR]:
        nearest = {c: images[c][int(np.abs(stamps[c] - anchor.stamp).argmin())] for c in images}
        turns.append(
            FrameSet(
                stamp=anchor.stamp,
                images={c: camera_image(i) for c, i in nearest.items()},
                calibration={c: i.calibration for c, i in nearest.items()},
                map_T_base=anchor.map_T_base,
                map_T_base_at={c: i.map_T_base for c, i in nearest.items()},
            )
        )
    return turns


def follow(pipeline: Pipeline, frames: Sequence[FrameSet], scene: Scene, truths: Truths) -> Scored:
    """A stream from its first frame on, as a vehicle has it; scored at the key frames."""
    scored, at = Scored(), {s.cameras[ANCHOR].stamp: s for s in scene.samples[_FIRST_SCORED:]}
    pipeline.reset()
    for frame in frames:
        begin = time.perf_counter()
        answer = pipeline.step(frame)
        scored.seconds.append(time.perf_counter() - begin)
        if frame.stamp in at:
            count(scored, answer.labels, at[frame.stamp], truths)
    return scored


def rate(args: argparse.Namespace, network: Alocc, record: ModelRecord) -> dict[str, Any]:
    """2 Hz against every image, by where the memory's own key frames lie.

    Raises:
        DataError: there are only key frames.
    """
    dataset, scenes = open_scenes(args)
    truths, readings = Truths(dataset.root), dataset.readings(scenes)
    interval = round(record.history_interval * 1e9)
    pipeline = Pipeline(network, record, KeyframeSettings(interval_ns=interval))
    streams: dict[str, list[Mapping[str, np.ndarray]]] = {}
    for scene in scenes:
        slow = [frame_set(sample) for sample in scene.samples]
        fast = cycles(readings[scene.name], scene.samples[0].cameras)
        per_key_frame = round((len(fast) - 1) / (len(slow) - 1))
        if per_key_frame < 2:
            raise DataError(f"{scene.name}: there are no images between key frames")
        kinds = {"2 Hz": slow} | {
            f"all, late {k}": fast[k:] for k in range(0, per_key_frame, args.step)
        }
        for name, frames in kinds.items():
            sums = follow(pipeline, frames, scene, truths).sums
            streams.setdefault(name, []).extend(sums)
            print(f"{scene.name}, {name}: {total(sums)}", file=sys.stderr)
    return {name: {"key frames": len(s), **total(s)} for name, s in streams.items()}


# --- hours -----------------------------------------------------------------------------------


def there_and_back(samples: Sequence[Sample], length: int) -> Iterator[Sample]:
    """The key frames of a scene forwards, backwards, and so on."""
    turn = [*samples, *samples[-2:0:-1]]
    for number in range(length):
        yield turn[number % len(turn)]


def drive(
    pipeline: Pipeline,
    samples: Sequence[Sample],
    truths: Truths,
    *,
    restart_every: int = 0,
    like: Scored | None = None,
    keep_labels: bool = False,
) -> Scored:
    """Key frames one interval apart, whatever their own stamps are.

    Args:
        pipeline: with the settings ``AS_IN_TRAINING``.
        samples: of the drive.
        truths: of them.
        restart_every: forget everything each so many key frames; 0: never.
        like: a run whose labels were kept, to compare with.
        keep_labels: for that.
    """
    scored = Scored()
    pipeline.reset()
    for number, sample in enumerate(samples):
        if restart_every and number % restart_every == 0:
            pipeline.reset()
        frame = replace(frame_set(sample), stamp=1 + number * 500_000_000)
        begin = time.perf_counter()
        labels = pipeline.step(frame).labels
        scored.seconds.append(time.perf_counter() - begin)
        count(scored, labels, sample, truths)
        held = pipeline.state.remembered.items()
        scored.largest.append({name: float(part.abs().max()) for name, part in held})
        if keep_labels:
            scored.labels.append(labels)
        if like is not None:
            seen = truths.of(sample)[1]
            scored.changed.append(float((labels != like.labels[number])[seen].mean()))
        if (number + 1) % 20 == 0:
            print(f"{number + 1} of {len(samples)}", end="\r", file=sys.stderr)
    return scored


def hours(args: argparse.Namespace, network: Alocc, record: ModelRecord) -> dict[str, Any]:
    """Windows of a long drive under the policies that are asked for."""
    dataset, scenes = open_scenes(args)
    window, truths = args.window, Truths(dataset.root)
    stated = Pipeline(network, record, AS_IN_TRAINING)
    endless = Pipeline(with_memory_length(network, _NEVER), record, AS_IN_TRAINING)
    policies: dict[str, Callable[..., Scored]] = {
        "endless": lambda samples, like: drive(endless, samples, truths, keep_labels=True),
        "stated": lambda samples, like: drive(stated, samples, truths, like=like),
        "anew": lambda samples, like: drive(
            stated, samples, truths, restart_every=window, like=like
        ),
    }
    policies = {name: policies[name] for name in args.policy or policies}
    runs: dict[str, list[Scored]] = {name: [] for name in policies}
    for scene in scenes:
        samples = list(scene.samples)
        if args.turns:
            samples = list(there_and_back(samples, args.turns))
        if len(samples) < 2 * window:
            raise ParameterError(
                f"{scene.name}: {len(samples)} key frames are no two windows of {window}; "
                "write longer scenes (alocc synth --frames), or drive there and back (--turns)"
            )
        like = None
        for name, policy in policies.items():
            run = policy(samples, like)
            like = run if name == "endless" else like
            runs[name].append(run)
            print(f"{scene.name}, {name}: {total(run.sums)}", file=sys.stderr)
    return {name: _over_time(scored, window) for name, scored in runs.items()}


def _over_time(runs: Sequence[Scored], window: int) -> dict[str, Any]:
    """Scores by window of all drives together, and what the memory holds at its end."""
    whole = min(len(r.sums) for r in runs) // window
    windows = []
    for number in range(whole):
        part = slice(number * window, (number + 1) * window)
        row: dict[str, Any] = total(s for r in runs for s in r.sums[part])
        # The first key frames of a window show a hand-over, if there is one.
        head = slice(part.start, part.start + 4)
        row["first 4"] = total(s for r in runs for s in r.sums[head])["mIoU"]
        if runs[0].changed:
            row["changed"] = _percent(c for r in runs for c in r.changed[part])
        row["largest"] = {
            name: round(max(v[name] for r in runs for v in r.largest[part]), 4)
            for name in runs[0].largest[0]
        }
        windows.append(row)
    steps = [s for r in runs for s in r.seconds[1:]]
    near = range(max(window - 4, 0), min(window + 8, whole * window))
    hand_over = {
        n: {
            "mIoU": total(r.sums[n] for r in runs)["mIoU"],
            **({"changed": _percent(r.changed[n] for r in runs)} if runs[0].changed else {}),
        }
        for n in near
    }
    return {
        "all": total(s for r in runs for s in r.sums),
        "key frames": sum(len(r.sums) for r in runs),
        "median ms": round(1e3 * float(np.median(steps))),
        "windows": windows,
        "around the first end": hand_over,
    }


def _percent(shares: Iterable[float]) -> float:
    return round(100 * float(np.mean(list(shares))), 3)


# --- the command -----------------------------------------------------------------------------


def open_scenes(args: argparse.Namespace) -> tuple[NuScenes, tuple[Scene, ...]]:
    """The data set and its scenes.

    Raises:
        DataError: there are none.
    """
    dataset = NuScenes(args.data)
    if args.scene:
        return dataset, tuple(dataset.scene(name) for name in args.scene)
    return dataset, dataset.split(args.split)[: args.max_scenes]


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    kinds = parser.add_subparsers(dest="kind", required=True)
    for name, what in (("rate", "between key frames"), ("hours", "over long drives")):
        one = kinds.add_parser(name, help=what)
        add_model_arguments(one)
        one.add_argument("--data", type=Path, required=True, help="in the format of nuScenes")
        one.add_argument("--split", default="val", help="which scenes (val)")
        one.add_argument("--scene", action="append", metavar="NAME", help="this one; repeatable")
        one.add_argument("--max-scenes", type=int, metavar="N", help="only the first N")
        one.add_argument("-o", "--output", type=Path, metavar="FILE", help="JSON")
    kinds.choices["rate"].add_argument(
        "--step", type=int, default=1, help="between the beginnings that are tried, frames (1)"
    )
    kinds.choices["hours"].add_argument("--window", type=int, default=40, help="key frames (40)")
    kinds.choices["hours"].add_argument(
        "--turns", type=int, default=0, metavar="N", help="drive there and back for N key frames"
    )
    kinds.choices["hours"].add_argument(
        "--policy",
        action="append",
        choices=("endless", "stated", "anew"),
        help="this one; repeatable (all)",
    )
    return parser.parse_args(argv)


def show(kind: str, found: Mapping[str, Any]) -> None:
    """For people."""
    if kind == "rate":
        names = list(next(iter(found.values())))
        print(text_table(("stream", *names), [(n, *row.values()) for n, row in found.items()]))
        return
    for name, run in found.items():
        print(f"\n{name}: {run['all']}, {run['key frames']} key frames, {run['median ms']} ms each")
        columns = [c for c in run["windows"][0] if c != "largest"]
        parts = list(run["windows"][0]["largest"])
        rows = [
            (i + 1, *(w[c] for c in columns), *(w["largest"][p] for p in parts))
            for i, w in enumerate(run["windows"])
        ]
        print(text_table(("window", *columns, *parts), rows))


def main(argv: Sequence[str] | None = None) -> int:
    """Runs it."""
    args = arguments(argv)
    try:
        record, file = find_model(args)
        _SCORING.check_model(record)
        network, weights = load_network(record, file, args.device, args.seed)
        found = {"rate": rate, "hours": hours}[args.kind](args, network, record)
        show(args.kind, found)
        if args.output:
            about = {"model": record.name, "weights": weights, "data": args.data.name}
            args.output.write_text(json.dumps({"about": about, **found}, indent=1) + "\n")
    except (AloccError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
