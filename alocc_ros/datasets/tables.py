# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""JSON tables read row by row: the largest of nuScenes would take ten times its size in memory."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from alocc_ros.errors import DataError

# (what is being read, how much of it is done, of how much)
OnProgress = Callable[[str, int, int], None]

# Of columns that are no text.
_KINDS: dict[str, type | tuple[type, ...]] = {
    "timestamp": int,
    "translation": list,
    "rotation": list,
    "size": list,
    "camera_intrinsic": list,
    "is_key_frame": (bool, int),
    "width": (int, type(None)),
    "height": (int, type(None)),
    "num_lidar_pts": int,
    "num_radar_pts": int,
}
CHUNK = 1 << 23  # characters; no row comes near to this
_BETWEEN = re.compile(r"\s*,?\s*")


def nothing(what: str, done: int, total: int) -> None:
    """For callers who do not care how far it is."""


def read_table(path: Path, on_progress: OnProgress = nothing) -> Iterator[dict[str, Any]]:
    """The rows of a table, a JSON list of objects.

    Raises:
        DataError: the file is not there, cut off, or no such list.
    """
    try:
        size = path.stat().st_size
        with path.open(encoding="utf-8") as stream:
            for row in _rows(stream, lambda: on_progress(path.name, stream.buffer.tell(), size)):
                if not isinstance(row, dict):
                    raise ValueError(f"a row is {str(row)[:40]!r}")
                yield row
        on_progress(path.name, size, size)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    except RecursionError as error:
        raise DataError(
            f"{path} is damaged, or no nuScenes table: it is nested too deep"
        ) from error
    except ValueError as error:  # undecodable bytes and broken JSON are both of this kind
        raise DataError(f"{path} is damaged, or no nuScenes table: {error}") from error


def read_columns(
    folder: Path, table: str, names: Sequence[str], on_progress: OnProgress = nothing
) -> Iterator[tuple[Any, ...]]:
    """Of each row of a table of nuScenes, the entries of these names.

    Raises:
        DataError: as above, or an entry is missing or of the wrong kind.
    """
    path = folder / f"{table}.json"
    kinds = [_KINDS.get(name, str) for name in names]
    for row in read_table(path, on_progress):
        try:
            values = tuple([row[name] for name in names])
        except KeyError as error:
            raise DataError(f"{path}: the row {row.get('token', '?')} has no {error}") from error
        if not all(map(isinstance, values, kinds)):
            wrong = [
                n for n, v, k in zip(names, values, kinds, strict=True) if not isinstance(v, k)
            ]
            token = row.get("token", "?")
            raise DataError(f"{path}: the row {token} has no usable {', '.join(wrong)}")
        yield values


def _rows(stream: TextIO, read_more: Callable[[], None]) -> Iterator[Any]:
    text = stream.read(CHUNK).lstrip()
    if not text.startswith("["):
        raise ValueError("it does not begin with [")
    scan = json.JSONDecoder().raw_decode
    at = _skipped(text, 1)
    while not text.startswith("]", at):
        try:
            row, end = scan(text, at)
            following = _skipped(text, end)
            if following == len(text):  # a number or the rest of a name might go on
                raise ValueError("it ends within the list")
        except ValueError as error:
            more = stream.read(CHUNK)
            if not more or len(text) - at > CHUNK:
                raise ValueError(str(error).partition(": line")[0]) from error
            text, at = text[at:] + more, 0
            read_more()
            continue
        yield row
        at = following


def _skipped(text: str, at: int) -> int:
    """Where the next row or the closing bracket begins."""
    return _BETWEEN.match(text, at).end()  # type: ignore[union-attr]  # it matches emptiness too
