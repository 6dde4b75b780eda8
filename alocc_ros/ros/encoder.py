# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Messages as objects of rclpy.

Arrays go in through ``array.array.frombytes``: any other way costs rclpy a Python object for each
element.
"""

from __future__ import annotations

import array
from functools import cache
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Point
from std_msgs.msg import ColorRGBA

from alocc_ros.messages import Colours, Message, Points
from alocc_ros.ros.definitions import message_class

_TYPECODES = {"i1": "b", "u1": "B", "i2": "h", "u2": "H", "i4": "i", "u4": "I", "i8": "q",
              "u8": "Q", "f4": "f", "f8": "d"}  # fmt: skip


def encode(message: Message) -> Any:
    """The message as an object of its installed class.

    Raises:
        ParameterError: its type is not installed here.
    """
    bytes_, fixed = _special_fields(message.type)
    values = {}
    for name, value in message.fields.items():
        if name in bytes_:
            values[name] = bytes([value])
        elif name in fixed:
            values[name] = value  # rclpy takes an array of that length as it is
        else:
            values[name] = _value(value)
    return message_class(message.type)(**values)


def time(stamp: int) -> Time:
    """``stamp`` in ns."""
    seconds, nanoseconds = divmod(stamp, 1_000_000_000)
    return Time(sec=seconds, nanosec=nanoseconds)


def _value(value: Any) -> Any:
    if isinstance(value, Message):
        return encode(value)
    if isinstance(value, Points):
        return [Point(x=x, y=y, z=z) for x, y, z in value.xyz.tolist()]
    if isinstance(value, Colours):
        palette = [ColorRGBA(r=r, g=g, b=b, a=1.0) for r, g, b in value.palette.tolist()]
        return [palette[i] for i in value.index.tolist()]
    if isinstance(value, np.ndarray):
        packed = array.array(_TYPECODES[value.dtype.str[1:]])
        packed.frombytes(np.ascontiguousarray(value).view(np.uint8).data)
        return packed
    if isinstance(value, list | tuple):
        return [_value(element) for element in value]
    return value


@cache
def _special_fields(type_name: str) -> tuple[frozenset[str], frozenset[str]]:
    """Fields of type ``byte``, which rclpy takes as bytes, and arrays of fixed length."""
    kinds = message_class(type_name).get_fields_and_field_types()
    single = frozenset(name for name, kind in kinds.items() if kind == "octet")
    return single, frozenset(name for name, kind in kinds.items() if kind.endswith("]"))
