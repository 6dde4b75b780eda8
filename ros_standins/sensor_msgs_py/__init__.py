# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Stand-in for sensor_msgs_py."""
