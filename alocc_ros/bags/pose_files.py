# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Ego poses and stamps out of text files: TUM, KITTI, CSV.

| format | a line |
| --- | --- |
| TUM | ``stamp x y z qx qy qz qw`` |
| KITTI | the twelve numbers of a 3x4 matrix, row after row; stamps in ``times.txt`` beside it, one a line, or one pose for each image of the front camera |
| CSV | a first line of names, ``stamp,x,y,z,qx,qy,qz,qw`` in any order |

Poses are of the vehicle (or of a camera) in a world that stands still.
"""  # noqa: E501 (a table)

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path

import numpy as np

from alocc_ros.errors import AloccError, PoseError, StampError
from alocc_ros.geometry import check_rigid, pose_matrix

# What files call the columns.
_STAMPS = ("stamp", "timestamp", "time", "t")
_COLUMNS = (("x", "tx"), ("y", "ty"), ("z", "tz"), ("qx",), ("qy",), ("qz",), ("qw",))
_UNITS = ((18, 1), (15, 1_000), (12, 1_000_000))  # least digits of a whole number, ns
_END = 10**19  # ns, and as a number in any unit


@dataclass(frozen=True)
class StampedPoses:
    """Poses of a file, in its order.

    Attributes:
        stamps: ns; None: the file has none, and they are those of the front camera's images.
        world_T: [n, 4, 4].
    """

    stamps: list[int] | None
    world_T: np.ndarray


def nanoseconds(text: str) -> int:
    """A stamp in ns. Whole numbers of 18 digits are ns, of 15 us, of 12 ms; all others seconds.

    Raises:
        StampError: it is no number, or not after zero.
    """
    text = text.strip()
    try:
        value = Decimal(text)
    except InvalidOperation as error:
        raise StampError(f"{text!r} is no time") from error
    if not value.is_finite() or value < 0:
        raise StampError(f"{text!r} is no time after 1970")
    if value >= _END:  # before numbers of a million digits are worked out
        raise StampError(f"{text[:40]!r} is no time of this century")
    if re.fullmatch(r"\d+", text):
        unit = next((u for digits, u in _UNITS if len(text) >= digits), 1_000_000_000)
        stamp = int(value) * unit
    else:
        stamp = int(value * 1_000_000_000)
    if stamp >= _END:
        raise StampError(f"{text!r} is no time of this century")
    return stamp


def read_poses(path: Path) -> StampedPoses:
    """The poses of a file; its first line tells the format.

    Raises:
        PoseError: naming the file, the line, and what is wrong.
    """
    lines = _lines(path)
    names = [name.strip().lower() for name in lines[0][1]]
    if any(re.fullmatch(r"[a-z_]+", name) for name in names):
        order = _order(names, path)
        return _stamped(lines[1:], order, path)
    if len(names) == 8:
        return _stamped(lines, range(8), path)
    if len(names) == 12:
        return _kitti(lines, path)
    raise PoseError(
        f"{path}: the first line has {len(names)} entries; a pose file is TUM (stamp x y z qx qy "
        "qz qw), KITTI (12 numbers) or CSV with a line of names (stamp,x,y,z,qx,qy,qz,qw)"
    )


def read_stamps(path: Path) -> dict[str, int]:
    """ns by file name, out of a CSV ``file,stamp``.

    Raises:
        StampError: naming the file and the line.
    """
    found = {}
    for number, entries in _lines(path):
        if len(entries) != 2:
            raise StampError(f"{path}, line {number}: expected `file,stamp`")
        if entries[0].lower() in ("file", "filename", "name") and not found:
            continue
        try:
            found[entries[0]] = nanoseconds(entries[1])
        except StampError as error:
            raise StampError(f"{path}, line {number}: {error}") from error
    return found


def _lines(path: Path) -> list[tuple[int, list[str]]]:
    """(number, entries) of each line that says something."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise PoseError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise PoseError(f"{path} is no text") from error
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if line and not (line.startswith("#") and not found and "," not in line):
            line = line.lstrip("# ")
            separator = next((s for s in (",", ";") if s in line), None)
            found.append((number, [entry.strip() for entry in line.split(separator)]))
    if not found:
        raise PoseError(f"{path} is empty")
    return found


def _order(names: Sequence[str], path: Path) -> list[int]:
    order = []
    for known in (_STAMPS, *_COLUMNS):
        place = [i for i, name in enumerate(names) if name in known]
        if len(place) != 1:
            raise PoseError(
                f"{path}: no column {known[0]}; expected stamp,x,y,z,qx,qy,qz,qw, found "
                f"{','.join(names)}"
            )
        order += place
    return order


def _stamped(
    lines: Sequence[tuple[int, list[str]]], order: Sequence[int], path: Path
) -> StampedPoses:
    stamps, poses = [], []
    for number, entries in lines:
        try:
            stamp, *values = (entries[i] for i in order)
            stamps.append(nanoseconds(stamp))
            x, y, z, *quaternion = map(float, values)
            poses.append(pose_matrix((x, y, z), quaternion))
        except (ValueError, IndexError, AloccError) as error:
            raise PoseError(f"{path}, line {number}: {error}") from error
    return StampedPoses(stamps, np.array(poses))


def _kitti(lines: Sequence[tuple[int, list[str]]], path: Path) -> StampedPoses:
    poses = []
    for number, entries in lines:
        try:
            rows = np.array([float(v) for v in entries]).reshape(3, 4)
            poses.append(check_rigid(np.vstack([rows, [0, 0, 0, 1]]), "the pose"))
        except (ValueError, AloccError) as error:
            raise PoseError(f"{path}, line {number}: {error}") from error
    times = path.with_name("times.txt")
    if not times.is_file():
        return StampedPoses(None, np.array(poses))
    try:
        stamps = [nanoseconds(entries[0]) for _, entries in _lines(times)]
    except StampError as error:
        raise PoseError(f"{times}: {error}") from error
    if len(stamps) != len(poses):
        raise PoseError(f"{times} has {len(stamps)} lines, {path} has {len(poses)}")
    return StampedPoses(stamps, np.array(poses))
