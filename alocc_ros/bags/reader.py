# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
"""ROS 2 bags as they come: folders or single files, MCAP or sqlite3, whole or cut off.

The files are the truth, ``metadata.yaml`` is advice: which files there are, no more. Messages of
several files are merged by their log times.

What a recorder that crashed left behind is read as far as it goes: an MCAP without its
summary, or with a damaged one, is scanned once, everything up to the first damaged record counts,
and ``Bag.warning`` says so. Damage inside a file that claims to be whole is an error when it is
reached.
"""

from __future__ import annotations

import contextlib
import hashlib
import heapq
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO

from mcap.records import Channel, Chunk, DataEnd, Message, Schema
from mcap.stream_reader import StreamReader, breakup_chunk
from rosbags.interfaces import Connection
from rosbags.rosbag2 import Reader

from alocc_ros import messages
from alocc_ros.bags import cdr, limits
from alocc_ros.bags.storage import (
    STORAGE_SUFFIXES,
    plain_file,
    plain_message,
    recording_files,
    summary_damage,
    whole_database,
)
from alocc_ros.errors import AloccError, BagError
from alocc_ros.outputs import OUTPUTS
from alocc_ros.stream import video

# Only these types are ever decoded. Their layout is the same in every ROS 2 release, so the
# definitions inside a bag (which may be missing, or of types that nobody here can parse) are
# not needed.
IMAGE_TYPES = (messages.IMAGE, messages.COMPRESSED_IMAGE)
CAMERA_INFO_TYPE = messages.CAMERA_INFO
TF_TYPE = messages.TF_MESSAGE
POSE_TYPES = (
    "nav_msgs/msg/Odometry",
    "geometry_msgs/msg/PoseStamped",
    "geometry_msgs/msg/PoseWithCovarianceStamped",
)
# In early recordings of `alocc run` the grid_info is JSON in one of these.
STRING_TYPE = "std_msgs/msg/String"
KNOWN_TYPES = frozenset(
    {
        *IMAGE_TYPES,
        *video.VIDEO_TYPES,
        CAMERA_INFO_TYPE,
        TF_TYPE,
        *POSE_TYPES,
        STRING_TYPE,
        *(output.type for output in OUTPUTS),
    }
)

_PROTOBUF = (
    "holds Foxglove protobuf messages (foxglove/nuscenes2mcap), not ROS messages; neither "
    "`ros2 bag play` nor this command can read them: convert the scene with nuscenes_to_ros2bag"
)
_ENCODINGS = frozenset({"cdr", "ros1"})  # that are read
_SIGNED = 1 << 63  # ns; log times from here on are negative numbers
_ROS1 = "is a ROS 1 recording; convert it first: rosbags-convert --src {} --dst ros2_bag"


def camera_types() -> tuple[str, ...]:
    """The types that images can be made of here; video needs PyAV."""
    return (*IMAGE_TYPES, *(video.VIDEO_TYPES if video.is_available() else ()))


@dataclass(frozen=True)
class Record:
    """One message, not decoded yet.

    Attributes:
        topic: with a leading slash, whatever the bag says.
        type: such as ``sensor_msgs/msg/Image``.
        log_time: ns, when it was recorded; negative before 1970.
        data: CDR bytes.
    """

    topic: str
    type: str
    log_time: int
    data: bytes


