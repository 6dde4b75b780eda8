# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""What a message type looks like, as the text that recordings carry (``ros2msg``).

Made of the installed Python classes and not of ``.msg`` files, which not every installation has:
so the text is about the very bytes that are received, whatever the release. Constants and
comments are not in it.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
from functools import cache

from alocc_ros.errors import ParameterError

_NAMES = {"boolean": "bool", "double": "float64", "float": "float32", "octet": "byte"}
_SEPARATOR = "=" * 80
_SEQUENCE = re.compile(r"sequence<(?P<element>.+?)(?:, (?P<most>\d+))?>")
_ARRAY = re.compile(r"(?P<element>.+)\[(?P<length>\d+)\]")


def is_installed(type_name: str) -> bool:
    """Whether the package of ``sensor_msgs/msg/Image`` has Python messages here."""
    package = type_name.partition("/")[0]
    return importlib.util.find_spec(package) is not None and (
        importlib.util.find_spec(f"{package}.msg") is not None
    )


@cache
def message_class(type_name: str) -> type:
    """The class of ``sensor_msgs/msg/Image``.

    Raises:
        ParameterError: it is not installed here.
    """
    package, _, name = type_name.split("/")
    if is_installed(type_name):
        found = getattr(importlib.import_module(f"{package}.msg"), name, None)
        if found is not None:
            return found
    raise ParameterError(
        f"the message type {type_name} is not installed here: build or source its package"
    )


def definition(type_name: str) -> str:
    """The text of a type, and after it those of all that it is made of.

    Raises:
        ParameterError: one of them is not installed here.
    """
    texts: dict[str, str] = {}
    pending = [type_name]
    while pending:
        name = pending.pop(0)
        if name in texts:
            continue
        fields = message_class(name).get_fields_and_field_types()
        texts[name] = "".join(f"{_msg_type(kind)} {field}\n" for field, kind in fields.items())
        parts = (_element(kind) for kind in fields.values())
        pending += ["/msg/".join(part.split("/")) for part in parts if "/" in part]
    first, *others = texts.items()
    return first[1] + "".join(
        f"{_SEPARATOR}\nMSG: {name.replace('/msg/', '/')}\n{text}" for name, text in others
    )


def _msg_type(kind: str) -> str:
    """A field's type, as rosidl's classes name it, in the syntax of ``.msg`` files."""
    if sequence := _SEQUENCE.fullmatch(kind):
        most = f"<={sequence['most']}" if sequence["most"] else ""
        return f"{_msg_type(sequence['element'])}[{most}]"
    if array := _ARRAY.fullmatch(kind):
        return f"{_msg_type(array['element'])}[{array['length']}]"
    if bounded := re.fullmatch(r"(w?string)<(\d+)>", kind):
        return f"{bounded[1]}<={bounded[2]}"
    return _NAMES.get(kind, kind)


def _element(kind: str) -> str:
    found = _SEQUENCE.fullmatch(kind) or _ARRAY.fullmatch(kind)
    return found["element"] if found else kind
