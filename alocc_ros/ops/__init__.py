# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Operators, one folder each.

``reference.py`` is the definition: slow, obvious torch. ``__init__.py`` is what the network calls,
and ``cpu.py`` with its C file the kernel that the dispatcher takes on a CPU. How forms are chosen:
``library.py``.
"""