class Bag:
    """A recording, open for reading; use it in a ``with`` block.

    Attributes:
        path: folder or file.
        types: message type by topic.
        counts: number of messages by topic.
        warning: empty, or how the recording is incomplete.
    """

    def __init__(self, path: Path) -> None:
        """Opens ``path``.

        Raises:
            BagError: there is no such bag, it is no ROS 2 bag, or nothing of it can be read.
        """
        self.path = path
        self._scratch = TemporaryDirectory(prefix="alocc_bag_")
        try:
            self._storages, self.warning = _open(path, Path(self._scratch.name))
        except BaseException:
            self._scratch.cleanup()
            raise
        self.types: dict[str, str] = {}
        self.counts: Counter[str] = Counter()
        for storage in self._storages:
            self.types.update(storage.types)
            self.counts.update(storage.counts)
        if not self.types:
            self.close()
            raise BagError(f"bag {path} is empty: it has no topics")

    def __enter__(self) -> Bag:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the files."""
        for storage in self._storages:
            storage.close()
        self._scratch.cleanup()

    def messages(self, topics: Collection[str]) -> Iterator[Record]:
        """Messages of ``topics`` (of types that we know), in the order of recording.

        Raises:
            BagError: the file is damaged at this place.
        """
        streams = [storage.messages(set(topics)) for storage in self._storages]
        merged = heapq.merge(*streams, key=lambda record: record.log_time)
        return _guarded(merged, f"bag {self.path} is damaged")

    def decode(self, record: Record) -> Any:
        """The message in ``record``, with the field names of its ROS type; arrays are views.

        Raises:
            BagError: the bytes are no such message.
        """
        try:
            return cdr.TYPESTORE.deserialize_cdr(record.data, record.type)
        except Exception as error:  # whatever broken bytes make the decoder trip over
            raise BagError(
                f"bag {self.path}: the message on {record.topic} at {record.log_time} ns is no "
                f"{record.type} ({_reason(error)})"
            ) from error

    def identity(self) -> dict[str, Any]:
        """What tells this recording from another one without reading all of it."""
        files = sorted(p for p in self.path.iterdir() if p.is_file()) if self.path.is_dir() else []
        digest = hashlib.sha256()
        size = 0
        for file in files or [self.path]:
            with file.open("rb") as stream:
                length = stream.seek(0, 2)
                size += length
                for start in (0, max(length - _SAMPLE, 0)):
                    stream.seek(start)
                    digest.update(stream.read(_SAMPLE))
        return {"name": self.path.name, "bytes": size, "sha256_of_ends": digest.hexdigest()}


_SAMPLE = 1 << 16


def topic_name(topic: str) -> str:
    """``topic`` with exactly one leading slash; some converters leave it out."""
    return "/" + topic.lstrip("/")


def _open(path: Path, scratch: Path) -> tuple[list[_Indexed | _Scanned], str]:
    """What reads the files of the recording, and how it is incomplete."""
    if not path.exists():
        raise BagError(f"there is no bag {path}")
    if path.suffix == ".bag":
        raise BagError(f"bag {path} {_ROS1.format(path)}")
    if not path.is_dir():
        storage, warning = _open_file(path, scratch)
        return [storage], warning
    files, warnings = recording_files(path)
    storages: list[_Indexed | _Scanned] = []
    errors = []
    for file in files:
        try:
            storage, warning = _open_file(file, scratch)
        except BagError as error:  # a recorder that crashed leaves an empty last file
            errors.append(error)
            continue
        storages.append(storage)
        warnings.append(warning)
    if not storages:
        raise errors[0]
    warnings += [f"{error}; the other files are read" for error in errors]
    return storages, "; ".join(filter(None, warnings))


def _open_file(file: Path, scratch: Path) -> tuple[_Indexed | _Scanned, str]:
    if not file.is_file():
        raise BagError(
            f"bag {file} is a pipe or a device, and a recording is read more than once; "
            f"write it into a file first: cat {file} > recording.mcap"
        )
    name = file.name
    file = plain_file(file, scratch)
    if file.suffix not in STORAGE_SUFFIXES:
        raise BagError(f"bag {file}: a ROS 2 bag is a folder, a .mcap or a .db3 file")
    if file.suffix != ".mcap":
        file, remark = whole_database(file, scratch)
        limits.check_database(file)
        return _Indexed(file), remark
    damage = summary_damage(file)
    with contextlib.suppress(BagError):  # what that reader refuses may be scanned all the same
        indexed = None if damage else _Indexed(file)
        if indexed is not None and indexed.is_whole:
            return indexed, ""
        if indexed is not None:
            indexed.close()
    scanned = _Scanned(file)
    return scanned, "; ".join(filter(None, (damage and f"{name}: {damage}", scanned.warning)))


class _Indexed:
    """A whole file, read by ``rosbags``."""

    def __init__(self, path: Path) -> None:
        try:
            for file in path.glob("*.mcap") if path.is_dir() else [path]:
                limits.check_mcap(file)
            self._reader = Reader(path)
            self._reader.open()
        except AloccError:
            raise
        except Exception as error:  # the library trips over damage in many ways
            raise BagError(f"bag {path} cannot be opened: {_reason(error)}") from error
        for c in self._reader.connections:  # a damaged database has values of any type
            told = (c.topic, c.msgtype, _encoding(c), self._reader.end_time)
            if not all(map(isinstance, told, (str, str, str, int))):
                self.close()
                raise BagError(f"bag {path} is damaged: it has a topic, type or time {told}")
        # rosbags takes an MCAP's profile on trust; the messages may still be anything.
        encodings = {_encoding(c) for c in self._reader.connections}
        if encodings and encodings.isdisjoint(_ENCODINGS):
            self.close()
            raise BagError(f"bag {path} {_refusal(encodings)}")
        self._connections = [c for c in self._reader.connections if _encoding(c) in _ENCODINGS]
        self.types = {topic_name(c.topic): _full_type(c.msgtype) for c in self._connections}
        self.counts: Counter[str] = Counter()
        for connection in self._connections:
            self.counts[topic_name(connection.topic)] += connection.msgcount
        self._chunks = getattr(self._reader.storage, "chunks", [])  # of an MCAP only
        self._wraps = self._reader.end_time > _SIGNED

    @property
    def is_whole(self) -> bool:
        """Whether an MCAP's index tells of every message; rosbags leaves out what it does not."""
        indexed = sum(sum(chunk.channel_count.values()) for chunk in self._chunks)
        return bool(self.types) and 0 < indexed == self._reader.message_count

    def close(self) -> None:
        self._reader.close()

    def messages(self, topics: set[str]) -> Iterator[Record]:
        wanted = [
            c
            for c in self._connections
            if topic_name(c.topic) in topics and _full_type(c.msgtype) in KNOWN_TYPES
        ]
        if not wanted:  # an empty list would mean "all" to rosbags
            return
        # A time before 1970 is a very late one in MCAP, which has no negative ones.
        ranges = ((_SIGNED, 2 * _SIGNED), (None, _SIGNED)) if self._wraps else ((None, None),)
        for begin, end in ranges:
            for connection, log_time, data in self._reader.messages(wanted, begin, end):
                kind = _full_type(connection.msgtype)
                data = plain_message(data, kind, _encoding(connection))
                yield Record(topic_name(connection.topic), kind, _signed(log_time), data)


