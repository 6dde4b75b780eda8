# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""``alocc demo``: a street that is made here, the node as it is, and what it is worth.

``street`` makes the bag and knows the truth, ``drive`` plays the bag into the node and records,
``scores`` compares, ``pages`` draws, ``report`` tells.
"""
