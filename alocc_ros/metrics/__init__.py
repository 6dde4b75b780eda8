# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""The scores of the benchmarks, from labels and flow in numpy arrays (docs/metrics.md)."""
