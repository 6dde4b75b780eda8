# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""``python tiny_node.py ARGUMENTS`` is ``alocc_node ARGUMENTS`` that knows the model ``flow``.

That is the tiny network of the system tests, with a flow head.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "system"))
from tiny_model import FLOW as VARIANT  # noqa: E402
from tiny_model import FLOW_RECORD as RECORD  # noqa: E402
from tiny_model import known  # noqa: E402

__all__ = ["NAME", "RECORD", "VARIANT", "known"]
NAME = RECORD.name

if __name__ == "__main__":
    from alocc_ros.ros.main import main

    with known():
        sys.exit(main())
