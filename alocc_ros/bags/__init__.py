# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Recordings in, recordings out; no ROS installation is needed."""
