# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""``alocc soak``: the node for hours, with a bag in a loop and faults out of a seeded stream."""
