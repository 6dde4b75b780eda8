# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""``python tiny_node.py ARGUMENTS`` is ``alocc_node ARGUMENTS`` that knows the model ``flow``.

That is the tiny network of the system tests, with a flow head.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import alocc_ros.records
from alocc_ros.labels import OPENOCC
from alocc_ros.network.variants import VARIANTS

sys.path.insert(0, str(Path(__file__).parents[1] / "system"))
import tiny_model  # noqa: E402

NAME = "flow"
VARIANT = replace(tiny_model.VARIANT, name=NAME, queries=18, flow=True, classes=OPENOCC)
RECORD = replace(tiny_model.RECORD, name=NAME, variant=NAME, flow=True, classes=OPENOCC)


@contextlib.contextmanager
def known() -> Iterator[None]:
    """Meanwhile this process knows the model ``flow``."""
    before = alocc_ros.records.load_records
    records = MappingProxyType({**before(), NAME: RECORD})
    VARIANTS[NAME] = VARIANT
    alocc_ros.records.load_records = lambda: records
    try:
        yield
    finally:
        alocc_ros.records.load_records = before
        del VARIANTS[NAME]


if __name__ == "__main__":
    from alocc_ros.ros.main import main

    with known():
        sys.exit(main())
