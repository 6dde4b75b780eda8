# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""A real network of the family with few channels: a frame takes a fraction of a second.

``python tiny_model.py run BAG ...`` is ``alocc run BAG ...`` that knows the models ``tiny``,
``flow`` and ``recurrent``.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import replace
from types import MappingProxyType

import alocc_ros.records
from alocc_ros.grid import VoxelGrid
from alocc_ros.labels import OCC3D, OPENOCC
from alocc_ros.network.variants import VARIANTS, Variant

GRID = VoxelGrid(lower=(-20.0, -20.0, -1.0), shape=(50, 50, 8), resolution=0.8)
VARIANT = Variant(
    "tiny",
    input_size=(64, 176),
    depth_step=4.0,
    context_channels=8,
    history=3,
    encoder_channels=(8, 16),
    encoder_blocks=(1, 1),
    neck_channels=16,
    voxel_channels=8,
    grid=GRID,
    classes=OCC3D,
    backbone_width=8,
    backbone_blocks=(1, 1, 1, 1),
    image_channels=16,
)
RECORD = replace(
    alocc_ros.records.find("alocc_2d"),
    name="tiny",
    variant="tiny",
    repository=None,
    file=None,
    sha256=None,
    input_size=VARIANT.input_size,
    grid=GRID,
    history=VARIANT.history,
    scores=(),
)

# The same with a flow head.
FLOW = replace(VARIANT, name="flow", queries=18, flow=True, classes=OPENOCC)
FLOW_RECORD = replace(RECORD, name="flow", variant="flow", flow=True, classes=OPENOCC)

# Volumes, with recurrent fusion.
RECURRENT = replace(
    VARIANT, name="recurrent", volumetric=True, voxel_channels=16, history=1, recurrent=True
)
RECURRENT_RECORD = replace(RECORD, name="recurrent", variant="recurrent", history=1, recurrent=True)


@contextlib.contextmanager
def known() -> Iterator[None]:
    """Meanwhile this process knows these models."""
    before = alocc_ros.records.load_records
    mine = {r.name: r for r in (RECORD, FLOW_RECORD, RECURRENT_RECORD)}
    records = MappingProxyType({**before(), **mine})
    VARIANTS.update({v.name: v for v in (VARIANT, FLOW, RECURRENT)})
    alocc_ros.records.load_records = lambda: records
    try:
        yield
    finally:
        alocc_ros.records.load_records = before
        for name in mine:
            del VARIANTS[name]


if __name__ == "__main__":
    from alocc_ros.cli.main import main

    with known():
        sys.exit(main())
