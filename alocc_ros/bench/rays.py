# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""How long does RayIoU of one frame take here? ``python -m alocc_ros.bench.rays``."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np

from alocc_ros.grid import OCC3D_GRID
from alocc_ros.labels import OPENOCC
from alocc_ros.metrics.ray_scores import RayScores
from alocc_ros.metrics.rays import in_voxels, ray_directions, raycast, raycast_reference
from alocc_ros.ops import native


def street(rng: np.random.Generator) -> np.ndarray:  # [200, 200, 16] uint8
    """Ground, walls and boxes: rays of all lengths."""
    labels = np.full(OCC3D_GRID.shape, OPENOCC.free, np.uint8)
    labels[:, :, 0] = OPENOCC.names.index("driveable_surface")
    for y in (10, 60, 140, 189):
        labels[rng.random(200) < 0.7, y, 1:12] = OPENOCC.names.index("manmade")
    for x, y in rng.integers(0, 190, (40, 2)):
        labels[x : x + 10, y : y + 5, 1:5] = OPENOCC.names.index("car")
    labels[90:110, 95:105, 1:] = OPENOCC.free  # the vehicle itself
    return labels


def main() -> None:
    """Prints the medians."""
    parser = argparse.ArgumentParser(description="Time RayIoU of one 200x200x16 pair.")
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    rng = np.random.default_rng(0)
    flow = rng.normal(size=(*OCC3D_GRID.shape, 2)).astype(np.float16)
    prediction, truth = (SimpleNamespace(labels=street(rng), flow=flow) for _ in range(2))
    origins = np.stack([np.linspace(-35, 35, 8), np.zeros(8), np.full(8, 1.84)], axis=1)
    directions = ray_directions()
    start, direction = in_voxels(origins, directions, OCC3D_GRID)
    empty = np.full(OCC3D_GRID.shape, OPENOCC.free, np.uint8)
    print(f"{len(directions)} rays from {len(origins)} origins, {OCC3D_GRID.shape} voxels")
    print(f"C kernel: {'yes' if native.library() is not None else 'no'}")
    timed("a pair of grids, all scores of OpenOcc", runs,
          lambda: RayScores(OPENOCC, flow=True).update(prediction, truth, origins))  # fmt: skip
    timed("a pair of grids, RayIoU alone", runs,
          lambda: RayScores(OPENOCC).update(prediction, truth, origins))  # fmt: skip
    timed("one grid, rays only", runs,
          lambda: raycast(truth.labels, origins, directions, OPENOCC.free))  # fmt: skip
    timed("an empty grid, rays only", runs,
          lambda: raycast(empty, origins, directions, OPENOCC.free))  # fmt: skip
    timed(
        "one grid, numpy reference",
        1,
        lambda: raycast_reference(truth.labels, start, direction, OPENOCC.free),
    )


def timed(what: str, runs: int, function: Callable[[], object]) -> None:
    """Prints wall and processor time, the median of each."""
    function()
    walls, works = [], []
    for _ in range(runs):
        wall, work = time.perf_counter(), time.process_time()
        function()
        walls.append(time.perf_counter() - wall)
        works.append(time.process_time() - work)
    wall, work = (1e3 * statistics.median(t) for t in (walls, works))
    print(f"{what:<40} {wall:7.0f} ms, {work:7.0f} ms of processor time")


if __name__ == "__main__":
    main()
