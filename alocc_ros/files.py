# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Files that are there as a whole or not at all, and names of files that come from data."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from alocc_ros.errors import OutputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.lib.npyio import NpzFile


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A name to write to, which becomes ``path`` if all goes well, else nothing is left.

    Raises:
        OutputError: the disk is full, or the folder cannot be written to.
    """
    scratch = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch.unlink(missing_ok=True)  # of a run that was killed; or a link, not to be followed
        yield scratch
        os.replace(scratch, path)
    except BaseException as error:
        with contextlib.suppress(OSError):  # what went wrong is told below
            scratch.unlink()
        if isinstance(error, OSError):
            reason = error.strerror or error
            raise OutputError(f"cannot write {path}: {reason}") from error
        raise


def make_folder(path: Path) -> None:
    """A folder to write results to, and those above it; one that is there already will do.

    Raises:
        OutputError: it cannot be made, or a file has its name.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error


def refuse_link(path: Path) -> None:
    """Of a file that is about to be opened for writing: a link might lead to anything.

    Raises:
        OutputError: it is a link.
    """
    if path.is_symlink():
        raise OutputError(
            f"cannot write {path}: it is a link, and links are not followed; remove it"
        )


_UNSAFE = re.compile(r'[\x00-\x1f\x7f/\\:*?"<>|%]')
_LONGEST = 200  # bytes; file systems allow 255, and suffixes come on top


def component(name: str) -> str:
    """A name out of data as one component of a path: it leads to no other folder.

    Ordinary names stay as they are; what has a meaning in a path is spelled ``%XX``.
    """
    safe = _UNSAFE.sub(lambda found: f"%{ord(found[0]):02X}", name)
    if not safe.strip("."):  # "", "." and ".."
        safe = "%2E" * len(safe) or "%"
    data = safe.encode("utf-8", "replace")
    if len(data) > _LONGEST:
        digest = hashlib.sha256(name.encode("utf-8", "replace")).hexdigest()[:16]
        return f"{data[: _LONGEST - 17].decode('utf-8', 'ignore')}~{digest}"
    return data.decode()


def below(root: Path, name: str) -> Path:
    """The file that data name, in or below ``root``.

    Only the name is looked at: links that somebody has put below ``root`` are theirs.

    Raises:
        ValueError: the name leads out of ``root``, or is none.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name or not path.parts:
        raise ValueError(f"{name!r} is not below {root}")
    return root / path


def array_in(archive: NpzFile, name: str) -> np.ndarray:
    """An array of an NPZ; of a member that is none, numpy gives the bare bytes.

    Raises:
        ValueError: it is no array.
    """
    found = archive[name]
    if isinstance(found, bytes):
        raise ValueError(f"{name} is no array")
    return found


_SPARE = 256 << 20  # bytes that an archive may become beyond what its own length explains


def check_unpacked(path: Path) -> None:
    """Refuses an archive (ZIP, NPZ) that would become much longer than it is.

    Raises:
        ValueError: with how long; damage, too, is a ``zipfile.BadZipFile``.
        OSError: it cannot be read.
    """
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(member.file_size for member in archive.infolist())
    most = 4 * path.stat().st_size + _SPARE
    if unpacked > most:
        raise ValueError(
            f"it would become {unpacked / 1e6:.0f} MB; at most {most / 1e6:.0f} MB are read"
        )
