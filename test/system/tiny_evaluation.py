# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""``python tiny_evaluation.py evaluate ...`` is ``alocc evaluate ...`` that knows small networks
with the voxels of the benchmarks: ``tiny`` (Occ3D), ``flow`` (OpenOcc) and, with fewer channels
since it has 26 times the voxels, ``fine`` (OpenOccupancy).
"""

from __future__ import annotations

import sys
from dataclasses import replace
from types import MappingProxyType

import tiny_model
from tiny_model import known

import alocc_ros.records
from alocc_ros.grid import OCC3D_GRID, OPENOCCUPANCY_GRID
from alocc_ros.network.variants import VARIANTS

for _name in ("VARIANT", "RECORD", "FLOW", "FLOW_RECORD"):
    setattr(tiny_model, _name, replace(getattr(tiny_model, _name), grid=OCC3D_GRID))

_FINE = replace(
    tiny_model.VARIANT,
    name="fine",
    grid=OPENOCCUPANCY_GRID,
    history=0,
    context_channels=2,
    encoder_channels=(2, 2),
    neck_channels=2,
    voxel_channels=2,
    pre_process=False,
    skip_classes=1,
)
_FINE_RECORD = replace(
    tiny_model.RECORD,
    name="fine",
    variant="fine",
    grid=OPENOCCUPANCY_GRID,
    frame="lidar",
    history=0,
    supervision="all",
)

if __name__ == "__main__":
    from alocc_ros.cli.main import main

    with known():
        VARIANTS["fine"] = _FINE
        records = MappingProxyType({**alocc_ros.records.load_records(), "fine": _FINE_RECORD})
        alocc_ros.records.load_records = lambda: records
        sys.exit(main())
