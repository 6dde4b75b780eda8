# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""From messages to frames: camera sets, ego poses, preprocessed images, temporal memory.

No ROS and no torch in here; times are integer nanoseconds on whatever clock the caller uses.
"""
