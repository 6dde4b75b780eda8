# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""What must be so before anything else is imported or started."""

import os
import signal

# Idle threads sleep instead of spinning. On a busy machine spinning threads take the time of those
# that work; the many tiny networks here then run ten times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# A shell lets its jobs in the background ignore Ctrl-C, and they hand that on to their children,
# which some tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)
