# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""What several tests of the commands share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import tiny_model


@pytest.fixture(scope="module")
def tiny() -> Iterator[None]:
    """The models ``tiny`` and ``flow`` are known to the commands."""
    with tiny_model.known():
        yield
