# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Looking at frames: pictures without a screen, and Rerun."""
