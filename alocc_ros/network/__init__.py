# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""The ALOcc networks, one file a part; ``alocc.py`` puts them together."""
