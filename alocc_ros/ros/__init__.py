# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""The ROS 2 node: messages in, frame sets through the pipeline, messages out."""
