# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Which of the two ways to lift a GPU takes is decided as for torch's own operators: by
``torch.use_deterministic_algorithms`` (``alocc evaluate --deterministic``).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from alocc_ros.ops.lift import triton, triton_sorted


def lift(*arguments: Any) -> Tensor:
    """See ``lift_reference``."""
    deterministic = torch.are_deterministic_algorithms_enabled()
    return (triton_sorted.lift_deterministic if deterministic else triton.lift)(*arguments)
