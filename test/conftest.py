# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Before torch is imported: idle threads sleep instead of spinning. On a busy machine spinning
threads take the time of those that work; the many tiny networks here then run ten times slower."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
