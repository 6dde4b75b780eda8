# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Voxels as objects: what stands or moves, with a box, a velocity and an id that stays."""
