# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Models of what stands and moves in a scene, put together from solids; see ``primitives``."""
