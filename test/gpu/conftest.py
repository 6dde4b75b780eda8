# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import pytest

from alocc_ros.errors import DeviceError
from alocc_ros.runtime.tensorrt import Toolkit, find_toolkit


@pytest.fixture(scope="module")
def toolkit() -> Toolkit:
    try:
        return find_toolkit(["tensorrt_rtx"])
    except DeviceError as error:
        pytest.skip(str(error))
