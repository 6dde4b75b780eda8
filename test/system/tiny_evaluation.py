# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""``python tiny_evaluation.py evaluate ...`` is ``alocc evaluate ...`` that knows small networks
with the voxels of the benchmarks, ``tiny`` (Occ3D) and ``flow`` (OpenOcc).
"""

from __future__ import annotations

import sys
from dataclasses import replace

import tiny_model
from tiny_model import known

from alocc_ros.grid import OCC3D_GRID

for _name in ("VARIANT", "RECORD", "FLOW", "FLOW_RECORD"):
    setattr(tiny_model, _name, replace(getattr(tiny_model, _name), grid=OCC3D_GRID))

if __name__ == "__main__":
    from alocc_ros.cli.main import main

    with known():
        sys.exit(main())
