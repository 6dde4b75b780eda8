# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Numbers, texts, containers and arrays of numbers out of a pickle, without running anything.

A pickle is a program. What it may call here are stand-ins that only keep what they are given:
``numpy.ndarray`` and ``numpy.dtype`` themselves, called with the arguments of a stranger, read
and write memory that is not theirs (an array of objects over raw bytes, a dtype whose flags say
that it has none). Arrays are made at the end, out of plain kinds, when all lengths fit.
"""

from __future__ import annotations

import _codecs
import io
import math
import pickle
import re
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from alocc_ros.errors import DataError

_PLAIN = re.compile(r"[<>|=]?(b1|[iu][1248]|f[248]|[SU]\d{1,6})")
_MOST_AXES = 32


class _ForbiddenError(Exception):
    """The pickle wants something that is neither a number nor a container."""


class _Kind:
    """What stands for ``numpy.dtype``: booleans, integers, floats, bytes and texts."""

    def __init__(self, spec: Any, *_: Any) -> None:
        if isinstance(spec, str) and spec.strip("<>|=").startswith("O"):
            raise _ForbiddenError("an array of objects")
        if not isinstance(spec, str) or not _PLAIN.fullmatch(spec):
            raise _ForbiddenError(f"an array of kind {str(spec)[:20]}")
        self.dtype = np.dtype(spec)

    def __setstate__(self, state: Any) -> None:
        _, order, nested, names, fields, *_ = state
        if order not in ("<", ">", "|", "=") or not (nested is names is fields is None):
            raise _ForbiddenError("an array of records")
        if order in "<>":  # sizes and flags are those of the name, whatever the file says
            self.dtype = self.dtype.newbyteorder(order)


class _Array:
    """What stands for ``numpy.ndarray``."""

    def __init__(self) -> None:
        self._made: np.ndarray | None = None

    def __setstate__(self, state: Any) -> None:
        *_, shape, kind, in_columns, data = state
        self._made = _array(data, kind, shape, "F" if in_columns else "C")

    @property
    def made(self) -> np.ndarray:
        """The array.

        Raises:
            ValueError: the file does not say what is in it.
        """
        if self._made is None:
            raise ValueError("an array without contents")
        return self._made


def _array(data: Any, kind: Any, shape: Any, order: Any) -> np.ndarray:
    if not isinstance(data, bytes | bytearray) or not isinstance(kind, _Kind):
        raise _ForbiddenError("an array of something else than numbers")
    shape = shape if isinstance(shape, tuple) else (shape,)
    if len(shape) > _MOST_AXES or not all(type(n) is int and n >= 0 for n in shape):
        raise ValueError(f"an array of shape {str(shape)[:40]}")
    if math.prod(shape) * kind.dtype.itemsize != len(data):
        raise ValueError(f"{len(data)} bytes for an array of {shape} {kind.dtype}")
    if not len(data):
        return np.zeros(shape, kind.dtype)
    flat = np.frombuffer(data, kind.dtype).copy()
    return flat.reshape(shape, order="F" if order == "F" else "C")


def _reconstruct(kind: Any, *_: Any) -> _Array:
    if kind is not _Array:
        raise _ForbiddenError("an array of another type")
    return _Array()


def _from_buffer(data: Any, kind: Any, shape: Any, order: Any) -> _Array:
    made = _Array()
    made.__setstate__((shape, kind, order == "F", data))
    return made


def _scalar(kind: Any, data: Any = b"") -> Any:
    return _array(data, kind, (1,), "C")[0]


def _encode(text: str, encoding: str) -> bytes:
    # How protocols below 3 spell bytes. Other codecs are code too.
    if encoding != "latin1" or not isinstance(text, str):
        raise _ForbiddenError(f"the codec {encoding}")
    return _codecs.encode(text, encoding)


def _no_bytes(*arguments: Any) -> bytes:
    # How they spell none. With arguments it would make as many as the file likes.
    if arguments:
        raise _ForbiddenError("builtins.bytes")
    return b""


_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Kind,
    ("collections", "OrderedDict"): OrderedDict,
    ("_codecs", "encode"): _encode,
    ("builtins", "bytes"): _no_bytes,
    ("__builtin__", "bytes"): _no_bytes,
}
for _core in ("numpy.core", "numpy._core"):  # numpy 1 and 2
    _ALLOWED[f"{_core}.multiarray", "_reconstruct"] = _reconstruct
    _ALLOWED[f"{_core}.multiarray", "scalar"] = _scalar
    _ALLOWED[f"{_core}.numeric", "_frombuffer"] = _from_buffer


class _NumbersOnly(pickle._Unpickler):  # type: ignore[name-defined]
    # The one in Python. The one in C makes a table as long as the largest number that the file
    # gives to something remembered, up to 64 GB; this one takes 20 s for the 28130 key frames.
    dispatch = dict(pickle._Unpickler.dispatch)  # type: ignore[attr-defined]

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise _ForbiddenError(f"{module}.{name}")
        return _ALLOWED[module, name]

    def persistent_load(self, pid: Any) -> Any:
        raise _ForbiddenError("something outside of the file")

    def load_build(self) -> None:
        # On anything else it sets attributes, on our own functions and classes too.
        if type(self.stack[-2]) not in (_Array, _Kind):
            raise _ForbiddenError("an object with a state")
        super().load_build()

    dispatch[pickle.BUILD[0]] = load_build


def read_pickle(path: Path) -> Any:
    """Numbers, texts, containers and arrays out of a pickle; nothing in it is run.

    Raises:
        DataError: the file is not there, damaged, or holds anything else.
    """
    try:
        return _finished(_NumbersOnly(io.BytesIO(path.read_bytes())).load(), {})
    except _ForbiddenError as error:
        raise DataError(
            f"{path} holds {error}, which an info file does not need: it was not opened further, "
            "and nothing in it was run"
        ) from error
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    except Exception as error:  # broken pickles make the library trip in every possible way
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path} is damaged, or no pickle: {reason}") from error


def _finished(value: Any, known: dict[int, tuple[Any, Any]]) -> Any:
    """With arrays where stand-ins were; ``known`` by id, kept alive, as containers are shared."""
    if isinstance(value, _Array):
        return value.made
    if isinstance(value, _Kind) or callable(value):
        raise _ForbiddenError("a type in place of a value")
    if not isinstance(value, list | tuple | dict):
        return value
    if id(value) in known:
        return known[id(value)][1]
    if isinstance(value, tuple):
        made = tuple([_finished(one, known) for one in value])
        known[id(value)] = (value, made)
        return made
    known[id(value)] = (value, value)
    places: Sequence[Any] = range(len(value)) if isinstance(value, list) else list(value)
    for place in places:
        value[place] = _finished(value[place], known)
    return value
