# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Scores of a predictor on a data set, by any number of processes (docs/evaluation.md)."""
