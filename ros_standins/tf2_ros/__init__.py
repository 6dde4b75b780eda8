# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Stand-in for tf2_ros: transforms by time, and their listener."""

from .buffer import Buffer
from .buffer_core import (
    BufferCore,
    ConnectivityException,
    ExtrapolationException,
    InvalidArgumentException,
    LookupException,
    TimeoutException,
    TransformException,
)
from .transform_listener import TransformListener

__all__ = [
    "Buffer",
    "BufferCore",
    "ConnectivityException",
    "ExtrapolationException",
    "InvalidArgumentException",
    "LookupException",
    "TimeoutException",
    "TransformException",
    "TransformListener",
]
