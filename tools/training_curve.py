# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Draws the losses of a run of ``alocc train``.

python tools/training_curve.py runs/tiny curve.png
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot

_SMOOTH = 9  # lines of the log in a running mean


def read(path: Path) -> dict[str, np.ndarray]:  # by loss: [n, 2] step, value
    """The losses in the log of a run."""
    curves: dict[str, list[tuple[int, float]]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        for name, value in entry.items():
            if name.startswith("loss/"):
                curves.setdefault(name.removeprefix("loss/"), []).append((entry["step"], value))
    return {name: np.array(points) for name, points in curves.items()}


def draw(curves: dict[str, np.ndarray], path: Path) -> None:
    """One small picture a loss: each report, and the running mean."""
    columns = 4
    rows = -(-len(curves) // columns)
    figure, axes = pyplot.subplots(
        rows, columns, figsize=(12, 2.4 * rows), layout="constrained", squeeze=False
    )
    for axis in axes.flat[len(curves) :]:
        axis.set_axis_off()
    for axis, (name, points) in zip(axes.flat, curves.items(), strict=False):
        steps, values = points.T
        axis.plot(steps, values, color="0.8", linewidth=0.7)
        width = min(_SMOOTH, len(values))
        mean = np.convolve(values, np.full(width, 1 / width), "valid")
        axis.plot(steps[width - 1 :], mean, color="tab:blue", linewidth=1.5)
        axis.set_title(name, fontsize=9)
        low, high = np.quantile(values, [0.0, 0.98])
        axis.set_ylim(min(low, 0) if low < 0 else 0, high * 1.1)
        axis.tick_params(labelsize=7)
        axis.grid(color="0.92")
    figure.supxlabel("step", fontsize=9)
    figure.savefig(path, dpi=100)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("picture", type=Path)
    given = parser.parse_args()
    draw(read(given.run / "log.jsonl"), given.picture)
