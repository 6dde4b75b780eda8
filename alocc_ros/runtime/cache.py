# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""What takes long to build and can be built again: engines, exported graphs, results of tuning.

An entry is found by everything that it depends on, and says so itself: a file that was damaged, or
that belongs to something else, is noticed when it is read, and made anew. A cache that cannot be
written is a cache that remembers nothing; it is never a reason to stop.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from torch import nn

import alocc_ros
from alocc_ros.errors import AloccError
from alocc_ros.resources import cache_folder

log = logging.getLogger(__name__)

Key = Mapping[str, str]

# The kind of what only a user's images say (runtime/calibration.py).
RANGES = "ranges"

_MAGIC = b"alocc cache 1\n"
_LONGEST_HEADER = 1 << 16
_SUFFIX, _SCRATCH = ".entry", ".partial-"
_ABANDONED = 24 * 3600.0  # seconds after which what a killed process was writing is removed
# What decides what a network's graph looks like, besides its weights.
_SOURCES = ("network", "ops", "runtime")


@dataclass(frozen=True)
class Entry:
    """A file of the cache.

    Attributes:
        path: where it lies.
        nbytes: its size.
    """

    path: Path
    nbytes: int


class _UnusableError(Exception):
    """An entry that is not what its name says."""


class Cache:
    """Entries by key, in one folder.

    Attributes:
        folder: where; None: this user has none, nothing is kept.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        if folder is None:
            with contextlib.suppress(AloccError):  # ``put`` tells it
                self.folder = cache_folder() / "built"
        self._warned = False

    def get_or_make(self, kind: str, key: Key, make: Callable[[], bytes]) -> bytes:
        """The entry; made, and kept if it can be, where there is none that can be used."""
        found = self._find(kind, key, ": it is built anew")
        if found is None:
            found = make()
            self.put(kind, key, found)
        return found

    def get(self, kind: str, key: Key) -> bytes | None:
        """What was put under this key. None if nothing was; damage is told in one line."""
        return self._find(kind, key, "")

    def _find(self, kind: str, key: Key, remedy: str) -> bytes | None:
        if self.folder is None:
            return None
        path = self.path(kind, key)
        try:
            return _read(path, kind, key)
        except FileNotFoundError:
            return None
        except (OSError, _UnusableError) as error:
            log.warning("%s cannot be used (%s)%s", path, _words(error), remedy)
            return None

    def put(self, kind: str, key: Key, data: bytes) -> None:
        """Keep ``data``: as a whole, or not at all. A cache that does not take it warns once."""
        try:
            if self.folder is None:
                raise OSError("this user has no home folder; set XDG_CACHE_HOME")
            self.folder.mkdir(parents=True, exist_ok=True)
            self._remove_abandoned()
            _write(self.path(kind, key), kind, key, data)
        except OSError as error:
            if not self._warned:
                where = self.folder or "the cache"
                log.warning("nothing is kept in %s: %s", where, _words(error))
            self._warned = True

    def path(self, kind: str, key: Key) -> Path:
        """Where the entry of this key lies, if there is one.

        Raises:
            AloccError: this user has no folder for it.
        """
        if self.folder is None:
            raise AloccError("this user has no home folder; set XDG_CACHE_HOME")
        return self.folder / f"{kind}-{_digest(kind, key)[:32]}{_SUFFIX}"

    def entries(self, kind: str = "") -> list[Entry]:
        """All that is there, whatever it belongs to, or all of a kind."""
        start = f"{kind}-" if kind else ""
        return [
            Entry(path, size)
            for path, size in self._files()
            if path.suffix == _SUFFIX and path.name.startswith(start)
        ]

    def _files(self) -> Iterator[tuple[Path, int]]:
        if self.folder is None or not self.folder.is_dir():
            return
        for path in sorted(self.folder.iterdir()):
            with contextlib.suppress(OSError):  # another process may be removing it
                yield path, path.stat().st_size

    def _remove_abandoned(self) -> None:
        for path, _ in self._files():
            if path.name.startswith(_SCRATCH):
                with contextlib.suppress(OSError):  # likewise
                    if time.time() - path.stat().st_mtime > _ABANDONED:
                        path.unlink()


def weights_digest(network: nn.Module) -> str:
    """SHA-256 of the names, types, shapes and values of all parameters and buffers."""
    digest = hashlib.sha256()
    for name, tensor in (*network.named_parameters(), *network.named_buffers()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        values = tensor.detach().cpu().contiguous().flatten()
        digest.update(memoryview(values.view(torch.uint8).numpy()))
    return digest.hexdigest()


@lru_cache
def sources_digest() -> str:
    """SHA-256 of the code that makes a network's graph."""
    digest, root = hashlib.sha256(), Path(alocc_ros.__file__).parent
    for folder in _SOURCES:
        for path in sorted((root / folder).rglob("*.py")):
            digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def software() -> dict[str, str]:
    """Versions on which what is built depends, as key."""
    return {
        "alocc": alocc_ros.__version__,
        "sources": sources_digest(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda or "none",
        "triton": package_version("triton"),
        "machine": platform.machine(),
    }


def hardware(device: torch.device) -> dict[str, str]:
    """A GPU and its driver, as key; of a CPU its architecture is known from ``software``."""
    if device.type != "cuda":
        return {"device": device.type}
    properties = torch.cuda.get_device_properties(device)
    return {
        "device": properties.name,
        "capability": f"{properties.major}.{properties.minor}",
        "driver": _driver(),
    }


def _driver() -> str:
    """Version of NVIDIA's driver; "unknown" where the kernel does not say (WSL)."""
    try:
        first = Path("/proc/driver/nvidia/version").read_text(encoding="utf-8").splitlines()[0]
    except (OSError, IndexError):
        return "unknown"
    return " ".join(first.split())


def package_version(distribution: str) -> str:
    """Of an installed package, as part of a key; "none" where it is not."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "none"


def _digest(kind: str, key: Key) -> str:
    return hashlib.sha256(json.dumps([kind, dict(key)], sort_keys=True).encode()).hexdigest()


def _read(path: Path, kind: str, key: Key) -> bytes:
    data = path.read_bytes()
    start = len(_MAGIC) + 4
    if not data.startswith(_MAGIC) or len(data) < start:
        raise _UnusableError("it is not a cache entry")
    length = int.from_bytes(data[len(_MAGIC) : start], "little")
    if length > _LONGEST_HEADER:
        raise _UnusableError("its header is damaged")
    try:
        header = json.loads(data[start : start + length])
        found, expected = (header["kind"], header["key"]), header["sha256"]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise _UnusableError("its header is damaged") from error
    if found != (kind, dict(key)):
        raise _UnusableError("it belongs to something else")
    payload = data[start + length :]
    if hashlib.sha256(payload).hexdigest() != expected:
        raise _UnusableError("it is damaged")
    return payload


def _write(path: Path, kind: str, key: Key, data: bytes) -> None:
    digest = hashlib.sha256(data).hexdigest()
    header = json.dumps({"kind": kind, "key": dict(key), "sha256": digest}).encode()
    # Two processes may build the same at once: each has a scratch file of its own.
    handle, scratch = tempfile.mkstemp(prefix=_SCRATCH, dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(_MAGIC + len(header).to_bytes(4, "little") + header)
            file.write(data)
        os.replace(scratch, path)
    except BaseException:
        with contextlib.suppress(OSError):  # the disk is what failed; the first error is told
            os.unlink(scratch)
        raise


def _words(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)
