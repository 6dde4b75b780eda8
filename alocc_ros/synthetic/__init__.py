# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""A procedural street world: images, LiDAR and perfect truth without any download."""
