# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Operators, one file each: the obvious torch twin first, the fast exact form beside it."""
