# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""What a network says in other precisions, frame by frame of a recording, with its memory.

    python tools/compare_precisions.py BAG eager:bf16 eager:int8 emulated:fp16

Each way has a stream of its own, so that what rounding does to the memory adds up. Compared with
``eager`` in float32: share of equal labels, the largest difference of a logit over the largest
logit, and of the velocities of what moves in both the largest difference and the share within
0.02 m/s.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import Tensor

from alocc_ros.bags.frames import FrameSource
from alocc_ros.bags.reader import Bag
from alocc_ros.errors import AloccError
from alocc_ros.network.model import Output
from alocc_ros.pipeline import Pipeline
from alocc_ros.stream.preset import load_preset
from alocc_ros.types import FrameSet, Occupancy

_CLOSE = 0.02  # m/s


class Said(NamedTuple):
    """What one way said of a frame; ``logits`` [X, Y, Z, C]."""

    occupancy: Occupancy
    logits: Tensor


class Difference(NamedTuple):
    """Of one frame; ``velocity`` in m/s."""

    labels: float
    logit: float
    velocity: float
    close: float


class Way:
    """A stream that keeps the logits of its last frame."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline, self._step = pipeline, pipeline.runner.step
        pipeline.runner.step = self._kept

    def _kept(self, *arguments: object, **named: object) -> Output:
        self._output = self._step(*arguments, **named)
        return self._output

    def say(self, frame: FrameSet) -> Said:
        """The next frame."""
        occupancy = self._pipeline.step(frame)
        return Said(occupancy, self._output.logits[0].float().cpu().clone())


def difference(one: Said, other: Said) -> Difference:
    same = one.occupancy.labels == other.occupancy.labels
    logit = (one.logits - other.logits).abs().max() / one.logits.abs().max()
    velocity, close = 0.0, 1.0
    if one.occupancy.flow is not None:
        ours, theirs = (s.occupancy.flow.astype(np.float32) for s in (one, other))
        moving = same & (np.abs(ours).sum(-1) > 0) & (np.abs(theirs).sum(-1) > 0)
        if moving.any():
            off = np.linalg.norm(ours - theirs, axis=-1)[moving]
            velocity, close = float(off.max()), float((off <= _CLOSE).mean())
    return Difference(float(same.mean()), float(logit), velocity, close)


def main() -> None:
    """Prints a line a frame and way, and the worst of each way."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("bag", type=Path)
    parser.add_argument("ways", nargs="+", metavar="BACKEND:PRECISION")
    parser.add_argument("--model", default="alocc_tiny")
    parser.add_argument("--preset", default="nuscenes")
    parser.add_argument("--frames", type=int, default=20)
    args = parser.parse_args()
    base = Pipeline.load(args.model, "cpu")
    reference = Way(base.beside(backend="eager", precision="fp32", runner=None))
    ways: dict[str, Way] = {}
    for name in args.ways:
        backend, _, precision = name.partition(":")
        ways[name] = Way(base.beside(backend=backend, precision=precision, runner=None))
    found: dict[str, list[Difference]] = {name: [] for name in ways}
    row = "{:<16}{:>6}{:>12}{:>12}{:>12}{:>14}"
    print(row.format("way", "frame", "labels %", "logit", "m/s", "in 0.02 m/s %"))
    with Bag(args.bag) as bag:
        source = FrameSource(bag, load_preset(args.preset))
        for number, frame in zip(range(args.frames), source, strict=False):
            said = reference.say(frame)
            for name, way in ways.items():
                found[name].append(d := difference(said, way.say(frame)))
                print(row.format(name, number, *_words(d)), flush=True)
    for name, all_of_it in found.items():
        labels, logit, velocity, close = zip(*all_of_it, strict=True)
        worst = Difference(min(labels), max(logit), max(velocity), min(close))
        print(row.format(name, "worst", *_words(worst)))


def _words(d: Difference) -> list[str]:
    return [f"{100 * d.labels:.4f}", f"{d.logit:.1e}", f"{d.velocity:.3f}", f"{100 * d.close:.2f}"]


if __name__ == "__main__":
    try:
        main()
    except AloccError as error:
        sys.exit(str(error))
