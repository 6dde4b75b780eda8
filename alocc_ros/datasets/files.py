# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Files of arrays, read without trusting them: a damaged one is an error, never a guess."""

from __future__ import annotations

import contextlib
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from alocc_ros.errors import DataError
from alocc_ros.files import array_in, check_unpacked

# What numpy and zipfile raise on the many ways in which a file can be broken; the last two
# come of headers that lie about a shape or hold no Python literal. Of a ZIP that asks for a later
# version or a password: NotImplementedError, which is a RuntimeError.
_BROKEN = (ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error, RuntimeError)
_BROKEN += (MemoryError, SyntaxError)


def read_bytes(path: Path) -> bytes:
    """What is in a file of the data set.

    Raises:
        DataError: it cannot be read.
    """
    with _explained(path, "a file"):
        return path.read_bytes()


def read_npz(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Arrays of these names out of an NPZ; arrays of Python objects are refused.

    Raises:
        DataError: the file or an array is not there, or cannot be read.
    """
    with _explained(path, "an NPZ file"), _opened(path) as archive:
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ValueError("it holds one array without a name")
        if missing := [name for name in names if name not in archive.files]:
            there = ", ".join(archive.files)
            raise ValueError(f"it has no {', '.join(missing)}, only {there or 'nothing'}")
        return {name: array_in(archive, name) for name in names}


def _opened(path: Path) -> np.lib.npyio.NpzFile | np.ndarray:
    if zipfile.is_zipfile(path):
        check_unpacked(path)
    return np.load(path, allow_pickle=False)


def read_npy(path: Path) -> np.ndarray:
    """The array of an NPY file; one of Python objects is refused.

    Raises:
        DataError: the file is not there, or cannot be read.
    """
    with _explained(path, "an NPY file"):
        array = np.load(path, allow_pickle=False)
        if not isinstance(array, np.ndarray):
            array.close()
            raise ValueError("it is an archive of several arrays")
        return array


@contextlib.contextmanager
def _explained(path: Path, what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    except _BROKEN as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path} is damaged, or not {what} as expected: {reason}") from error
