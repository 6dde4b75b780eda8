# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""C kernels that follow rays through a voxel grid; their definitions are in ``metrics/rays.py``
(the first voxel hit) and ``synthetic/truth.py`` (every voxel passed).
"""
