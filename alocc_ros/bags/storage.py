# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""The files of a recording: which belong to it, whether they are whole, and unpacking them."""

from __future__ import annotations

import contextlib
import re
import shutil
import sqlite3
import struct
import zlib
from pathlib import Path, PurePosixPath
from typing import Any

import yaml
import zstandard

from alocc_ros.bags import cdr
from alocc_ros.errors import BagError
from alocc_ros.schema import load_yaml

STORAGE_SUFFIXES = (".mcap", ".db3")
_ZSTD = ".zstd"
# What compressed data may become: bytes of a message, and how often a file its own length.
_MOST_MESSAGE, _MOST_TIMES = 256 << 20, 64
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"  # no CDR begins like that: its first byte is 0
_MAGIC = b"\x89MCAP0\r\n"
_FOOTER = struct.Struct("<BQQQI")  # opcode, length, summary start, offsets' start, checksum


def recording_files(folder: Path) -> tuple[list[Path], list[str]]:
    """The files of a bag, and what is odd about its metadata.yaml.

    Those that metadata.yaml lists, and those that carry on their numbering; without a list, all.

    Raises:
        BagError: there is none.
    """
    there = {file.name: file for file in folder.iterdir() if _is_storage(file.name)}
    names, problem = _listed(folder / "metadata.yaml")
    if not there:
        raise BagError(
            f"bag {folder}: {problem or 'it has no metadata.yaml'}, and there is no .mcap or .db3 "
            "file in it"
        )
    found: dict[str, Path] = {}
    gone = []
    for name in names:
        # The list may have been written before the files were compressed, or unpacked.
        candidates = (name, name + _ZSTD, name.removesuffix(_ZSTD))
        file = next((there[c] for c in candidates if c in there), None)
        if file is None:
            gone.append(name)
        else:
            found[_plain_name(file.name)] = file
    series = {_series(name) for name in found}
    for name, file in sorted(there.items()):
        if not found or _series(_plain_name(name)) in series or not names:
            found.setdefault(_plain_name(name), file)
    warnings = [problem] if problem else []
    if gone:
        warnings.append(f"metadata.yaml lists {', '.join(gone)}, which is not there")
    return sorted(found.values(), key=_split_number), warnings


def _listed(metadata: Path) -> tuple[list[str], str]:
    """Names of the files that it lists, and why there are none."""
    if not metadata.exists():
        return [], ""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        content: Any = load_yaml(metadata.read_text(encoding="utf-8"), loader)
        names = content["rosbag2_bagfile_information"]["relative_file_paths"]
        return [PurePosixPath(name).name for name in names], ""
    except Exception as error:  # whatever damage the parser and the look-ups run into
        text = " ".join(str(error).split())
        return [], f"metadata.yaml cannot be read ({type(error).__name__}: {text})"


def _is_storage(name: str) -> bool:
    return Path(_plain_name(name)).suffix in STORAGE_SUFFIXES


def _plain_name(name: str) -> str:
    return name.removesuffix(_ZSTD)


def _series(name: str) -> str:
    """Recorders that split write NAME_0, NAME_1, ..., NAME_10."""
    return re.sub(r"_\d+$", "", Path(name).stem)


def _split_number(file: Path) -> tuple[int, str]:
    number = re.search(r"_(\d+)$", Path(_plain_name(file.name)).stem)
    return (int(number[1]) if number else 0, file.name)


def plain_file(file: Path, scratch: Path) -> Path:
    """``file``, unpacked into the folder ``scratch`` if it is compressed as a whole.

    Raises:
        BagError: it cannot be unpacked, or there is no room for it.
    """
    if file.suffix != _ZSTD or not _is_storage(file.name):
        return file
    plain = scratch / _plain_name(file.name)
    try:
        most = _MOST_TIMES * file.stat().st_size + _MOST_MESSAGE
        with file.open("rb") as packed, plain.open("wb") as unpacked:
            for piece in zstandard.ZstdDecompressor().read_to_iter(packed):
                if unpacked.tell() + len(piece) > most:
                    raise OSError(f"it becomes more than {_MOST_TIMES} times as long")
                unpacked.write(piece)
    except (OSError, zstandard.ZstdError, MemoryError) as error:
        plain.unlink(missing_ok=True)
        room = shutil.disk_usage(scratch).free / 1e9
        raise BagError(
            f"bag {file} cannot be unpacked into {scratch.parent} ({error}; {room:.0f} GB are free "
            f"there); by hand: zstd -d {file}, then use {file.with_suffix('')}"
        ) from error
    return plain


def whole_database(file: Path, scratch: Path) -> tuple[Path, str]:
    """A ``.db3`` with what its write-ahead log holds, and a remark about that.

    A recorder that was killed, or still runs, leaves its last messages in the log beside the file.
    The bag itself is never written to: both are copied into ``scratch`` and joined there.
    """
    log = file.with_name(file.name + "-wal")
    if not log.is_file() or not log.stat().st_size:
        return file, ""
    joined = scratch / f"joined_{file.name}"
    try:
        shutil.copyfile(file, joined)
        shutil.copyfile(log, joined.with_name(joined.name + "-wal"))
        with contextlib.closing(sqlite3.connect(joined)) as database:
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            database.execute("PRAGMA journal_mode=DELETE")
    except (OSError, sqlite3.Error, UnicodeError) as error:
        joined.unlink(missing_ok=True)
        return file, f"{log.name} cannot be read ({error}); the last messages are lost"
    return joined, f"{log.name} is there as well, with the last messages: both were read"


def plain_message(data: bytes, kind: str, encoding: str) -> bytes | memoryview:
    """The CDR of a message of type ``kind``; what cannot be converted comes as it is."""
    if data[:4] == _ZSTD_MAGIC:
        try:
            reader = zstandard.ZstdDecompressor().stream_reader(data)
            plain = reader.read(_MOST_MESSAGE + 1)
        except (zstandard.ZstdError, MemoryError):
            return data
        if len(plain) > _MOST_MESSAGE:
            return data  # decoding will say that it is no message
        data = plain
    if encoding == "ros1":
        try:
            return cdr.TYPESTORE.ros1_to_cdr(data, kind)
        except Exception:  # whatever broken bytes make it trip over; decoding will say it
            return data
    return data


def summary_damage(file: Path) -> str:
    """Why the summary of an MCAP file cannot be trusted, or "".

    A file without a summary, or without a checksum of it, has nothing to be checked.
    """
    with file.open("rb") as stream:
        size = stream.seek(0, 2)
        length = _FOOTER.size + len(_MAGIC)
        if size < length:
            return ""
        stream.seek(size - length)
        tail = stream.read(length)
        opcode, _, start, _, expected = _FOOTER.unpack(tail[: _FOOTER.size])
        if tail[-len(_MAGIC) :] != _MAGIC or opcode != 2 or not expected:
            return ""
        if not 0 < start <= size - length:
            return "the footer is damaged; the file was scanned instead"
        stream.seek(start)
        summed = stream.read(size - start - 4 - len(_MAGIC))
    if zlib.crc32(summed) == expected:
        return ""
    return "the summary is damaged (its checksum is wrong); the file was scanned instead"
