# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""Files that are there as a whole or not at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from alocc_ros.errors import OutputError


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A name to write to, which becomes ``path`` if all goes well, else nothing is left.

    Raises:
        OutputError: the disk is full, or the folder cannot be written to.
    """
    scratch = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield scratch
        os.replace(scratch, path)
    except BaseException as error:
        with contextlib.suppress(OSError):  # what went wrong is told below
            scratch.unlink()
        if isinstance(error, OSError):
            reason = error.strerror or error
            raise OutputError(f"cannot write {path}: {reason}") from error
        raise
