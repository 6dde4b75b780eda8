# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Data sets on the disk: frames with poses, what is true there, and converters."""