def _encoding(connection: Connection) -> str:
    return connection.ext.serialization_format or "cdr"


class _Scanned:
    """An MCAP that ``rosbags`` refuses: cut off, without a summary, or without the profile."""

    def __init__(self, path: Path) -> None:
        self._path = path
        limits.check_mcap(path)
        self._file: BinaryIO = path.open("rb")
        self._channels: dict[int, Channel] = {}
        self._schemas: dict[int, Schema] = {}
        self._messages: Counter[int] = Counter()  # by channel
        # (first log time, offset in the file) of each chunk or lone message.
        self._parts: list[tuple[int, int]] = []
        try:
            self.warning = self._scan()
            self._refuse_what_is_not_ros2()
        except AloccError:
            self.close()
            raise
        self._parts.sort()
        self.types = {
            topic_name(c.topic): _full_type(self._schemas[c.schema_id].name)
            for c in self._channels.values()
            if c.message_encoding in _ENCODINGS and c.schema_id in self._schemas
        }
        self.counts = Counter(
            {topic_name(c.topic): self._messages[c.id] for c in self._channels.values()}
        )

    def close(self) -> None:
        self._file.close()

    def _scan(self) -> str:
        """Finds every intact chunk; returns what ended the search, empty if all is there."""
        records = StreamReader(self._file, emit_chunks=True).records
        good_end = 0
        try:
            for record in records:
                end = self._file.tell()
                if isinstance(record, DataEnd):  # what the summary repeats may be damaged
                    break
                if isinstance(record, Chunk):
                    inner = breakup_chunk(record, validate_crc=True)
                    times = [_signed(r.log_time) for r in inner if isinstance(r, Message)]
                    for one in inner:
                        self._note(one)
                    if times:
                        length = _RECORD_HEAD + _CHUNK_HEAD + len(record.compression)
                        self._parts.append((min(times), end - length - len(record.data)))
                else:
                    self._note(record)
                if isinstance(record, Message):
                    length = _RECORD_HEAD + _MESSAGE_HEAD + len(record.data)
                    self._parts.append((_signed(record.log_time), end - length))
                good_end = end
        except Exception as error:  # the library trips over damage in many ways
            if good_end == 0:
                raise BagError(f"bag {self._path} is no MCAP file: {_reason(error)}") from error
            size = self._path.stat().st_size
            return (
                f"{self._path.name} is cut off or damaged at byte {good_end} of {size} "
                f"({_reason(error)}); what comes after is lost"
            )
        return ""

    def _refuse_what_is_not_ros2(self) -> None:
        encodings = {c.message_encoding for c in self._channels.values()}
        if encodings and encodings.isdisjoint(_ENCODINGS):
            raise BagError(f"bag {self._path} {_refusal(encodings)}")
        if not self._parts:
            why = f" ({self.warning})" if self.warning else ""
            raise BagError(f"bag {self._path} holds no messages{why}")

    def _note(self, record: object) -> None:
        if isinstance(record, Schema):
            self._schemas[record.id] = record
        elif isinstance(record, Channel):
            self._channels[record.id] = record
        elif isinstance(record, Message):
            self._messages[record.channel_id] += 1

    def messages(self, topics: set[str]) -> Iterator[Record]:
        # Chunks may overlap in time: a message goes out when no later chunk can precede it.
        waiting: list[tuple[int, int, Record]] = []
        serial = 0
        for start, offset in self._parts:
            while waiting and waiting[0][0] < start:
                yield heapq.heappop(waiting)[2]
            self._file.seek(offset)
            part = next(StreamReader(self._file, skip_magic=True, emit_chunks=True).records)
            for message in breakup_chunk(part) if isinstance(part, Chunk) else [part]:
                record = self._record(message, topics)
                if record is not None:
                    heapq.heappush(waiting, (record.log_time, serial, record))
                    serial += 1
        while waiting:
            yield heapq.heappop(waiting)[2]

    def _record(self, message: object, topics: set[str]) -> Record | None:
        channel = isinstance(message, Message) and self._channels.get(message.channel_id)
        if not channel:
            return None
        topic = topic_name(channel.topic)
        if topic not in topics or self.types.get(topic) not in KNOWN_TYPES:
            return None
        kind = self.types[topic]
        data = plain_message(message.data, kind, channel.message_encoding)
        return Record(topic, kind, _signed(message.log_time), data)


# Bytes before the payload of MCAP records: opcode and length; a chunk's times, size, checksum
# and length fields; a message's channel, sequence and times.
_RECORD_HEAD, _CHUNK_HEAD, _MESSAGE_HEAD = 9, 40, 22


def _refusal(encodings: set[str]) -> str:
    if "protobuf" in encodings:
        return _PROTOBUF
    return f"holds messages encoded as {', '.join(sorted(encodings))}; ROS 2 messages are cdr"


def _signed(log_time: int) -> int:
    return log_time - 2 * _SIGNED if log_time >= _SIGNED else log_time


def _full_type(name: str) -> str:
    """``sensor_msgs/Image`` and ``sensor_msgs/msg/Image`` are the same type."""
    if name == "tf/tfMessage":  # as ROS 1 called it before tf2
        return TF_TYPE
    package, _, rest = name.partition("/")
    return f"{package}/msg/{rest.removeprefix('msg/')}"


def _guarded(records: Iterator[Record], what: str) -> Iterator[Record]:
    while True:
        try:
            record = next(records)
        except StopIteration:
            return
        except AloccError:
            raise
        except Exception as error:  # the library trips over damage in many ways
            raise BagError(f"{what}: {_reason(error)}") from error
        yield record


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
