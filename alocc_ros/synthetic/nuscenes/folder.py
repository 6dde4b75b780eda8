# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""The folder on disk: whose it is, which scenes are complete, and how files are written."""

from __future__ import annotations

import io
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
from PIL import Image

from alocc_ros.errors import OutputError
from alocc_ros.files import whole_file
from alocc_ros.synthetic.nuscenes.spec import DatasetSpec, scene_name

_WORK = ".synthetic"
_JPEG_QUALITY = 92
# What recipes of before some settings mean.
_BEFORE = {"rare": 1.0, "vary_rig": False}


def prepare_folder(root: Path, spec: DatasetSpec) -> None:
    """Makes the folder, or checks that what it holds is of the same specification.

    Raises:
        OutputError: it holds something else.
    """
    path = root / _WORK / "recipe.json"
    ours = json.loads(json.dumps(asdict(spec)))
    if path.exists():
        try:
            theirs = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise OutputError(f"cannot read {path}: {error}") from error
        # More scenes of the same kind may be added; scenes do not depend on their number.
        free = ("scenes", "split")
        differ = sorted(
            k for k in ours if k not in free and ours[k] != theirs.get(k, _BEFORE.get(k))
        )
        if differ:
            raise OutputError(
                f"{root} was begun with another {', '.join(differ)}: "
                f"{', '.join(f'{k} {theirs.get(k)}' for k in differ)}; take another folder"
            )
    elif root.exists() and any(root.iterdir()):
        raise OutputError(f"{root} is not empty and was not written by this command")
    with whole_file(path) as scratch:
        scratch.write_text(json.dumps(ours), encoding="utf-8")


def is_written(root: Path, number: int) -> bool:
    """Whether all files of a scene are there."""
    return rows_file(root, number).exists()


def rows_file(root: Path, number: int) -> Path:
    """Where the rows of a scene are kept until the tables are written."""
    return root / _WORK / f"{scene_name(number)}.json"


def write_jpeg(path: Path, pixels: np.ndarray) -> None:
    """Pixels [H, W, 3] uint8 as JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=_JPEG_QUALITY)
    write_bytes(path, buffer.getvalue())


def write_bytes(path: Path, content: bytes) -> None:
    """The content, whole or not at all."""
    with whole_file(path) as scratch:
        scratch.write_bytes(content)


def write_npz(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Arrays as a compressed ``.npz``."""
    with whole_file(path) as scratch, scratch.open("wb") as stream:
        np.savez_compressed(stream, **arrays)


def write_npy(path: Path, array: np.ndarray) -> None:
    """One array as ``.npy``."""
    with whole_file(path) as scratch, scratch.open("wb") as stream:
        np.save(stream, array)
