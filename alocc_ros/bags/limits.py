# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""How much memory a recording may ask for, told before anything of it is read.

A database may compute what it gives out: a view or a generated column makes gigabytes of nothing,
and rows without an end. Recorders write tables.

The libraries that read MCAP decompress a chunk as far as it goes: 263 KB can become 6 GB. A chunk
is held several times over while it is read, and empty records in it take time, nine bytes each.
So one may become as long as the file and a little more, which is far above what recorders write
(1 to 4 MB).
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import struct
from pathlib import Path
from typing import BinaryIO

import zstandard
from lz4.frame import LZ4FrameDecompressor, get_frame_info

from alocc_ros.errors import BagError

SPARE = 32 << 20  # bytes that a chunk may be longer than its file
_MAGIC = b"\x89MCAP0\r\n"
_CHUNK = 0x06
_PIECE = 1 << 20
# Views, virtual tables and generated columns (hidden 2 and 3), by name.
_COMPUTED = """
SELECT name FROM sqlite_master
    WHERE type = 'view' OR (type = 'table' AND sql LIKE 'CREATE VIRTUAL%')
UNION ALL
SELECT t.name || '.' || c.name FROM sqlite_master AS t, pragma_table_xinfo(t.name) AS c
    WHERE t.type = 'table' AND c.hidden IN (2, 3)
LIMIT 1
"""
_LZ4_RATIO = 255  # at most, by its format
_SKIPPABLE = range(0x184D2A50, 0x184D2A60)  # magic numbers of zstd's frames without contents


def check_mcap(path: Path) -> None:
    """Looks at the headers of all chunks; damage is left to those who read on.

    Raises:
        BagError: a chunk would become too long.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if file.read(len(_MAGIC)) != _MAGIC:
            return
        at = len(_MAGIC)
        while at + 9 <= size:
            file.seek(at)
            opcode, length = struct.unpack("<BQ", file.read(9))
            if opcode == 0 or at + 9 + length > size:
                return  # cut off, or a hole
            if opcode == _CHUNK:
                _check_chunk(file, path, at, length, size + SPARE)
            at += 9 + length


def check_database(path: Path) -> None:
    """Looks at the schema of an sqlite3 bag; damage is left to those who read on.

    Raises:
        BagError: what a reader asks for would be computed.
    """
    try:
        with contextlib.closing(
            # Immutable: no file appears beside the user's.
            sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro&immutable=1", uri=True)
        ) as found:
            found.text_factory = bytes  # a name that is no UTF-8 must not end the search
            found.execute("PRAGMA trusted_schema=OFF")
            computed = found.execute(_COMPUTED).fetchall()
    except (sqlite3.Error, UnicodeError):  # also of words that quote a damaged schema
        return
    if computed:
        name = computed[0][0].decode("utf-8", "replace")
        raise BagError(f"bag {path}: {name} is computed, not recorded; it is not read")


def _check_chunk(file: BinaryIO, path: Path, at: int, length: int, most: int) -> None:
    head = file.read(min(length, 32 + 64))
    if len(head) < 32:
        return
    declared, _, name_length = struct.unpack_from("<QII", head, 16)
    if name_length > 32 or 32 + name_length + 8 > len(head):
        return
    compression = head[32 : 32 + name_length]
    (packed,) = struct.unpack_from("<Q", head, 32 + name_length)
    begin = at + 9 + 32 + name_length + 8
    packed = min(packed, at + 9 + length - begin)
    if compression == b"zstd":
        found = _zstd_length(file, begin, packed, most)
    elif compression == b"lz4":
        found = _lz4_length(file, begin, packed, most)
    else:
        found = packed
    if max(found, declared if compression else 0) > most:
        raise BagError(
            f"bag {path}: the chunk at byte {at} would become {max(found, declared) / 1e6:.0f} MB "
            f"or more out of {packed / 1e6:.1f} MB; at most {most / 1e6:.0f} MB are read"
        )


def _zstd_length(file: BinaryIO, begin: int, packed: int, most: int) -> int:
    """Bytes that the frames say they hold, or are found to hold if they do not say it."""
    total, at, end = 0, begin, begin + packed
    while at + 8 <= end:
        file.seek(at)
        head = file.read(min(18, end - at))
        magic, skipped = struct.unpack_from("<II", head)
        if magic in _SKIPPABLE:
            at += 8 + skipped
            continue
        try:
            told = zstandard.get_frame_parameters(head).content_size
            header = zstandard.frame_header_size(head)
        except zstandard.ZstdError:
            return total  # damage
        if told in (zstandard.CONTENTSIZE_UNKNOWN, zstandard.CONTENTSIZE_ERROR):
            return total + _streamed(file, at, end, most, zstandard.ZstdDecompressor())
        total += told
        at = _end_of_zstd_frame(file, at, header, end, bool(head[4] & 4))
    return total


def _end_of_zstd_frame(file: BinaryIO, at: int, header: int, end: int, has_checksum: bool) -> int:
    """Where the frame at ``at`` ends: after its last block, and the checksum if it has one."""
    at += header
    while at + 3 <= end:
        file.seek(at)
        block = int.from_bytes(file.read(3), "little")
        last, kind, size = block & 1, block >> 1 & 3, block >> 3
        at += 3 + (1 if kind == 1 else size)  # 1: one byte, repeated
        if last:
            return at + 4 * has_checksum
    return end


def _streamed(
    file: BinaryIO, at: int, end: int, most: int, decompressor: zstandard.ZstdDecompressor
) -> int:
    file.seek(at)
    total = 0
    try:
        with decompressor.stream_reader(file, read_across_frames=True, closefd=False) as reader:
            while total <= most and file.tell() - _PIECE <= end and (piece := reader.read(_PIECE)):
                total += len(piece)
    except zstandard.ZstdError:
        pass  # damage, or the record after this one
    return total


def _lz4_length(file: BinaryIO, begin: int, packed: int, most: int) -> int:
    if packed * _LZ4_RATIO <= most:
        return 0
    file.seek(begin)
    try:
        if told := get_frame_info(file.read(19))["content_size"]:
            return told
        file.seek(begin)
        decompressor, total, left = LZ4FrameDecompressor(), 0, packed
        piece = b""
        while total <= most and not decompressor.eof:
            if decompressor.needs_input:
                piece = file.read(min(_PIECE, left))
                left -= len(piece)
                if not piece:
                    break
            total += len(decompressor.decompress(piece, max_length=_PIECE))
            piece = b""
        return total
    except RuntimeError:
        return 0  # damage
